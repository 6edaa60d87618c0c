"""Sizes follow the training set, shapes keep their edges, and places keep to their limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskwright.configs.compose import ComposeSettings
from maskwright.data.masks import flip_sides
from maskwright.data.records import AnnotationTableBuilder, Category, Dataset, ImageRecord, ImageRGBA
from maskwright.errors import EmptyMaskError
from maskwright.tools.composing.harmonization import HardPaste
from maskwright.tools.composing.placement import (
    UNKNOWN_SIDE,
    SideDistribution,
    SizeStatistics,
    draw_centres,
    draw_side_px,
    fit_cutout,
    measure_sizes,
    paste,
    resize_rgba,
)

FRAME_HW = (48, 64)


def disc(height: int = 40, width: int = 30, rgb: tuple[int, int, int] = (200, 40, 90)) -> ImageRGBA:
    """An ellipse that touches all four sides; its hidden pixels are bright green."""
    yy, xx = np.mgrid[:height, :width]
    inside = ((yy - (height - 1) / 2) / height) ** 2 + ((xx - (width - 1) / 2) / width) ** 2 <= 0.25
    return np.dstack([np.where(inside[..., None], rgb, (0, 255, 0)), inside * 255]).astype(np.uint8)


def data_set(rows: list[tuple[int, int, float, bool]]) -> Dataset:
    """Rows of (image index, category, area, crowd) over two 48x64 training images and a validation image."""
    table = AnnotationTableBuilder()
    for number, (image_index, category_id, area, is_crowd) in enumerate(rows, start=1):
        table.add(
            annotation_id=number,
            image_index=image_index,
            category_id=category_id,
            segmentation=[[0, 0, 4, 0, 4, 4]],
            bbox_xywh=(0, 0, 4, 4),
            area=area,
            is_crowd=is_crowd,
        )
    images = [ImageRecord(i + 1, f"{i}.png", "", 64, 48, split) for i, split in enumerate(("train", "train", "val"))]
    return Dataset(Path(), "coco", tuple(Category(i, str(i)) for i in (1, 2, 3)), images, table.build(len(images)))


def test_sizes_are_measured_per_category_on_training_images_without_crowds():
    frame = 48 * 64
    sizes = measure_sizes(
        data_set(
            [
                (0, 1, frame * 0.01, False),
                (1, 1, frame * 0.09, False),
                (0, 2, frame * 0.04, False),
                (2, 1, frame * 0.81, False),
                (0, 1, frame * 0.81, True),
            ]
        )
    )
    assert sizes.of(1).mean == pytest.approx(0.2)
    assert sizes.of(1).std == pytest.approx(0.1)
    overall_std = float(np.std([0.1, 0.3, 0.2]))
    assert sizes.of(2).mean == pytest.approx(0.2)
    assert sizes.of(2).std == pytest.approx(overall_std), "one instance: own mean, overall std over mean"
    assert sizes.of(3).mean == pytest.approx(0.2), "never seen: overall"


def test_a_data_set_without_instances_has_a_default_size():
    assert measure_sizes(data_set([])).of(1) == UNKNOWN_SIDE


@pytest.mark.parametrize(
    ("mean", "expected_px"),
    [
        pytest.param(0.25, 0.25 * (48 * 64) ** 0.5, id="inside"),
        pytest.param(0.001, 10 / 48 * (48 * 64) ** 0.5, id="least"),
        pytest.param(0.99, 0.5 * (48 * 64) ** 0.5, id="most"),
    ],
)
def test_side_is_clipped_to_the_settings(mean: float, expected_px: float):
    sizes = SizeStatistics({1: SideDistribution(mean, 0.0)}, UNKNOWN_SIDE)
    side = draw_side_px(sizes, 1, FRAME_HW, ComposeSettings(), np.random.default_rng(0))
    assert side == pytest.approx(expected_px)


@pytest.mark.parametrize("aspect", [0.8, 1.0, 1.2])
@pytest.mark.parametrize("margin", [0, 7], ids=["tight", "loose"])
def test_fitted_mask_has_the_wanted_area_whatever_the_aspect(aspect: float, margin: int):
    cutout = np.pad(disc(120, 90), ((margin, margin), (margin, margin), (0, 0)))
    cutout[0, 0] = (0, 255, 0, 0)
    fitted = fit_cutout(cutout, 24.0, FRAME_HW, aspect=aspect)
    assert fitted.area_px == pytest.approx(24**2, rel=0.06)
    _, _, w, h = fitted.mask_box
    assert w / h == pytest.approx(90 / 120 * aspect, rel=0.08)


def test_fitted_box_never_exceeds_the_frame_nor_the_upscale():
    fitted = fit_cutout(disc(100, 8), 40.0, FRAME_HW)
    assert fitted.mask.shape[0] <= FRAME_HW[0]
    assert fit_cutout(disc(10, 10), 40.0, FRAME_HW, max_upscale=2).mask.shape == (20, 20)


@pytest.mark.parametrize(
    ("spans_xy", "limits", "expected_wh"),
    [
        pytest.param((True, False), {}, (64, 26), id="reaches across"),
        pytest.param((True, False), {"max_upscale": 1.2}, (50, 20), id="not enlarged further than allowed"),
        pytest.param((True, False), {"max_side_px": 35}, (50, 20), id="nor to more than the largest area"),
        pytest.param((False, True), {}, (50, 20), id="no room for the other axis"),
        pytest.param((True, True), {}, (64, 48), id="both axes: what is longer than the frame is cut"),
    ],
)
def test_what_both_borders_cut_spans_the_frame_again(
    spans_xy: tuple[bool, bool], limits: dict[str, float], expected_wh: tuple[int, int]
):
    band = np.full((20, 50, 4), 255, np.uint8)
    fitted = fit_cutout(band, 1000**0.5, FRAME_HW, spans_xy=spans_xy, **limits)
    assert fitted.mask_box[2:] == expected_wh


def test_what_is_longer_than_the_frame_it_spans_loses_both_ends_alike():
    band = np.full((10, 81, 4), 255, np.uint8)
    band[:, :, 0] = np.arange(81)
    fitted = fit_cutout(band, 810**0.5, FRAME_HW, spans_xy=(True, False))
    assert fitted.rgba[0, [0, -1], 0].tolist() == [8, 71]
    assert fit_cutout(band, 810**0.5, FRAME_HW).mask_box[2:] == (64, 8), "else it shrinks until it fits"


def test_flip_mirrors_pixels_and_sides():
    left_heavy = disc()
    left_heavy[:, :10, :3] = 0
    plain = fit_cutout(left_heavy, 20, FRAME_HW)
    flipped = fit_cutout(left_heavy, 20, FRAME_HW, flip=True)
    np.testing.assert_array_equal(flipped.rgba, plain.rgba[:, ::-1])
    assert flip_sides(("left", "bottom")) == ("right", "bottom")


@pytest.mark.parametrize(
    ("width", "height"),
    [pytest.param(23, 17, id="shrink"), pytest.param(28, 39, id="shrink a little"), pytest.param(77, 90, id="grow")],
)
def test_resizing_leaves_no_fringe_of_hidden_colours(width: int, height: int):
    resized = resize_rgba(disc(), width, height)
    visible = resized[resized[..., 3] >= 64][:, :3].astype(int)
    assert len(visible) > 100
    assert np.abs(visible - (200, 40, 90)).max() <= 3, "hidden green must not leak into the edge"


def test_a_cut_out_without_opaque_pixels_is_an_error():
    with pytest.raises(EmptyMaskError, match="no opaque pixel"):
        fit_cutout(np.full((9, 7, 4), 127, dtype=np.uint8), 10, FRAME_HW)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        pytest.param(("bottom",), {"bottom"}, id="bottom"),
        pytest.param(("left", "top"), {"left", "top"}, id="corner"),
        pytest.param(("right",), {"right"}, id="right"),
        pytest.param(("left", "right"), {"left"}, id="opposite sides: one"),
        pytest.param(("top", "bottom"), {"bottom"}, id="opposite sides: the lower"),
    ],
)
def test_truncated_sides_lie_flush_against_the_frame(sides: tuple[str, ...], expected: set[str]):
    fitted = fit_cutout(disc(), 18, FRAME_HW)
    for x, y in draw_centres(fitted, FRAME_HW, sides, 0.0, 20, np.random.default_rng(1)).tolist():
        pasted = paste(np.zeros((*FRAME_HW, 3), np.uint8), fitted.rgba, (x, y), HardPaste(), measure=False)
        left, top, w, h = pasted.box_xywh
        flush = {"left": left == 0, "top": top == 0, "right": left + w == 64, "bottom": top + h == 48}
        assert all(flush[side] for side in expected)
        assert (w, h) == fitted.mask_box[2:], "flush means touching, not cut again"


@pytest.mark.parametrize("truncation", [0.0, 0.3])
def test_centres_keep_the_box_within_the_truncation(truncation: float):
    fitted = fit_cutout(disc(), 18, FRAME_HW)
    _, _, w, h = fitted.mask_box
    outside = []
    for x, y in draw_centres(fitted, FRAME_HW, (), truncation, 400, np.random.default_rng(2)).tolist():
        pasted = paste(np.zeros((*FRAME_HW, 3), np.uint8), fitted.rgba, (x, y), HardPaste(), measure=False)
        outside += [1 - pasted.box_xywh[2] / w, 1 - pasted.box_xywh[3] / h]
    assert max(outside) <= truncation + 1e-9
    assert (max(outside) > 0) == (truncation > 0)


@pytest.mark.parametrize(
    ("centre_xy", "box"),
    [
        pytest.param((30, 20), (25, 14, 10, 12), id="inside"),
        pytest.param((2, 20), (0, 14, 7, 12), id="left"),
        pytest.param((63, 47), (58, 41, 6, 7), id="bottom right"),
        pytest.param((-4, -5), (0, 0, 1, 1), id="only a corner"),
    ],
)
def test_paste_truncates_at_the_border(centre_xy: tuple[int, int], box: tuple[int, int, int, int]):
    scene = np.full((*FRAME_HW, 3), 90, dtype=np.uint8)
    square = np.full((12, 10, 4), 255, dtype=np.uint8)
    pasted = paste(scene, square, centre_xy, HardPaste(), measure=False)
    assert pasted.box_xywh == box
    x, y, w, h = box
    expected = np.full((*FRAME_HW, 3), 90)
    expected[y : y + h, x : x + w] = 255
    np.testing.assert_array_equal(scene, expected)


@pytest.mark.parametrize("centre_xy", [(-40, 20), (20, 200), (300, -300)])
def test_paste_outside_the_scene_is_an_error_and_changes_nothing(centre_xy: tuple[int, int]):
    scene = np.full((*FRAME_HW, 3), 90, dtype=np.uint8)
    with pytest.raises(EmptyMaskError, match="no pixel in the scene"):
        paste(scene, disc(), centre_xy, HardPaste())
    assert (scene == 90).all()
