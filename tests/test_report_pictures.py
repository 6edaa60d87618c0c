"""The parts of a report: samples, outlines, thumbnails and the lengths of bars."""

from __future__ import annotations

import io
from base64 import b64decode

import numpy as np
import pytest
from PIL import Image

from maskwright.data.masks import mask_to_rle
from maskwright.data.run_summary import ClassSummary
from maskwright.evaluation.charts import classes_to_chart, counts_to_bars, seconds_to_text
from maskwright.evaluation.rethinks import MAX_PICTURES, MAX_ROUNDS
from maskwright.evaluation.sampling import (
    MAX_ACCEPTED,
    MAX_REJECTED,
    MAX_RETHINKS,
    MAX_SCENES,
    MAX_VARIANTS,
    SpreadSample,
)
from maskwright.evaluation.thumbnails import (
    ATTEMPT_MAX_BYTES,
    INSTANCE_MAX_BYTES,
    INSTANCE_SIDE_PX,
    SCENE_MAX_BYTES,
    JsonSegmentation,
    class_colour,
    image_to_data_uri,
    instance_to_thumbnail,
    json_to_rings,
    scene_to_thumbnail,
)
from maskwright.evaluation.variants import MAX_ATTEMPTS
from maskwright.memory.entries import SceneInstance, SceneResult

HEIGHT, WIDTH = 48, 64
MAX_PAGE_BYTES = 15_000_000
BLOCK = [[8.0, 6.0, 40.0, 6.0, 40.0, 30.0, 8.0, 30.0]]


def scene_of(*instances: SceneInstance) -> SceneResult:
    return {
        "scene_id": "scene-000001",
        "artifact": "",
        "background": "図.jpg",
        "width": WIDTH,
        "height": HEIGHT,
        "instances": list(instances),
        "dropped_originals": [],
        "unplaced": [],
        "unreadable_backgrounds": [],
    }


def scene_instance(origin: str, category_id: int, segmentation: JsonSegmentation) -> SceneInstance:
    return {
        "origin": "synthetic" if origin == "synthetic" else "real",
        "source_id": "1",
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox_xywh": [8.0, 6.0, 32.0, 24.0],
        "area": 768.0,
        "is_crowd": False,
        "seam": None,
    }


def cutout_with_hole() -> np.ndarray:
    """(30, 40, 4) uint8, clear of the border."""
    rgba = np.zeros((30, 40, 4), np.uint8)
    rgba[4:26, 6:34] = (10, 200, 30, 255)
    rgba[12:18, 16:24, 3] = 0
    return rgba


def test_pictures_of_pure_noise_keep_the_page_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 4), dtype=np.uint8)
    scene, instance = image_to_data_uri(noise[..., :3], SCENE_MAX_BYTES), image_to_data_uri(noise, INSTANCE_MAX_BYTES)
    largest = MAX_SCENES * len(scene) + 2 * (MAX_ACCEPTED + MAX_REJECTED) * len(instance)
    num_small = MAX_RETHINKS * MAX_ROUNDS * MAX_PICTURES + MAX_VARIANTS * (MAX_ATTEMPTS + 2)
    largest += num_small * len(image_to_data_uri(noise, ATTEMPT_MAX_BYTES))
    assert 0.5 * MAX_PAGE_BYTES < largest < 0.95 * MAX_PAGE_BYTES


