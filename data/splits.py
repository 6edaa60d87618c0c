"""Sides: which image is learned from and which one measures, decided once per data set."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from .records import Dataset


def set_val_aside(dataset: Dataset, val_share: float) -> Dataset:
    """Move a share of the training images to `val`, where the data set brings no val.

    An image's side follows from its name alone, so it stays when others join or leave.
    """
    if val_share <= 0 or "val" in dataset.splits:
        return dataset
    images = [
        replace(image, split="val") if image.split == "train" and _unit_hash(image.file_name) < val_share else image
        for image in dataset.images
    ]
    return replace(dataset, images=images)


def sides(dataset: Dataset) -> dict[str, list[str]]:
    """Image names by split, as `split.json` records them."""
    names: dict[str, list[str]] = {split: [] for split in dataset.splits}
    for image in dataset.images:
        names[image.split].append(image.file_name)
    return names


def dataset_digest(dataset: Dataset) -> str:
    """Hex sha256 over names, sizes, sides, categories and masks: equal content, equal digest."""
    digest = hashlib.sha256()
    for category in dataset.categories:
        digest.update(f"{category.category_id}\0{category.name}\0".encode())
    for image in dataset.images:
        digest.update(f"{image.image_id}\0{image.file_name}\0{image.width}\0{image.height}\0{image.split}\0".encode())
    table = dataset.annotations
    for column in (table.annotation_id, table.image_index, table.category_id, table.is_crowd):
        digest.update(column.tobytes())
    digest.update(table.coords_xy.tobytes())
    for row in sorted(table.rles):
        digest.update(b"%d:" % row + table.rles[row].counts)
    return digest.hexdigest()


def _unit_hash(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
