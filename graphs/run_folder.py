"""The run folder: made fresh or resumed, never emptied; a folder of others is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..data.files import PARTIAL_SUFFIX
from ..errors import RunFolderError
from .record import read_run_json

Resume = Literal["never", "always", "if_possible"]
RunKind = Literal["instances", "anomalies", "labels"]
UNFINISHED = ("running", "interrupted", "partial")
"""Statuses of runs that the same command goes on with."""


EXIT_CODES = {"done": 0, "partial": 3, "interrupted": 130}
"""By status."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. `content` is run.json's."""

    folder: Path
    exit_code: int
    content: dict[str, object]


def check_folder(folder: Path) -> None:
    """Whether a folder is empty, missing, or a run's.

    Raises:
        RunFolderError: it holds something else, or is a file.
    """
    foreign = folder.is_dir() and any(not path.name.endswith(PARTIAL_SUFFIX) for path in folder.iterdir())
    if foreign and read_run_json(folder) is None:
        raise RunFolderError(f"{folder}: is not empty and no run of ours; give another --out")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder}: is a file; give a folder to --out")


def kind_of(content: Mapping[str, object]) -> RunKind:
    """What the items of a run make, by its run.json: samples of defects, scenes with image labels, or instances."""
    if "label_precision" in content:
        return "labels"
    return "anomalies" if "defects" in content else "instances"


def check_not_anomalies(folder: Path) -> None:
    """Whether a run's items are images of instances, as those of anomaly and label runs are not.

    Raises:
        RunFolderError: it is an anomaly or a label run.
    """
    kind = kind_of(read_run_json(folder) or {})
    if kind != "instances":
        what = {"anomalies": "an anomaly run", "labels": "a label run"}[kind]
        raise RunFolderError(f"{folder}: {what}; this is for runs that make instances, and validated folders")


def check_resume(folder: Path, fingerprint: str, resume: Resume) -> None:
    """Whether the folder may be gone on with, or begun.

    Raises:
        RunFolderError: it holds another run, or what `resume` does not want.
    """
    check_folder(folder)
    earlier = read_run_json(folder) if folder.is_dir() else None
    if earlier is None:
        if resume == "always":
            raise RunFolderError(f"{folder}: no run to resume; leave out --resume always, or correct --out")
        return
    if resume == "never":
        raise RunFolderError(f"{folder}: holds a run already, and --resume is never; give another --out")
    if earlier["fingerprint"] != fingerprint:
        raise RunFolderError(
            f"{folder}: holds a run of other settings or other data (compare its recipe.yaml); "
            "give another --out, or the same recipe and data"
        )


def default_folder(parent: Path, name: str, fingerprint: str) -> Path:
    """PARENT/NAME-N: the last one if it is this run unfinished, else the next number."""
    numbers = [
        int(path.name[len(name) + 1 :]) for path in parent.glob(f"{name}-*") if path.name[len(name) + 1 :].isdigit()
    ]
    last = max(numbers, default=0)
    if last:
        earlier = read_run_json(parent / f"{name}-{last}")
        if earlier and earlier["fingerprint"] == fingerprint and earlier.get("status") in UNFINISHED:
            return parent / f"{name}-{last}"
    return parent / f"{name}-{last + 1}"
