"""The T-Agent's crew over scripted backends, and what it remembers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from text_helpers import (
    ScriptedChat,
    ScriptedMasker,
    ScriptedSimilarity,
    ScriptedTextPainter,
)
from vision_helpers import build_validator

from maskwright.configs.agents import TextAgentSettings
from maskwright.graphs.crews import AgentGraphs
from maskwright.graphs.elements import ElementsLedger
from maskwright.graphs.image_agent import build_image_agent_graph
from maskwright.graphs.pool import Pool
from maskwright.graphs.state import Recollection
from maskwright.graphs.text_agent import build_text_agent_graph
from maskwright.graphs.text_crew import TextCrew
from maskwright.graphs.writing import PromptWriter
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import ItemResult, WorkItem
from maskwright.memory.ledger import Ledger
from maskwright.tools.judging.painted_judge import PaintedJudge

SETTINGS = TextAgentSettings(images_per_prompt=2, strength=0.6, strength_step=0.1)
SEED = 5
NOTHING_KNOWN: Recollection = {"good": [], "bad": [], "strength": None}


@dataclass
class ScriptedMemory:
    """Recalls what it was made with; finds prompts near that hold given words."""

    recalled: Recollection = field(default_factory=lambda: NOTHING_KNOWN)
    near: tuple[str, ...] = ()
    compared: list[str] = field(default_factory=list)

    def recall(self, category: str) -> Recollection:
        return self.recalled

    def nearest_cosine(self, category: str, prompt: str) -> float:
        self.compared.append(prompt)
        return 0.99 if any(words in prompt for words in self.near) else 0.2

    def is_novel(self, cosine: float) -> bool:
        return cosine <= 0.95


def build_item(slot: int = 0) -> WorkItem:
    return {
        "item_id": f"text-3-{slot:04d}",
        "agent": "text_agent",
        "category_id": 3,
        "category": "bolt",
        "source_row": -1,
        "slot": slot,
    }


def build_writer(chat: ScriptedChat, painter: ScriptedTextPainter) -> PromptWriter:
    return PromptWriter(
        planner=chat,
        planner_name="planner",
        writer=chat,
        writer_name="writer",
        max_repairs=1,
        count_tokens=painter.count_tokens,
        max_tokens=painter.max_tokens,
    )


def build_crew(
    folder: Path, painter: ScriptedTextPainter | None = None, chat: ScriptedChat | None = None, **changes: object
) -> TextCrew:
    painter, chat = painter or ScriptedTextPainter(), chat or ScriptedChat()
    writer = build_writer(chat, painter)
    crew = TextCrew(
        settings=SETTINGS,
        run_seed=SEED,
        batch_items=8,
        stop=threading.Event(),
        painter=painter,
        masker=ScriptedMasker(),
        similarity=ScriptedSimilarity(),  # type: ignore[arg-type]
        judge=PaintedJudge(SETTINGS.limits, SETTINGS.similarity),
        validator=build_validator(run_seed=SEED),
        memory=ScriptedMemory(),  # type: ignore[arg-type]
        elements=ElementsLedger(Ledger(folder / "elements"), writer),
        writer=writer,
        captioner=None,
        artifacts=ArtifactStore(folder / "artifacts"),
    )
    return replace(crew, **changes)  # type: ignore[arg-type]


def make(crew: TextCrew, items: Sequence[WorkItem] = (build_item(),), pool: Pool | None = None) -> list[ItemResult]:
    graphs = AgentGraphs(build_text_agent_graph(), build_image_agent_graph())
    return list(crew.make(graphs, items, pool or Pool(), lambda result: result))
