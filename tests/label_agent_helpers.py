"""Scripted parts of the label agent: a writer, a painter, a classifier and a scorer that record what they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from maskwright.configs.label_agent import LabelAgentSettings
from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.graphs.label_agent import build_label_agent_graph
from maskwright.graphs.label_remembering import first_state, with_scores
from maskwright.graphs.label_services import LabelServices
from maskwright.graphs.label_state import LabelItem, LabelResult, LabelState, PromptEntry, PromptScore
from maskwright.graphs.lockstep import Meter
from maskwright.graphs.writing import Usage
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import no_cost
from maskwright.tools.scenes import PaintedScene, SceneRequest

HEIGHT, WIDTH = 48, 64
CLASSES = ("blowhole", "crack", "fray")
GOOD: PromptScore = {"presence": 9.0, "coherence": 9.0, "plausibility": 9.0, "reasons": []}
LOW: PromptScore = {"presence": 9.0, "coherence": 9.0, "plausibility": 3.0, "reasons": ["too large"]}
LOWER: PromptScore = {"presence": 2.0, "coherence": 9.0, "plausibility": 3.0, "reasons": ["no crack"]}
SEEN: Mapping[str, float] = {"blowhole": 0.1, "crack": 0.9, "fray": 0.2}
MISSED: Mapping[str, float] = {"blowhole": 0.1, "crack": 0.3, "fray": 0.2}
EXTRA: Mapping[str, float] = {"blowhole": 0.7, "crack": 0.9, "fray": 0.2}


def label_item(*labels: str, slot: int = 0, item_id: str = "") -> LabelItem:
    return {
        "item_id": item_id or f"label-größe-{slot:04d}",
        "agent": "label_agent",
        "category_id": 1,
        "category": " + ".join(labels or ("crack",)),
        "source_row": 7,
        "slot": slot,
        "labels": list(labels or ("crack",)),
    }


@dataclass
class ScriptedWriter:
    """Scores by script, the last one again and again; writes numbered prompts."""

    scores: Sequence[PromptScore | Exception] = (GOOD,)
    name: str = "scripted"
    calls: list[str] = field(default_factory=list)
    told: list[tuple[str, ...]] = field(default_factory=list)
    """What each draft was told of refused pictures."""

    def draft(self, item: LabelItem, draft: int, refused: Sequence[str], usage: Usage) -> PromptEntry:
        self.calls.append("draft")
        self.told.append(tuple(refused))
        return self._entry(draft, 0)

    def score(self, item: LabelItem, prompt: PromptEntry, usage: Usage) -> PromptScore:
        self.calls.append("score")
        score = self.scores[min(self.calls.count("score"), len(self.scores)) - 1]
        if isinstance(score, Exception):
            raise score
        return score

    def rewrite(self, item: LabelItem, prompt: PromptEntry, score: PromptScore, usage: Usage) -> PromptEntry:
        self.calls.append("rewrite")
        return self._entry(prompt["draft"], prompt["round"] + 1)

    def _entry(self, draft: int, number: int) -> PromptEntry:
        text = f"prompt {draft}.{number}"
        return {"draft": draft, "round": number, "text": text, "plans": [], "by": self.name, "rung": "extract"}


@dataclass
class ScriptedScenes:
    """Paints one grey level a picture; raises or tells a flaw by script, the last entry again and again."""

    script: Sequence[str | Exception] = ("",)
    """Flaws, empty: none."""
    requests: list[SceneRequest] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"
    max_words: int | None = None

    def knows(self, label: str) -> bool:
        return True

    def paint(self, requests: Sequence[SceneRequest]) -> list[PaintedScene]:
        return [self._paint(request) for request in requests]

    def _paint(self, request: SceneRequest) -> PaintedScene:
        self.requests.append(request)
        flaw = self.script[min(len(self.requests), len(self.script)) - 1]
        if isinstance(flaw, Exception):
            raise flaw
        rgb = np.full((HEIGHT, WIDTH, 3), 10 * len(self.requests), np.uint8)
        return PaintedScene(rgb, "train/good/größe 1.png", {"steps": 4.0}, usd=0.25, flaw=flaw)


@dataclass
class ScriptedLabels:
    """Probabilities by script, the last one again and again; records the grey level of what it saw."""

    script: Sequence[Mapping[str, float] | Exception] = (SEEN,)
    seen: list[int] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"
    classes: tuple[str, ...] = CLASSES

    def score(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        self.seen += [int(image[0, 0, 0]) for image in images]
        probabilities = self.script[min(len(self.seen), len(self.script)) - 1]
        if isinstance(probabilities, Exception):
            raise probabilities
        return np.array([[probabilities[name] for name in self.classes]] * len(images), np.float32)


@dataclass
class ScriptedTextScores:
    """Likenesses by script, the last one again and again; records the texts."""

    script: Sequence[float] = (0.5,)
    texts: list[str] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"

    def score(self, images: Sequence[ImageRGB | ImageRGBA], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        return np.array([[self.script[min(len(self.texts), len(self.script)) - 1]]], np.float32)

    def knows(self, category: str) -> bool:
        return True


@dataclass
class Bench:
    """One item's services, and what its parts recorded."""

    folder: Path
    settings: LabelAgentSettings = field(default_factory=LabelAgentSettings)
    writer: ScriptedWriter = field(default_factory=ScriptedWriter)
    painter: ScriptedScenes = field(default_factory=ScriptedScenes)
    classifier: ScriptedLabels | None = field(default_factory=ScriptedLabels)
    text_scorer: ScriptedTextScores | None = None
    open_shares: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(CLASSES, 1.0))

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(self.folder / "artifacts")

    def services(self) -> LabelServices:
        return LabelServices(
            settings=self.settings,
            run_seed=3,
            writer=self.writer,
            paint=self.painter.paint,
            classifier=self.classifier,
            text_scorer=self.text_scorer,
            open_shares=self.open_shares,
            artifacts=self.artifacts,
            usage=Usage(),
            meter=Meter(),
        )

    def make(self, item: LabelItem | None = None, earlier: LabelResult | None = None) -> LabelState:
        first = first_state(item or label_item(), earlier)
        return cast("LabelState", build_label_agent_graph().invoke(first, context=self.services()))


def to_result(state: LabelState) -> LabelResult:
    """As a run puts it down."""
    return {
        "item": state["item"],
        "ending": state["ending"],
        "reason": state.get("reason", ""),
        "prompts": with_scores(state["prompts"], state["scores"]),
        "scenes": state["scenes"],
        "painter": {"name": "scripted", "revision": "1"},
        "classifier": "1",
        "cost": no_cost(),
        "seconds": 0.0,
    }
