"""Defects as instances: the parts of an anomaly data set's masks, for a detector to learn and to be measured on.

The sides are those of AnomalyDiffusion's evaluation (arXiv 2312.05767), as `split_anomalies` shares them out: a third
of each defect's images is learned from, so that a defect with few photographs is a rare class, the others measure.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from ..errors import DatasetError, EmptyMaskError, ImageDecodeError
from .anomaly_records import GOOD, AnomalyRecord, read_defect_mask
from .anomaly_splits import AnomalySplit, Side, SplitShares, split_anomalies
from .images import refuse_unsafe_name
from .masks import mask_to_bbox, mask_to_segmentation
from .mvtec import load_anomalies
from .records import AnnotationTableBuilder, Category, Dataset, Findings, ImageRecord, MaskHW, Polygons

MIN_PART_PX: Final = 9
"""Least area of a part that is an instance: a dot of 3x3. In the magnetic tile defects (Huang et al., 2018) 13 of 311
parts are smaller, slips of the pen beside a larger part or in its place; blowholes begin at 26 pixels."""
SHARES: Final = SplitShares(validation=0.25, normal_validation=0.1, normal_test=0.3)
SEED: Final = 0
_SPLIT_OF_SIDE: dict[Side, str] = {"normal": "train", "reference": "train", "validation": "val", "test": "test"}
_NORMALS = ("train/good", "Data/Images/Normal", "good")
"""Where MVTec AD, VisA and plain folders keep an item's good images."""


def item_folders(path: Path) -> list[Path]:
    """The items of an anomaly data set: the folder itself if it is one, else those in it; none where it has none."""
    if _is_item(path):
        return [path]
    if not path.is_dir():
        return []
    return sorted(folder for folder in path.iterdir() if _is_item(folder) and not folder.name.startswith("."))


def _is_item(folder: Path) -> bool:
    return any(os.path.isdir(folder / name) for name in _NORMALS)  # False too where we may not look


def load_defects(path: Path, *, min_part_px: int = MIN_PART_PX, apart: bool = False) -> Dataset:
    """Read an item as an instance data set: a class for each defect, an instance for each part of its masks.

    Classes are numbered from 1, in order of name. The sides follow from the files' names, and with `apart` from their
    looks. Images are called DEFECT_NAME, good ones good_NAME, or test_good_NAME where the data set itself sets them
    aside for test.

    Args:
        path: an item, as MVTec AD, VisA or plain folders lay it out, or a folder that holds a single one.
        min_part_px: least area of an instance, in pixels.
        apart: keep photographs of one object on one side, as `split_anomalies` does.

    Returns:
        Good images without annotations, images of defects with theirs. Findings as of `load_anomalies` and of
        `DefectDatasetBuilder`; images of a defect whose mask cannot be used are left out.

    Raises:
        DatasetError: no item, or several; no good image is left to learn from; not one usable mask.
    """
    folders = item_folders(path)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise DatasetError(f"{str(path)!r} has the items {names}; expected one. Give its folder: {str(folders[0])!r}.")
    anomalies = load_anomalies(folders[0] if folders else path)
    [item] = anomalies.items
    builder = DefectDatasetBuilder(anomalies.defects(item), min_part_px=min_part_px)
    builder.findings.update(anomalies.findings)
    builder.add_split(split_anomalies(anomalies, item, shares=SHARES, seed=SEED, apart=apart))
    return builder.build(anomalies.root)


