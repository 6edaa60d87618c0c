"""Instance annotations as labels: an image shows the categories that it has instances of, crowds included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .label_drafts import LabelDraft, ReadLabels
from .label_records import UNKNOWN_LEVEL, ClassMapHW, LabelledImage, TruthReader
from .load import load_dataset
from .masks import segmentation_to_mask
from .records import Dataset, ImageRecord


@dataclass(frozen=True, slots=True)
class _InstanceTruth:
    """Draws an image's instances, small ones over large ones; crowds are unknown."""

    dataset: Dataset
    index_of_key: Mapping[str, int]
    level_of_category: Mapping[int, int]

    def __call__(self, image: LabelledImage) -> ClassMapHW:
        size_hw = (image.image.height, image.image.width)
        class_map: ClassMapHW = np.zeros(size_hw, dtype=np.uint8)
        drawn = []
        for one in self.dataset.sample(self.index_of_key[image.key]).annotations:
            mask_hw = segmentation_to_mask(one.segmentation, *size_hw)
            if one.is_crowd:
                class_map[mask_hw] = UNKNOWN_LEVEL
            else:
                drawn.append((int(np.count_nonzero(mask_hw)), self.level_of_category[one.category_id], mask_hw))
        for _, level, mask_hw in sorted(drawn, key=lambda one: -one[0]):
            class_map[mask_hw] = level
        return class_map


def read_instance_labels(path: Path, format: str, images: Path | None) -> ReadLabels:
    """Read any data set that `load_dataset` reads.

    Classes keep the order of their ids. LVIS says of most categories nothing about an image: they count as absent.
    """
    dataset = load_dataset(path, format, images=images)
    root = dataset.root.resolve()
    keyed = [_keyed(image, root) for image in dataset.images]
    categories = sorted(dataset.categories, key=lambda one: one.category_id)
    name_of_id = {one.category_id: one.name for one in categories}
    table = dataset.annotations
    ids_of_image: list[set[int]] = [set() for _ in keyed]
    for index, category_id in zip(table.image_index.tolist(), table.category_id.tolist(), strict=True):
        ids_of_image[index].add(category_id)
    drafts = [
        LabelDraft(image, frozenset(name_of_id[one] for one in ids))
        for image, ids in zip(keyed, ids_of_image, strict=True)
    ]
    classes = tuple(one.name for one in categories)
    index_of_key = {image.file_name: i for i, image in enumerate(keyed)}

    def make_truth(levels: Mapping[str, int]) -> TruthReader:
        level_of_category = {i: levels.get(name, UNKNOWN_LEVEL) for i, name in name_of_id.items()}
        return _InstanceTruth(dataset, index_of_key, level_of_category)

    return ReadLabels(dataset.root, dataset.format, classes, drafts, dataset.findings, make_truth)


def _keyed(image: ImageRecord, root: Path) -> ImageRecord:
    """The image under its path below the data set; file names alone are unique in a split only."""
    stored = image.stored_as or image.file_name
    folder = Path(image.folder).resolve()
    below = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else image.split
    return replace(image, file_name=f"{below}/{image.file_name}" if below != "." else image.file_name, stored_as=stored)
