"""The procedural painter: every part of a plan moves its own measure, and nothing else of the image changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from maskwright.configs.anomaly import ProceduralSettings
from maskwright.data.records import ImageRGB, MaskHW
from maskwright.tools.defects import DefectPlan, Edited, EditRequest, Family, Relief
from maskwright.tools.judging.reference_statistics import measure_references
from maskwright.tools.masking.half_height import end_at_half_height
from maskwright.tools.painting.procedural.fields import blur, fractal_noise
from maskwright.tools.painting.procedural.painter import FAMILIES, ProceduralPainter
from maskwright.tools.painting.procedural.shapes import Axes, blob
from maskwright.tools.painting.procedural.surface import (
    estimate_blur,
    estimate_light,
    estimate_noise,
    linear_to_srgb,
    srgb_to_linear,
)

LINES = ("scratch", "crack", "thread")
BORDERS = ("chip", "missing_part")
SEEDS = (3, 4, 5)
EVERY_FAMILY = pytest.mark.parametrize("family", get_args(Family))
PAINTER = ProceduralPainter(ProceduralSettings())


def _surface(shape_hw: tuple[int, int] = (144, 192), channels: int = 3, tilt: float = 0.25) -> ImageRGB:
    """A lit, grained surface that brightens to the right, soft as a lens leaves it."""
    generator = np.random.default_rng(0)
    light = 1 + tilt * np.linspace(-1, 1, shape_hw[1], dtype=np.float32)[None, :, None]
    texture = 1 + 0.05 * fractal_noise(generator, shape_hw, 6)[..., None]
    colour = np.array([0.34, 0.24, 0.16] if channels == 3 else [0.25] * 3, np.float32)
    levels = linear_to_srgb(blur((light * texture * colour).astype(np.float32), 0.7))
    noisy = levels + generator.normal(0, 1, (*shape_hw, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _ellipse(shape_hw: tuple[int, int]) -> MaskHW:
    y, x = np.mgrid[: shape_hw[0], : shape_hw[1]]
    return np.asarray(np.hypot((x / shape_hw[1] - 0.5) / 0.45, (y / shape_hw[0] - 0.5) / 0.45) < 1)


def _plan(family: Family, **changes: Any) -> DefectPlan:
    line = family in LINES
    natural: Relief = "added" if family in ("contamination", "thread") else "removed"
    values: dict[str, Any] = {
        "centre_xy": (0.5, 0.0) if family in BORDERS else (0.5, 0.5),
        "size_ratio": 0.12 if line else 0.24,
        "elongation": 16.0 if line else 2.0,
        "irregularity": 0.3,
        "severity": 0.7,
        "relief": "flat" if family in ("stain", "discolouration") else natural,
    }
    return DefectPlan(defect=family, family=family, **(values | changes))


def _request(
    plan: DefectPlan, seed: int = 3, image: ImageRGB | None = None, foreground: MaskHW | None = None
) -> EditRequest:
    image = _surface() if image is None else image
    whole = np.ones(image.shape[:2], np.bool_) if foreground is None else foreground
    return EditRequest(item_id="Teil/ß", seed=seed, plan=plan, image_rgb=image, foreground_hw=whole)


def _paint(plan: DefectPlan, seed: int = 3, image: ImageRGB | None = None, foreground: MaskHW | None = None) -> Edited:
    [edited] = PAINTER.paint([_request(plan, seed, image, foreground)])
    assert edited.flaw == ""
    return edited


def _mask(edited: Edited) -> MaskHW:
    assert edited.mask_hw is not None
    return edited.mask_hw


def _centroid(edited: Edited) -> npt.NDArray[np.float64]:
    y, x = np.nonzero(_mask(edited))
    return np.array([x.mean(), y.mean()])


def _axis_ratio_and_angle(edited: Edited) -> tuple[float, float]:
    """Of the mask's second moments; the angle in [0, 180) counter-clockwise."""
    y, x = np.nonzero(_mask(edited))
    values, vectors = np.linalg.eigh(np.cov(np.stack([x, -y])))
    return float(np.sqrt(values[1] / values[0])), float(np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180)


