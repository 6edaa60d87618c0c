"""Average precision against pycocotools and lvis over whole sets, groups, gaps and refusals; and paired seeds."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from lvis import LVIS, LVISEval, LVISResults
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import stats

from maskwright.data.masks import mask_to_bbox, mask_to_rle
from maskwright.data.records import AnnotationTableBuilder, Category, Dataset, ImageRecord
from maskwright.errors import DatasetError
from maskwright.evaluation.average_precision import AveragePrecision
from maskwright.evaluation.detection_metrics import DetectionFigures, measure_detections
from maskwright.evaluation.detectors import CocoResult, Task
from maskwright.evaluation.paired import Answer, paired_difference, spread

HEIGHT, WIDTH = 48, 64
CATEGORIES = (Category(3, "Tasse ü"), Category(7, "図"), Category(90, "brush"), Category(91, "nowhere"))
TRAIN_IMAGES = {3: 200, 7: 40, 90: 3, 91: 3}
PERFECT = AveragePrecision(1.0, 1.0, 1.0)
Entry = dict[str, object]


def ellipse(x: float, y: float, width: float, height: float) -> npt.NDArray[np.bool_]:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.asarray(((xs - x) / width) ** 2 + ((ys - y) / height) ** 2 <= 0.25)


def to_entry(image_id: int, category_id: int, mask: npt.NDArray[np.bool_]) -> Entry:
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [float(one) for one in mask_to_bbox(mask)],
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": mask_to_rle(mask).counts.decode()},
    }


def draw(num_images: int = 14) -> tuple[list[Entry], list[CocoResult]]:
    """True entries of three classes, some of them crowds, and detections: shaken, doubled, invented, missed."""
    rng = np.random.default_rng(4)
    truths: list[Entry] = []
    results: list[CocoResult] = []
    for image_id in range(1, num_images + 1):
        for category_id in rng.choice([3, 3, 7, 90], size=rng.integers(0, 5)).tolist():
            place = np.array([*rng.uniform([12, 12], [52, 36]), *rng.uniform(8, 22, 2)])
            is_crowd = int(rng.random() < 0.15)
            mask = ellipse(*place)
            one = to_entry(image_id, category_id, mask)
            truths.append(one | {"id": len(truths), "iscrowd": is_crowd, "area": float(mask.sum())})
            for _ in range(rng.integers(0, 3)):
                shaken = place + rng.normal(0, 1.5, 4)
                seen = to_entry(image_id, int(rng.choice([category_id] * 4 + [3])), ellipse(*shaken))
                results.append({**seen, "score": round(float(rng.random()), 2)})  # type: ignore[typeddict-item]
    return truths, results


def to_dataset(truths: list[Entry], num_images: int = 14, images: Mapping[int, ImageRecord] | None = None) -> Dataset:
    """All in val; image ids are not positions."""
    records = [
        (images or {}).get(number, ImageRecord(number, f"Größe/{number}.png", "nirgends", WIDTH, HEIGHT, "val"))
        for number in range(1, num_images + 1)
    ]
    builder = AnnotationTableBuilder()
    for one in truths:
        mask = one["segmentation"]
        assert isinstance(mask, dict)
        builder.add(
            annotation_id=int(str(one["id"])),
            image_index=int(str(one["image_id"])) - 1,
            category_id=int(str(one["category_id"])),
            segmentation=mask_to_rle(decode(mask)),
            bbox_xywh=one["bbox"],  # type: ignore[arg-type]
            area=float(str(one["area"])),
            is_crowd=bool(one["iscrowd"]),
        )
    return Dataset(Path("nirgends"), "coco", CATEGORIES, records, builder.build(num_images))


def decode(mask: Mapping[str, object]) -> npt.NDArray[np.bool_]:
    return np.asarray(coco_mask.decode(dict(mask)), np.bool_)


def measure(truths: list[Entry], results: list[CocoResult], task: Task = "segment") -> DetectionFigures:
    return measure_detections(to_dataset(truths), results, task=task, train_images=TRAIN_IMAGES)


def copies(truths: list[Entry], score: float = 0.5) -> list[CocoResult]:
    """Detections that are the true objects."""
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{key: one[key] for key in keys}, "score": score} for one in truths]  # type: ignore[misc]


def whole_coco(truths: list[Entry], results: list[CocoResult], iou_type: str) -> list[float]:
    """AP, AP50 and AP75 as pycocotools states them of everything at once."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(1, 15)],
        "categories": [{"id": one.category_id, "name": one.name} for one in CATEGORIES],
        "annotations": [one | {"id": number} for number, one in enumerate(truths, start=1)],
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes([dict(one) for one in results]), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(one) for one in evaluation.stats[:3]]


