"""Takes from an edited image what was done to all of it: a move by a part of a pixel, a shift of its tones."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ...data.records import ImageRGB

Floats = npt.NDArray[np.float32]
Pixel = TypeVar("Pixel", np.uint8, np.float32)

STAYS = (0.0, 0.0)
MIN_SIDE_PX = 16
"""Of an image that is large enough to tell a move in."""
MOVE_STEPS = 10
MOVE_SMOOTH_PX = 1.5
"""So that grain is smooth over the distance that phase correlation leaves."""
NEAR = 2.5 * 1.4826
"""Times the median error: where 2.5 standard deviations lie, beyond which a pixel is edited."""
MIN_MOVE_PX = 0.05
MAX_MOVE_PX = 8.0
GAIN_RANGE = (0.5, 2.0)
"""Of a change of contrast that is one of tone; an inverted image is another one."""
LEAST_GAIN = 0.8
"""A correction is made only where it takes the median change below this share of what it was."""


def align(original_rgb: ImageRGB, edited_rgb: ImageRGB) -> tuple[ImageRGB, tuple[float, float]]:
    """Move an original onto an edited image by a fraction of a pixel.

    Args:
        original_rgb: (H, W, 3) uint8, sRGB.
        edited_rgb: (H, W, 3) uint8, sRGB.

    Returns:
        The original moved, and by how many pixels; as it is, and `STAYS`, where that brings them no closer.
    """
    before, after = _grey(original_rgb), _grey(edited_rgb)
    if min(before.shape) < MIN_SIDE_PX or np.median(cv2.absdiff(before, after)) == 0:
        return original_rgb, STAYS
    x, y = _estimate_move(before, after)
    if not MIN_MOVE_PX <= np.hypot(x, y) <= MAX_MOVE_PX:
        return original_rgb, STAYS
    moved = _move(original_rgb, x, y)
    if _typical_change(moved, edited_rgb) > LEAST_GAIN * _typical_change(original_rgb, edited_rgb):
        return original_rgb, STAYS
    return moved, (x, y)


def _move(image: npt.NDArray[Pixel], x: float, y: float) -> npt.NDArray[Pixel]:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    size_wh = image.shape[1::-1]
    moved: npt.NDArray[Pixel] = cv2.warpAffine(
        image, matrix, size_wh, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return moved


def _estimate_move(before: Floats, after: Floats) -> tuple[float, float]:
    """Phase correlation, then Gauss-Newton steps (Lucas and Kanade 1981) on the pixels that were not edited."""
    window = cv2.createHanningWindow(before.shape[::-1], cv2.CV_32F)
    # OpenCV 5 multiplies its inputs by the window in place where they need no padding.
    (x, y), _ = cv2.phaseCorrelate(before.copy(), after.copy(), window)
    before, after = (np.asarray(cv2.GaussianBlur(image, (0, 0), MOVE_SMOOTH_PX)) for image in (before, after))
    for _ in range(MOVE_STEPS):
        if np.hypot(x, y) > MAX_MOVE_PX:
            return STAYS
        moved = _move(before, x, y)
        error = after - moved
        error -= np.median(error)
        near = np.abs(error) <= NEAR * float(np.median(np.abs(error)))
        gradients = [cv2.Sobel(moved, cv2.CV_32F, *order, scale=1 / 8)[near] for order in ((1, 0), (0, 1))]
        columns = np.stack([*(-gradient for gradient in gradients), moved[near], np.ones(near.sum())], axis=1)
        step = np.linalg.lstsq(columns, error[near], rcond=None)[0]
        x, y = x + float(step[0]), y + float(step[1])
    return x, y


def _typical_change(first_rgb: ImageRGB, second_rgb: ImageRGB) -> float:
    """Median over pixels, whatever the tones' shift is."""
    change = _grey(first_rgb) - _grey(second_rgb)
    return float(np.median(np.abs(change - np.median(change))))


def match_tones(original_rgb: ImageRGB, edited_rgb: ImageRGB) -> tuple[Floats, float]:
    """Give an original each channel's offset and gain as the edited image has them outside the edit.

    Args:
        original_rgb: (H, W, 3) uint8, sRGB.
        edited_rgb: (H, W, 3) uint8, sRGB.

    Returns:
        (H, W, 3) float32 in [0, 255], and by how many levels it was shifted on average; 0: it is as it was.
    """
    before, after = original_rgb.astype(np.float32), edited_rgb.astype(np.float32)
    found = float(np.median(np.abs(after - before)))
    matched = np.stack([_fit_line(before[..., channel], after[..., channel]) for channel in range(3)], axis=2)
    if float(np.median(np.abs(after - matched))) > LEAST_GAIN * found or found == 0:
        return before, 0.0
    return matched.clip(0, 255), float(np.abs(matched - before).mean())


def _fit_line(before: Floats, after: Floats) -> Floats:
    """`before` mapped to `after` by least squares over the pixels that stay near the line."""
    mapped = before + np.median(after - before)
    for _ in range(3):
        error = np.abs(after - mapped)
        near = error <= max(1.0, NEAR * float(np.median(error)))
        x, y = before[near], after[near]
        spread = float(x.var())
        slope = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 1 else 1.0
        mapped = np.clip(slope, *GAIN_RANGE) * (before - x.mean()) + y.mean()
    return np.asarray(mapped, np.float32)


def _grey(rgb: ImageRGB) -> Floats:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)
