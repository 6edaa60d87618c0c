"""Prompts to remember, and a memory that needs no model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from langchain_core.embeddings import DeterministicFakeEmbedding

from maskwright.configs.memory import MemorySettings
from maskwright.memory.chroma_store import ChromaFolder
from maskwright.memory.prompt_history import PromptHistory
from maskwright.memory.prompt_records import PromptRecord

EMBEDDINGS = DeterministicFakeEmbedding(size=16)
NAME = "fake:16"
SETTINGS = MemorySettings(num_best=2, num_worst=2, num_nearest=3)


def record(record_id: str, category: str = "apple", kept: int = 1, **changes: object) -> PromptRecord:
    fields: dict[str, object] = {
        "record_id": record_id,
        "category": category,
        "prompt": f"a {category}, {record_id}",
        "elements": ("colour: red", "light: weich, über"),
        "painter": "embedded:sprites",
        "num_painted": 4,
        "num_kept": kept,
        "scores": {"image_text": 0.5, "image_image": 0.25},
        "reasons": () if kept == 4 else ("area_share 0.01 is below 0.05",),
        "strength": 0.6,
        "run_id": "run-1",
        "created": "2026-01-02T03:04:05+00:00",
    }
    return PromptRecord(**(fields | changes))  # type: ignore[arg-type]


def ids(records: Iterable[PromptRecord]) -> list[str]:
    return [record.record_id for record in records]


def chroma(folder: Path) -> PromptHistory:
    return PromptHistory(ChromaFolder(folder, EMBEDDINGS, NAME), SETTINGS)
