"""LVIS v1 files: COCO's, with frequencies, and with what was looked for in each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from .coco import load_instances
from .images import PlaceImage
from .instance_writer import CategoryCount, InstanceFormat, JsonObject, category_lists, save_instances
from .quotas import frequency_group
from .records import Category, Dataset, Findings, Frequency, ImageRecord, SampleSource

COCO_HOST = "http://images.cocodataset.org/"
"""Readers of LVIS cut this off `coco_url` to get a file name."""


def load_lvis(
    annotation_files: Mapping[str, Path], image_folders: Mapping[str, Path], *, check_images: bool = True
) -> Dataset:
    """Read LVIS files, keyed by split; as `load_coco`, with `coco_url` naming the file where `file_name` is absent."""
    return load_instances("lvis", annotation_files, lambda split, _: image_folders[split], open_images=check_images)


def save_lvis(source: SampleSource, folder: Path, place: PlaceImage, *, findings: Findings) -> dict[str, Path]:
    """Write `annotations/lvis_v1_SPLIT.json` and `images/SPLIT/…`; as `save_coco`, without crowds.

    LVIS cannot mark a crowd; they are left out and counted as `lvis_has_no_crowd`.
    """
    frequencies = _frequencies(source)

    def category_fields(category: Category, counted: CategoryCount) -> JsonObject:
        return {
            "synset": category.name,
            "def": "",
            "synonyms": [category.name],
            "frequency": frequencies[category.category_id],
            "image_count": counted.images,
            "instance_count": counted.instances,
        }

    lvis = InstanceFormat("lvis_v1_", _image_fields, category_fields, crowd_finding="lvis_has_no_crowd")
    return save_instances(source, folder, place, lvis, findings=findings)


def _image_fields(image: ImageRecord, category_shift: int) -> JsonObject:
    url = f"{COCO_HOST}{image.split}/{image.file_name}"
    return {"coco_url": url, **category_lists(image, category_shift)}


def _frequencies(source: SampleSource) -> dict[int, Frequency]:
    """Each category's frequency, from the images of the train split where none is declared."""
    declared = {category.category_id: category.frequency for category in source.categories}
    images: Counter[int] = Counter()
    if None in declared.values():
        for sample in source.samples("train" if "train" in source.splits else None):
            images.update({one.category_id for one in sample.annotations if not one.is_crowd})
    return {category_id: known or frequency_group(images[category_id]) for category_id, known in declared.items()}
