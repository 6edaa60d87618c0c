"""What is remembered of a prompt, what a run sees of the memory, and which prompts were the best and the worst."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from ..errors import BrokenRunError

LIKENESS = "image_text"
"""The score that ranks prompts of equal yield."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """Why a prompt is recommended no more; it stands on the record that it retires, in the order of all records."""

    reason: str
    run_id: str
    """Of the run that retired it."""
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRecord:
    """One prompt, painted once, and what came of it."""

    record_id: str
    """Of one round of one item of one run: `RUN-ITEM-rROUND`. The same id again is the same record."""
    category: str
    prompt: str
    elements: tuple[str, ...] = ()
    """Diversity elements that it was composed of."""
    painter: str
    num_painted: int
    num_kept: int
    scores: Mapping[str, float]
    """Means over the images that have the score; a score that is not finite is not remembered."""
    reasons: tuple[str, ...] = ()
    """Why images were rejected."""
    parent: str = ""
    """`record_id` of the prompt that it was revised from; empty: of none."""
    strength: float
    run_id: str
    created: str
    """ISO 8601, with its offset from UTC."""
    retired: Retirement | None = None

    @property
    def kept_share(self) -> float:
        """In [0, 1]; 0 where nothing was painted."""
        return self.num_kept / self.num_painted if self.num_painted else 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a run sees of the memory: all that stood there when it began, and its own waves that ended since."""

    run_id: str
    shared_sequence: int
    """Last record, of any run, that it sees."""
    own_sequence: int = 0
    """Last record of its own that it sees."""

    def after(self, sequence: int) -> Snapshot:
        """With the run's own records up to `sequence`, as `upsert` returns it."""
        return replace(self, own_sequence=max(self.own_sequence, sequence))

    def shows(self, entry: PromptRecord | Retirement, sequence: int) -> bool:
        return sequence <= self.shared_sequence or (entry.run_id == self.run_id and sequence <= self.own_sequence)


@dataclass(frozen=True, slots=True)
class Recalled:
    """The prompts of a class to learn from; no prompt is on both sides."""

    best: tuple[PromptRecord, ...] = ()
    """Kept at least one image and are not retired; best first."""
    worst: tuple[PromptRecord, ...] = ()
    """Lost at least one image; worst first."""


def rank_prompts(records: Sequence[PromptRecord], num_best: int, num_worst: int) -> Recalled:
    """The best and the worst by kept share, then by mean image-text score, then by id."""
    best = best_first(record for record in records if record.num_kept and not record.retired)[:num_best]
    lossy = [record for record in records if record.num_kept < record.num_painted and record not in best]
    worst = sorted(lossy, key=lambda record: (record.kept_share, _likeness(record), record.record_id))
    return Recalled(tuple(best), tuple(worst[:num_worst]))


def best_first(records: Iterable[PromptRecord]) -> list[PromptRecord]:
    """By kept share, then by mean image-text score, then by id; retired ones last."""
    return sorted(
        records,
        key=lambda record: (record.retired is not None, -record.kept_share, -_likeness(record), record.record_id),
    )


def _likeness(record: PromptRecord) -> float:
    return record.scores.get(LIKENESS, -math.inf)


def encode_record(record: PromptRecord) -> str:
    """JSON; equal records give equal text."""
    finite = {name: score for name, score in record.scores.items() if math.isfinite(score)}
    return msgspec.json.encode(replace(record, scores=finite), order="deterministic").decode()


def decode_record(text: str) -> PromptRecord:
    """Read what `encode_record` wrote.

    Raises:
        BrokenRunError: it is something else.
    """
    try:
        return msgspec.json.decode(text, type=PromptRecord)
    except msgspec.DecodeError as exc:
        raise BrokenRunError(
            f"the prompt memory holds {text[:80]!r}, which is no prompt of ours ({exc}); "
            "move its folder away or name another in `memory.path`"
        ) from exc
