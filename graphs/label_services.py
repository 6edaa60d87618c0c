"""What the label agent's nodes are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..configs.label_agent import LabelAgentSettings
from ..tools.labels import LabelClassifier
from ..tools.protocols import TextScorer
from ..tools.scenes import PaintedScene, SceneRequest
from .label_state import LabelItem, PromptEntry, PromptScore
from .lockstep import Meter
from .services import Artifacts
from .writing import Usage


class SceneWriter(Protocol):
    """Writes prompts for whole scenes, and judges its own before any pixel is painted (IAA, arXiv 2412.20439)."""

    @property
    def name(self) -> str: ...

    def draft(self, item: LabelItem, draft: int, refused: Sequence[str], usage: Usage) -> PromptEntry:
        """A first prompt; `refused` says why pictures of the last one were, most frequent first.

        Raises:
            LanguageModelError: of those that ask a model.
        """
        ...

    def score(self, item: LabelItem, prompt: PromptEntry, usage: Usage) -> PromptScore:
        """The prompt's score, with a reason for each point that it lost. Raises LanguageModelError; never made up."""
        ...

    def rewrite(self, item: LabelItem, prompt: PromptEntry, score: PromptScore, usage: Usage) -> PromptEntry:
        """The prompt without what was found wrong. Raises LanguageModelError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelServices:
    """What the label agent needs for one item."""

    settings: LabelAgentSettings
    run_seed: int
    writer: SceneWriter
    paint: Callable[[Sequence[SceneRequest]], Sequence[PaintedScene]]
    classifier: LabelClassifier | None
    """None only where `settings.filter` is false: with a filter and no classifier, every class counts as missing."""
    text_scorer: TextScorer | None
    """None only where `settings.admission.min_text_score` is."""
    open_shares: Mapping[str, float]
    """Of each class's quota what is open, over that of the class that lacks most, in [0, 1], when the wave began."""
    artifacts: Artifacts
    usage: Usage
    meter: Meter