def test_the_mean_over_classes_is_what_pycocotools_says_of_all_at_once() -> None:
    truths, results = draw()
    figures = measure(truths, results)
    for ours, iou_type in ((figures.overall.box, "bbox"), (figures.overall.mask, "segm")):
        assert ours is not None
        assert [ours.ap, ours.ap50, ours.ap75] == pytest.approx(whole_coco(truths, results, iou_type), abs=1e-12)
        assert 0.05 < ours.ap < 0.95
    assert figures.num_images == 14
    assert figures.num_detections == len(results)
    assert figures.num_instances == sum(not one["iscrowd"] for one in truths)


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")  # lvis
def test_federated_images_are_measured_as_lvis_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float", float, raising=False)
    truths, results = draw()
    truths = [one | {"iscrowd": 0} for one in truths]
    rng = np.random.default_rng(8)
    images, entries = {}, []
    for number in range(1, 15):
        negative, inexhaustive = (rng.choice([3, 7, 90], 1).tolist() for _ in range(2))
        images[number] = ImageRecord(
            *(number, f"{number}.png", "nirgends", WIDTH, HEIGHT, "val"),
            neg_category_ids=tuple(negative),
            not_exhaustive_category_ids=tuple(inexhaustive),
        )
        entries.append({"id": number, "height": HEIGHT, "width": WIDTH, "neg_category_ids": negative})
        entries[-1]["not_exhaustive_category_ids"] = inexhaustive
    path = tmp_path / "lvis.json"
    categories = [{"id": one.category_id, "name": one.name, "frequency": "r"} for one in CATEGORIES]
    numbered = [one | {"id": number} for number, one in enumerate(truths, start=1)]
    path.write_text(json.dumps({"images": entries, "categories": categories, "annotations": numbered}))
    lvis = LVIS(str(path))
    evaluation = LVISEval(lvis, LVISResults(lvis, [dict(one) for one in results]), "segm")
    evaluation.run()
    dataset = to_dataset(truths, images=images)
    figures = measure_detections(dataset, results, task="segment", train_images=TRAIN_IMAGES)
    plain = measure(truths, results)
    assert figures.overall.mask is not None
    assert [figures.overall.mask.ap, figures.overall.mask.ap50, figures.overall.mask.ap75] == pytest.approx(
        [evaluation.results[name] for name in ("AP", "AP50", "AP75")], abs=1e-12
    )
    assert figures.overall.mask != plain.overall.mask


def test_true_objects_found_again_are_perfect_also_with_id_0_and_beside_crowds() -> None:
    truths, _ = draw()
    assert truths[0]["id"] == 0
    assert any(one["iscrowd"] for one in truths)
    figures = measure(truths, copies(truths))
    assert (figures.overall.box, figures.overall.mask) == (PERFECT, PERFECT)
    assert [one.mask for one in figures.classes] == [PERFECT, PERFECT, PERFECT, None]


def test_groups_follow_real_training_images_and_gaps_are_said() -> None:
    truths, _ = draw()
    truths = [one | {"iscrowd": 0} for one in truths]
    missed = [one for one in copies(truths) if one["category_id"] != 90]
    figures = measure_detections(
        to_dataset(truths),
        missed,
        task="segment",
        train_images={one: n for one, n in TRAIN_IMAGES.items() if one != 90},
    )
    assert figures.groups["f"].mask == figures.groups["c"].mask == PERFECT
    assert figures.groups["r"] == type(figures.overall)(1, AveragePrecision(0, 0, 0), AveragePrecision(0, 0, 0))
    assert figures.overall.box is not None
    assert figures.overall.box.ap == pytest.approx(2 / 3)
    assert [one.frequency for one in figures.classes] == ["f", "c", "r", "r"]
    assert figures.findings.examples == {
        "class_without_training_images": ["brush"],
        "class_without_instances_to_find": ["nowhere"],
    }


def test_json_knows_no_nan_and_boxes_alone_have_no_mask_figures() -> None:
    truths, results = draw()
    boxes: list[CocoResult] = [{**one} for one in results]
    for one in boxes:
        del one["segmentation"]
    figures = measure(truths, boxes, task="detect")
    content = json.loads(json.dumps(figures.as_json(), allow_nan=False))
    assert content["overall"]["mask"] is None
    assert content["overall"]["box"] == pytest.approx(
        dict(zip(("ap", "ap50", "ap75"), whole_coco(truths, results, "bbox"), strict=True))
    )
    assert content["classes"][3]["box"] is None
    assert content["findings"]["class_without_instances_to_find"]["count"] == 1


def test_nothing_found_is_zero_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    truths, results = draw()
    figures = measure(truths, [])
    measure(truths, results)
    assert figures.overall.mask == AveragePrecision(0, 0, 0)
    assert capsys.readouterr() == ("", "")


