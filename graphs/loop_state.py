"""loop.json: how far a loop got. Everything that it decided stands there before it is done."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..data.files import PARTIAL_SUFFIX
from ..errors import RunFolderError
from ..evaluation.gains import RoundFigures
from ..memory.artifacts import write_or_stop
from .run_folder import Resume

FILE_NAME = "loop.json"


class LoopRound(msgspec.Struct, forbid_unknown_fields=True):
    """One round: what it was to make, decided when it began, and what came of it."""

    number: int
    """From 1."""
    quotas: dict[str, int]
    """New instances of each class in this round alone."""
    retired_prompts: list[str] = []
    """Records of the prompt memory that are retired before the round; the earlier rounds' are not repeated."""
    retired_sources: list[int] = []
    """Annotation ids, likewise."""
    is_made: bool = False
    accepted: int = 0
    """Instances in the product: of this round and all before."""
    figures: RoundFigures | None = None


class LoopState(msgspec.Struct, forbid_unknown_fields=True):
    """What stands in loop.json."""

    loop: int
    """Version of the format."""
    fingerprint: str
    """Of the first round's recipe and data."""
    reweight: bool
    retire: bool
    rounds: list[LoopRound]

    def is_of(self, other: LoopState) -> bool:
        """Whether both are the same loop, however far each got."""
        return (self.loop, self.fingerprint, self.reweight, self.retire) == (
            other.loop,
            other.fingerprint,
            other.reweight,
            other.retire,
        )


def read_loop(folder: Path) -> LoopState | None:
    """The loop.json of a folder; None where there is none.

    Raises:
        RunFolderError: it is not ours.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=LoopState)
    except msgspec.DecodeError as exc:
        raise RunFolderError(f"{path}: no loop of ours ({exc}); give another --out") from exc


def write_loop(folder: Path, state: LoopState) -> None:
    """Write loop.json, whole or not at all.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    write_or_stop(folder / FILE_NAME, msgspec.json.format(msgspec.json.encode(state)))


def open_loop(folder: Path, fresh: LoopState, resume: Resume) -> LoopState:
    """The loop that stands in a folder, or `fresh` where it is empty or missing.

    Raises:
        RunFolderError: it holds something else, another loop, or what `resume` does not want.
    """
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: is a file; give a folder to --out")
    earlier = read_loop(folder)
    if earlier is None:
        if folder.is_dir() and any(not path.name.endswith(PARTIAL_SUFFIX) for path in folder.iterdir()):
            raise RunFolderError(f"{folder}: is not empty and no loop of ours; give another --out")
        if resume == "always":
            raise RunFolderError(f"{folder}: no loop to resume; leave out --resume always, or correct --out")
        return fresh
    if resume == "never":
        raise RunFolderError(f"{folder}: holds a loop already, and --resume is never; give another --out")
    if not earlier.is_of(fresh):
        raise RunFolderError(
            f"{folder}: holds a loop of other settings or other data (compare its round-1/recipe.yaml); "
            "give another --out, or the same recipe and data"
        )
    return earlier


def default_loop_folder(parent: Path, name: str, fresh: LoopState) -> Path:
    """PARENT/NAME-loop-N: the last one if it is this loop, else the next number."""
    stem = f"{name}-loop-"
    numbers = [int(path.name[len(stem) :]) for path in parent.glob(f"{stem}*") if path.name[len(stem) :].isdigit()]
    last = max(numbers, default=0)
    earlier = read_loop(parent / f"{stem}{last}") if last else None
    return parent / f"{stem}{last if earlier and earlier.is_of(fresh) else last + 1}"
