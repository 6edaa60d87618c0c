"""A plan's region has its place, size, axes and object; of a repainted picture only the edit is kept."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskwright.data.records import ImageRGB, MaskHW
from maskwright.tools.defects import DefectPlan, EditRequest
from maskwright.tools.painting.plan_region import PlanRegion, keep_edit, plan_to_region

HEIGHT, WIDTH = 96, 128


def _tile(height: int = HEIGHT, width: int = WIDTH) -> ImageRGB:
    grey = np.random.default_rng(0).integers(110, 130, (height, width, 1)).astype(np.uint8)
    return np.repeat(grey, 3, axis=2)


def _request(foreground_hw: MaskHW | None = None, rgb: ImageRGB | None = None, **plan: Any) -> EditRequest:
    image = _tile() if rgb is None else rgb
    values: dict[str, Any] = {"defect": "Fleck ü", "family": "stain", "centre_xy": (0.5, 0.5), "size_ratio": 0.2} | plan
    return EditRequest(
        item_id="item-1",
        seed=3,
        plan=DefectPlan(**values),
        image_rgb=image,
        foreground_hw=np.ones(image.shape[:2], np.bool_) if foreground_hw is None else foreground_hw,
    )


def _core(region: PlanRegion) -> MaskHW:
    return np.asarray(region.alpha_hw == 1)


def _moments(mask_hw: MaskHW) -> tuple[npt.NDArray[np.float64], float, float]:
    """Centre (x, y), ratio of the axes, and angle of the long one counter-clockwise."""
    y, x = np.nonzero(mask_hw)
    values, vectors = np.linalg.eigh(np.cov(np.stack([x, -y])))
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180
    return np.array([x.mean(), y.mean()]), float(np.sqrt(values[1] / values[0])), float(angle)


@pytest.mark.parametrize(
    ("plan", "elongation", "angle"),
    [
        pytest.param({}, 1, None, id="round"),
        pytest.param({"centre_xy": (0.3, 0.7), "elongation": 3.0}, 3, 0, id="level"),
        pytest.param({"elongation": 2.5, "orientation_deg": 60.0}, 2.5, 60, id="turned"),
        pytest.param({"family": "scratch", "elongation": 8.0, "orientation_deg": 120.0}, 8, 120, id="line"),
        pytest.param({"family": "dent", "size_ratio": 0.3, "elongation": 2.0}, 2, 0, id="larger"),
    ],
)
def test_a_region_has_the_plan_s_place_size_and_axes(
    plan: dict[str, Any], elongation: float, angle: float | None
) -> None:
    request = _request(**plan)
    core = _core(plan_to_region(request, 0.25))
    centre, found_elongation, found_angle = _moments(core)
    np.testing.assert_allclose(centre, np.array(request.plan.centre_xy) * (WIDTH - 1, HEIGHT - 1), atol=1)
    assert core.sum() == pytest.approx(request.plan.size_ratio**2 * HEIGHT * WIDTH, rel=0.06)
    assert found_elongation == pytest.approx(elongation, rel=0.08)
    assert angle is None or (found_angle - angle + 90) % 180 - 90 == pytest.approx(0, abs=3)


def test_the_place_is_counted_in_the_object_s_box_and_the_shape_clipped_to_it() -> None:
    foreground = np.zeros((HEIGHT, WIDTH), np.bool_)
    foreground[20:60, 70:120] = True
    core = _core(plan_to_region(_request(foreground, centre_xy=(0.0, 0.5), size_ratio=0.5), 0.25))
    assert core.any()
    assert not core[~foreground].any()
    assert core[:, 70].any()


def test_what_breaks_off_lies_at_the_border_of_the_object() -> None:
    core = _core(plan_to_region(_request(family="chip", centre_xy=(0.5, 0.3)), 0.0))
    assert core[0].any()
    assert not core[HEIGHT // 2].any()


@pytest.mark.parametrize("grow_ratio", [0.0, 0.25, 1.0])
def test_a_region_grows_and_fades_out(grow_ratio: float) -> None:
    region = plan_to_region(_request(elongation=2.0), grow_ratio)
    core, grow_px = _core(region), max(2, round(grow_ratio * np.sqrt(4 / np.pi) * 0.2 * np.sqrt(HEIGHT * WIDTH)))
    away = cv2.distanceTransform((~core).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.testing.assert_array_equal(region.mask_hw, away < grow_px + 1)
    assert (np.diff(region.alpha_hw[HEIGHT // 2, WIDTH // 2 :]) <= 0).all()
    assert region.alpha_hw.dtype == np.float32


@pytest.mark.parametrize("plan", [{"size_ratio": 1e-4, "elongation": 40.0}, {"centre_xy": (1.0, 1.0)}])
def test_the_smallest_and_outermost_plans_have_a_region(plan: dict[str, Any]) -> None:
    assert _core(plan_to_region(_request(**plan), 0.0)).any()


def _repainted(original: ImageRGB, change: str) -> ImageRGB:
    rgb = original.copy()
    if change in ("spot", "spot and noise"):
        rgb[30:50, 40:70] = (60, 20, 20)
    if change == "all":
        rgb = np.random.default_rng(1).integers(0, 256, rgb.shape).astype(np.uint8)
    if change in ("faint", "spot and noise"):
        rgb[10, 10] += 1
    return rgb


@pytest.mark.parametrize("is_grey", [True, False], ids=["grey", "colour"])
@pytest.mark.parametrize("change", ["spot", "spot and noise"])
def test_only_what_is_seen_is_kept(change: str, is_grey: bool) -> None:
    original = _tile() if is_grey else _tile() + np.array([0, 20, 40], np.uint8)
    edited = keep_edit(_request(rgb=original), _repainted(original, change), {"a": 1.0}, usd=0.5)
    spot = np.zeros((HEIGHT, WIDTH), np.bool_)
    spot[30:50, 40:70] = True
    assert edited.mask_hw is not None
    np.testing.assert_array_equal(edited.mask_hw, spot)
    np.testing.assert_array_equal(edited.rgb[~spot], original[~spot])
    assert (edited.rgb.min(axis=2) == edited.rgb.max(axis=2)).all() == is_grey
    assert (edited.parameters, edited.usd, edited.flaw) == ({"a": 1.0}, 0.5, "")


@pytest.mark.parametrize(("change", "flaw"), [("none", "changes nothing"), ("faint", "nothing"), ("all", "whole")])
def test_what_is_no_edit_has_a_flaw_and_costs_all_the_same(change: str, flaw: str) -> None:
    edited = keep_edit(_request(), _repainted(_tile(), change), {}, usd=0.5)
    assert flaw in edited.flaw
    assert edited.usd == 0.5
    assert edited.mask_hw is not None
    assert not edited.mask_hw.any()


def test_an_edit_of_most_of_the_image_is_its_region() -> None:
    original = _tile()
    region = np.zeros((HEIGHT, WIDTH), np.bool_)
    region[:, 10:] = True
    repainted = np.where(region[..., None], np.uint8(255) - original, original)
    edited = keep_edit(_request(), repainted, {}, region_hw=region)
    assert edited.mask_hw is not None
    np.testing.assert_array_equal(edited.mask_hw, region)
    assert edited.flaw == ""
