"""A person's view of the prompt memory: by class, as JSON lines, and what to forget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from ..errors import InputError
from .artifacts import write_or_stop
from .prompt_records import PromptRecord, best_first, encode_record


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """What is remembered of one class."""

    category: str
    num_prompts: int
    num_painted: int
    num_kept: int
    num_retired: int
    best: PromptRecord
    """The best that is in use, if any is."""


def summarize(records: Iterable[PromptRecord]) -> list[ClassSummary]:
    """One row a class, in order of names."""
    return [
        ClassSummary(
            category,
            len(of_class),
            sum(record.num_painted for record in of_class),
            sum(record.num_kept for record in of_class),
            sum(record.retired is not None for record in of_class),
            best_first(of_class)[0],
        )
        for category, of_class in _by_class(records)
    ]


def choose_forgotten(
    records: Sequence[PromptRecord], *, older_than_days: float | None = None, keep_best: int = 0
) -> list[PromptRecord]:
    """Records to forget: all but the best of each class and the young ones.

    Args:
        older_than_days: None: of any age.
        keep_best: how many of each class stay.
    """
    until = None if older_than_days is None else datetime.now(UTC) - timedelta(days=older_than_days)
    best = {record.record_id for _, of_class in _by_class(records) for record in best_first(of_class)[:keep_best]}
    return [
        record
        for record in records
        if record.record_id not in best and (until is None or datetime.fromisoformat(record.created) < until)
    ]


def to_json_lines(records: Iterable[PromptRecord]) -> bytes:
    """One JSON object a line, UTF-8."""
    return "".join(encode_record(record) + "\n" for record in records).encode()


def write_new_file(path: Path, content: bytes) -> None:
    """Write a file that is not there yet.

    Raises:
        InputError: it is there.
        BrokenRunError: its folder cannot be written.
    """
    if path.exists():
        raise InputError(f"{path}: is there already; name a new file")
    write_or_stop(path, content)


def _by_class(records: Iterable[PromptRecord]) -> Iterator[tuple[str, list[PromptRecord]]]:
    ordered = sorted(records, key=lambda record: record.category)
    for category, of_class in groupby(ordered, key=lambda record: record.category):
        yield category, list(of_class)
