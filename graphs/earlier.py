"""A run that extends another: what the earlier one made is there already when it begins."""

from __future__ import annotations

import os
from pathlib import Path

from ..data.files import PARTIAL_SUFFIX, write_atomically
from ..memory.artifacts import breaking_the_run

TAKEN_OVER = ("artifacts", "items", "scenes", "elements", "backgrounds", "judges", "reviews")
"""Artifacts first: an entry of a ledger must find its own."""


def take_over(earlier: Path, folder: Path) -> None:
    """Put the files of a finished run's ledgers into a run folder, as hard links where the file system has them.

    Files are whole and never changed in place, so that a link is as good as a copy. What is there already stays: the
    call goes on where it was killed, and a later one changes nothing that the run made itself.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    with breaking_the_run(folder):
        for part in TAKEN_OVER:
            for path in sorted((earlier / part).rglob("*")):
                if path.is_file() and not path.name.endswith(PARTIAL_SUFFIX):
                    _link_or_copy(path, folder / path.relative_to(earlier))


def _link_or_copy(path: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:  # no hard links here, or another device
        write_atomically(target, path.read_bytes())