@dataclass(slots=True)
class DefectDatasetBuilder:
    """Gathers images and the parts of their masks; masks are decoded one at a time.

    Findings: `stray_mask_values` as `read_defect_mask` counts them; `empty_mask` and `unreadable_mask`, images left
    out; `mask_speck`, parts under `min_part_px`; `only_specks`, images left out since their masks have nothing else;
    `defect_not_in_train`, classes without a training instance.
    """

    defects: Iterable[str]
    """Classes, numbered from 1 in order of name."""
    made_only: Iterable[str] = ()
    """Classes without a photograph, numbered after the others."""
    min_part_px: int = MIN_PART_PX
    findings: Findings = field(default_factory=Findings)
    _category_ids: dict[str, int] = field(init=False)
    _images: list[ImageRecord] = field(init=False, default_factory=list)
    _table: AnnotationTableBuilder = field(init=False, default_factory=AnnotationTableBuilder)
    _first_of_name: dict[tuple[str, str], ImageRecord] = field(init=False, default_factory=dict)
    _num_train: Counter[str] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        names = dict.fromkeys([*sorted(self.defects), *sorted(self.made_only)])
        self._category_ids = {name: number for number, name in enumerate(names, start=1)}

    @property
    def num_images(self) -> int:
        return len(self._images)

    def add_split(self, split: AnomalySplit, *, originals: bool = True) -> None:
        """Add the photographs of an item, those for training first.

        Args:
            originals: False leaves those for training out.
        """
        for side, name in _SPLIT_OF_SIDE.items():
            for record in split.of(side) if originals or name != "train" else ():
                self._add_record(record, name)

    def _add_record(self, record: AnomalyRecord, split: str) -> None:
        image = _to_flat(record, split)
        if record.is_good:
            self._append(image)
            return
        if record.mask_path is None:  # counted where the files were indexed
            return
        try:
            self.add(image, record.defect, read_defect_mask(record, self.findings))
        except EmptyMaskError as exc:
            self.findings.add("empty_mask", str(exc))
        except ImageDecodeError as exc:
            self.findings.add("unreadable_mask", str(exc))

    def add(self, image: ImageRecord, defect: str, mask_hw: MaskHW) -> None:
        """Add an image of a defect; its id is given here.

        Args:
            mask_hw: (H, W) bool, of the image's frame.

        Raises:
            DatasetError: its split has another image of this name.
        """
        parts, num_specks = split_parts(mask_hw, self.min_part_px)
        if num_specks:
            told = f"{image.file_name}: parts under {self.min_part_px} pixels: {num_specks}"
            self.findings.add("mask_speck" if parts else "only_specks", told, num_specks if parts else 1)
        if not parts:
            return
        self._append(image)
        self._num_train[defect] += len(parts) * (image.split == "train")
        for part_hw in parts:
            self._add_part(part_hw, self._category_ids[defect])

    def _append(self, image: ImageRecord) -> None:
        first = self._first_of_name.setdefault((image.split, image.file_name), image)
        if first is not image:
            raise DatasetError(
                f"{str(image.path)!r} and {str(first.path)!r} are both called {image.file_name!r} in {image.split!r}; "
                "expected one. Rename one of them."
            )
        self._images.append(replace(image, image_id=len(self._images) + 1))

    def _add_part(self, part_hw: MaskHW, category_id: int) -> None:
        exact = mask_to_segmentation(part_hw)
        self._table.add(
            annotation_id=len(self._table) + 1,
            image_index=len(self._images) - 1,
            category_id=category_id,
            segmentation=[ring.ravel() for ring in exact.rings] if isinstance(exact, Polygons) else exact,
            bbox_xywh=mask_to_bbox(part_hw),
            area=int(np.count_nonzero(part_hw)),
        )

    def build(self, root: Path) -> Dataset:
        """The data set.

        Raises:
            DatasetError: not one part of a mask was added.
        """
        if not len(self._table):
            counts = ", ".join(f"{count} {kind}" for kind, count in self.findings.counts.items()) or "no mask found"
            raise DatasetError(
                f"{str(root)!r}: not one usable defect mask ({counts}); expected some, such as "
                "ground_truth/DEFECT/NAME_mask.png of MVTec AD. Draw them, or give the item that has them."
            )
        for defect in self._category_ids:
            if not self._num_train[defect]:
                self.findings.add(
                    "defect_not_in_train", f"{defect!r}; a third of its images with a mask is learned from, add some"
                )
        categories = tuple(Category(number, name) for name, number in self._category_ids.items())
        table = self._table.build(len(self._images))
        return Dataset(root, "mvtec", categories, self._images, table, self.findings)


def _to_flat(record: AnomalyRecord, split: str) -> ImageRecord:
    """Named for one folder, since not every reader of YOLO looks deeper; MVTec AD counts test/good from 000 again."""
    folder, below = Path(record.image.folder, record.item), record.key.partition("/")[2]
    place = f"test_{GOOD}" if record.is_good and record.split == "test" else record.defect
    name = f"{place}_{record.image_path.name}"
    refuse_unsafe_name(folder, name, source=f"defect of {record.key!r}")
    return replace(record.image, file_name=name, split=split, folder=str(folder), stored_as=below)


def split_parts(mask_hw: MaskHW, min_part_px: int) -> tuple[list[MaskHW], int]:
    """Take a mask apart into its 8-connected parts; holes stay holes.

    Args:
        mask_hw: (H, W) bool.
        min_part_px: least area of a part that is kept.

    Returns:
        Parts, each (H, W) bool, and how many were left out.
    """
    num, labels, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    kept = [number for number in range(1, num) if stats[number, cv2.CC_STAT_AREA] >= min_part_px]
    return [labels == number for number in kept], num - 1 - len(kept)
