"""The I-Agent's crew over scripted backends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from text_crew import build_writer
from text_helpers import ScriptedChat, ScriptedTextPainter
from vision_helpers import build_validator

from maskwright.configs.image_agent import ImageAgentSettings
from maskwright.data.records import ImageRGBA
from maskwright.graphs.crews import AgentGraphs
from maskwright.graphs.image_agent import build_image_agent_graph
from maskwright.graphs.image_crew import ImageCrew
from maskwright.graphs.pool import Pool
from maskwright.graphs.services import SourceCutOut, Variant
from maskwright.graphs.text_agent import build_text_agent_graph
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import ItemResult, WorkItem
from maskwright.tools.judging.class_judge import VariantJudge
from maskwright.tools.protocols import Masked, MaskRequest, Painted, PaintRequest, PromptReader, SourceView

HEIGHT, WIDTH = 48, 64
SETTINGS = ImageAgentSettings(max_rounds=3)
Script = Callable[[PaintRequest], Painted]


def textured(seed: int, alpha: int = 255) -> ImageRGBA:
    """(48, 64, 4) noise of one opacity."""
    rgba = np.full((HEIGHT, WIDTH, 4), alpha, dtype=np.uint8)
    rgba[..., :3] = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3))
    return rgba


SOURCE = SourceCutOut(textured(0), "a.png", 7, "CC0", 0.0, (), 0.2)


def build_item(slot: int = 0, row: int = 0) -> WorkItem:
    return {
        "item_id": f"image-train-{row + 7}-{slot:03d}",
        "agent": "image_agent",
        "category_id": 3,
        "category": "bolt",
        "source_row": row,
        "slot": slot,
    }


def build_view() -> SourceView:
    """(60, 90, 3) noise with the instance in the middle third."""
    rgb = np.random.default_rng(9).integers(0, 255, (60, 90, 3)).astype(np.uint8)
    mask = np.zeros((60, 90), dtype=np.bool_)
    mask[20:40, 30:60] = True
    return SourceView(rgb, mask)


@dataclass
class ScriptedSourcePainter:
    """Answers its requests by the script, one after the other, and records them."""

    script: Sequence[Script]
    prompt_reader: PromptReader | None = None
    needs_view: bool = False
    requests: list[PaintRequest] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        answers = []
        for request in requests:
            self.requests.append(request)
            answers.append(self.script[len(self.requests) - 1](request))
        return answers


@dataclass
class BoxMasker:
    """Finds the box that it was given, moved by some pixels to the right."""

    shift_px: int = 0
    requests: list[MaskRequest] = field(default_factory=list)
    name: str = "box"
    revision: str = "1"

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        self.requests += requests
        found = []
        for request in requests:
            assert request.box_xyxy is not None
            x0, y0, x1, y1 = (round(edge) for edge in request.box_xyxy)
            alpha = np.zeros(request.rgba.shape[:2], dtype=np.uint8)
            alpha[y0:y1, x0 + self.shift_px : x1 + self.shift_px] = 255
            found.append(Masked(alpha, 0.9))
        return found


@dataclass
class OneSource:
    """Every row is the same source, unless it is unreadable."""

    error: Exception | None = None
    truncation: float = 0.0
    rows: list[int] = field(default_factory=list)

    def file_name(self, row: int) -> str:
        return "a.png"

    def cut_out(self, row: int) -> SourceCutOut:
        self.rows.append(row)
        if self.error:
            raise self.error
        return replace(SOURCE, truncation=self.truncation)

    def view(self, row: int, padding_ratio: float) -> SourceView:
        return build_view()


@dataclass
class ScriptedLikeness:
    """Gives each variant the next scores."""

    scores: Sequence[dict[str, float]]
    variants: list[Variant] = field(default_factory=list)

    def score(self, variants: Sequence[Variant]) -> list[dict[str, float]]:
        self.variants += variants
        return [self.scores[len(self.variants) - 1] for _ in variants]


def build_crew(folder: Path, painter: ScriptedSourcePainter, **changes: object) -> ImageCrew:
    crew = ImageCrew(
        settings=SETTINGS,
        run_seed=5,
        batch_items=8,
        stop=threading.Event(),
        painter=painter,
        masker=BoxMasker(),
        similarity=None,
        judge=VariantJudge(SETTINGS.limits, SETTINGS.similarity),
        validator=build_validator(),
        sources=OneSource(),
        source_rows={3: (0,)},
        writer=None,
        captioner=None,
        artifacts=ArtifactStore(folder),
    )
    return replace(crew, **changes)  # type: ignore[arg-type]


def build_prompted_crew(folder: Path, script: Sequence[Script], chat: ScriptedChat, **changes: object) -> ImageCrew:
    """A painter that reads prompts and shows the surroundings, and a writer for it."""
    reader = ScriptedTextPainter()
    painter = ScriptedSourcePainter(script, prompt_reader=reader, needs_view=True)
    return build_crew(folder, painter, writer=build_writer(chat, reader), **changes)


def make(crew: ImageCrew, items: Sequence[WorkItem] = (build_item(),), pool: Pool | None = None) -> list[ItemResult]:
    graphs = AgentGraphs(build_text_agent_graph(), build_image_agent_graph())
    return list(crew.make(graphs, items, pool or Pool(), lambda result: result))
