"""Measures of a painted picture: each number by hand-made masks, and the limits that a clean icon meets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from maskwright.configs.judging import PaintedLimits
from maskwright.data.records import ImageRGBA
from maskwright.errors import EmptyMaskError
from maskwright.models.fetch import WEIGHTS_FOLDER
from maskwright.tools.judging.limits import LimitJudge, painted_bounds
from maskwright.tools.judging.painted import edge_sharpness, fill_holes, measure_painted, painted_hash

HEIGHT, WIDTH = 48, 64
Box = tuple[int, int, int, int]


def _painted(*parts: Box, holes: tuple[Box, ...] = (), seed: int = 0) -> ImageRGBA:
    """(48, 64, 4): a textured picture, opaque in boxes (x, y, w, h) less holes."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    rgba = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    rgba[..., :3] = cv2.resize(texture, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    for alpha, boxes in ((255, parts), (0, holes)):
        for x, y, w, h in boxes:
            rgba[y : y + h, x : x + w, 3] = alpha
    return rgba


def _blurred(rgba: ImageRGBA, sigma: float) -> ImageRGBA:
    soft = rgba.copy()
    soft[..., 3] = cv2.GaussianBlur(rgba[..., 3], (0, 0), sigma)
    return soft


GOOD: Box = (10, 10, 30, 20)


@pytest.mark.parametrize(
    ("rgba", "measure", "value"),
    [
        pytest.param(_painted(GOOD), "area_share", 600 / (48 * 64), id="area"),
        pytest.param(_painted((0, 0, WIDTH, HEIGHT)), "area_share", 1, id="area-of-all"),
        pytest.param(_painted(GOOD), "components", 1, id="one-part"),
        pytest.param(_painted((4, 4, 20, 20), (40, 30, 20, 10)), "components", 2, id="two-parts"),
        pytest.param(_painted((4, 4, 20, 20), (40, 30, 20, 10)), "largest_component", 400 / 600, id="larger-of-two"),
        pytest.param(_painted((4, 4, 20, 20), (60, 40, 1, 1)), "components", 1, id="dust"),
        pytest.param(_painted(GOOD), "border_contact", 0, id="inside"),
        pytest.param(_painted((0, 10, 30, 20)), "border_contact", 20 / 100, id="left"),
        pytest.param(_painted((44, 28, 20, 20)), "border_contact", 0.5, id="corner"),
        pytest.param(_painted((0, 20, WIDTH, 10)), "border_contact", 20 / 148, id="from-side-to-side"),
        pytest.param(_painted((0, 0, WIDTH, HEIGHT)), "border_contact", 1, id="all-border"),
        pytest.param(_painted((0, 10, 30, 20), holes=((5, 15, 5, 5),)), "border_contact", 0.2, id="a-hole-is-inside"),
        pytest.param(_painted(GOOD), "hole_share", 0, id="solid"),
        pytest.param(_painted(GOOD, holes=((15, 15, 10, 6),)), "hole_share", 0.1, id="hole"),
        pytest.param(_painted(GOOD, holes=((15, 10, 10, 6),)), "hole_share", 0, id="notch"),
        pytest.param(_painted((0, 0, 30, 20), holes=((0, 5, 10, 6),)), "hole_share", 0, id="hole-cut-by-the-frame"),
        pytest.param(_painted((4, 4, 20, 20), (30, 4, 20, 20), holes=((8, 8, 4, 5), (34, 8, 4, 5))), "hole_share", 0.05,
                     id="a-hole-each"),
        pytest.param(_painted(GOOD), "edge_sharpness", 1, id="hard-edge"),
        pytest.param(_painted((0, 0, WIDTH, HEIGHT)), "edge_sharpness", 0, id="no-edge-inside"),
        pytest.param(_painted(GOOD), "alpha_softness", 0, id="hard-alpha"),
        pytest.param(_painted(GOOD), "pool_distance_bits", 64, id="empty-pool"),
    ],
)  # fmt: skip
def test_each_measure_is_what_its_name_says(rgba: ImageRGBA, measure: str, value: float) -> None:
    assert measure_painted(rgba, [])[measure] == pytest.approx(value)


def test_a_diagonal_gap_lets_the_outside_in_only_if_it_is_a_path() -> None:
    """Parts are 8-connected, so what encloses may touch by corners alone."""
    mask = np.zeros((5, 6), dtype=np.bool_)
    mask[[0, 1, 1, 2], [1, 0, 2, 1]] = True
    assert fill_holes(mask).sum() == 5


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_an_edge_blurred_by_s_pixels_steps_by_about_two_fifths_of_one_over_s(sigma: float) -> None:
    assert edge_sharpness(_blurred(_painted((0, 0, 32, HEIGHT)), sigma)) == pytest.approx(0.4 / sigma, rel=0.05)


def test_softness_counts_what_is_neither_seen_through_nor_opaque() -> None:
    rgba = _painted(GOOD)
    rgba[10:30, 10:25, 3] = 200
    rgba[0, 0, 3] = 1
    assert measure_painted(rgba, [])["alpha_softness"] == pytest.approx(301 / 601)