SMALL_MASK = {"size": [WIDTH, HEIGHT], "counts": "x"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        pytest.param({"image_id": 99}, DatasetError, "image 99", id="an image of another split"),
        pytest.param({"category_id": 5}, DatasetError, "class 5", id="a class of another data set"),
        pytest.param({"segmentation": SMALL_MASK}, DatasetError, r"\[48, 64\]", id="height and width swapped"),
        pytest.param({"segmentation": None}, DatasetError, "'detect'", id="no mask"),
        pytest.param({"score": math.nan}, ValueError, "nan", id="a score that is no number"),
        pytest.param({"bbox": [0.0, 0.0, math.inf, 2.0]}, ValueError, "inf", id="a box without end"),
    ],
)
def test_a_detection_of_something_else_is_refused(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    truths, results = draw()
    with pytest.raises(error, match=message):
        measure(truths, [*results, {**results[0], **change}])  # type: ignore[typeddict-item]


def test_a_split_with_nothing_to_measure_is_refused() -> None:
    dataset = to_dataset([])
    with pytest.raises(DatasetError, match="'val' has no instance"):
        measure_detections(dataset, [], task="segment", train_images={})
    with pytest.raises(DatasetError, match=r"'test' has no image.*'val'"):
        measure_detections(dataset, [], task="segment", train_images={}, split="test")


def test_an_instance_without_a_mask_is_refused_where_masks_are_measured() -> None:
    builder = AnnotationTableBuilder()
    builder.add(
        annotation_id=1, image_index=0, category_id=3, segmentation=[], bbox_xywh=(2.0, 2.0, 9.0, 8.0), area=72.0
    )
    dataset = replace(to_dataset([]), annotations=builder.build(14))
    result: CocoResult = {"image_id": 1, "category_id": 3, "bbox": [2, 2, 9, 8], "score": 0.4}
    found = measure_detections(dataset, [result], task="detect", train_images={}).overall.box
    assert found is not None
    assert found.ap == pytest.approx(1)
    with pytest.raises(DatasetError, match="annotation 1 has no mask of 64x48"):
        measure_detections(dataset, [], task="segment", train_images={})


@pytest.mark.parametrize(
    ("arm", "other", "answer", "wins"),
    [
        pytest.param({0: 0.30, 1: 0.31, 2: 0.32}, {0: 0.20, 1: 0.22, 2: 0.21}, "better", 3, id="better on all"),
        pytest.param({0: 0.20, 1: 0.22, 2: 0.21}, {0: 0.30, 1: 0.31, 2: 0.32}, "worse", 0, id="worse on all"),
        pytest.param({0: 0.30, 1: 0.20}, {0: 0.29, 1: 0.19999}, "no difference shown", 2, id="wins inside the noise"),
        pytest.param({0: 0.9}, {0: 0.1}, "nothing can be said", 1, id="one seed says nothing"),
        pytest.param({0: 0.9}, {1: 0.1}, "nothing can be said", 0, id="no seed in common"),
        pytest.param({0: 0.9, 1: None}, {0: 0.1, 1: 0.1}, "nothing can be said", 1, id="a run without a figure"),
    ],
)
def test_arms_are_compared_seed_by_seed(
    arm: dict[int, float | None], other: dict[int, float | None], answer: Answer, wins: int
) -> None:
    difference = paired_difference(arm, other)
    assert (difference.answer, difference.wins) == (answer, wins)
    assert set(difference.unpaired) | set(difference.seeds) == arm.keys() | other.keys()
    assert json.loads(json.dumps(difference.as_json(), allow_nan=False))["answer"] == answer


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.3, 0.02, (2, 5)).tolist()
    difference = paired_difference(dict(enumerate(ours)), dict(enumerate(theirs)), confidence=0.9)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.9)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert difference.deviation == pytest.approx(np.std(np.subtract(ours, theirs), ddof=1))


def test_a_gain_is_beyond_its_deviation_or_not() -> None:
    assert paired_difference({0: 0.3, 1: 0.4}, {0: 0.2, 1: 0.2}).is_beyond_deviation
    assert not paired_difference({0: 0.3, 1: 0.2}, {0: 0.2, 1: 0.2}).is_beyond_deviation
    assert not paired_difference({0: 0.3}, {0: 0.2}).is_beyond_deviation


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        pytest.param([], (0, None, None), id="none"),
        pytest.param([0.5, None], (1, 0.5, None), id="one has no deviation"),
        pytest.param([1.0, 3.0], (2, 2.0, math.sqrt(2)), id="of the sample"),
    ],
)
def test_spread(figures: list[float | None], expected: tuple[int, float | None, float | None]) -> None:
    found = spread(figures)
    assert (found.n, found.mean, found.deviation) == pytest.approx(expected)


def test_figures_are_numbers() -> None:
    with pytest.raises(ValueError, match="nan"):
        spread([0.1, math.nan])
    with pytest.raises(ValueError, match="confidence is 95"):
        paired_difference({0: 1.0}, {0: 1.0}, confidence=95)


def test_measuring_in_threads_leaves_what_others_print_alone(capsys: pytest.CaptureFixture[str]) -> None:
    truths, results = draw()
    dataset, stdout = to_dataset(truths), sys.stdout
    with ThreadPoolExecutor(4) as pool:
        measured = [
            pool.submit(measure_detections, dataset, results, task="detect", train_images=TRAIN_IMAGES)
            for _ in range(8)
        ]
        num_lines = 0
        while not all(one.done() for one in measured):
            sys.stdout.write("mine\n")
            num_lines += 1
            time.sleep(0.001)
    assert sys.stdout is stdout
    assert capsys.readouterr().out == "mine\n" * num_lines
    assert len({str(one.result()) for one in measured}) == 1
