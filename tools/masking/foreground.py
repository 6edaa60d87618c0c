"""The object of a normal image: everything, or what stands out from one plain background."""

from __future__ import annotations

import cv2
import numpy as np

from ...data.records import ImageRGB, MaskHW

PLAIN_LEVELS = 6.0
"""Most spread (standard deviation, Lab in 8 bits) along the image's border that counts as one plain background."""
STANDS_OUT_LEVELS = 14.0
"""Least distance to the background's colour, same units."""
SHARES = (0.05, 0.95)
"""Of the image, that an object before a background can take; beyond them everything is the object."""


def find_foreground(image_rgb: ImageRGB) -> MaskHW:
    """The object in (H, W, 3) uint8, as (H, W) bool; all True where there is no plain background around it."""
    lab = cv2.cvtColor(cv2.GaussianBlur(image_rgb, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]])
    everything = np.ones(image_rgb.shape[:2], np.bool_)
    if float(border.std(axis=0).max()) > PLAIN_LEVELS:
        return everything
    distance = np.linalg.norm(lab - np.median(border, axis=0), axis=2)
    raw = (distance > STANDS_OUT_LEVELS).astype(np.uint8)
    closed = cv2.morphologyEx(raw, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    if count < 2:
        return everything
    largest = 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    contours, _ = cv2.findContours((labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(raw.shape, np.uint8), contours, -1, 1, cv2.FILLED).astype(np.bool_)
    return filled if SHARES[0] <= float(filled.mean()) <= SHARES[1] else everything
