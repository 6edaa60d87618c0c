"""The variation painter: the mask follows the pixels, seeds decide, cuts stay level."""

from __future__ import annotations

import numpy as np
import pytest

from maskwright.configs.image_agent import VariationSettings
from maskwright.data.records import ImageRGBA
from maskwright.errors import EmptyMaskError
from maskwright.tools.painting.variation import VariationPainter
from maskwright.tools.protocols import PaintRequest

STILL = dict.fromkeys(
    ("brightness_ratio", "shading_ratio", "contrast_ratio", "saturation_ratio", "hue_deg", "blur_px", "noise_ratio"), 0
)


def _source(height: int = 48, width: int = 64, colour: tuple[int, int, int] = (200, 40, 30)) -> ImageRGBA:
    """A filled ellipse of one colour, on white that must never show."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) / (width / 2 - 1)) ** 2 + ((y - height / 2) / (height / 2 - 1)) ** 2 <= 1
    rgba = np.full((height, width, 4), 255, dtype=np.uint8)
    rgba[inside, :3] = colour
    rgba[..., 3] = inside * 255
    return rgba


def _request(seed: int = 1, strength: float = 1.0, sides: tuple[str, ...] = (), **source: int) -> PaintRequest:
    return PaintRequest(
        item_id="item",
        seed=seed,
        category="thing",
        source_rgba=_source(**source),
        strength=strength,
        truncated_sides=sides,
    )


def _paint(request: PaintRequest, **settings: float) -> ImageRGBA:
    return VariationPainter(VariationSettings(**settings)).paint([request])[0].rgba


def test_strength_zero_without_flip_gives_the_source_back() -> None:
    painted = _paint(_request(strength=0), flip_probability=0)
    opaque = _source()[..., 3] == 255
    rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
    tight = _source()[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert painted.shape == tight.shape
    inside = tight[..., 3] == 255
    assert np.abs(painted[inside].astype(int) - tight[inside]).max() <= 1
    assert (painted[..., 3] >= 128).sum() == inside.sum()


@pytest.mark.parametrize("seed", range(5))
def test_the_mask_follows_the_geometry_and_no_background_bleeds_in(seed: int) -> None:
    painted = _paint(_request(seed), **STILL)
    visible = painted[painted[..., 3] >= 128]
    assert np.abs(visible[:, :3].astype(int) - (200, 40, 30)).max() <= 3


@pytest.mark.parametrize("seed", range(5))
def test_geometry_keeps_the_area_roughly(seed: int) -> None:
    """Rotation, shear and stretch keep areas; perspective shifts each corner by at most 8 %."""
    before = (_source()[..., 3] >= 128).sum()
    after = (_paint(_request(seed), **STILL)[..., 3] >= 128).sum()
    assert 0.7 < after / before < 1.4


def test_equal_seeds_give_equal_pixels_alone_or_in_a_batch() -> None:
    painter = VariationPainter(VariationSettings())
    batch = painter.paint([_request(seed) for seed in (1, 2, 3)])
    alone = [painter.paint([_request(seed)])[0] for seed in (1, 2, 3)]
    for together, single in zip(batch, alone, strict=True):
        np.testing.assert_array_equal(together.rgba, single.rgba)
        assert together.parameters == single.parameters
    assert batch[0].parameters != batch[1].parameters


def test_a_flip_moves_the_cut_to_the_other_side_and_keeps_it_level() -> None:
    painted = VariationPainter(VariationSettings(flip_probability=1)).paint([_request(sides=("left", "bottom"))])[0]
    assert painted.truncated_sides == ("right", "bottom")
    assert painted.parameters["rotation_deg"] == 0


def test_large_sources_are_reduced_without_swapping_sides() -> None:
    painted = _paint(_request(strength=0, height=120, width=300), max_side_px=100, flip_probability=0)
    assert painted.shape[1] == pytest.approx(100, abs=2)
    assert painted.shape[0] == pytest.approx(40, abs=2)


def test_no_source_and_no_visible_pixel_are_bad_samples() -> None:
    painter = VariationPainter(VariationSettings())
    with pytest.raises(EmptyMaskError, match="needs a source"):
        painter.paint([PaintRequest(item_id="i", seed=1, category="c", source_rgba=None, strength=1)])
    empty = np.zeros((48, 64, 4), dtype=np.uint8)
    with pytest.raises(EmptyMaskError):
        painter.paint([PaintRequest(item_id="i", seed=1, category="c", source_rgba=empty, strength=1)])
