"""The mask of an edit: where an edited image differs from its original by more than the noise between them.

Editors that repaint a whole image move it by a part of a pixel, shift its tones and encode it again. All three are
taken away first, and named, since they are no defect; what is left above the noise of its surroundings is the edit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ...data.records import ImageRGB, MaskHW
from ...errors import ImageSizeError
from .alignment import STAYS, align, match_tones

GlobalChange = Literal["moved", "toned", "reencoded", "replaced"]
"""What happened to the whole image."""

Floats = npt.NDArray[np.float32]

NOTICEABLE = 2.3
"""Least colour difference (CIE76) that a person notices; a smaller one starts no part."""
FAINT = 1.0
"""Least difference that belongs to a part which is noticeable elsewhere."""
START_SIGMAS, BELONG_SIGMAS = 4.0, 3.0
"""Standard deviations of the noise: on top of what is noticeable to start a part; at least, to belong to one."""
RINGING = 2.5
"""Noise near an edit over that elsewhere: a JPEG rounds more coefficients in a block that has more to say."""
LEAK_SHARE = 0.25
LEAK_REACH = np.ones((5, 5), np.uint8)
"""More of a change, within two pixels, than our blur and an encoder's coarser colours throw onto one that has none."""
BLOCK_PX = 8
SMOOTH_PX = 0.6
"""Standard deviation of the blur that the signed change gets: noise cancels out, outlines keep their half height."""
BLOCK_REACH = np.ones((BLOCK_PX + 1, BLOCK_PX + 1), np.uint8)
ACTIVITY_QUANTILES = (0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
"""Between the bins of the image's own gradient; encoders and misalignment leave more noise where it is steep."""
TONE_LEVELS = 2.0
"""Least mean shift of 255 that is a change of tone."""
REENCODED = 0.05
"""Least noise, in CIE units, between an image and its encoded copy."""
REPLACED_SHARE = 0.5
"""Of the frame: what an edit that kept the image cannot exceed, and beyond which no noise can be told from it."""
MIN_PART_PX = 4
MIN_PART_WEIGHT = 0.05
"""Summed change of a part over that of the heaviest."""
MAX_HOLE_SHARE = 0.1
"""Of a part's area: a larger hole whose pixels are unchanged is one."""


class FeatureMapper(Protocol):
    """Turns an image into a grid of features."""

    def embed_map(self, image: ImageRGB) -> npt.NDArray[np.float32]:
        """(h, w, d) float32, each cell's features of length 1; h and w are the image's over some stride."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What an edit changed."""

    mask_hw: MaskHW
    """(H, W) bool in the frame of the edited image; empty where nothing, or everything, was changed."""
    global_changes: tuple[GlobalChange, ...]
    """Empty for an edit that left the rest alone. With `replaced` there is no mask."""
    moved_xy: tuple[float, float]
    """By how many pixels the edited image is moved against its original; (0, 0) where it is not."""
    noise: float
    """Standard deviation of the change outside the edit, in CIE units."""


def difference_mask(original_rgb: ImageRGB, edited_rgb: ImageRGB, *, features: FeatureMapper | None = None) -> MaskHW:
    """The mask of `compare_images`: (H, W) bool in the frame of the edited image."""
    return compare_images(original_rgb, edited_rgb, features=features).mask_hw


def compare_images(
    original_rgb: ImageRGB, edited_rgb: ImageRGB, *, features: FeatureMapper | None = None
) -> Difference:
    """Find what an edit changed, whatever else was done to the whole image.

    Args:
        original_rgb: (H, W, 3) uint8, sRGB.
        edited_rgb: (H, W, 3) uint8, sRGB.
        features: where given, a part must also have changed in feature space; for editors that redraw all texture.

    Raises:
        ImageSizeError: the images are not of one size.
    """
    _check_frames(original_rgb, edited_rgb)
    aligned, moved_xy = align(original_rgb, edited_rgb)
    toned, tone_levels = match_tones(aligned, edited_rgb)
    size = _measure_change(toned, edited_rgb)
    if float(np.median(size)) > NOTICEABLE:
        return _replaced(size, moved_xy)
    noise_hw = _noise_of(size, _activity(aligned))
    noise = float(np.median(noise_hw))
    mask = _grow(size, noise_hw)
    if mask.mean() > REPLACED_SHARE:
        return _replaced(size, moved_xy)
    if features is not None:
        mask = _supported(mask, aligned, edited_rgb, features)
    named: dict[GlobalChange, bool] = {
        "moved": moved_xy != STAYS,
        "toned": tone_levels >= TONE_LEVELS,
        "reencoded": noise >= REENCODED,
    }
    return Difference(
        mask_hw=_fill(_plausible_parts(mask, size), size, noise_hw),
        global_changes=tuple(name for name, is_so in named.items() if is_so),
        moved_xy=moved_xy,
        noise=noise,
    )


def changed_outside(original_rgb: ImageRGB, edited_rgb: ImageRGB, mask_hw: MaskHW, *, tolerance: int = 0) -> float:
    """Share of the pixels outside a mask that an edit changed; 0 where the mask leaves none.

    Args:
        original_rgb: (H, W, 3) uint8.
        edited_rgb: (H, W, 3) uint8.
        mask_hw: (H, W) bool.
        tolerance: levels of 255 by which a channel may differ; 0: every byte counts.

    Raises:
        ImageSizeError: the three are not of one size.
    """
    _check_frames(original_rgb, edited_rgb)
    if mask_hw.shape != original_rgb.shape[:2]:
        raise ImageSizeError(f"mask of {mask_hw.shape} for an image of {original_rgb.shape[:2]}; expected one frame")
    outside = ~mask_hw
    if not outside.any():
        return 0.0
    return float((cv2.absdiff(original_rgb, edited_rgb).max(axis=2)[outside] > tolerance).mean())


def _check_frames(original_rgb: ImageRGB, edited_rgb: ImageRGB) -> None:
    if original_rgb.shape != edited_rgb.shape:
        raise ImageSizeError(
            f"edited image of {edited_rgb.shape} for an original of {original_rgb.shape}; "
            "expected the same frame: scale the edited one back first"
        )


def _replaced(size: Floats, moved_xy: tuple[float, float]) -> Difference:
    nothing = np.zeros(size.shape, np.bool_)
    return Difference(mask_hw=nothing, global_changes=("replaced",), moved_xy=moved_xy, noise=float(np.median(size)))


def _measure_change(original: Floats, edited_rgb: ImageRGB) -> Floats:
    """(H, W) float32: colour difference (CIE76), denoised where there is noise."""
    change = _to_lab(edited_rgb.astype(np.float32)) - _to_lab(original)
    change -= np.median(change, axis=(0, 1))
    if np.median(np.abs(change)) > 0:
        change = cv2.GaussianBlur(change, (0, 0), SMOOTH_PX)
    return np.asarray(np.linalg.norm(change, axis=2), np.float32)


def _to_lab(rgb: Floats) -> Floats:
    """L in [0, 100], a and b, of (H, W, 3) float32 in [0, 255]."""
    return np.asarray(cv2.cvtColor(rgb / np.float32(255), cv2.COLOR_RGB2LAB))


def _activity(rgb: ImageRGB) -> Floats:
    """(H, W) float32: how steep the image is at most within a block's reach."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    steep = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.asarray(cv2.dilate(cv2.blur(steep, (3, 3)), BLOCK_REACH))


def _noise_of(size: Floats, activity: Floats) -> Floats:
    """(H, W) float32: standard deviation of the change where nothing was edited, by how steep the image is there."""
    edges = np.quantile(activity, ACTIVITY_QUANTILES)
    bins = np.digitize(activity, np.unique(edges))
    noise = np.zeros_like(size)
    for number in np.unique(bins):
        inside = bins == number
        # The lower half is that of the unedited pixels, of which a bin may have few more than half.
        noise[inside] = np.quantile(size[inside], 0.4) / 0.97
    return noise


def _grow(size: Floats, noise_hw: Floats) -> MaskHW:
    """Parts that start where the change is plain and reach as far as it is above noise and ringing."""
    starts = size > NOTICEABLE + START_SIGMAS * noise_hw
    noise_here = np.where(cv2.dilate(starts.astype(np.uint8), BLOCK_REACH) > 0, RINGING, 1.0) * noise_hw
    leak = LEAK_SHARE * cv2.dilate(size, LEAK_REACH) * (noise_hw > 0)
    belongs = size > np.maximum.reduce([np.full_like(size, FAINT), BELONG_SIGMAS * noise_here, leak])
    count, labels = cv2.connectedComponents(belongs.astype(np.uint8), connectivity=8)
    is_started = np.zeros(count, np.bool_)
    is_started[np.unique(labels[starts & belongs])] = True
    is_started[0] = False
    return np.asarray(is_started[labels])


def _supported(mask: MaskHW, original_rgb: ImageRGB, edited_rgb: ImageRGB, features: FeatureMapper) -> MaskHW:
    """The mask where features changed more than they did around it."""
    before, after = features.embed_map(original_rgb), features.embed_map(edited_rgb)
    distance = 1 - (before * after).sum(axis=2)
    middle = float(np.median(distance))
    spread = 1.4826 * float(np.median(np.abs(distance - middle)))
    changed = (distance > middle + BELONG_SIGMAS * spread).astype(np.uint8)
    height, width = mask.shape
    # A cell sees beyond its own square, so its neighbours support a part, too.
    grown = cv2.dilate(changed, np.ones((3, 3), np.uint8))
    supported: MaskHW = cv2.resize(grown, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return mask & supported


def _plausible_parts(mask: MaskHW, size: Floats) -> MaskHW:
    """Without specks, and without parts that weigh next to nothing beside the heaviest."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    weights = np.bincount(labels.ravel(), weights=size.ravel(), minlength=count)
    weights[0] = 0
    keep = (stats[:, cv2.CC_STAT_AREA] >= MIN_PART_PX) & (weights >= MIN_PART_WEIGHT * weights.max())
    keep[0] = False
    return np.asarray(keep[labels])


def _fill(mask: MaskHW, size: Floats, noise_hw: Floats) -> MaskHW:
    """With the holes filled that are small, or changed at all."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    filled = mask.copy()
    largest = MAX_HOLE_SHARE * float(mask.sum())
    height, width = mask.shape
    for number in range(1, count):
        x, y, w, h, area = stats[number].tolist()
        if x == 0 or y == 0 or x + w == width or y + h == height:
            continue
        window = np.s_[y : y + h, x : x + w]
        hole = labels[window] == number
        excess = size[window][hole] - 2 * noise_hw[window][hole]
        if area <= largest or float(np.median(excess)) > FAINT / 2:
            filled[window] |= hole
    return filled
