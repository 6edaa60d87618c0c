"""The images of a run that wait for a person, in the order in which they are shown, and what became of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from ..errors import RunFolderError
from ..evaluation.audit import accepts_all
from ..graphs.run_folder import check_not_anomalies
from ..graphs.validating import accepts, is_waiting
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt, CriterionResult, HeldBecause, ItemResult, Review, review_id
from ..memory.ledger import Ledger
from ..memory.reviews import ReviewBook, ReviewTakenError
from .review_pictures import View, views_of

REFRESH_S = 2.0
"""Verdicts of other servers on the same folder are looked for this often at most."""


@dataclass(frozen=True, slots=True)
class Held:
    """Where one waiting image is to be found in the ledger."""

    review_id: str
    item_id: str
    round: int
    index: int
    agent: str
    category: str
    why: HeldBecause


class ToldOpinion(TypedDict):
    """What a judge said, as the page shows it."""

    judge: str
    keep: bool
    description: str
    criteria: list[CriterionResult]


class Told(TypedDict):
    """What the machine thinks of an image, as the page shows it."""

    keep: bool
    measures: list[CriterionResult]
    judges: list[ToldOpinion]


class Entry(TypedDict):
    """One image, as the page shows it."""

    id: str
    position: int
    category: str
    why: HeldBecause
    views: list[View]
    told: Told | None
    """None for an audit: who knows what the judge said does not check it."""


class Progress(TypedDict):
    """How far all reviewers are, together."""

    decided: int
    total: int
    kept: int
    by: dict[str, int]


class ReviewQueue:
    """What waited when the queue was made; thread-safe. Holds ids only, pictures and entries stay on disk.

    Raises:
        RunFolderError: the folder holds no items.
        BrokenRunError: an entry of its ledger is damaged.
    """

    def __init__(self, run_folder: Path, reviewer: str) -> None:
        if not (run_folder / "items").is_dir():
            raise RunFolderError(f"{str(run_folder)!r}: no run with items; give a run folder, such as runs/NAME-1")
        check_not_anomalies(run_folder)
        self.reviewer = reviewer
        self.artifacts = ArtifactStore(run_folder / "artifacts")
        self._items: Ledger[ItemResult] = Ledger(run_folder / "items")
        self._book = ReviewBook(run_folder / "reviews")
        found = sorted(self._find(), key=lambda held: (held.why == "audit", held.category, held.review_id))
        self._held = {held.review_id: held for held in found}
        self._positions = {held.review_id: position for position, held in enumerate(found)}
        self._order = found
        self._decided: dict[str, Review] = {}
        self._refreshed_s = 0.0
        self._lock = threading.Lock()

    def _find(self) -> Iterator[Held]:
        for item_id in self._items.ids():
            result = self._items.read(item_id)
            if result is None or result["ending"] == "failed":  # which is made again, with other images
                continue
            item = result["item"]
            for attempt in filter(is_waiting, result["attempts"]):
                round_number, index = attempt["round"], attempt["index"]
                entry_id = review_id(item_id, attempt)
                yield Held(entry_id, item_id, round_number, index, item["agent"], item["category"], attempt["held"])

    @property
    def command(self) -> str:
        """Which of our commands takes the verdicts in."""
        return "validate" if any(held.agent == "validation_agent" for held in self._order) else "run"

    def refresh(self, *, at_once: bool = False) -> None:
        """Take in what other servers on the folder decided or undid; each verdict is read once."""
        with self._lock:
            if not at_once and time.monotonic() - self._refreshed_s < REFRESH_S:
                return
            self._refreshed_s = time.monotonic()
            written = self._held.keys() & set(self._book.ids())
            known = {entry_id: self._decided.get(entry_id) or self._book.read(entry_id) for entry_id in written}
            self._decided = {entry_id: review for entry_id, review in known.items() if review is not None}

    def page(self, after: int, limit: int) -> list[Entry]:
        """The next undecided images behind a position; -1 starts at the first."""
        self.refresh()
        undecided = (held for held in self._order[after + 1 :] if held.review_id not in self._decided)
        return [self.entry(held) for held, _ in zip(undecided, range(limit), strict=False)]

    def find(self, entry_id: str) -> Held | None:
        """An image by its review's id; None where none waited under it."""
        return self._held.get(entry_id)

    def read(self, held: Held) -> tuple[ItemResult, Attempt]:
        """Item and image as the ledger has them now.

        Raises:
            RunFolderError: they are gone.
        """
        result = self._items.read(held.item_id)
        for attempt in result["attempts"] if result else ():
            if result and review_id(held.item_id, attempt) == held.review_id:
                return result, attempt
        raise RunFolderError(f"{held.review_id!r} is no longer in {str(self._items.folder)!r}; start the review again")

    def entry(self, held: Held) -> Entry:
        """An image as the page shows it before a person has decided."""
        result, attempt = self.read(held)
        return {
            "id": held.review_id,
            "position": self._positions[held.review_id],
            "category": held.category,
            "why": held.why,
            "views": views_of(result),
            "told": None if held.why == "audit" else to_told(attempt),
        }

    def decide(self, held: Held, keep: bool) -> Told:
        """Write the reviewer's verdict durably; then, and not before, say what the machine thinks.

        Raises:
            ReviewTakenError: somebody else was first.
            BrokenRunError: it cannot be written.
        """
        _, attempt = self.read(held)
        if "review" in attempt:
            raise ReviewTakenError(attempt["review"])
        review: Review = {
            "item_id": held.item_id,
            "round": held.round,
            "index": held.index,
            "artifact": attempt["artifact"],
            "keep": keep,
            "reviewer": self.reviewer,
            "decided": datetime.now(UTC).isoformat(),
        }
        try:
            self._note(self._book.decide(review))
        except ReviewTakenError as exc:
            self._note(exc.review)
            raise
        return to_told(attempt)

    def _note(self, review: Review) -> None:
        with self._lock:
            self._decided[review_id(review["item_id"], review)] = review

    def undo(self) -> Held | None:
        """Take back the reviewer's last verdict; None where there is none.

        Raises:
            ReviewTakenError: the run has gone on with it.
        """
        self.refresh(at_once=True)
        own = [(one["decided"], entry_id) for entry_id, one in self._decided.items() if self._is_own(one)]
        if not own:
            return None
        held = self._held[max(own)[1]]
        _, attempt = self.read(held)
        if "review" in attempt:
            raise ReviewTakenError(attempt["review"])
        self._book.undo(held.review_id, self.reviewer)
        with self._lock:
            self._decided.pop(held.review_id, None)
        return held

    def _is_own(self, review: Review) -> bool:
        return review["reviewer"] == self.reviewer

    def progress(self) -> Progress:
        """How far all reviewers are."""
        self.refresh()
        decided = list(self._decided.values())
        return {
            "decided": len(decided),
            "total": len(self._held),
            "kept": sum(review["keep"] for review in decided),
            "by": dict(Counter(review["reviewer"] for review in decided).most_common()),
        }


def to_told(attempt: Attempt) -> Told:
    """What measures and judges said of an image, what they object to first."""
    opinions = attempt.get("opinions", [])
    asked = {criterion["name"] for opinion in opinions for criterion in opinion["criteria"]}
    return {
        "keep": accepts_all(attempt),
        "measures": _worst_first([one for one in attempt["criteria"] if one["name"] not in asked]),
        "judges": [
            {
                "judge": opinion["judge"],
                "keep": accepts(opinion),
                "description": opinion["description"],
                "criteria": _worst_first(opinion["criteria"]),
            }
            for opinion in opinions
        ],
    }


def _worst_first(criteria: list[CriterionResult]) -> list[CriterionResult]:
    return sorted(criteria, key=lambda one: one["outcome"] == "meet")
