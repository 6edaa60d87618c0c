"""One format into another, masks exact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import RunFolderError
from .export import save_dataset
from .load import load_dataset
from .records import Dataset, Findings


class ConvertProgress(Protocol):
    """Where a conversion says how far it is."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What was read, and in `findings` what was odd or could not be held."""

    images: int
    annotations: int
    splits: tuple[str, ...]
    findings: Findings


def convert_dataset(
    source: Path, target: Path, *, to: str, format: str = "auto", progress: ConvertProgress | None = None
) -> ConversionReport:
    """Read a data set and write it as another format, its images included.

    Args:
        source: data set folder or annotation file.
        target: folder to write; absent, empty, or written by an earlier conversion.

    Raises:
        DatasetError: the source is wrong, or nothing is left to write.
        RunFolderError: the target is not ours, or lies inside the source.
    """
    dataset = load_dataset(source, format)
    _refuse_overlap(target, dataset)
    findings = Findings()
    findings.update(dataset.findings)
    if progress is not None:
        progress.start("convert", len(dataset.images))
    save_dataset(
        dataset,
        target,
        to,
        findings=findings,
        on_image=None if progress is None else lambda: progress.advance("convert"),
    )
    return ConversionReport(len(dataset.images), len(dataset.annotations), dataset.splits, findings)


def _refuse_overlap(target: Path, dataset: Dataset) -> None:
    """A conversion replaces its target, so the target must not hold the source, nor lie inside it."""
    wanted = target.absolute().resolve()
    for folder in {str(dataset.root), *(image.folder for image in dataset.images)}:
        read = Path(folder).absolute().resolve()
        if wanted == read or wanted in read.parents or read in wanted.parents:
            raise RunFolderError(f"{target}: overlaps {folder}, which is read; name a folder beside it")