def test_the_place_in_the_frame_makes_no_new_instance() -> None:
    rgba = _painted(GOOD)
    moved = np.roll(rgba, (12, 20), axis=(0, 1))
    assert measure_painted(moved, [painted_hash(rgba)])["pool_distance_bits"] == 0
    other = _painted(GOOD, seed=1)
    assert measure_painted(other, [painted_hash(rgba)])["pool_distance_bits"] > 10


@pytest.mark.parametrize("alpha", [0, 127])
def test_a_picture_without_an_object_is_a_bad_sample(alpha: int) -> None:
    rgba = _painted(GOOD)
    rgba[..., 3] = alpha
    with pytest.raises(EmptyMaskError):
        measure_painted(rgba, [])
    with pytest.raises(EmptyMaskError):
        painted_hash(rgba)


def test_a_single_pixel_is_measured() -> None:
    measures = measure_painted(_painted((3, 5, 1, 1)), [])
    assert measures["area_share"] == 1 / (48 * 64)
    assert all(np.isfinite(value) for value in measures.values())


@pytest.mark.parametrize(
    ("rgba", "failed"),
    [
        pytest.param(_painted(GOOD), set(), id="one-clean-object"),
        pytest.param(_painted((0, 0, WIDTH, HEIGHT)), {"area_share", "border_contact", "edge_sharpness"}, id="opaque"),
        pytest.param(_painted((20, 20, 8, 8)), {"area_share"}, id="tiny"),
        pytest.param(_painted((0, 10, 30, 20)), {"border_contact"}, id="cut"),
        pytest.param(_painted((4, 4, 15, 15), (30, 4, 15, 15)), {"largest_component"}, id="two-objects"),
        pytest.param(
            _painted(*((x, y, 6, 6) for x in (2, 20, 40) for y in (2, 20, 40))),
            {"components", "largest_component"},
            id="pieces",
        ),
        pytest.param(_painted(GOOD, holes=((12, 12, 24, 15),)), {"hole_share"}, id="eaten-away"),
        pytest.param(_blurred(_painted((8, 8, 48, 32)), 4), {"edge_sharpness", "alpha_softness"}, id="haze"),
    ],
)
def test_the_limits_name_what_is_wrong(rgba: ImageRGBA, failed: set[str]) -> None:
    verdict = LimitJudge(painted_bounds(PaintedLimits())).judge(measure_painted(rgba, []))
    assert {criterion.name for criterion in verdict.rejections} == failed
    assert verdict.accepted == (not failed)


@pytest.mark.parametrize(
    ("measures", "failed"),
    [
        pytest.param({}, set(), id="neither"),
        pytest.param({"image_image": 0.6, "num_instances": 1.0}, set(), id="both"),
        pytest.param({"num_instances": 2.0}, {"num_instances"}, id="two"),
        pytest.param({"num_instances": 0.0}, {"num_instances"}, id="none-counted"),
        pytest.param({"image_image": 0.2}, {"image_image"}, id="unlike-the-class"),
        pytest.param({"image_image": 0.95}, {"image_image"}, id="a-copy"),
        pytest.param({"image_image": np.nan}, {"image_image"}, id="not-a-number"),
    ],
)
def test_measures_that_are_not_always_taken_are_judged_where_they_are(
    measures: dict[str, float], failed: set[str]
) -> None:
    judge = LimitJudge(painted_bounds(PaintedLimits(min_image_image=0.3, max_image_image=0.9)))
    verdict = judge.judge(measure_painted(_painted(GOOD), []) | measures)
    assert {criterion.name for criterion in verdict.rejections} == failed


def test_a_measure_that_every_picture_has_must_be_there() -> None:
    measures = measure_painted(_painted(GOOD), [])
    for name in measures:
        rest = {other: value for other, value in measures.items() if other != name}
        verdict = LimitJudge(painted_bounds(PaintedLimits())).judge(rest)
        assert [criterion.name for criterion in verdict.rejections] == [name]


def test_clean_icons_meet_the_default_limits() -> None:
    """Pictures of one part in a frame of their own, as the embedded painter was trained on."""
    judge = LimitJudge(painted_bounds(PaintedLimits()))
    files = sorted((WEIGHTS_FOLDER / "sprites" / "bank").glob("*.webp"))[::8]
    verdicts = [judge.judge(measure_painted(np.array(Image.open(file).convert("RGBA")), [])) for file in files]
    assert sum(verdict.accepted for verdict in verdicts) >= 0.9 * len(files)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"min_area_share": 0.6, "max_area_share": 0.5}, id="area"),
        pytest.param({"min_image_image": 0.6, "max_image_image": 0.5}, id="likeness"),
        pytest.param({"max_hole_share": 1.5}, id="range"),
        pytest.param({"min_area_px": 5}, id="unknown"),
    ],
)
def test_limits_that_nothing_meets_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PaintedLimits.model_validate(values)