def _raggedness(edited: Edited) -> float:
    """Outline² over area, of the changed pixels alone."""
    outlines, _ = cv2.findContours(_mask(edited).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return sum(cv2.arcLength(outline, True) for outline in outlines) ** 2 / float(_mask(edited).sum())


def _unevenness(edited: Edited) -> float:
    """How far a line's mask strays from its axis, over its length."""
    y, x = np.nonzero(_mask(edited))
    points = np.stack([x, y], axis=1) - [x.mean(), y.mean()]
    values, _ = np.linalg.eigh(np.cov(points.T))
    return float(np.sqrt(values[0] / values[1]))


def _change(edited: Edited) -> float:
    """Sum of the changed levels of `_surface()`."""
    return float(np.abs(edited.rgb.astype(float) - _surface()).sum())


def _area(edited: Edited) -> float:
    return float(_mask(edited).sum())


def _axis_ratio(edited: Edited) -> float:
    return _axis_ratio_and_angle(edited)[0]


def _right_flank_brighter(plan: DefectPlan) -> float:
    """How far a relief brightens the right-hand flanks against the left-hand ones, compared with the level defect."""

    def rise(seed: int) -> float:
        level = _paint(replace(plan, relief="flat"), seed)
        around = cv2.dilate(_mask(level).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        difference = _paint(plan, seed).rgb.astype(float).mean(axis=2) - level.rgb.mean(axis=2)
        thickness = cv2.distanceTransform(_mask(level).astype(np.uint8), cv2.DIST_L2, 5)
        to_the_right = -np.gradient(blur(thickness, 1.0), axis=1)
        return float(np.cov(difference[around], to_the_right[around])[0, 1])

    return float(np.mean([rise(seed) for seed in SEEDS]))


def _mean(measure: Callable[[Edited], float], plan: DefectPlan) -> float:
    return float(np.mean([measure(_paint(plan, seed)) for seed in SEEDS]))


def test_every_family_is_drawn() -> None:
    assert set(FAMILIES) == set(get_args(Family))


@EVERY_FAMILY
def test_outside_the_mask_every_pixel_is_the_originals(family: Family) -> None:
    image = _surface()
    edited = _paint(_plan(family), image=image)
    mask = _mask(edited)
    assert 0 < mask.sum() < mask.size / 2
    assert np.array_equal(edited.rgb[~mask], image[~mask])
    assert (edited.rgb[mask] != image[mask]).any(axis=1).mean() > 0.7


@EVERY_FAMILY
def test_the_same_request_gives_the_same_pixels_in_any_batch(family: Family) -> None:
    first, second = _request(_plan(family), seed=7), _request(_plan(family), seed=8)
    [alone], [_, batched] = PAINTER.paint([first]), PAINTER.paint([second, first])
    assert np.array_equal(alone.rgb, batched.rgb)
    assert np.array_equal(_mask(alone), _mask(batched))
    assert not np.array_equal(alone.rgb, PAINTER.paint([second])[0].rgb)


@EVERY_FAMILY
def test_place(family: Family) -> None:
    y = 0.0 if family in BORDERS else 0.4
    places = [_centroid(_paint(_plan(family, centre_xy=(x, y)))) for x in (0.3, 0.7)]
    assert places[1][0] - places[0][0] == pytest.approx(0.4 * 191, abs=10)
    for place, x in zip(places, (0.3, 0.7), strict=True):
        assert place[0] == pytest.approx(x * 191, abs=12)


@EVERY_FAMILY
@pytest.mark.parametrize("size_ratio", [0.12, 0.24])
def test_size(family: Family, size_ratio: float) -> None:
    planned_px = size_ratio**2 * 144 * 192
    area = _mean(_area, _plan(family, size_ratio=size_ratio))
    assert 0.7 * planned_px < area < (1.9 if family in LINES else 1.5) * planned_px


@EVERY_FAMILY
def test_elongation(family: Family) -> None:
    low, high = (8.0, 24.0) if family in LINES else (1.2, 4.0)
    short, long = (_mean(_axis_ratio, _plan(family, elongation=value, irregularity=0.1)) for value in (low, high))
    assert long > 1.4 * short


@EVERY_FAMILY
@pytest.mark.parametrize("orientation_deg", [0.0, 35.0, 120.0])
def test_orientation(family: Family, orientation_deg: float) -> None:
    foreground = np.ones((144, 192), np.bool_)
    if family in BORDERS:
        orientation_deg = {0.0: 0.0, 35.0: 90.0, 120.0: 90.0}[orientation_deg]
    elongation = 20.0 if family in LINES else 4.0
    plan = _plan(family, orientation_deg=orientation_deg, elongation=elongation, irregularity=0.1)
    _, angle = _axis_ratio_and_angle(_paint(plan, foreground=foreground))
    away = abs((angle - orientation_deg + 90) % 180 - 90)
    assert away < 15


@EVERY_FAMILY
def test_irregularity(family: Family) -> None:
    measure = _unevenness if family in ("crack", "thread") else _raggedness
    plain, ragged = (_mean(measure, _plan(family, irregularity=value)) for value in (0.0, 1.0))
    assert ragged > 1.12 * plain


@pytest.mark.parametrize("channels", [1, 3])
def test_a_discolouration_is_as_much_lighter_or_darker_as_planned(channels: int) -> None:
    image = _surface(channels=channels)
    for seed in range(4):
        change = {}
        for contrast in (-0.1, 0.1):
            edited = _paint(_plan("discolouration", severity=0.4, contrast=contrast), seed=seed, image=image)
            mask = _mask(edited)
            change[contrast] = float(edited.rgb[mask].astype(float).mean() - image[mask].mean())
        assert change[-0.1] < -5
        assert change[0.1] > 5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("family", ["crack", "hole", "chip", "stain", "thread", "discolouration"])
def test_a_defect_has_the_planned_contrast(family: Family, channels: int) -> None:
    image = _surface(channels=channels, tilt=0.0)
    drawn = {}
    for contrast in (-0.08, -0.25):
        plan = _plan(family, severity=0.5, contrast=contrast, relief="removed" if family == "hole" else "flat")
        edited = [_paint(plan, seed=seed, image=image) for seed in SEEDS]
        drawn[contrast] = measure_references(
            [one.rgb for one in edited], [_mask(one) for one in edited]
        ).contrast.median
    assert drawn[-0.08] == pytest.approx(-0.08, abs=0.03)
    assert drawn[-0.25] < 1.7 * drawn[-0.08]


@pytest.mark.parametrize("family", ["hole", "crack", "scratch", "stain", "contamination", "thread"])
def test_a_size_at_half_height_is_met_within_the_outline(family: Family) -> None:
    image = _surface(tilt=0.0)
    plan = _plan(family, severity=0.8, size_ratio=0.07)
    shares = []
    for seed in SEEDS:
        request = replace(_request(plan, image=image, seed=seed), outline="half_height")
        [edited] = PAINTER.paint([request])
        outlined = end_at_half_height(image, edited.rgb, _mask(edited))
        assert outlined.sum() < _mask(edited).sum()
        assert not (edited.rgb != image)[~_mask(edited)].any()
        shares.append(outlined.sum() / (plan.size_ratio**2 * request.foreground_hw.sum()))
    assert 0.8 < np.mean(shares) < 1.35


@EVERY_FAMILY
@pytest.mark.parametrize("colour_rgb", [None, (230, 40, 40)], ids=["own colour", "red"])
def test_severity(family: Family, colour_rgb: tuple[int, int, int] | None) -> None:
    plans = [_plan(family, severity=value, colour_rgb=colour_rgb) for value in (0.3, 0.6, 0.9)]
    changes = [_mean(_change, plan) for plan in plans]
    assert changes == sorted(changes)
    assert changes[2] > 1.2 * changes[0]


@EVERY_FAMILY
def test_relief_turns_the_shading_round(family: Family) -> None:
    """The light comes from the right, so the right flank of a lump is brighter than its left, of a pit darker."""
    plans = [_plan(family, relief=relief, orientation_deg=90.0, irregularity=0.1) for relief in ("removed", "added")]
    removed, added = map(_right_flank_brighter, plans)
    assert removed < 0 < added


@EVERY_FAMILY
def test_colour(family: Family) -> None:
    """Red against green over the mask, with a green plan and a red one."""

    def redness(colour_rgb: tuple[int, int, int]) -> float:
        edited = _paint(_plan(family, colour_rgb=colour_rgb))
        inside = edited.rgb[_mask(edited)].astype(float).mean(axis=0)
        return float(inside[0] - inside[1])

    assert redness((220, 30, 30)) > redness((30, 220, 30)) + 20


@EVERY_FAMILY
def test_grey_stays_grey(family: Family) -> None:
    edited = _paint(_plan(family, colour_rgb=(200, 60, 20)), image=_surface(channels=1))
    assert np.array_equal(edited.rgb[..., 0], edited.rgb[..., 1])
    assert np.array_equal(edited.rgb[..., 0], edited.rgb[..., 2])


@EVERY_FAMILY
@pytest.mark.parametrize("shape_hw", [(24, 32), (48, 64)], ids=str)
def test_small_images(family: Family, shape_hw: tuple[int, int]) -> None:
    edited = _paint(_plan(family, size_ratio=0.3), image=_surface(shape_hw))
    assert edited.rgb.shape == (*shape_hw, 3)
    assert _mask(edited).shape == shape_hw
    assert _mask(edited).any()


@pytest.mark.parametrize("family", ["crack", "missing_part", "stain"])
def test_large_images(family: Family) -> None:
    mask = _mask(_paint(_plan(family, size_ratio=0.3), image=_surface((768, 1024))))
    assert mask.sum() == pytest.approx(0.09 * mask.size, rel=0.4)


@EVERY_FAMILY
def test_defects_stay_on_the_object(family: Family) -> None:
    """What breaks off also changes the seam, whose pixels show some of the object."""
    foreground = _ellipse((144, 192))
    near = cv2.dilate(foreground.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    edited = _paint(_plan(family, centre_xy=(0.1, 0.5)), foreground=foreground)
    assert not (_mask(edited) & ~(near if family in BORDERS else foreground)).any()


@pytest.mark.parametrize("family", BORDERS)
def test_breaks_go_to_the_border(family: Family) -> None:
    foreground = _ellipse((144, 192))
    edited = _paint(_plan(family, centre_xy=(0.7, 0.5)), foreground=foreground)
    assert (_mask(edited) & ~foreground).any()


def test_a_missing_part_shows_the_background() -> None:
    image, foreground = _surface(), _ellipse((144, 192))
    image[~foreground] = (20, 60, 200)
    edited = _paint(_plan("missing_part", severity=0.9, centre_xy=(0.0, 0.5)), image=image, foreground=foreground)
    gone = np.abs(edited.rgb.astype(int) - (20, 60, 200)).max(axis=2) < 12
    assert (gone & foreground).sum() > 0.3 * _mask(edited).sum()


@pytest.mark.parametrize(
    ("centre_xy", "foreground", "said"),
    [
        ((1.2, 0.5), np.ones((144, 192), np.bool_), "outside the object"),
        ((0.5, 0.5), np.zeros((144, 192), np.bool_), "no foreground"),
        ((0.5, 0.5), np.ones((192, 144), np.bool_), "of another size"),
        ((0.5, 0.5), ~_ellipse((144, 192)), "off the object"),
    ],
    ids=["beyond the box", "no object", "swapped sides", "in the object's opening"],
)
def test_a_plan_off_the_object_is_refused(centre_xy: tuple[float, float], foreground: MaskHW, said: str) -> None:
    request = _request(_plan("hole", centre_xy=centre_xy, size_ratio=0.05), foreground=foreground)
    [edited] = PAINTER.paint([request])
    assert said in edited.flaw
    assert np.array_equal(edited.rgb, request.image_rgb)
    assert not _mask(edited).any()


def test_what_nobody_would_see_is_refused() -> None:
    painter = ProceduralPainter(ProceduralSettings(just_noticeable_levels=64))
    [edited] = painter.paint([_request(_plan("stain", severity=0.0))])
    assert "severer or larger" in edited.flaw


def test_a_black_image_can_be_lightened() -> None:
    black = np.zeros((48, 64, 3), np.uint8)
    assert _mask(_paint(_plan("contamination", colour_rgb=(200, 200, 200)), image=black)).any()


@pytest.mark.parametrize(("axis", "expected_deg"), [("x", 0.0), ("y", 270.0)])
def test_light_comes_from_where_the_object_brightens(axis: str, expected_deg: float) -> None:
    ramp = np.linspace(0.2, 0.6, 64, dtype=np.float32)
    image = np.tile(ramp, (48, 1)) if axis == "x" else np.tile(ramp[:48, None], (1, 64))
    light = estimate_light(image, np.ones((48, 64), np.bool_), np.random.default_rng(0))
    assert light.estimated
    assert abs((light.angle_deg - expected_deg + 180) % 360 - 180) < 5


def test_light_on_a_flat_image_is_drawn_from_the_seed() -> None:
    flat, whole = np.full((48, 64), 0.4, np.float32), np.ones((48, 64), np.bool_)
    angles = {round(estimate_light(flat, whole, np.random.default_rng(seed)).angle_deg) for seed in range(8)}
    assert len(angles) > 4


def test_softer_images_get_softer_edges() -> None:
    step = np.zeros((96, 128), np.float32)
    step[:, 64:] = 0.5
    estimates = [estimate_blur(blur(step, sigma)) for sigma in (0.5, 1.0, 2.0)]
    assert estimates == sorted(estimates)
    assert estimates[2] > estimates[0] + 0.5


def test_noise_is_measured() -> None:
    generator = np.random.default_rng(0)
    noisy = (128 + generator.normal(0, 4, (128, 160))).astype(np.float32)
    assert estimate_noise(noisy) == pytest.approx(4, rel=0.35)


def test_linear_light_goes_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert np.abs(linear_to_srgb(srgb_to_linear(levels)) - levels).max() < 0.01


@pytest.mark.parametrize("raggedness", [0.0, 0.5])
def test_a_blob_has_the_area_it_was_given(raggedness: float) -> None:
    axes = Axes.at((96, 128), (64, 48), 0.5, (60, 30))
    distance = blob(axes, np.ones((96, 128), np.bool_), 1200, raggedness, np.random.default_rng(1))
    assert (distance >= 0).sum() == pytest.approx(1200, rel=0.12)


@pytest.mark.parametrize(("setting", "value"), [("edge_blur_ratio", 4.0), ("grain_ratio", 0.0)])
def test_settings_change_the_pixels(setting: str, value: float) -> None:
    settings = ProceduralSettings().model_copy(update={setting: value})
    request = _request(_plan("hole"))
    assert not np.array_equal(ProceduralPainter(settings).paint([request])[0].rgb, PAINTER.paint([request])[0].rgb)


def test_a_higher_threshold_makes_a_smaller_mask() -> None:
    request = _request(replace(_plan("stain"), severity=0.4))
    areas = [
        _mask(ProceduralPainter(ProceduralSettings(just_noticeable_levels=levels)).paint([request])[0]).sum()
        for levels in (2, 12)
    ]
    assert areas[1] < areas[0]
