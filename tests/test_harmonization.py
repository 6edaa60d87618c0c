"""Harmonizers change the object's pixels only, lessen the seam, and keep the object's colours."""

from __future__ import annotations

import numpy as np
import pytest

from maskwright.configs.compose import ComposeSettings
from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.errors import RecipeError
from maskwright.tools.composing.harmonization import (
    HARMONIZERS,
    Harmonizer,
    alpha_to_mask,
    build_harmonizer,
    measure_seam,
)
from maskwright.tools.composing.placement import paste

WINDOW_HW = (48, 64)
WITHOUT_A_MODEL = sorted(set(HARMONIZERS) - {"diffusion"})
BLENDING = sorted(set(WITHOUT_A_MODEL) - {"none"})


def build(name: str) -> Harmonizer:
    return build_harmonizer(ComposeSettings(harmonization=name))


def background() -> ImageRGB:
    """Smooth and bluish, with a little noise."""
    noise = np.random.default_rng(0).integers(-6, 7, size=(*WINDOW_HW, 3))
    ramp = np.linspace(0, 30, WINDOW_HW[1])[None, :, None]
    return np.clip(np.array([60, 90, 140]) + ramp + noise, 0, 255).astype(np.uint8)


def cutout(region: tuple[slice, slice] = (slice(12, 38), slice(16, 50)), hole: bool = False) -> ImageRGBA:
    """A reddish rectangle with texture."""
    rgba = np.zeros((*WINDOW_HW, 4), dtype=np.uint8)
    noise = np.random.default_rng(1).integers(-15, 16, size=(*WINDOW_HW, 3))
    rgba[..., :3] = np.clip(np.array([190, 70, 50]) + noise, 0, 255)
    rgba[(*region, 3)] = 255
    if hole:
        rgba[20:28, 28:36, 3] = 0
    return rgba


SHAPES = [
    pytest.param(cutout(), id="inside"),
    pytest.param(cutout(hole=True), id="hole"),
    pytest.param(cutout((slice(30, 48), slice(40, 64))), id="corner of the frame"),
    pytest.param(cutout((slice(0, 48), slice(10, 30))), id="top to bottom"),
    pytest.param(cutout((slice(0, 48), slice(0, 64))), id="whole frame"),
    pytest.param(cutout((slice(20, 21), slice(5, 60))), id="one pixel high"),
    pytest.param(cutout((slice(20, 21), slice(5, 6))), id="one pixel"),
    pytest.param(cutout((slice(0, 2), slice(0, 3))), id="two by three in the corner"),
    pytest.param(cutout((slice(0, 0), slice(0, 0))), id="empty"),
]


@pytest.mark.parametrize("rgba", SHAPES)
@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_pixels_outside_the_object_stay(name: str, rgba: ImageRGBA):
    window = background()
    result = build(name).harmonize(window, rgba)
    assert result.shape == window.shape
    assert result.dtype == np.uint8
    outside = rgba[..., 3] == 0
    np.testing.assert_array_equal(result[outside], window[outside])
    np.testing.assert_array_equal(window, background(), err_msg="the window itself is not written")


def test_hard_paste_copies_the_mask_and_nothing_else():
    rgba = cutout()
    rgba[10, 20, 3], rgba[11, 20, 3] = 127, 128
    result = build("none").harmonize(background(), rgba)
    mask = rgba[..., 3] >= 128
    np.testing.assert_array_equal(result, np.where(mask[..., None], rgba[..., :3], background()))
    np.testing.assert_array_equal(alpha_to_mask(rgba), mask)


def test_alpha_blend_is_exact_inside_and_fades_at_the_edge_only():
    rgba = cutout()
    result = build("alpha").harmonize(background(), rgba).astype(int)
    np.testing.assert_array_equal(result[14:36, 18:48], rgba[14:36, 18:48, :3])
    edge = rgba[12, 18:48, :3].astype(int) - result[12, 18:48]
    assert np.abs(edge).max() > 20


@pytest.mark.parametrize("name", BLENDING)
def test_blending_lessens_the_seam(name: str):
    pasted = paste(background(), cutout(), (32, 24), build(name))
    assert pasted.seam is not None
    assert pasted.seam.after.edge_gradient < 0.9 * pasted.seam.before.edge_gradient
    assert pasted.seam.after.colour_gap < pasted.seam.before.colour_gap


def test_poisson_hides_the_seam_better_than_alpha():
    alpha, poisson = (paste(background(), cutout(), (32, 24), build(name)).seam for name in ("alpha", "poisson"))
    assert alpha is not None
    assert poisson is not None
    assert poisson.after.edge_gradient < 0.8 * alpha.after.edge_gradient
    assert poisson.after.colour_gap < 0.8 * alpha.after.colour_gap


@pytest.mark.parametrize("name", WITHOUT_A_MODEL)
def test_the_object_keeps_its_own_colour(name: str):
    result = build(name).harmonize(background(), cutout())
    red, green, blue = result[18:32, 24:42].reshape(-1, 3).mean(axis=0)
    assert red > green + 40, "a red object on a blue ground stays red"
    assert red > blue + 40


def test_color_transfer_moves_brightness_towards_the_surroundings():
    dark = np.full((*WINDOW_HW, 3), 20, dtype=np.uint8)
    before, after = (build(name).harmonize(dark, cutout())[18:32, 24:42].mean() for name in ("alpha", "color_transfer"))
    assert after < before - 5


def test_an_invisible_seam_measures_as_none_and_a_hard_one_as_more():
    window, mask = background(), alpha_to_mask(cutout())
    hard = build("none").harmonize(window, cutout())
    seam = measure_seam(hard, window, mask)
    assert seam.after.edge_gradient == pytest.approx(1, abs=0.25)
    assert seam.after.colour_gap < 5
    assert seam.before.edge_gradient > 1.5
    assert seam.before.colour_gap > 40


def test_an_object_that_fills_its_window_has_no_seam():
    everything = np.ones(WINDOW_HW, dtype=np.uint8)
    seam = measure_seam(background(), background(), everything)
    assert (seam.before.edge_gradient, seam.before.colour_gap) == (0, 0)


def test_measuring_is_a_switch_that_does_not_change_the_pixels():
    measured, unmeasured = background(), background()
    assert paste(measured, cutout(), (30, 20), build("alpha"), measure=True).seam is not None
    assert paste(unmeasured, cutout(), (30, 20), build("alpha"), measure=False).seam is None
    np.testing.assert_array_equal(measured, unmeasured)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(RecipeError, match=r"'blur'.*alpha, color_transfer, diffusion, none, poisson"):
        build("blur")


def test_the_default_of_the_settings_is_known():
    assert ComposeSettings().harmonization in HARMONIZERS
