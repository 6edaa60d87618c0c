"""What the graphs of all agents share: seeds of images, verdicts as the ledger keeps them, what an error means."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from langgraph.errors import NodeError
from langgraph.types import Command, RetryPolicy

from ..errors import BrokenRunError, InputError, ModelOutageError, SampleError
from ..memory.entries import Attempt, CriterionResult, Round
from ..tools.protocols import Verdict

MAX_REASONS = 4
OUTAGES = RetryPolicy(max_attempts=2, initial_interval=2.0, retry_on=ModelOutageError)


def image_seed(run_seed: int, item_id: str, round_number: int, index: int) -> int:
    """Seed of one image: the same whatever the order of work, the batch, or a resume."""
    return digest_to_int(f"{run_seed}\0{item_id}\0{round_number}\0{index}") >> 1


def digest_to_int(text: str) -> int:
    """64 bits that depend on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def recover(state: Mapping[str, object], error: NodeError) -> Command[Literal["finish_failed", "finish_exhausted"]]:
    """A bad sample exhausts its item, a broken run stops everything, and the rest fails this item alone."""
    stops_all = isinstance(error.error, BrokenRunError | InputError | MemoryError)
    if stops_all or not isinstance(error.error, Exception):
        raise error.error
    reason = f"{error.node}: {type(error.error).__name__}: {error.error}"
    if isinstance(error.error, SampleError):
        return Command(update={"reason": reason}, goto="finish_exhausted")
    return Command(update={"reason": reason}, goto="finish_failed")


def with_verdict(attempt: Attempt, verdict: Verdict) -> Attempt:
    """An attempt with its verdict, as the ledger keeps it."""
    criteria = verdict.criteria
    return {
        **attempt,
        "criteria": [{"name": c.name, "outcome": c.outcome, "score": c.score, "reason": c.reason} for c in criteria],
        "accepted": verdict.accepted,
    }


def failed(name: str, reason: str) -> CriterionResult:
    """A criterion of an image that cannot even be measured."""
    return {"name": name, "outcome": "fail", "score": 0.0, "reason": reason}


def mean_scores(attempts: Iterable[Attempt], names: Iterable[str]) -> dict[str, float]:
    """Means of some measures over images, of those that are numbers: JSON knows no others."""
    attempts = list(attempts)
    found = {name: [a["measures"][name] for a in attempts if name in a["measures"]] for name in names}
    finite = {name: [score for score in scores if math.isfinite(score)] for name, scores in found.items()}
    return {name: round(float(np.mean(scores)), 4) for name, scores in finite.items() if scores}


def rejection(rounds: Sequence[Round], attempts: Sequence[Attempt]) -> str:
    """Why an item's last images were rejected; empty where none was painted, or none rejected."""
    if rounds:
        return "; ".join(rounds[-1]["reasons"])
    return "; ".join(c["reason"] for c in attempts[-1]["criteria"] if c["reason"]) if attempts else ""


def missed_limit(criterion: CriterionResult) -> str:
    """Which limit an image missed on which side, by the words of the judges: 'source_likeness over'."""
    return f"{criterion['name']} {'over' if ' is over ' in criterion['reason'] else 'under'}"


def frequent_reasons(attempts: Iterable[Attempt]) -> list[str]:
    """Why images were rejected, the most frequent reasons first."""
    reasons = Counter(c["reason"] for attempt in attempts for c in attempt["criteria"] if c["outcome"] != "meet")
    return [reason for reason, _ in reasons.most_common(MAX_REASONS)]
