"""Where a mask ends: at half the height of a soft step, whole where nothing is a step."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskwright.data.records import ImageRGB, MaskHW
from maskwright.tools.masking.half_height import end_at_half_height

Sharp = npt.NDArray[np.uint8]


def _edited(sharp: Sharp, levels: float, blur_px: float, image: int = 128) -> tuple[ImageRGB, ImageRGB, MaskHW]:
    """A plain image, the same with a soft shape on it, and all that changed by two levels."""
    soft = cv2.GaussianBlur(sharp.astype(np.float32), (0, 0), blur_px)
    original = np.full((*sharp.shape, 3), image, np.uint8)
    painted = np.clip(np.rint(original + levels * soft[..., None]), 0, 255).astype(np.uint8)
    return original, painted, np.asarray(np.abs(painted.astype(int) - original).max(axis=2) >= 2)


def _ellipse(shape_hw: tuple[int, int], axes: tuple[int, int], centre_xy: tuple[int, int]) -> Sharp:
    return cv2.ellipse(np.zeros(shape_hw, np.uint8), centre_xy, axes, 20, 0, 360, 1, -1)


def _iou(one: MaskHW, other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("levels", [-90.0, 60.0], ids=["darker", "lighter"])
@pytest.mark.parametrize("axes", [(4, 3), (9, 5), (30, 18)], ids=str)
def test_a_soft_shape_gets_the_outline_of_the_sharp_one(axes: tuple[int, int], levels: float) -> None:
    sharp = _ellipse((90, 120), axes, (60, 45))
    original, painted, changed = _edited(sharp, levels, 1.0)
    outlined = end_at_half_height(original, painted, changed)
    assert _iou(outlined, sharp > 0) > 0.85
    assert _iou(outlined, sharp > 0) > _iou(changed, sharp > 0) + 0.05
    assert not (outlined & ~changed).any()


def test_a_hard_cut_stays_as_it_is() -> None:
    original, painted, changed = _edited(_ellipse((60, 80), (12, 7), (40, 30)), -70, 0.01)
    assert _iou(end_at_half_height(original, painted, changed), changed) > 0.95


def test_a_patch_that_fades_over_many_pixels_stays_whole() -> None:
    original, painted, changed = _edited(_ellipse((160, 200), (50, 40), (100, 80)), -60, 14)
    assert end_at_half_height(original, painted, changed).sum() > 0.9 * changed.sum()


def test_at_the_border_of_the_picture_nothing_is_taken() -> None:
    sharp = np.zeros((60, 90), np.uint8)
    sharp[20:40, :12] = 1
    original, painted, changed = _edited(sharp, -80, 1.0)
    outlined = end_at_half_height(original, painted, changed)
    assert outlined[22:38, 0].all()
    assert _iou(outlined, sharp > 0) > 0.9


def test_a_thin_branch_stays_joined_and_a_crumb_goes() -> None:
    drawn = np.zeros((80, 120), np.float32)
    cv2.line(drawn, (10, 40), (110, 40), 1.0, 5)
    cv2.line(drawn, (60, 40), (90, 12), 0.35, 2)
    drawn[70, 20] = 0.5
    original, painted, changed = _edited((255 * drawn).astype(np.uint8), -100 / 255, 0.7)
    outlined = end_at_half_height(original, painted, changed)
    assert cv2.connectedComponents(outlined.astype(np.uint8))[0] == 2
    assert outlined[12:20, 80:92].any()
    assert not outlined[68:73, 18:23].any()


def test_an_empty_mask_stays_empty_and_a_speck_whole() -> None:
    original, painted, changed = _edited(_ellipse((30, 40), (1, 1), (20, 15)), -3, 0.4)
    assert not end_at_half_height(original, painted, np.zeros_like(changed)).any()
    assert end_at_half_height(original, painted, changed).any()