@pytest.mark.parametrize("limit", [1, 5, 40])
def test_sample_takes_from_every_group_whatever_the_order(limit: int) -> None:
    members = [("many", (f"m{i}", 0)) for i in range(30)] + [("few", ("f", 0)), ("few", ("f", 1))]
    samples = []
    for ordered in (members, members[::-1]):
        sample = SpreadSample(limit)
        for group, pick in ordered:
            sample.offer(group, pick)
        samples.append(sample.picks())
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == len(samples[0]) == min(limit, len(members))
    assert sum(item_id == "f" for item_id, _ in samples[0]) == min(2, -(-limit // 2))
    assert sample.num_offered == len(members)


def hole_rle() -> dict[str, object]:
    """A block with a hole in a 48x64 frame, as a scene's entry holds it."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[6:30, 8:40] = True
    mask[14:22, 20:28] = False
    return {"size": [HEIGHT, WIDTH], "counts": mask_to_rle(mask).counts.decode("ascii")}


@pytest.mark.parametrize(
    ("segmentation", "boxes"),
    [
        (BLOCK, [(8, 6, 40, 30)]),
        (
            [[0.0, 0.0, 9.0, 0.0, 9.0, 48.0, 0.0, 48.0], [50.0, 2.0, 64.0, 2.0, 64.0, 9.0]],
            [(0, 0, 9, 48), (50, 2, 64, 9)],
        ),
        (hole_rle(), [(8, 6, 40, 30), (20, 14, 28, 22)]),
        ({"size": [HEIGHT, WIDTH], "counts": mask_to_rle(np.zeros((HEIGHT, WIDTH), np.bool_)).counts.decode()}, []),
        ([], []),
    ],
    ids=["polygon", "two parts at the border", "RLE with a hole", "empty RLE", "no polygon"],
)
def test_outline_follows_the_mask(segmentation: JsonSegmentation, boxes: list[tuple[int, int, int, int]]) -> None:
    rings = json_to_rings(segmentation)
    assert sorted((*ring.min(axis=0), *ring.max(axis=0)) for ring in rings) == sorted(boxes)


def test_scene_outlines_new_ones_over_real_ones_in_the_class_colour() -> None:
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    new = scene_instance("synthetic", 2, BLOCK)
    real = scene_instance("real", 2, [[8.0, 6.0, 60.0, 6.0, 60.0, 44.0, 8.0, 44.0]])
    drawn = scene_to_thumbnail(black, scene_of(new, real))
    assert drawn.shape == black.shape
    assert tuple(drawn[18, 40]) == class_colour(2)
    assert tuple(drawn[6, 20]) == class_colour(2)
    red, green, blue = drawn[43:45, 30].max(axis=0).tolist()
    assert red == green == blue > 100
    assert not drawn[36, 50].any()
    assert not black.any()


def test_instance_keeps_its_hole_and_shape() -> None:
    drawn = instance_to_thumbnail(cutout_with_hole(), class_colour(5))
    height, width = drawn.shape[:2]
    assert (width, height) == (INSTANCE_SIDE_PX, pytest.approx(INSTANCE_SIDE_PX * 30 / 40, abs=2))
    assert drawn[height // 2, width // 2, 3] == 0
    assert drawn[height // 4, width // 2].tolist() == [10, 200, 30, 255]
    assert drawn[0, 0, 3] == 0
    uri = image_to_data_uri(drawn, INSTANCE_MAX_BYTES)
    decoded = Image.open(io.BytesIO(b64decode(uri.partition(",")[2])))
    assert (decoded.format, decoded.mode, decoded.size) == ("WEBP", "RGBA", (width, height))


def test_neighbouring_classes_have_distant_colours() -> None:
    colours = np.array([class_colour(category_id) for category_id in range(6)], dtype=np.int64)
    gaps = np.abs(colours[:, None] - colours[None]).sum(axis=2)
    assert gaps[~np.eye(6, dtype=np.bool_)].min() > 60


def test_chart_ends_where_the_largest_changed_class_does() -> None:
    classes = [
        ClassSummary(name="person", real=10_000),
        ClassSummary(name="tie", real=10, quota=40, accepted=30, shortfall=10),
        ClassSummary(name="cup", real=0, quota=50, accepted=50),
    ]
    chart = classes_to_chart(classes)
    cup, tie, person = chart.bars
    assert chart.axis_end == 50
    assert (cup.real_percent, cup.accepted_percent, cup.quota_percent) == (0, 100, 100)
    assert (tie.real_percent, tie.accepted_percent, tie.shortfall_percent, tie.is_cut) == (20, 60, 20, False)
    assert (person.real_percent, person.is_cut, person.quota_percent) == (100, True, None)


@pytest.mark.parametrize("classes", [[], [ClassSummary(name="a")]], ids=["none", "empty"])
def test_chart_of_nothing_has_no_length(classes: list[ClassSummary]) -> None:
    assert [bar.real_percent for bar in classes_to_chart(classes).bars] == [0.0] * len(classes)


def test_counts_are_ordered_and_shared() -> None:
    bars = counts_to_bars({"blur": 1, "area": 4}, 8)
    assert [(bar.name, bar.percent, bar.label, bar.note) for bar in bars] == [
        ("area", 100.0, "4", "50 %"),
        ("blur", 25.0, "1", "12 %"),
    ]
    assert counts_to_bars({"none": 0}, 0)[0].percent == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7800.0, "2 h 10 min")],
)
def test_seconds_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert seconds_to_text(seconds) == text
