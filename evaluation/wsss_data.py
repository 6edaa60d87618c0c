"""What weakly supervised networks learn from and are measured on: the sides of a data set, and a run's images."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from ..configs.recipe import load_recipe
from ..data.anomaly_splits import LeakGuard
from ..data.images import read_header, read_image, resolve_frame, safe_join
from ..data.label_records import ClassMapHW, LabelledImage, TruthReader
from ..data.label_sources import load_labels
from ..data.label_splits import load_label_split
from ..data.records import Findings, ImageRecord, ImageRGB
from ..errors import DatasetError, EmptyMaskError, ImageDecodeError, LeakError, RunFolderError

EXPORT = Path("dataset", "voc_labels")
SPLIT = "split.json"
SYNTHETIC = "synthetic"
CACHED_PICTURES = 2048
"""At the size that is trained on: 0.3 GB at 224 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WsssRun:
    """A data set by a run's sides, and what that run and others made. A guard kept test images on `test`."""

    folder: Path
    classes: tuple[str, ...]
    train: Sequence[LabelledImage]
    held_out: Sequence[LabelledImage]
    test: Sequence[LabelledImage]
    """With a truth."""
    synthetic: Sequence[LabelledImage]
    """What the run admitted."""
    ablations: Mapping[str, Sequence[LabelledImage]]
    """What runs without a mechanism admitted, by arm."""
    read_truth: TruthReader
    """Only the threshold, on held-out images, and scores may ask for it."""
    findings: Findings

    @property
    def results(self) -> Path:
        """Folder of what was measured."""
        return self.folder / "evaluation" / "wsss"


def open_wsss(run_folder: Path, data: Path, ablations: Mapping[str, Path] | None = None) -> WsssRun:
    """Read what a run admitted and, by RUN/split.json, the data set that it learned from.

    Args:
        ablations: folders of runs by arm; each must have the same sides.

    Raises:
        RunFolderError: no run of the label agent, one without images, or an ablation with other sides.
        DatasetError: another data set, one without masks, or no labelled image to learn from or to measure.
        LeakError: an image that is learned from is a test image, or a synthetic one is not on the train side.
    """
    split_path = run_folder / SPLIT
    _check_run(run_folder)
    dataset = load_labels(data, item=_item_of(run_folder))
    if dataset.read_truth is None:
        raise DatasetError(f"{str(data)!r} has no masks to score by; expected a data set with masks for its test side")
    split = load_label_split(split_path, dataset)
    measured = [image for image, _ in with_truth(split.of("test"), dataset.read_truth, dataset.findings)]
    guard = LeakGuard.of(split.of("test"))
    made = {name: _read_arm(folder, split_path, dataset.classes) for name, folder in (ablations or {}).items()}
    run = WsssRun(
        folder=run_folder,
        classes=dataset.classes,
        train=guard.admit(split.of("train"), consumer="training"),
        held_out=guard.admit(split.of("held_out"), consumer="the threshold"),
        test=measured,
        synthetic=guard.admit(read_synthetic(run_folder / EXPORT, dataset.classes), consumer="the run's images"),
        ablations={name: guard.admit(images, consumer=name) for name, images in made.items()},
        read_truth=dataset.read_truth,
        findings=dataset.findings,
    )
    _check_sides(run, data)
    return run


def read_synthetic(export: Path, classes: Sequence[str]) -> list[LabelledImage]:
    """Images that a run made, from its folder of labels; headers are read.

    Raises:
        RunFolderError: its labels.csv cannot be read, or lists no synthetic image.
        LeakError: one is not on the train side.
        DatasetError: a name leads out of the folder.
    """
    images = list(_synthetic_rows(export, classes))
    if not images:
        raise RunFolderError(f"{str(export)!r} lists no synthetic image; expected a run that admitted some")
    return images


def read_square(image: LabelledImage, size_px: int) -> ImageRGB:
    """(S, S, 3) uint8, read-only, whatever the picture's shape: `map_to_frame` takes maps back."""
    square: ImageRGB = cv2.resize(read_image(image.image), (size_px, size_px), interpolation=cv2.INTER_AREA)
    square.flags.writeable = False
    return square


def map_to_frame(map_ss: ClassMapHW, height: int, width: int) -> ClassMapHW:
    """(height, width) uint8, from a map of a square."""
    return np.asarray(cv2.resize(map_ss, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


class PictureCache:
    """Squares of one size, read once."""

    def __init__(self, size_px: int) -> None:
        self.size_px = size_px
        self._read = lru_cache(CACHED_PICTURES)(lambda image: read_square(image, size_px))

    def __getitem__(self, image: LabelledImage) -> ImageRGB:
        """(S, S, 3) uint8, read-only; raises ImageDecodeError."""
        return self._read(image)


def with_truth(
    images: Iterable[LabelledImage], read_truth: TruthReader, findings: Findings | None = None
) -> Iterator[tuple[LabelledImage, ClassMapHW]]:
    """Images whose true classes are known, with these; others may be counted, as `no_truth`."""
    for image in images:
        try:
            yield image, read_truth(image)
        except (EmptyMaskError, ImageDecodeError) as exc:
            if findings is not None:
                findings.add("no_truth", f"{image.key!r}: {exc}")


def _check_run(folder: Path) -> None:
    if not (folder / SPLIT).is_file() or not (folder / EXPORT / "labels.csv").is_file():
        raise RunFolderError(
            f"{str(folder)!r}: no {SPLIT}, or no {EXPORT / 'labels.csv'}; give a folder of `maskwright run iaa`"
        )


def _item_of(run_folder: Path) -> str | None:
    """The item that the run's recipe names, where the data set is an anomaly data set."""
    recipe = run_folder / "recipe.yaml"
    settings = load_recipe(str(recipe)).agents.label_agent if recipe.is_file() else None
    return settings.item if settings else None


def _read_arm(folder: Path, split_path: Path, classes: Sequence[str]) -> list[LabelledImage]:
    _check_run(folder)
    if (folder / SPLIT).read_bytes() != split_path.read_bytes():
        raise RunFolderError(f"{str(folder)!r} shared its data set out otherwise; expected the sides of {split_path}")
    return read_synthetic(folder / EXPORT, classes)


def _synthetic_rows(export: Path, classes: Sequence[str]) -> Iterator[LabelledImage]:
    table = export / "labels.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if missing := {"file", "split", "source", *classes} - set(rows.fieldnames or ()):
            raise RunFolderError(f"{str(table)!r} has no column {min(missing)!r}; expected the labels of this data set")
        for row in rows:
            if row["source"] != SYNTHETIC:
                continue
            if row["split"] != "train":
                raise LeakError(
                    f"{str(table)!r}: synthetic image {row['file']!r} is on the side {row['split']!r}; expected train. "
                    "Export the run again."
                )
            labels = frozenset(name for name in classes if row[name] == "1")
            yield LabelledImage(image=_to_record(export, row["file"], table), labels=labels)


def _to_record(export: Path, name: str, table: Path) -> ImageRecord:
    folder = export / "JPEGImages"
    name = name.removeprefix("JPEGImages/")
    header = read_header(safe_join(folder, name, source=str(table)))
    width, height, exif_transpose = resolve_frame(header, None)
    return ImageRecord(0, name, str(folder), width, height, exif_transpose=exif_transpose)


def _check_sides(run: WsssRun, data: Path) -> None:
    for name, side in (("train", run.train), ("held_out", run.held_out), ("test", run.test)):
        if not any(one.labels for one in side):
            raise DatasetError(f"{str(data)!r}: no labelled image on the side {name}; expected one. Raise its share.")
