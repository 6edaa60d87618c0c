"""The procedural painter where there is hardly room: one pixel high or wide, an object of one pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from maskwright.configs.anomaly import ProceduralSettings
from maskwright.data.records import MaskHW
from maskwright.tools.defects import DefectPlan, Edited, EditRequest, Family
from maskwright.tools.painting.procedural.fields import slopes
from maskwright.tools.painting.procedural.painter import ProceduralPainter

PAINTER = ProceduralPainter(ProceduralSettings())
SHAPES = [(1, 1), (1, 64), (64, 1), (2, 2), (2, 64), (8, 8), (48, 64)]
EVERY_SHAPE = pytest.mark.parametrize("shape_hw", SHAPES, ids=str)


def _everywhere(shape_hw: tuple[int, int]) -> MaskHW:
    return np.ones(shape_hw, np.bool_)


def _middle(shape_hw: tuple[int, int]) -> MaskHW:
    mask = np.zeros(shape_hw, np.bool_)
    mask[shape_hw[0] // 2, shape_hw[1] // 2] = True
    return mask


def _paint(family: Family, foreground: MaskHW, channels: int, size_ratio: float) -> tuple[EditRequest, Edited]:
    levels = np.random.default_rng(0).integers(90, 150, (*foreground.shape, channels), dtype=np.uint8)
    plan = DefectPlan(
        defect="Riß",
        family=family,
        centre_xy=(0.5, 0.5),
        size_ratio=size_ratio,
        elongation=300.0,
        orientation_deg=30.0,
        severity=0.9,
        relief="removed",
    )
    image = np.repeat(levels, 3 // channels, axis=2)
    request = EditRequest(item_id="a", seed=1, plan=plan, image_rgb=image, foreground_hw=foreground)
    [edited] = PAINTER.paint([request])
    return request, edited


@EVERY_SHAPE
@pytest.mark.parametrize("foreground", [_everywhere, _middle], ids=["all object", "one pixel of object"])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("size_ratio", [0.1, 1.0], ids=["small", "as large as the object"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_defect_or_a_reason(
    shape_hw: tuple[int, int], foreground: Callable[[tuple[int, int]], MaskHW], channels: int, size_ratio: float
) -> None:
    for family in get_args(Family):
        request, edited = _paint(family, foreground(shape_hw), channels, size_ratio)
        mask = edited.mask_hw
        assert mask is not None
        assert edited.rgb.shape == request.image_rgb.shape
        assert np.array_equal(edited.rgb[~mask], request.image_rgb[~mask])
        if mask.any():
            assert edited.flaw == ""
            assert (edited.rgb != request.image_rgb).any()
        else:
            assert "severer or larger" in edited.flaw


@EVERY_SHAPE
def test_an_empty_object_is_refused(shape_hw: tuple[int, int]) -> None:
    _, edited = _paint("hole", np.zeros(shape_hw, np.bool_), 3, 0.1)
    assert "no foreground" in edited.flaw


@pytest.mark.parametrize("shape_hw", [(1, 6), (6, 1)], ids=str)
def test_most_defects_fit_on_a_line_of_pixels(shape_hw: tuple[int, int]) -> None:
    painted = [family for family in get_args(Family) if not _paint(family, _everywhere(shape_hw), 3, 0.8)[1].flaw]
    assert len(painted) > 5, painted


def test_slopes_are_those_of_numpy_and_nothing_across_one_pixel() -> None:
    field = np.random.default_rng(0).random((5, 7), np.float32)
    assert np.array_equal(slopes(field), np.gradient(field))
    down, right = slopes(field[:1])
    assert not down.any()
    assert np.array_equal(right[0], np.gradient(field[0]))
