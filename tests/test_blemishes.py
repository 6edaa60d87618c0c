"""What spoils a picture behind a clean alpha: blur, a second object, a background that was cut out with the object."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskwright.configs.judging import PaintedLimits
from maskwright.data.records import ImageRGBA, MaskHW
from maskwright.models.fetch import WEIGHTS_FOLDER
from maskwright.models.sprites.bank import PictureBank
from maskwright.tools.judging.blemishes import focus, rim_difference, twin_share
from maskwright.tools.judging.limits import LimitJudge, painted_bounds
from maskwright.tools.judging.measures import alpha_to_mask
from maskwright.tools.judging.painted import measure_painted

HEIGHT, WIDTH = 48, 64


def _discs(*discs: tuple[int, int, int], bridge_px: int = 0, hole_px: int = 0) -> MaskHW:
    """(48, 64) bool: discs (x, y, radius), a bridge from the first to the last, a hole in each."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x, y, radius in discs:
        cv2.circle(mask, (x, y), radius, 1, -1)
        if hole_px:
            cv2.circle(mask, (x, y), hole_px, 0, -1)
    if bridge_px:
        cv2.line(mask, discs[0][:2], discs[-1][:2], 1, bridge_px)
    return mask.astype(np.bool_)


def _checked(size: int = 4) -> ImageRGBA:
    """(48, 64, 4): an ellipse of squares in two greys."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    grey = np.where((x // size + y // size) % 2, 200, 90).astype(np.uint8)
    alpha = np.where(((x - 32) / 28) ** 2 + ((y - 24) / 20) ** 2 < 1, 255, 0).astype(np.uint8)
    return np.dstack([grey, grey, grey, alpha])


def _blurred(rgba: ImageRGBA, sigma: float) -> ImageRGBA:
    """Colours alone; the outline stays crisp."""
    return np.dstack([cv2.GaussianBlur(rgba[..., :3], (0, 0), sigma), rgba[..., 3]])


def _focus(rgba: ImageRGBA) -> float:
    return focus(rgba, alpha_to_mask(rgba))


@pytest.mark.parametrize("size", [12, 16])
def test_blur_lowers_focus_and_the_default_limit_lies_between(size: int) -> None:
    sharp = _checked(size)
    sharpness = [_focus(sharp), *(_focus(_blurred(sharp, sigma)) for sigma in (1, 2, 3))]
    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] > PaintedLimits().min_focus > sharpness[-1]


def test_contrast_and_what_lies_outside_do_not_count_for_focus() -> None:
    sharp = _checked()
    faint, framed = sharp.copy(), sharp.copy()
    faint[..., :3] = 120 + (sharp[..., :3].astype(np.int16) - 145) // 2
    framed[sharp[..., 3] == 0, :3] = 255
    assert _focus(faint) == pytest.approx(_focus(sharp), abs=0.03)
    assert _focus(framed) == pytest.approx(_focus(sharp), abs=1e-6)


def test_flat_is_not_blurred() -> None:
    flat = _checked()
    flat[..., :3] = 128
    assert _focus(flat) == 1


@pytest.mark.parametrize(
    ("mask", "share"),
    [
        pytest.param(_discs((32, 24, 18)), 0, id="one"),
        pytest.param(_discs((32, 24, 18), hole_px=6), 0, id="a-ring"),
        pytest.param(_discs((14, 24, 11), (46, 24, 11)), 0.5, id="two-apart"),
        pytest.param(_discs((21, 24, 11), (43, 24, 11)), 0.5, id="two-that-touch"),
        pytest.param(_discs((14, 24, 11), (46, 24, 11), bridge_px=3), 0.5, id="glasses"),
        pytest.param(_discs((30, 24, 18), (58, 24, 4), bridge_px=3), 0.05, id="a-cup-and-its-handle"),
        pytest.param(np.ones((HEIGHT, WIDTH), np.bool_), 0, id="all"),
        pytest.param(np.eye(HEIGHT, WIDTH, dtype=np.bool_), 0, id="a-line"),
    ],
)
def test_twin_share_is_that_of_a_second_part_behind_a_thin_bridge(mask: MaskHW, share: float) -> None:
    assert twin_share(mask) == pytest.approx(share, abs=0.05)


def test_a_rim_of_other_colours_differs_and_one_of_the_same_does_not() -> None:
    plain = _checked()
    clinging = plain.copy()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    outer = ((x - 32) / 18) ** 2 + ((y - 24) / 11) ** 2 >= 1
    clinging[outer, :3] = (40, 120, 60)
    mask = alpha_to_mask(plain)
    assert rim_difference(plain, mask) < 0.15
    assert rim_difference(clinging, mask) > 0.8


@pytest.mark.parametrize(
    ("x", "y", "width", "height"), [(3, 5, 1, 1), (0, 0, 64, 1), (63, 0, 1, 48)], ids=["pixel", "row", "column"]
)
def test_slivers_are_measured(x: int, y: int, width: int, height: int) -> None:
    rgba = _checked()
    rgba[..., 3] = 0
    rgba[y : y + height, x : x + width, 3] = 255
    measures = measure_painted(rgba, [])
    assert all(0 <= measures[name] <= 1 for name in ("focus", "twin_share", "rim_difference"))


@pytest.mark.parametrize(
    ("name", "strict_refuses"),
    [
        ("sunglasses", {"twin_share"}),
        ("bicycle", {"twin_share"}),
        ("scissors", set()),
        ("seven o’clock", {"rim_difference"}),
        ("cat", set()),
    ],
)
def test_sound_pictures_meet_the_defaults_and_the_strict_limits_cost_what_their_descriptions_say(
    name: str, strict_refuses: set[str]
) -> None:
    bank = PictureBank.from_folder(WEIGHTS_FOLDER / "sprites" / "bank")
    index = next(number for number, entry in enumerate(bank.entries) if entry.label == name)
    rgba = ((bank.picture(index).permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    measures = measure_painted(rgba, [])
    names = {"twin_share", "rim_difference", "focus"}

    def refused(limits: PaintedLimits) -> set[str]:
        return {one.name for one in LimitJudge(painted_bounds(limits)).judge(measures).rejections} & names

    assert refused(PaintedLimits()) == set()
    assert refused(PaintedLimits(max_twin_share=0.3, max_rim_difference=0.55)) == strict_refuses
