"""What run.json says: the outcome of a run, as its report and its data set card read it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import RunFolderError

RunStatus = Literal["running", "done", "partial", "interrupted"]


class ClassSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One class. `real` counts training instances, `quota` the new ones wanted, `painted` images, `sources` what new
    ones can start from: real instances, or else the class's name where a painter knows it."""

    name: str
    real: int = 0
    quota: int = 0
    accepted: int = 0
    shortfall: int = 0
    sources: int = 0
    painted: int = 0


class FindingSummary(msgspec.Struct, frozen=True):
    """One kind of oddity in the data; `examples` are the first few of `count`."""

    count: int
    examples: tuple[str, ...] = ()


class DatasetSummary(msgspec.Struct, frozen=True):
    """The user's data set; `splits` maps a split to its counts of images and annotations."""

    path: str = ""
    format: str = ""
    splits: dict[str, dict[str, int]] = {}
    digest: str = ""


class RunSummary(msgspec.Struct, frozen=True, rename={"accepted_share": "yield"}):
    """run.json. A run that has only begun states little of it; keys that we do not read are skipped."""

    fingerprint: str = ""
    maskwright: str = ""
    versions: dict[str, str] = {}
    recipe: str = ""
    status: RunStatus = "running"
    dataset: DatasetSummary = DatasetSummary()
    findings: dict[str, FindingSummary] = {}
    seconds: dict[str, float] = {}
    costs: dict[str, float] = {}
    accepted_share: float = 0.0
    """Accepted over painted images, 0 to 1."""
    items: dict[str, int] = {}
    images: dict[str, int] = {}
    accepted: int = 0
    scenes: int = 0
    unplaced: tuple[str, ...] = ()
    classes: tuple[ClassSummary, ...] = ()
    rejections: dict[str, int] = {}
    hints: tuple[str, ...] = ()
    painters: dict[str, dict[str, str]] = {}
    """By agent: name and revision."""
    seed: int | None = None
    formats: tuple[str, ...] = ("coco", "yolo")
    """Folders of RUN/dataset."""
    originals: bool = True
    """The user's own training images are in RUN/dataset, beside the scenes."""


def to_run_summary(content: Mapping[str, object]) -> RunSummary:
    """Convert the parsed content of run.json.

    Raises:
        RunFolderError: a value is not of its kind; the message names its place.
    """
    try:
        return msgspec.convert(content, RunSummary)
    except msgspec.ValidationError as exc:
        raise RunFolderError(f"run.json: {exc}; this is no run of ours, or one of another version") from exc


def read_run_summary(folder: Path) -> RunSummary:
    """Read RUN/run.json.

    Raises:
        RunFolderError: the folder is no run of ours.
    """
    path = folder / "run.json"
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise RunFolderError(f"{str(folder)!r}: no run is here (no run.json); give the folder of a run") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RunFolderError(f"{path}: not valid JSON ({exc}); this is no run of ours") from exc
    if not isinstance(content, dict) or not content.get("fingerprint"):
        raise RunFolderError(f"{path}: has no fingerprint; this is no run of ours")
    return to_run_summary(content)
