"""Labels agree with pixels, originals obey the rules of occlusion, and every instance finds its scene."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from maskwright.configs.compose import ComposeSettings
from maskwright.data.masks import (
    mask_to_bbox,
    mask_to_rle,
    mask_to_segmentation,
    rle_to_mask,
    segmentation_to_mask,
    segmentation_to_rle,
)
from maskwright.data.records import Annotation, MaskHW, Polygons, Rle
from maskwright.errors import RecipeError
from maskwright.tools.composing.harmonization import HARMONIZERS, build_harmonizer
from maskwright.tools.composing.occlusion import (
    crop_to_segmentation,
    occlude,
    segmentation_bounds,
    segmentation_to_crop,
)
from maskwright.tools.composing.placement import SideDistribution, SizeStatistics
from maskwright.tools.composing.scene import CutOut, Scene, compose_scene, plan_scenes

H, W = 48, 64
GREY = 90
SIZES = SizeStatistics({}, SideDistribution(0.3, 0.08))


def make_mask(*boxes_xyxy: tuple[int, int, int, int]) -> MaskHW:
    mask = np.zeros((H, W), dtype=np.bool_)
    for x0, y0, x1, y1 in boxes_xyxy:
        mask[y0:y1, x0:x1] = True
    return mask


def make_original(annotation_id: int, mask: MaskHW, *, is_crowd: bool = False, as_rle: bool = False) -> Annotation:
    segmentation = mask_to_rle(mask) if as_rle else mask_to_segmentation(mask)
    return Annotation(annotation_id, 1, segmentation, mask_to_bbox(mask), float(mask.sum()), is_crowd)


def make_cutout(index: int, *, hole: bool = False, sides: tuple[str, ...] = ()) -> CutOut:
    """An ellipse of one colour, which no other cut-out of these tests has."""
    yy, xx = np.mgrid[:60, :44]
    inside = ((yy - 29.5) / 60) ** 2 + ((xx - 21.5) / 44) ** 2 <= 0.25
    if hole:
        inside &= ((yy - 29.5) / 60) ** 2 + ((xx - 21.5) / 44) ** 2 > 0.05
    rgb = np.broadcast_to((255 - 20 * index, 20 * index, 10), (60, 44, 3))
    return CutOut(f"instance-{index}", 7, np.dstack([rgb, inside * 255]).astype(np.uint8), sides)


def compose(
    cutouts: list[CutOut],
    originals: list[Annotation] | None = None,
    seed: int = 0,
    harmonization: str = "none",
    settings: ComposeSettings | None = None,
) -> Scene:
    return compose_scene(
        np.full((H, W, 3), GREY, dtype=np.uint8),
        originals or [],
        cutouts,
        SIZES,
        settings or ComposeSettings(),
        build_harmonizer(ComposeSettings(harmonization=harmonization)),
        np.random.default_rng(seed),
    )


def decode(annotation: Annotation) -> MaskHW:
    return segmentation_to_mask(annotation.segmentation, H, W)


@pytest.mark.parametrize("hole", [False, True], ids=["solid", "hole"])
@pytest.mark.parametrize("seed", range(8))
def test_labels_are_exactly_the_pixels_that_changed(seed: int, hole: bool):
    cutouts = [make_cutout(i, hole=hole) for i in range(4)]
    scene = compose(cutouts, seed=seed)
    assert len(scene.annotations) + len(scene.unplaced) == 4
    seen = np.zeros((H, W), dtype=np.int64)
    for labelled in scene.annotations:
        mask = decode(labelled.annotation)
        index = int(str(labelled.instance_id).removeprefix("instance-"))
        colour = scene.image_rgb[mask].astype(int)
        assert np.abs(colour - (255 - 20 * index, 20 * index, 10)).max() <= 4, "its own pixels, up to 8-bit rounding"
        assert labelled.annotation.area == mask.sum()
        assert labelled.annotation.bbox_xywh == mask_to_bbox(mask)
        seen += mask
    np.testing.assert_array_equal(seen, (scene.image_rgb != GREY).any(axis=2), err_msg="once each, none missing")


@pytest.mark.parametrize("name", sorted(set(HARMONIZERS) - {"diffusion"}))
def test_places_do_not_depend_on_the_harmonizer_and_are_reproducible(name: str):
    cutouts = [make_cutout(i) for i in range(3)]
    scene, again = (compose(cutouts, seed=5, harmonization=name) for _ in range(2))
    np.testing.assert_array_equal(scene.image_rgb, again.image_rgb)
    hard = compose(cutouts, seed=5)
    assert [a.pasted_xywh for a in scene.annotations] == [a.pasted_xywh for a in hard.annotations]
    assert all(a.seam is not None for a in scene.annotations)


def test_another_seed_is_another_scene():
    assert (compose([make_cutout(0)], seed=1).image_rgb != compose([make_cutout(0)], seed=2).image_rgb).any()


@pytest.mark.parametrize("seed", range(6))
def test_earlier_pastes_keep_the_least_visible_share(seed: int):
    cutouts = [make_cutout(i) for i in range(6)]
    scene = compose(cutouts, seed=seed, settings=ComposeSettings(min_visible=0.7, truncation=0))
    shares = []
    for labelled in scene.annotations:
        assert labelled.pasted_xywh is not None
        _, _, w, h = labelled.pasted_xywh
        shares.append(labelled.annotation.area / (np.pi / 4 * w * h))
    assert min(shares) > 0.7 * 0.93, "an ellipse of pixels is within 7 % of the true area"
    assert min(shares) < 0.999, "in so small a frame something overlaps"


def test_a_cut_out_that_its_photograph_cut_lies_at_the_border():
    for seed in range(6):
        (labelled,) = compose([make_cutout(0, sides=("bottom",))], seed=seed).annotations
        _, y, _, h = labelled.annotation.bbox_xywh
        assert y + h == H


@pytest.mark.parametrize(
    "rgba",
    [
        pytest.param(np.zeros((9, 9, 4), dtype=np.uint8), id="transparent"),
        pytest.param(np.full((200, 1, 4), 255, dtype=np.uint8), id="too thin to see"),
    ],
)
def test_an_impossible_cut_out_is_reported_and_the_rest_composed(rgba: np.ndarray):
    scene = compose([CutOut("impossible", 7, rgba), make_cutout(0)])
    assert scene.unplaced == ("impossible",)
    assert [a.instance_id for a in scene.annotations] == ["instance-0"]


def test_truncation_bounds_the_share_of_the_mask_outside():
    cutout = replace(make_cutout(0), source_side_ratio=0.4)
    scenes = [compose([cutout], seed=seed, settings=ComposeSettings(size="source")) for seed in range(80)]
    inside = [scene.annotations[0].annotation.area / (0.4**2 * H * W) for scene in scenes]
    assert min(inside) > 0.7 * 0.95, "also in corners, where two sides are cut"
    assert min(inside) < 0.85


def test_a_crowded_scene_shrinks_cut_outs_before_it_gives_up():
    cutouts = [replace(make_cutout(i), source_side_ratio=0.4) for i in range(8)]
    scene = compose(cutouts, settings=ComposeSettings(size="source", min_visible=1.0, truncation=0))
    sides = [(a.annotation.area / (H * W)) ** 0.5 for a in scene.annotations]
    assert sides[0] == pytest.approx(0.4, rel=0.05)
    assert len(sides) >= 6, "at 0.4 only four or five fit side by side"
    assert min(sides) < 0.3


def test_source_size_keeps_the_relative_size():
    cutout = replace(make_cutout(0), source_side_ratio=0.4)
    scene = compose([cutout], settings=ComposeSettings(size="source", truncation=0))
    assert (scene.annotations[0].annotation.area / (H * W)) ** 0.5 == pytest.approx(0.4, rel=0.05)


def test_free_places_are_preferred():
    originals = [make_original(1, make_mask((0, 0, 40, H)))]
    least = ComposeSettings(max_hidden_originals=0, truncation=0, max_tries=200, max_side_ratio=0.25)
    scene = compose([make_cutout(0)], originals, settings=least)
    assert [a.annotation for a in scene.annotations if a.origin == "real"] == originals


def test_untouched_originals_keep_their_annotation_and_synthetic_ids_go_on():
    scene = compose([make_cutout(0)], [make_original(40, make_mask((0, 0, 3, 3)))], seed=3)
    real, synthetic = scene.annotations
    assert real.origin == "real"
    assert real.instance_id is None
    assert synthetic.origin == "synthetic"
    assert synthetic.annotation.annotation_id == 41


def test_originals_and_pastes_never_share_a_pixel():
    rng = np.random.default_rng(0)
    for seed in range(10):
        x, y = rng.integers(0, 30, 2).tolist()
        originals = [make_original(1, make_mask((x, y, x + 30, y + 18))), make_original(2, make_mask((0, 40, W, H)))]
        scene = compose([make_cutout(i) for i in range(3)], originals, seed=seed)
        pasted = (scene.image_rgb != GREY).any(axis=2)
        kept = {a.annotation.annotation_id: decode(a.annotation) for a in scene.annotations if a.origin == "real"}
        assert set(kept) | set(scene.dropped_originals) == {1, 2}
        for original in originals:
            if original.annotation_id in kept:
                np.testing.assert_array_equal(kept[original.annotation_id], decode(original) & ~pasted)


OCCLUSIONS = [
    pytest.param((10, 10, 30, 30), (40, 0, 50, 10), False, "same", id="untouched"),
    pytest.param((10, 10, 30, 30), (5, 5, 18, 18), False, "cut", id="a corner: the box stays"),
    pytest.param((10, 10, 30, 30), (10, 10, 20, 30), False, "cut", id="box moves 10 px, 200 px left"),
    pytest.param((10, 10, 30, 30), (10, 10, 21, 30), False, "gone", id="box moves 11 px, 180 px left"),
    pytest.param((0, 0, 40, 40), (0, 0, 30, 40), False, "cut", id="box moves 30 px, 400 px left"),
    pytest.param((0, 0, 40, 30), (0, 0, 30, 30), False, "gone", id="box moves 30 px, exactly 300 px left"),
    pytest.param((10, 10, 15, 15), (10, 10, 15, 12), False, "gone", id="tiny: 15 px left"),
    pytest.param((10, 10, 14, 16), (10, 10, 14, 12), False, "cut", id="small: 16 px left"),
    pytest.param((10, 10, 30, 30), (0, 0, 40, 40), False, "gone", id="hidden"),
    pytest.param((10, 10, 30, 30), (10, 10, 29, 30), True, "cut", id="a crowd is cut and kept"),
    pytest.param((10, 10, 30, 30), (0, 0, 40, 40), True, "gone", id="a hidden crowd"),
    pytest.param((0, 0, W, H), (20, 20, 30, 30), False, "cut", id="hole"),
]


@pytest.mark.parametrize("as_rle", [False, True], ids=["polygons", "rle"])
@pytest.mark.parametrize(("box", "cover", "is_crowd", "expected"), OCCLUSIONS)
def test_occlusion(
    box: tuple[int, int, int, int], cover: tuple[int, int, int, int], is_crowd: bool, expected: str, as_rle: bool
):
    original = make_original(3, make_mask(box), is_crowd=is_crowd, as_rle=as_rle)
    result = occlude(original, make_mask(cover).astype(np.int16), ComposeSettings())
    if expected == "same":
        assert result is original
    elif expected == "gone":
        assert result is None
    else:
        assert result is not None
        visible = make_mask(box) & ~make_mask(cover)
        np.testing.assert_array_equal(decode(result), visible)
        assert result.bbox_xywh == mask_to_bbox(visible)
        assert result.area == visible.sum()
        assert (result.annotation_id, result.is_crowd) == (3, is_crowd)


def test_an_original_whose_box_only_is_covered_keeps_its_polygons():
    diagonal = Polygons((np.array([[5, 5], [45, 5], [5, 45]], dtype=np.float32),))
    mask = segmentation_to_mask(diagonal, H, W)
    original = Annotation(1, 1, diagonal, mask_to_bbox(mask), float(mask.sum()))
    assert occlude(original, make_mask((40, 40, 45, 45)).astype(np.int16), ComposeSettings()) is original


@pytest.mark.parametrize("seed", range(30))
def test_crops_agree_with_whole_frames(seed: int):
    rng = np.random.default_rng(seed)
    centre, reach = rng.uniform(-5, 60, 2), rng.uniform(2, 25)
    polygons = Polygons(tuple((centre + rng.uniform(-reach, reach, (n, 2))).astype(np.float32) for n in (5, 3)))
    whole = segmentation_to_mask(polygons, H, W)
    x, y, w, h = box = segmentation_bounds(polygons, (H, W))
    crop = segmentation_to_crop(polygons, box)
    placed = np.zeros((H, W), dtype=np.bool_)
    placed[y : y + h, x : x + w] = crop
    np.testing.assert_array_equal(placed, whole)
    if whole.any():
        left, top, width, height = mask_to_bbox(whole)
        encoded = crop_to_segmentation(whole[top : top + height, left : left + width], left, top, (H, W))
        assert segmentation_to_rle(encoded, H, W) == mask_to_rle(whole)


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param(Polygons(()), id="no ring"),
        pytest.param(Polygons((np.full((3, 2), 900, dtype=np.float32),)), id="outside the frame"),
        pytest.param(mask_to_rle(make_mask()), id="empty RLE"),
    ],
)
def test_an_original_without_pixels_is_left_alone(segmentation: Polygons | Rle):
    original = Annotation(1, 1, segmentation, (0, 0, 0, 0), 0)
    assert occlude(original, np.ones((H, W), dtype=np.int16), ComposeSettings()) is original


def test_a_cut_with_a_hole_is_stored_as_rle():
    ring = make_mask((4, 4, 30, 30)) & ~make_mask((10, 10, 20, 20))
    encoded = crop_to_segmentation(ring[4:30, 4:30], 4, 4, (H, W))
    assert isinstance(encoded, Rle)
    np.testing.assert_array_equal(rle_to_mask(encoded), ring)


INSTANCES = [(f"common-{i}", 1) for i in range(80)] + [(f"rare-{i}", 2) for i in range(20)]


@pytest.mark.parametrize("placements", [1, 3])
def test_every_instance_is_dealt_as_often_as_asked_and_never_twice_to_a_scene(placements: int):
    plans = plan_scenes(INSTANCES, 7, ComposeSettings(placements=placements), seed=3)
    counts = Counter(instance_id for plan in plans for instance_id in plan.instance_ids)
    assert counts == {instance_id: placements for instance_id, _ in INSTANCES}
    assert all(len(set(plan.instance_ids)) == len(plan.instance_ids) for plan in plans)
    assert {len(plan.instance_ids) for plan in plans} == {1, 2, 3, 4, 5}


def test_backgrounds_are_used_evenly():
    plans = plan_scenes(INSTANCES, 7, ComposeSettings(), seed=3)
    uses = Counter(plan.background_index for plan in plans)
    assert set(uses) == set(range(7))
    assert max(uses.values()) - min(uses.values()) <= 1


def test_classes_are_spread():
    plans = plan_scenes(INSTANCES, 7, ComposeSettings(instances_per_scene=(5, 5)), seed=3)
    rare = [sum(instance_id.startswith("rare") for instance_id in plan.instance_ids) for plan in plans]
    assert sum(rare) == 20
    assert max(rare) <= 2, "20 of 100 in scenes of 5: one each, give or take one"


def test_plans_depend_on_the_seed_only_and_each_scene_has_its_own():
    plans = plan_scenes(INSTANCES, 7, ComposeSettings(), seed=3)
    assert plans == plan_scenes(INSTANCES, 7, ComposeSettings(), seed=3)
    assert plans != plan_scenes(INSTANCES, 7, ComposeSettings(), seed=4)
    assert len({plan.seed for plan in plans}) == len(plans)


def test_nothing_to_place_plans_nothing():
    assert plan_scenes([], 7, ComposeSettings(), seed=3) == []


def test_no_background_is_an_error():
    with pytest.raises(RecipeError, match=r"compose\.backgrounds"):
        plan_scenes(INSTANCES, 0, ComposeSettings(), seed=3)


@pytest.mark.parametrize(
    "section",
    [
        pytest.param({"instances_per_scene": (5, 2)}, id="most below fewest"),
        pytest.param({"instances_per_scene": (0, 2)}, id="no instance"),
        pytest.param({"truncation": 1.0}, id="all of it outside"),
        pytest.param({"harmonisation": "alpha"}, id="unknown key"),
        pytest.param({"image_format": "gif"}, id="unknown format"),
    ],
)
def test_settings_refuse(section: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(section))):
        ComposeSettings.model_validate(section)
