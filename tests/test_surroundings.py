"""A pasted instance in the light of its new surroundings."""

from __future__ import annotations

import numpy as np
import pytest

from maskwright.configs.compose import ComposeSettings
from maskwright.tools.composing.harmonization import HardPaste
from maskwright.tools.composing.placement import UNKNOWN_SIDE, SizeStatistics
from maskwright.tools.composing.scene import CutOut, compose_scene
from maskwright.tools.composing.surroundings import MAX_GAIN, mean_around, relight

HW = (40, 60)


def test_the_mean_is_of_the_ring_alone() -> None:
    image = np.full((*HW, 3), (10, 20, 30), np.uint8)
    mask = np.zeros(HW, bool)
    mask[10:20, 30:36] = True
    image[mask] = 250
    image[:, :15] = 200  # beyond the ring
    assert mean_around(image, mask) == pytest.approx((10, 20, 30))
    mask[:10] = True  # at the border, with a hole
    mask[5:8, 5:8] = False
    assert mean_around(image, mask) is not None


@pytest.mark.parametrize("value", [True, False], ids=["no ring", "no mask"])
def test_nothing_is_around(value: bool) -> None:
    assert mean_around(np.zeros((*HW, 3), np.uint8), np.full(HW, value)) is None


def test_contrast_stays_and_gain_is_bounded() -> None:
    mark = np.dstack([np.full((4, 6, 3), (60, 30, 90), np.uint8), np.full((4, 6), 77, np.uint8)])
    lit = relight(mark, (119, 119, 119), (59, 119, 239))
    assert lit[0, 0].tolist() == [30, 30, 180, 77]
    assert relight(mark, (0, 0, 0), (200, 200, 200))[0, 0, :3].tolist() == [240, 30 * MAX_GAIN, 255]


@pytest.mark.parametrize(("light", "level"), [("own", 60), ("surroundings", 90)])
def test_a_mark_keeps_its_contrast_in_a_scene(light: str, level: int) -> None:
    mark = np.dstack([np.full((12, 10, 3), 60, np.uint8), np.full((12, 10), 255, np.uint8)])
    cutout = CutOut("a", 1, mark, (), 0.2, (119.0, 119.0, 119.0))
    settings = ComposeSettings(light=light, size="source")  # type: ignore[arg-type]
    background = np.full((*HW, 3), 179, np.uint8)
    rng = np.random.default_rng(0)
    scene = compose_scene(background, (), [cutout], SizeStatistics({}, UNKNOWN_SIDE), settings, HardPaste(), rng)
    assert set(np.unique(scene.image_rgb)) == {level, 179}
