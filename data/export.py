"""Data sets out: several formats at once, each image's bytes placed once, whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import DatasetError, RunFolderError
from .coco import save_coco
from .files import PARTIAL_SUFFIX
from .images import PlaceImage, place_image
from .lvis import save_lvis
from .records import Category, Findings, ImageRecord, Sample, SampleSource
from .voc import save_voc
from .yolo import save_yolo

MARKER = ".maskwright"
"""File that tells a folder of ours, which may be replaced, from the user's, which may not."""
REPLACED_SUFFIX = ".replaced"


class Writer(Protocol):
    """Writes one format below a folder and calls `place` for each image."""

    def __call__(self, source: SampleSource, folder: Path, place: PlaceImage, *, findings: Findings) -> object: ...


WRITERS: dict[str, Writer] = {"coco": save_coco, "lvis": save_lvis, "voc": save_voc, "yolo": save_yolo}


def export_dataset(
    source: SampleSource,
    folder: Path,
    formats: Sequence[str],
    *,
    findings: Findings,
    on_image: Callable[[], None] | None = None,
) -> None:
    """Write `folder/FORMAT/` for each format; validation and test images keep their bytes.

    The folder appears whole or not at all, and replaces only one that this function made. Images of the
    second format on are hard links to the first one's, where the file system has them.

    Args:
        findings: gets what a format cannot hold.
        on_image: called once an image, in the first format.

    Raises:
        DatasetError: an unknown format, or not one training annotation to write.
        RunFolderError: the folder exists and is not ours.
    """
    with _replacing(folder) as partial:
        places = _ImagePlaces(on_image)
        for name in formats:
            counted = _Counted(source)
            _writer(name)(counted, partial / name, places.placer(), findings=findings)
            if not counted.num_train_annotations:
                raise DatasetError(f"{folder}: the export would be empty: not one training annotation is left")


def save_dataset(
    source: SampleSource,
    folder: Path,
    name: str,
    *,
    findings: Findings,
    on_image: Callable[[], None] | None = None,
) -> None:
    """Write one format right into `folder`; otherwise as `export_dataset`."""
    with _replacing(folder) as partial:
        counted = _Counted(source)
        _writer(name)(counted, partial, _ImagePlaces(on_image).placer(), findings=findings)
        if not counted.num_annotations:
            raise DatasetError(f"{folder}: the export would be empty: not one annotation is left")


def _writer(name: str) -> Writer:
    if name not in WRITERS:
        raise DatasetError(f"unknown export format {name!r}; known: {', '.join(sorted(WRITERS))}")
    return WRITERS[name]


class _replacing:  # noqa: N801  # reads as the context manager that it is
    """A folder written aside under `.partial`, which takes its place at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder.with_name(folder.name + PARTIAL_SUFFIX)
        self._replaced = folder.with_name(folder.name + REPLACED_SUFFIX)

    def __enter__(self) -> Path:
        for leftover in (self._folder, self._partial, self._replaced):
            if leftover.exists() and not _is_ours(leftover):
                raise RunFolderError(
                    f"{leftover}: exists and was not made by maskwright; move it or name another folder"
                )
        for leftover in (self._partial, self._replaced):
            if leftover.exists():
                shutil.rmtree(leftover)
        self._partial.mkdir(parents=True)
        (self._partial / MARKER).touch()
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        if self._folder.exists():
            os.replace(self._folder, self._replaced)
        os.replace(self._partial, self._folder)
        if self._replaced.exists():
            shutil.rmtree(self._replaced)


def _is_ours(folder: Path) -> bool:
    return (folder / MARKER).is_file() or (folder.is_dir() and not any(folder.iterdir()))


@dataclass(slots=True)
class _Counted:
    """A source that counts the annotations it hands out."""

    source: SampleSource
    num_annotations: int = 0
    num_train_annotations: int = 0

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.source.categories

    @property
    def splits(self) -> tuple[str, ...]:
        return self.source.splits

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        for sample in self.source.samples(split):
            self.num_annotations += len(sample.annotations)
            self.num_train_annotations += len(sample.annotations) * (sample.image.split == "train")
            yield sample


@dataclass(slots=True)
class _ImagePlaces:
    """Where each image's bytes were put first."""

    on_image: Callable[[], None] | None
    _first: dict[tuple[str, str], Path] = field(default_factory=dict)

    def placer(self) -> PlaceImage:
        def place(record: ImageRecord, destination: Path) -> None:
            key = (record.split, record.file_name)
            if key in self._first:
                _link_or_copy(self._first[key], destination)
                return
            place_image(record, destination, verbatim=record.split != "train")
            self._first[key] = destination
            if self.on_image is not None:
                self.on_image()

        return place


def _link_or_copy(existing: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(existing, destination)
    except OSError:
        shutil.copyfile(existing, destination)
