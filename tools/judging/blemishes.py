"""What spoils a cut-out whose alpha is clean: it is out of focus, it is two objects, a background clings to it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ...data.records import ImageRGBA, MaskHW

REBLUR_PX = 2.0
OUTLINE_PX = 2
"""What of the inside belongs to the outline, whose colours mix with what was behind it."""
NECK_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Half widths of the bridges that are cut, over that of the widest part."""
RIM_SHARE = 0.4
COLOUR_BINS = (8, 16, 16)
"""Of L, a and b."""
BIN_BLUR = 0.8
"""In bins; a colour at a bin's border belongs to both sides."""

Floats = npt.NDArray[np.float32]


def focus(rgba: ImageRGBA, mask: MaskHW) -> float:
    """How much of the variation between neighbours inside the mask another blur takes away.

    What is out of focus has little to lose (Crete et al. 2007, "The blur effect"). A ratio, so that neither contrast
    nor size counts; in [0, 1], 1 where nothing varies, since flat is not blurred.

    Args:
        rgba: (h, w, 4) uint8.
        mask: (h, w) bool, at least one pixel.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2GRAY).astype(np.float32)
    weight = mask.astype(np.float32)
    blurred_weight = cv2.GaussianBlur(weight, (0, 0), REBLUR_PX, borderType=cv2.BORDER_CONSTANT)
    blurred = cv2.GaussianBlur(grey * weight, (0, 0), REBLUR_PX, borderType=cv2.BORDER_CONSTANT)
    blurred /= np.maximum(blurred_weight, 1e-3)
    inside = _inside(mask)
    before, after = _steps(grey, inside), _steps(blurred, inside)
    total = float(before.sum())
    return min(float(np.maximum(before - after, 0).sum()) / total, 1.0) if total else 1.0


def twin_share(mask: MaskHW) -> float:
    """The second largest part over all parts, at most 0.5, where bridges of any of `NECK_SHARES` are cut.

    Two objects that touch or stand apart come near 0.5; so do glasses, whose lenses are alike.

    Args:
        mask: (h, w) bool, at least one pixel.
    """
    depth = _depth(mask)
    return max(_second_share(depth > share * depth.max()) for share in NECK_SHARES)


def rim_difference(rgba: ImageRGBA, mask: MaskHW) -> float:
    """How much the colours near the outline differ from those far inside, as total variation; in [0, 1].

    A piece of the background that was cut out with an object lies around it and rarely has its colours.

    Args:
        rgba: (h, w, 4) uint8.
        mask: (h, w) bool, at least one pixel.
    """
    depth = _depth(mask)
    inside = _inside(mask)
    rim_depth, core_depth = np.quantile(depth[inside], [RIM_SHARE, 1 - RIM_SHARE])
    lab = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2LAB)
    rim, core = (_colours(lab[part]) for part in (inside & (depth <= rim_depth), inside & (depth >= core_depth)))
    return min(float(np.abs(rim - core).sum() / 2), 1.0)


def _depth(mask: MaskHW) -> Floats:
    """(h, w) float32: distance to the nearest pixel outside the mask; beyond the frame is outside."""
    padded = np.pad(mask, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1])


def _inside(mask: MaskHW) -> MaskHW:
    inside = _depth(mask) > OUTLINE_PX
    return inside if inside.any() else mask


def _steps(grey: Floats, region: MaskHW) -> Floats:
    """(n,) float32: differences between neighbours that both lie in a region."""
    across = np.abs(np.diff(grey, axis=1))[region[:, 1:] & region[:, :-1]]
    down = np.abs(np.diff(grey, axis=0))[region[1:] & region[:-1]]
    return np.concatenate([across, down])


def _second_share(mask: MaskHW) -> float:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = np.sort(stats[1:, cv2.CC_STAT_AREA])
    return float(areas[-2] / areas.sum()) if len(areas) > 1 else 0.0


def _colours(lab: npt.NDArray[np.uint8]) -> Floats:
    """(8, 16, 16): shares of (n, 3) uint8 colours."""
    counts, _ = np.histogramdd(lab, bins=COLOUR_BINS, range=[(0, 256)] * 3)
    kernel = np.ravel(cv2.getGaussianKernel(5, BIN_BLUR))
    for axis in range(3):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, mode="same")
    return np.asarray(counts / counts.sum(), np.float32)
