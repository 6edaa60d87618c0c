"""Files that are whole or absent: written aside, synced, renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

PARTIAL_SUFFIX = ".partial"
"""Ending of a file or folder that is still being written; a kill may leave one behind."""


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` that takes its name once the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.name[:40] + ".", suffix=PARTIAL_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content`; after a kill at any moment the file is whole, or as it was before."""
    with open_atomically(path) as file:
        file.write(content)


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` for one process at a time; gone in the end, with what killed ones left.

    What is made in it is renamed to `target` by the caller; another process waits until then.

    Raises:
        OSError: nothing can be written there.
    """
    prefix = f".{target.name}."
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f"{prefix}lock"):
        for leftover in target.parent.glob(f"{prefix}*{PARTIAL_SUFFIX}"):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, suffix=PARTIAL_SUFFIX, dir=target.parent) as work:
            yield Path(work)


def remove_partials(folder: Path, *, deep: bool = True) -> int:
    """Remove the files that a killed writer left in `folder`, and below it if `deep`; returns how many went."""
    pattern = f"*{PARTIAL_SUFFIX}"
    partials = [path for path in (folder.rglob(pattern) if deep else folder.glob(pattern)) if path.is_file()]
    for path in partials:
        path.unlink(missing_ok=True)
    return len(partials)


def sync(path: Path) -> None:
    """Have what a file holds, or which files a folder holds, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
