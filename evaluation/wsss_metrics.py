"""Intersection over union by class, from one confusion matrix over all pixels of all images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.label_records import UNKNOWN_LEVEL, ClassMapHW

BACKGROUND = "background"
Confusion = npt.NDArray[np.int64]
"""(levels, levels): pixels by true level in rows and found level in columns; level 0 is background."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationFigures:
    """Of one set of images, in [0, 1]."""

    num_images: int
    mean_iou: float
    """Over background and the classes that are true somewhere; the field's mIoU."""
    iou: Mapping[str, float | None]
    """By class, background first; None where no true pixel shows it."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no true pixel shows; they are no part of the mean."""
        return tuple(name for name, value in self.iou.items() if value is None)


class SegmentationMeter:
    """Counts pixels, image by image.

    Args:
        classes: without background.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.names = (BACKGROUND, *classes)
        self.confusion: Confusion = np.zeros((len(self.names), len(self.names)), np.int64)
        self.num_images = 0

    def add(self, found_hw: ClassMapHW, true_hw: ClassMapHW) -> None:
        """Count an image; pixels where the truth is `UNKNOWN_LEVEL` do not count.

        Raises:
            ValueError: sizes differ, or a level is none of the classes'.
        """
        self.confusion += count_pixels(found_hw, true_hw, len(self.names))
        self.num_images += 1

    def measure(self) -> SegmentationFigures:
        """Figures of what was counted.

        Raises:
            ValueError: no pixel with a known truth was added.
        """
        iou = confusion_to_iou(self.confusion)
        if np.isnan(iou).all():
            raise ValueError("no pixel with a known truth; expected images with masks. Look at the split's sides.")
        by_class = {
            name: None if math.isnan(value) else float(value) for name, value in zip(self.names, iou, strict=True)
        }
        return SegmentationFigures(num_images=self.num_images, mean_iou=float(np.nanmean(iou)), iou=by_class)


def count_pixels(found_hw: ClassMapHW, true_hw: ClassMapHW, num_levels: int) -> Confusion:
    """An image's confusion matrix.

    Args:
        found_hw: (H, W) uint8, levels below `num_levels`.
        true_hw: (H, W) uint8, levels below `num_levels` or `UNKNOWN_LEVEL`.

    Raises:
        ValueError: sizes differ, or a level is out of range.
    """
    if found_hw.shape != true_hw.shape:
        raise ValueError(f"a map of {found_hw.shape} for a truth of {true_hw.shape}; expected equal sizes")
    known = true_hw != UNKNOWN_LEVEL
    found, true = found_hw[known].astype(np.int64), true_hw[known].astype(np.int64)
    if found.size and max(found.max(), true.max()) >= num_levels:
        raise ValueError(f"level {max(found.max(), true.max())}; expected less than {num_levels}, or {UNKNOWN_LEVEL}")
    counts = np.bincount(num_levels * true + found, minlength=num_levels**2)
    return counts.reshape(num_levels, num_levels)


def confusion_to_iou(confusion: Confusion) -> npt.NDArray[np.float64]:
    """(levels,) float64 in [0, 1]; NaN for a level that no true pixel has."""
    hits, true = np.diag(confusion), confusion.sum(axis=1)
    union = true + confusion.sum(axis=0) - hits
    return np.where(true > 0, hits / np.maximum(union, 1), np.nan)
