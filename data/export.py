"""Data sets out: several formats at once, each image's bytes placed once, whole or absent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..errors import DatasetError, ImageDecodeError, RunFolderError
from .coco import save_coco
from .files import PARTIAL_SUFFIX
from .images import PlaceImage, place_image, read_header
from .lvis import save_lvis
from .records import Category, Dataset, Findings, ImageRecord, Sample, SampleSource
from .voc import save_voc
from .yolo import save_yolo

MARKER = ".maskwright"
"""File that tells a folder of ours from the user's, and lists what we wrote into it."""
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
            _writer(name)(counted, partial / name, places.placer(findings), findings=findings)
            if not counted.num_train_annotations:
                raise DatasetError(f"{folder}: the export would be empty: not one training annotation is left")


def save_dataset(
    dataset: Dataset,
    folder: Path,
    name: str,
    *,
    findings: Findings,
    on_image: Callable[[], None] | None = None,
) -> None:
    """Write one format right into `folder`; otherwise as `export_dataset`."""
    if not len(dataset.annotations):
        raise DatasetError(f"{folder}: the export would be empty: {dataset.root} has not one annotation")
    with _replacing(folder) as partial:
        _writer(name)(dataset, partial, _ImagePlaces(on_image).placer(findings), findings=findings)


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
        if self._replaced.exists() and not self._folder.exists():  # killed between the two renames
            os.replace(self._replaced, self._folder)
        elif self._replaced.exists():
            _carry_over(self._replaced, self._folder)
            shutil.rmtree(self._replaced)
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        (self._partial / MARKER).touch()
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        (self._partial / MARKER).write_text("\n".join(sorted(_files(self._partial))), encoding="utf-8")
        if self._folder.exists():
            os.replace(self._folder, self._replaced)
        os.replace(self._partial, self._folder)
        if self._replaced.exists():
            _carry_over(self._replaced, self._folder)
            shutil.rmtree(self._replaced)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def _carry_over(replaced: Path, folder: Path) -> None:
    """Move what others put into our folder (label caches, notes, checkpoints) to its successor."""
    marker = replaced / MARKER
    ours = set(marker.read_text(encoding="utf-8").split("\n")) if marker.is_file() else set()
    for name in sorted(_files(replaced) - ours - {MARKER}):
        if not name.endswith(PARTIAL_SUFFIX) and not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(replaced / name, folder / name)


def _is_ours(folder: Path) -> bool:
    return (folder / MARKER).is_file() or (folder.is_dir() and not any(folder.iterdir()))


@dataclass(slots=True)
class _Counted:
    """A source that counts the annotations it hands out."""

    source: SampleSource
    num_train_annotations: int = 0

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.source.categories

    @property
    def splits(self) -> tuple[str, ...]:
        return self.source.splits

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        for sample in self.source.samples(split):
            self.num_train_annotations += len(sample.annotations) * (sample.image.split == "train")
            yield sample


@dataclass(slots=True)
class _ImagePlaces:
    """Where each image's bytes were put first."""

    on_image: Callable[[], None] | None
    _first: dict[tuple[str, str], Path] = field(default_factory=dict)

    def placer(self, findings: Findings) -> PlaceImage:
        def place(record: ImageRecord, destination: Path) -> None:
            key = (record.split, record.file_name)
            if key in self._first:
                _link_or_copy(self._first[key], destination)
                return
            is_train = record.split == "train"
            try:
                if not is_train and read_header(record.path).exif_orientation != 1:
                    findings.add("exif_orientation_kept", f"{record.path}: not every reader turns it as its labels ask")
                place_image(record, destination, verbatim=not is_train)
            except ImageDecodeError as exc:  # it had to be turned upright, and is damaged
                findings.add("undecodable_image", str(exc))
                place_image(record, destination, verbatim=True)
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
