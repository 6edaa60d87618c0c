"""What a label run has come to, counted from the results of its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .label_filter import least
from .label_plan import Progress
from .label_state import LabelResult, PromptEntry

QUOTA = "quota"


@dataclass(slots=True)
class Refinement:
    """What rewriting did to prompts; sums over drafts that were scored."""

    drafts: int = 0
    rewritten: int = 0
    """Drafts that were rewritten at least once."""
    rewrites: int = 0
    passed_at_once: int = 0
    passed: int = 0
    first: float = 0.0
    """Sum of the drafts' least criteria, as they were written first."""
    best: float = 0.0
    """The same of their best versions."""

    def as_json(self) -> dict[str, float]:
        return {
            "drafts": self.drafts,
            "rewritten": self.rewritten,
            "rewrites": self.rewrites,
            "passed_at_once": self.passed_at_once,
            "passed": self.passed,
            "mean_score_before": round(self.first / max(1, self.drafts), 3),
            "mean_score_after": round(self.best / max(1, self.drafts), 3),
        }


@dataclass(slots=True)
class LabelTally(Progress):
    """Counts of items, pictures and classes."""

    endings: Counter[str] = field(default_factory=Counter)
    shown: Counter[str] = field(default_factory=Counter)
    """Admitted scenes by each class that they show, those without a quota too."""
    num_admitted: int = 0
    num_tried: int = 0
    """Items but those that admission did not draw."""
    num_painted: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    """Pictures by reason; one may have several."""
    refinement: Refinement = field(default_factory=Refinement)
    threshold: float = 0.0
    """Score from which a prompt passes."""

    def add(self, result: LabelResult, classes: Sequence[str]) -> None:
        """Count an item.

        Args:
            classes: those that have a quota.
        """
        labels = [label for label in result["item"]["labels"] if label in classes]
        self.num_items += 1
        self.endings[result["ending"]] += 1
        if result["reason"] == QUOTA:
            return
        self.num_tried += 1
        self.tried.update(labels)
        self.num_painted += len(result["scenes"])
        for scene in result["scenes"]:
            self.refusals.update(short_reason(reason) for reason in scene["refused"])
        if result["ending"] == "accepted":
            self.num_admitted += 1
            self.accepted.update(labels)
            self.shown.update(result["item"]["labels"])
        self._count_prompts(result["prompts"])

    def _count_prompts(self, prompts: Sequence[PromptEntry]) -> None:
        drafts: dict[int, list[float]] = {}
        for prompt in prompts:
            if "score" in prompt:
                drafts.setdefault(prompt["draft"], []).append(least(prompt["score"]))
        counts = self.refinement
        for scores in drafts.values():
            counts.drafts += 1
            counts.rewritten += len(scores) > 1
            counts.rewrites += len(scores) - 1
            counts.passed_at_once += scores[0] >= self.threshold
            counts.passed += max(scores) >= self.threshold
            counts.first += scores[0]
            counts.best += max(scores)


def short_reason(reason: str) -> str:
    """A reason without what is particular to one picture."""
    return reason.partition(":")[0] if reason.startswith("flaw:") else reason
