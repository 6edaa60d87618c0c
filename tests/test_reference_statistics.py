"""What is measured on reference defects is what was drawn."""

from __future__ import annotations

import numpy as np
import pytest
from reference_helpers import Ellipse, drawn

from maskwright.errors import EmptyMaskError, ImageSizeError
from maskwright.tools.judging.reference_statistics import MAX_SHAPES, measure_references


@pytest.mark.parametrize(
    ("ellipse", "elongation"),
    [((32, 24, 8, 8, 0), 1.0), ((32, 24, 16, 4, 0), 4.0), ((32, 24, 18, 3, 60), 6.0)],
    ids=["disc", "level", "slanting"],
)
def test_shape_and_size_are_measured(ellipse: Ellipse, elongation: float) -> None:
    images, masks = drawn([ellipse])
    measured = measure_references(images, masks)
    assert measured.elongation.median == pytest.approx(elongation, rel=0.2)
    assert measured.size_ratio.median == pytest.approx(np.sqrt(masks[0].mean()), rel=1e-6)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_a_common_direction_is_found(degrees: float) -> None:
    measured = measure_references(*drawn([(32, 24, 18, 3, degrees + tilt) for tilt in (-8, 0, 8)]))
    off = (measured.orientation_deg - degrees + 90) % 180 - 90
    assert abs(off) < 4
    low, high = measured.plan_ranges()["orientation_deg"]
    assert 0 <= low < 180
    assert 5 < high - low < 30
    assert (degrees - low) % 180 <= high - low


def test_any_direction_is_none() -> None:
    measured = measure_references(*drawn([(32, 24, 18, 3, degrees) for degrees in (0, 45, 90, 135)]))
    assert measured.orientation_concentration < 0.1
    assert "orientation_deg" not in measured.plan_ranges()


@pytest.mark.parametrize(("value", "contrast"), [(89, -0.2), (191, 0.2)], ids=["darker", "lighter"])
def test_contrast_has_a_sign(value: int, contrast: float) -> None:
    measured = measure_references(*drawn([(32, 24, 10, 6, 0)], value=value))
    assert measured.contrast.median == pytest.approx(contrast, abs=0.001)
    assert measured.darker_share == (contrast < 0)


def test_softer_edges_are_wider() -> None:
    widths = [
        measure_references(*drawn([(32, 24, 14, 10, 0)], blur_px=blur)).edge_width_px.median for blur in (0, 1, 2)
    ]
    assert widths[0] == pytest.approx(1, abs=0.2)
    assert widths[0] + 0.5 < widths[1] < widths[2] - 0.5


def test_places_are_those_of_the_object_not_of_the_frame() -> None:
    images, masks = drawn([(34, 10, 3, 3, 0), (60, 44, 3, 3, 0)])
    foreground = np.zeros((48, 64), bool)
    foreground[6:, 30:] = True
    assert measure_references(images, masks).place_weights == (0, 0.5, 0, 0, 0, 0, 0, 0, 0.5)
    on_object = measure_references(images, masks, [foreground] * 2)
    assert on_object.place_weights == (0.5, 0, 0, 0, 0, 0, 0, 0, 0.5)
    assert on_object.size_ratio.median > measure_references(images, masks).size_ratio.median


def test_what_belongs_to_one_part_stays_together() -> None:
    images, masks = drawn([(16, 24, 24, 3, 90), (50, 12, 12, 10, 0)], value=191)
    long, round_one = measure_references(images, masks).shapes
    assert long.elongation > 3 * round_one.elongation
    assert long.orientation_deg == pytest.approx(90, abs=3)
    assert long.centre_xy == pytest.approx(((16.5) / 64, 24.5 / 48), abs=0.02)
    assert round_one.centre_xy == pytest.approx((50.5 / 64, 12.5 / 48), abs=0.02)
    assert long.contrast > 0 < round_one.contrast


def test_of_many_parts_the_shapes_of_some_are_kept() -> None:
    images, masks = drawn([(16 + number, 24, 8, 3, 0) for number in range(13)])
    many = measure_references(images * 25, masks * 25)
    assert (many.num_parts, len(many.shapes)) == (325, MAX_SHAPES)
    assert len({shape.centre_xy for shape in many.shapes}) == 13


def test_several_parts_count_and_crumbs_do_not() -> None:
    images, masks = drawn([(14, 24, 8, 8, 0)])
    masks[0] |= drawn([(48, 24, 8, 8, 0)])[1][0]
    masks[0][0, 0] = True
    assert measure_references(images, masks).num_parts == 2


def test_few_references_leave_room() -> None:
    one, many = (measure_references(*drawn([(32, 24, 12, 4, 0)] * count)) for count in (1, 6))
    assert one.plan_ranges()["size_ratio"][0] < many.plan_ranges()["size_ratio"][0]
    assert one.plan_ranges()["size_ratio"][1] > many.plan_ranges()["size_ratio"][1]


@pytest.mark.parametrize(
    ("mask", "error", "problem"),
    [
        (np.zeros((48, 64), bool), EmptyMaskError, "no defect pixel in 1 reference masks"),
        (np.ones((64, 48), bool), ImageSizeError, "its mask is 48x64, the picture 64x48"),
    ],
    ids=["empty", "turned"],
)
def test_bad_masks_are_refused(mask: np.ndarray, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        measure_references([np.zeros((48, 64, 3), np.uint8)], [mask])


@pytest.mark.parametrize("whole", [True, False], ids=["everything", "one pixel"])
def test_the_largest_and_the_smallest_mask_are_measured(whole: bool) -> None:
    mask = np.full((48, 64), whole)
    mask[5, 7] = True
    measured = measure_references([np.full((48, 64, 3), 90, np.uint8)], [mask])
    assert measured.contrast.median == 0
    assert measured.edge_width_px.median == 1
    assert measured.size_ratio.median == pytest.approx(np.sqrt(mask.mean()))
