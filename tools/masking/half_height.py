"""Where annotators end a soft defect: at half the height of the step at its outline, not where its last trace fades."""

from __future__ import annotations

import cv2
import numpy as np

from ...data.masks import disc
from ...data.records import ImageRGB, MaskHW
from .difference import SMOOTH_PX

REACH_PX = 3
"""How far a sharp photograph's step reaches; a change that takes more pixels to fade is no step, and stays whole."""
HALF = 0.5
CRUMB_SHARE = 0.1
"""Of the largest part's area: what is smaller is a trace, not a part."""


def end_at_half_height(original_rgb: ImageRGB, edited_rgb: ImageRGB, changed_hw: MaskHW) -> MaskHW:
    """The mask without those pixels of its rim that changed by less than half as much as ones beside them.

    On the real defects of Huang et al. (2018) the first labelled pixel of a blowhole has 70 % of its depth, the last
    one outside 23 %; the mask of all changed pixels is a pixel wider on each side, much for a defect that is ten wide.

    Args:
        original_rgb: (H, W, 3) uint8.
        edited_rgb: (H, W, 3) uint8.
        changed_hw: (H, W) bool, what was changed.

    Returns:
        (H, W) bool, a part of `changed_hw`; all of it where nothing else would be left.
    """
    change = edited_rgb.astype(np.float32) - original_rgb
    seen = np.abs(cv2.GaussianBlur(change, (0, 0), SMOOTH_PX)).max(axis=2) * changed_hw
    strongest = cv2.dilate(seen, disc(REACH_PX))
    padded = np.pad(changed_hw.astype(np.uint8), 1, mode="edge")
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    kept = changed_hw & ((depth > REACH_PX) | (seen >= HALF * strongest))
    # A thin branch is cut off where it meets its crack, which is stronger by far.
    joined = cv2.morphologyEx(np.pad(kept.astype(np.uint8), REACH_PX), cv2.MORPH_CLOSE, disc(REACH_PX))
    joined = joined[REACH_PX:-REACH_PX, REACH_PX:-REACH_PX]
    outlined = _without_crumbs((joined > 0) & changed_hw)
    return outlined if outlined.any() else changed_hw


def _without_crumbs(mask_hw: MaskHW) -> MaskHW:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0
    return np.asarray((areas >= max(CRUMB_SHARE * areas.max(), 1))[labels])
