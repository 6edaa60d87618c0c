"""Verdicts of people on images that waited for one: each is written once, by whoever came first."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import orjson

from ..data.files import PARTIAL_SUFFIX
from ..errors import MaskwrightError
from .artifacts import breaking_the_run
from .entries import Review, review_id
from .ledger import Ledger


class ReviewTakenError(MaskwrightError):
    """Somebody has decided on an image already; their verdict stands.

    Attributes:
        review: what they decided.
    """

    def __init__(self, review: Review) -> None:
        self.review = review
        whose = repr(review["reviewer"]) if review["reviewer"] else "another reviewer"
        super().__init__(
            f"{review_id(review['item_id'], review)!r} was "
            f"{'kept' if review['keep'] else 'rejected'} by {whose} ({review['decided']}); only they can undo it"
        )


class ReviewBook(Ledger[Review]):
    """The ledger RUN/reviews. Any number of people on any number of machines may decide at once; the first one wins."""

    def decide(self, review: Review) -> Review:
        """Write a verdict durably, unless there is one; the same verdict of the same reviewer again changes nothing.

        Returns:
            The verdict that stands.

        Raises:
            ReviewTakenError: the image has another verdict, or another reviewer's.
            BrokenRunError: the disk is full or not writable.
        """
        entry_id = review_id(review["item_id"], review)
        path = self._path(entry_id)
        while True:
            with breaking_the_run(path):
                if _create(path, orjson.dumps(review)):
                    return review
            earlier = self.read(entry_id)
            if earlier is None:  # it was undone between the two
                continue
            if (earlier["reviewer"], earlier["keep"]) == (review["reviewer"], review["keep"]):
                return earlier
            raise ReviewTakenError(earlier)

    def undo(self, entry_id: str, reviewer: str) -> Review | None:
        """Take back one's own verdict.

        Returns:
            What it was; None where there was none.

        Raises:
            ReviewTakenError: it is another reviewer's.
            BrokenRunError: the file cannot be removed.
        """
        review = self.read(entry_id)
        if review is None:
            return None
        if review["reviewer"] != reviewer:
            raise ReviewTakenError(review)
        with breaking_the_run(self._path(entry_id)):
            self.remove(entry_id)
        return review


def _create(path: Path, content: bytes) -> bool:
    """Write a file whole and durably, or leave the one that is there; says whether it was written.

    A hard link is made or refused in one step, also on network file systems; a rename would replace.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=path.name[:40] + ".", suffix=PARTIAL_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        Path(partial).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
