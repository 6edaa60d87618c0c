"""Data sets made of numbers alone: rectangles in photographs that no file holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from maskwright.data.records import AnnotationTableBuilder, Category, Dataset, ImageRecord


class Rectangle(NamedTuple):
    """One annotation; `photograph` is an index into the data set's images."""

    category_id: int
    photograph: int
    width: int = 40
    height: int = 40
    x: int = 50


def build_dataset(categories: Sequence[Category], splits: Sequence[str], rectangles: Sequence[Rectangle]) -> Dataset:
    """Photographs of 640x480, one a split named."""
    images = [
        ImageRecord(number, f"bild {number} ü.png", "nirgends", 640, 480, split)
        for number, split in enumerate(splits, start=1)
    ]
    builder = AnnotationTableBuilder()
    for number, (category_id, photograph, width, height, x) in enumerate(rectangles, start=1):
        right, bottom = x + width, 50 + height
        builder.add(
            annotation_id=number,
            image_index=photograph,
            category_id=category_id,
            segmentation=[[x, 50, right, 50, right, bottom, x, bottom]],
            bbox_xywh=(x, 50, width, height),
            area=width * height,
        )
    return Dataset(Path("nirgends"), "coco", tuple(categories), images, builder.build(len(images)))
