"""Drawn defects, of which everything is known."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Ellipse = tuple[int, int, int, int, float]
"""x, y, half length, half width, degrees counter-clockwise."""


def drawn(
    ellipses: Sequence[Ellipse], value: int = 60, ground: int = 140, blur_px: float = 0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    images, masks = [], []
    for x, y, half_length, half_width, degrees in ellipses:
        mask = np.zeros((48, 64), np.uint8)
        cv2.ellipse(mask, (x, y), (half_length, half_width), -degrees, 0, 360, 1, -1)
        grey = np.where(mask > 0, value, ground).astype(np.uint8)
        if blur_px:
            grey = cv2.GaussianBlur(grey, (0, 0), blur_px)
        images.append(np.dstack([grey] * 3))
        masks.append(mask.astype(bool))
    return images, masks
