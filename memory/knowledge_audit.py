"""What is wrong with a knowledge base: sources that changed, notes that say the same, notes that tell of a test set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePath
from typing import Literal

from .knowledge import IsTest, none_is_test
from .knowledge_notes import StoredNote
from .knowledge_search import tokens_of

Problem = Literal["changed", "missing", "duplicate", "test_name", "test_file", "unknown_material"]

DUPLICATE_SHARE = 0.8
"""Of two notes' words, from which on they say the same."""
MIN_STEM_CHARS = 5
"""A shorter file name without its ending, such as `001`, also stands for other things."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One problem of one note."""

    problem: Problem
    note_id: str
    name: str
    source: str
    detail: str
    """What is wrong and what to do."""


def audit(
    notes: Sequence[StoredNote], test_names: Iterable[str] = (), is_test: IsTest = none_is_test
) -> list[AuditFinding]:
    """Look through notes; reads the files that they came from and changes nothing.

    Args:
        test_names: file names or paths of test images and masks.
        is_test: whether a sha256 is a test file's.

    Returns:
        Problems in order of the notes; empty: none.
    """
    names = _name_patterns(test_names)
    materials = {stored.note.name for stored in notes if stored.note.kind == "material"}
    findings = []
    for stored in notes:
        findings += [*_source_findings(stored), *_leaks(stored, names, is_test), *_unknown_materials(stored, materials)]
    return findings + list(_duplicates(notes))


def _finding(problem: Problem, stored: StoredNote, detail: str) -> AuditFinding:
    return AuditFinding(problem, stored.note_id, stored.note.name, stored.provenance.source, detail)


def _source_findings(stored: StoredNote) -> Iterator[AuditFinding]:
    if stored.provenance.origin != "own":
        return
    path = Path(stored.provenance.source)
    if not path.is_file():
        yield _finding("missing", stored, "its file is gone; the note stays as it was until you remove it")
    elif (hashlib.sha256(path.read_bytes()).hexdigest(),) != stored.provenance.sha256s:
        yield _finding("changed", stored, "its file has changed since; add it again")


def _leaks(stored: StoredNote, names: Sequence[re.Pattern[str]], is_test: IsTest) -> Iterator[AuditFinding]:
    mentioned = [match.group() for pattern in names if (match := pattern.search(stored.note.text))]
    if mentioned:
        yield _finding(
            "test_name", stored, f"it mentions the test file {mentioned[0]!r}; write it without that picture"
        )
    leaked = [sha256 for sha256 in stored.provenance.sha256s if is_test(sha256)]
    if leaked:
        yield _finding("test_file", stored, f"{len(leaked)} of its sources are test files; remove it")


def _unknown_materials(stored: StoredNote, materials: set[str]) -> Iterator[AuditFinding]:
    unknown = sorted({*stored.note.materials, *stored.note.by_material} - materials)
    if unknown:
        yield _finding(
            "unknown_material",
            stored,
            f"no note is on {', '.join(map(repr, unknown))}; known: {', '.join(sorted(materials))}",
        )


def _duplicates(notes: Sequence[StoredNote]) -> Iterator[AuditFinding]:
    words = {stored.note_id: set(tokens_of(stored.note.text)) for stored in notes}
    for first, second in combinations(notes, 2):
        ours, theirs = words[first.note_id], words[second.note_id]
        if (
            first.note.kind == second.note.kind
            and first.note.items == second.note.items
            and first.provenance.origin != "measured" != second.provenance.origin
            and len(ours & theirs) >= DUPLICATE_SHARE * max(len(ours | theirs), 1)
        ):
            yield _finding("duplicate", second, f"it says what {first.provenance.source} says; keep one of them")


def _name_patterns(test_names: Iterable[str]) -> list[re.Pattern[str]]:
    """A file's name with its ending, and without where it cannot be mistaken."""
    wanted = set()
    for name in map(PurePath, test_names):
        wanted.add(name.name)
        if len(name.stem) >= MIN_STEM_CHARS and any(character.isdigit() for character in name.stem):
            wanted.add(name.stem)
    return [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE) for name in sorted(wanted)]
