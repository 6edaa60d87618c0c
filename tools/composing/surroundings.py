"""Light of what surrounds an instance, and an instance in the light of other surroundings."""

from __future__ import annotations

import cv2
import numpy as np

from ...data.records import ImageRGB, ImageRGBA, MaskHW
from .harmonization import RING_PX, outer_ring

MAX_GAIN = 4.0

MeanRGB = tuple[float, float, float]
"""Each in 0..255, sRGB."""


def mean_around(image_rgb: ImageRGB, mask_hw: MaskHW) -> MeanRGB | None:
    """Mean colour of the ring outside a mask; None where the mask leaves no ring.

    Args:
        image_rgb: (H, W, 3) uint8.
        mask_hw: (H, W) bool.
    """
    x, y, w, h = cv2.boundingRect(mask_hw.view(np.uint8))
    frame = np.s_[max(0, y - RING_PX) : y + h + RING_PX, max(0, x - RING_PX) : x + w + RING_PX]
    ring = outer_ring(np.ascontiguousarray(mask_hw[frame]).view(np.uint8))
    if not w or not cv2.countNonZero(ring):
        return None
    red, green, blue, _ = cv2.mean(np.ascontiguousarray(image_rgb[frame]), ring)
    return red, green, blue


def relight(rgba: ImageRGBA, old: MeanRGB, new: MeanRGB) -> ImageRGBA:
    """Make a cut-out as much brighter as its new surroundings are than its old ones, so that its contrast stays.

    Args:
        rgba: (h, w, 4) uint8, straight alpha.
    """
    gains = np.clip((np.array(new) + 1) / (np.array(old) + 1), 1 / MAX_GAIN, MAX_GAIN)
    table = np.rint(np.clip(np.arange(256)[:, None] * gains, 0, 255)).astype(np.uint8)
    lit: ImageRGBA = np.dstack([cv2.LUT(rgba[..., :3], table[None]), rgba[..., 3]])
    return lit
