"""A drawn defect brought to a planned contrast."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ....data.masks import disc
from ....data.records import ImageRGB, MaskHW
from ...judging.reference_statistics import RING_PX
from .fields import FieldHW, FieldHWC

LEAST_FACTOR, MOST_FACTOR = 0.5, 4.0
"""Of what physics drew; beyond, it would be another kind of defect."""
ROUNDS = 3
"""Levels are clipped, and the outline moves as faint edges come to be seen."""


def bring_to_contrast(
    levels_hwc: FieldHWC,
    change_hwc: FieldHWC,
    before: ImageRGB,
    contrast: float,
    noticed_in: Callable[[ImageRGB], MaskHW],
) -> FieldHWC:
    """What was drawn with its change made stronger or weaker; one that goes the other way stays as it is.

    Args:
        levels_hwc: (H, W, C) float32, sRGB levels as drawn.
        change_hwc: (H, W, C) float32, what of them is the defect's doing; without the surface's texture, which would be
            turned inside out where a cover is made stronger than opaque.
        before: (H, W, 3) uint8.
        contrast: wanted mean grey of the defect less that of its surroundings, in [-1, 1].
        noticed_in: (H, W) bool of what is to be seen of the defect in a picture.
    """
    own_grey, change_grey = _grey(before), change_hwc.mean(axis=2)
    levels, factor = levels_hwc, 1.0
    for _ in range(ROUNDS):
        painted = to_picture(levels)
        mask = noticed_in(painted)
        ring = (cv2.dilate(mask.astype(np.uint8), disc(RING_PX)) > 0) & ~mask
        if not mask.any() or not ring.any():
            break
        lacking = 255 * contrast - float(_grey(painted)[mask].mean() - own_grey[ring].mean())
        slope = float(change_grey[mask].mean())
        if slope * contrast <= 0:
            break
        factor = float(np.clip(factor + lacking / slope, LEAST_FACTOR, MOST_FACTOR))
        levels = np.asarray(levels_hwc + (factor - 1) * change_hwc, dtype=np.float32)
    return levels


def _grey(rgb: ImageRGB) -> FieldHW:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), dtype=np.float32)


def to_picture(levels_hwc: FieldHWC) -> ImageRGB:
    """(H, W, 3) uint8 of levels of one or three channels."""
    shape = (*levels_hwc.shape[:2], 3)
    return np.asarray(np.clip(np.rint(np.broadcast_to(levels_hwc, shape)), 0, 255), dtype=np.uint8)
