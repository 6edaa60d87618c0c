"""What the validation agent knows: who looks, how opinions become a verdict, who is asked when in doubt."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..data.records import ImageRGB, ImageRGBA
from ..errors import BrokenRunError
from ..memory.entries import Attempt, CriterionResult, HeldBecause, OpinionEntry
from ..tools.protocols import Criterion, Opinion, VisionJudge
from .items import digest_to_int
from .writing import Usage

SHOWN_REASONS = 3


@dataclass(slots=True)
class Streak:
    """How many pictures in a row the judges rejected, over all items of a run; thread-safe."""

    limit: int | None
    _count: int = 0
    _reasons: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kept: bool, criteria: Sequence[CriterionResult]) -> None:
        """Take in one picture's verdict.

        Raises:
            BrokenRunError: the limit is reached; a judge that rejects everything is not to be paid on.
        """
        with self._lock:
            if kept:
                self._count = 0
                self._reasons.clear()
                return
            self._count += 1
            self._reasons.update(c["reason"] or c["name"] for c in criteria if c["outcome"] != "meet")
            if self.limit is not None and self._count >= self.limit:
                told = "; ".join(reason for reason, _ in self._reasons.most_common(SHOWN_REASONS))
                raise BrokenRunError(
                    f"the vision judges rejected {self._count} pictures in a row, most often: {told}. Look at them in "
                    "artifacts/; if the judges are wrong, set another llm.judge or other validation.criteria. The same "
                    "command with a higher budget.max_rejections_in_a_row goes on"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """Has pictures looked at by the recipe's vision judges, and decides which of them a person shall see."""

    judges: tuple[VisionJudge, ...]
    """None, one or two."""
    audit_share: float
    run_seed: int
    streak: Streak

    def look(
        self, picture: ImageRGB | ImageRGBA, category: str, usage: Usage, known: Sequence[OpinionEntry] = ()
    ) -> list[OpinionEntry]:
        """Every judge's opinion on a picture, each asked for once.

        Args:
            known: opinions on this very picture from before; those of judges that ask the same are taken over.

        Raises:
            LanguageModelError: a judge cannot be asked, or gives no answer that fits.
        """
        before = {(entry["judge"], entry["version"]): entry for entry in known}
        opinions = []
        for judge in self.judges:
            entry = before.get((judge.name, judge.version))
            if entry is None:
                opinion = judge.judge(picture, category)
                usage.add_opinion(opinion)
                entry = to_entry(opinion)
            opinions.append(entry)
        return opinions

    def weigh(self, attempt: Attempt, item_id: str, opinions: Sequence[OpinionEntry]) -> Attempt:
        """An image's verdict from its measures' criteria and its judges' opinions; whether a person is asked."""
        criteria = [*attempt["criteria"], *combine(opinions)]
        kept = bool(criteria) and all(criterion["outcome"] == "meet" for criterion in criteria)
        held = self._why_held(attempt, item_id, opinions)
        weighed: Attempt = {**attempt, "criteria": criteria, "accepted": kept and held is None}
        if opinions:
            weighed["opinions"] = list(opinions)
        if held is not None:
            weighed["held"] = held
        return weighed

    def _why_held(self, attempt: Attempt, item_id: str, opinions: Sequence[OpinionEntry]) -> HeldBecause | None:
        if disagree(opinions):
            return "disagreement"
        drawn = digest_to_int(f"audit\0{self.run_seed}\0{item_id}\0{attempt['round']}\0{attempt['index']}") / 2**64
        return "audit" if drawn < self.audit_share else None


def disagree(opinions: Sequence[OpinionEntry]) -> bool:
    """Whether one judge would keep a picture and another would not."""
    return len({accepts(opinion) for opinion in opinions}) > 1


def accepts(opinion: OpinionEntry) -> bool:
    """Whether a judge would keep the picture: every criterion is met."""
    return bool(opinion["criteria"]) and all(criterion["outcome"] == "meet" for criterion in opinion["criteria"])


def combine(opinions: Sequence[OpinionEntry]) -> list[CriterionResult]:
    """One criterion a question: the worst that a judge said of it, and who said it where several looked."""
    worst: dict[str, CriterionResult] = {}
    for opinion in opinions:
        for criterion in opinion["criteria"]:
            name, reason = criterion["name"], criterion["reason"]
            if name not in worst or _RANK[criterion["outcome"]] > _RANK[worst[name]["outcome"]]:
                told = f"{opinion['judge']}: {reason}" if len(opinions) > 1 and reason else reason
                worst[name] = {**criterion, "reason": told}
    return list(worst.values())


_RANK = {"meet": 0, "abstain": 1, "fail": 2}


def is_waiting(attempt: Attempt) -> bool:
    """Whether a person has still to decide on an image."""
    return "held" in attempt and "review" not in attempt


def is_promising(attempt: Attempt) -> bool:
    """Whether an image is kept, or would be if it were not for the audit: what rethinking goes by."""
    met = bool(attempt["criteria"]) and all(criterion["outcome"] == "meet" for criterion in attempt["criteria"])
    return attempt["accepted"] or (is_waiting(attempt) and met)


def to_entry(opinion: Opinion) -> OpinionEntry:
    """An opinion as the ledger keeps it."""
    return {
        "judge": opinion.judge,
        "version": opinion.version,
        "description": opinion.description,
        "criteria": [_to_result(criterion) for criterion in opinion.criteria],
        "rung": opinion.rung,
        "raw_text": opinion.raw_text,
    }


def _to_result(criterion: Criterion) -> CriterionResult:
    score = criterion.score if np.isfinite(criterion.score) else 0.0
    return {"name": criterion.name, "outcome": criterion.outcome, "score": score, "reason": criterion.reason}
