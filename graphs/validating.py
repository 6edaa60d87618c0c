"""What the validation agent knows: who looks, how opinions become a verdict, who is asked when in doubt."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..configs.validation import ValidationSettings
from ..data.records import ImageRGB, ImageRGBA
from ..errors import BrokenRunError
from ..memory.entries import Attempt, CriterionResult, Ending, HeldBecause, OpinionEntry
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
        """Take in one picture's verdict; raises as `check`."""
        with self._lock:
            if kept:
                self._count = 0
                self._reasons.clear()
            elif not self._is_over:
                self._count += 1
                self._reasons.update(c["reason"] or c["name"] for c in criteria if c["outcome"] != "meet")
        self.check()

    def check(self) -> None:
        """Nothing, until the limit is reached.

        Raises:
            BrokenRunError: a judge that rejects everything is not to be paid on.
        """
        if self._is_over:
            told = "; ".join(reason for reason, _ in self._reasons.most_common(SHOWN_REASONS))
            raise BrokenRunError(
                f"the vision judges rejected {self._count} pictures in a row, most often: {told}. Look at them in "
                "artifacts/; if the judges are wrong, set another llm.judge or other validation.criteria. The same "
                "command with a higher budget.max_rejections_in_a_row goes on"
            )

    @property
    def _is_over(self) -> bool:
        return self.limit is not None and self._count >= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """Has pictures looked at by the recipe's vision judges, and decides which of them a person shall see."""

    judges: tuple[VisionJudge, ...]
    """None, one or two."""
    settings: ValidationSettings
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
            BrokenRunError: the judges have rejected too many pictures in a row.
        """
        before = {(entry["judge"], entry["version"]): entry for entry in known}
        opinions = []
        for judge in self.judges:
            entry = before.get((judge.name, judge.version))
            if entry is None:
                self.streak.check()
                opinion = judge.judge(picture, category)
                usage.add_opinion(opinion)
                entry = to_entry(opinion)
            opinions.append(entry)
        return opinions

    def weigh(self, attempt: Attempt, item_id: str) -> Attempt:
        """An image's verdict from its measures' criteria and its judges' opinions; whether a person is asked.

        A person's own verdict, where there is one, stands above all others.

        Raises:
            BrokenRunError: the judges have rejected too many pictures in a row.
        """
        opinions = attempt.get("opinions", ())
        criteria = [*attempt["criteria"], *combine(opinions)]
        kept = is_met(criteria) and all(map(accepts, opinions))
        held = self._why_held(attempt, item_id)
        weighed: Attempt = {**attempt, "criteria": criteria, "accepted": kept and held is None}
        if held is not None:
            weighed["held"] = held
        if "review" in attempt:
            weighed["accepted"] = attempt["review"]["keep"]
        elif opinions:
            self.streak.add(kept or held == "disagreement", criteria)
        return weighed

    def _why_held(self, attempt: Attempt, item_id: str) -> HeldBecause | None:
        if disagree(attempt.get("opinions", ())):
            return "disagreement"
        if not attempt["measures"]:  # no picture, or nothing to be seen in it
            return None
        drawn = digest_to_int(f"audit\0{self.run_seed}\0{item_id}\0{attempt['round']}\0{attempt['index']}") / 2**64
        return "audit" if drawn < self.settings.audit_share else None


@dataclass(slots=True)
class ValidationTally:
    """What vision judges and persons said of a run's images."""

    looked: int = 0
    """Images that vision judges saw."""
    kept: int = 0
    """Of these, those that all judges would keep."""
    waiting: int = 0
    """Images that a person has still to decide on."""
    decided: int = 0
    """Images that a person has decided on."""
    outcomes: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By criterion: how often it was met, failed, or could not be told, over all judges."""

    def add(self, attempt: Attempt) -> None:
        """Take in one image."""
        self.waiting += is_waiting(attempt)
        self.decided += "review" in attempt
        opinions = attempt.get("opinions", ())
        self.looked += bool(opinions)
        self.kept += bool(opinions) and all(map(accepts, opinions))
        for opinion in opinions:
            for criterion in opinion["criteria"]:
                self.outcomes[criterion["name"]][criterion["outcome"]] += 1

    def as_json(self) -> dict[str, object]:
        return {
            "looked": self.looked,
            "kept": self.kept,
            "waiting": self.waiting,
            "decided": self.decided,
            "criteria": {name: dict(outcomes) for name, outcomes in self.outcomes.items()},
        }


def disagree(opinions: Sequence[OpinionEntry]) -> bool:
    """Whether one judge would keep a picture and another would not."""
    return len({accepts(opinion) for opinion in opinions}) > 1


def accepts(opinion: OpinionEntry) -> bool:
    """Whether a judge would keep the picture: every criterion is met."""
    return is_met(opinion["criteria"])


def is_met(criteria: Sequence[CriterionResult]) -> bool:
    """Whether something was asked, and all of it is met."""
    return bool(criteria) and all(criterion["outcome"] == "meet" for criterion in criteria)


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
    would_keep = is_met(attempt["criteria"]) and all(map(accepts, attempt.get("opinions", ())))
    return attempt["accepted"] or (is_waiting(attempt) and would_keep)


def ending_of(attempts: Sequence[Attempt]) -> Ending:
    """How an item with these images ends, where nothing broke and no more are painted."""
    if any(is_waiting(attempt) for attempt in attempts):
        return "held"
    return "accepted" if any(attempt["accepted"] for attempt in attempts) else "exhausted"


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
