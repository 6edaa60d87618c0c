"""Conversion: every instance comes through every format, and other packages read what we write."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskwright.data.convert import convert_dataset
from maskwright.data.load import load_dataset
from maskwright.data.masks import mask_to_rle, mask_to_segmentation, segmentation_to_mask, segmentation_to_rle
from maskwright.data.records import Annotation, Dataset, Findings, MaskHW, Polygons, Segmentation
from maskwright.errors import DatasetError, RunFolderError

HEIGHT, WIDTH = 48, 64
NAMES = {11: "Öse: klein", 3: "ring", 90: "dog"}

Instances = dict[tuple[str, str], list[Annotation]]


def disc(cx: float, cy: float, radius: float) -> MaskHW:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(xs - cx, ys - cy) <= radius


def box(top: int, left: int, height: int, width: int) -> MaskHW:
    mask_hw = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_hw[top : top + height, left : left + width] = True
    return mask_hw


def checkered() -> MaskHW:
    """Many parts that touch at corners only."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return ((ys // 3 + xs // 3) % 2 == 0) & box(10, 30, 18, 24)


def polygons(*rings: Sequence[tuple[float, float]]) -> Polygons:
    return Polygons(tuple(np.array(ring, dtype=np.float32) for ring in rings))


HARD: dict[str, Segmentation] = {
    "ring": mask_to_rle(disc(30, 24, 18) & ~disc(30, 24, 8)),
    "two holes": mask_to_rle(box(4, 4, 30, 40) & ~box(8, 8, 6, 6) & ~box(20, 20, 9, 12)),
    "island in a hole": mask_to_rle(disc(32, 24, 22) & ~disc(32, 24, 14) | disc(32, 24, 5)),
    "three parts": mask_to_segmentation(box(0, 0, 6, 9) | box(30, 20, 8, 8) | box(40, 55, 8, 9)),
    "rings that overlap": polygons([(5, 5), (40, 5), (40, 30), (5, 30)], [(20, 15), (60, 15), (60, 44)]),
    "slanted": polygons([(3.3, 4.7), (50.2, 9.1), (33.6, 41.9), (12.4, 30.3)]),
    "checkered": mask_to_rle(checkered()),
    "whole frame": mask_to_segmentation(box(0, 0, HEIGHT, WIDTH)),
    "on the border": mask_to_segmentation(box(0, 50, HEIGHT, 14)),
    "3 pixels": mask_to_rle(box(47, 61, 1, 3)),
    "1 pixel": mask_to_segmentation(box(20, 20, 1, 1)),
}


def write_hard_coco(folder: Path) -> Path:
    """Two splits whose image and annotation ids collide; category ids have gaps and are out of order."""
    splits = {"train": ["bild ü.png", "unter/日本.jpg", "leer.png"], "val": ["bild ü.png", "v.jpg"]}
    rng = np.random.default_rng(0)
    for split, file_names in splits.items():
        images, annotations = [], []
        for number, name in enumerate(file_names, start=1):
            path = folder / "images" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
            images.append({"id": 10 * number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for at, mask in enumerate(HARD.values() if "leer" not in name else ()):
                entry = {"id": len(annotations) + 5, "image_id": 10 * number, "category_id": list(NAMES)[at % 3]}
                annotations.append(entry | {"segmentation": as_json(mask), "iscrowd": 0})
        categories = [{"id": one, "name": name} for one, name in NAMES.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = folder / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def as_json(mask: Segmentation) -> object:
    if isinstance(mask, Polygons):
        return [ring.ravel().tolist() for ring in mask.rings]
    return {"size": [mask.height, mask.width], "counts": mask.counts.decode()}


def instances_of(dataset: Dataset) -> Instances:
    return {(one.image.split, one.image.file_name): list(one.annotations) for one in dataset.samples()}


def iou(one: Annotation, other: Annotation, image_hw: tuple[int, int]) -> float:
    rles = [segmentation_to_rle(each.segmentation, *image_hw) for each in (one, other)]
    first, second = ({"size": list(image_hw), "counts": rle.counts} for rle in rles)
    return float(coco_mask.iou([first], [second], [0])[0, 0])


def convert_through(source: Path, formats: Sequence[str], folder: Path) -> tuple[Path, list[Findings]]:
    findings = []
    for number, name in enumerate(formats):
        target = folder / f"{number} {name}"
        findings.append(convert_dataset(source, target, to=name, format="auto").findings)
        source = target
    return source, findings


@pytest.mark.parametrize(
    "formats",
    [
        ["coco"],
        ["yolo"],
        ["lvis"],
        ["voc"],
        ["yolo", "coco", "lvis", "voc", "coco"],
        ["voc", "yolo", "voc", "lvis", "yolo", "coco"],
    ],
    ids=" ".join,
)
def test_every_instance_comes_back(tmp_path: Path, formats: list[str]) -> None:
    source = write_hard_coco(tmp_path / "in")
    target, findings = convert_through(source, formats, tmp_path / "out")
    before, after = load_dataset(source), load_dataset(target)
    assert {(one.category_id, one.name) for one in after.categories} == set(NAMES.items())
    expected, found = instances_of(before), instances_of(after)
    assert found.keys() == expected.keys()
    for image, wanted in expected.items():
        assert [one.category_id for one in found[image]] == [one.category_id for one in wanted]
        ious = [iou(*pair, (HEIGHT, WIDTH)) for pair in zip(wanted, found[image], strict=True)]
        low = {name: value for name, value in zip(HARD, ious, strict=False) if value < 0.98}
        assert not low, image
    lossy = {"yolo_has_no_crowd", "lvis_has_no_crowd", "empty_mask", "size_mismatch"}
    assert not lossy & {kind for one in findings for kind in one.counts}


def test_crowds_are_kept_or_counted(tmp_path: Path) -> None:
    source = write_hard_coco(tmp_path / "in")
    path = source / "annotations/instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content), encoding="utf-8")
    total = len(load_dataset(source).annotations)
    for name, left_out in (("coco", 0), ("voc", 0), ("lvis", 1), ("yolo", 1)):
        target, (findings,) = convert_through(source, [name], tmp_path / name)
        read = load_dataset(target)
        assert len(read.annotations) == total - left_out
        assert int(read.annotations.is_crowd.sum()) == 1 - left_out
        assert findings.counts.get(f"{name}_has_no_crowd", 0) == left_out


def test_coco_scored_against_itself_is_perfect(tmp_path: Path) -> None:
    target, _ = convert_through(write_hard_coco(tmp_path / "in"), ["yolo", "coco"], tmp_path / "out")
    truth = COCO(str(target / "annotations/instances_train.json"))
    detections = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "segmentation": truth.annToRLE(one),
            "score": 1 - number / 1000,
        }
        for number, one in enumerate(truth.dataset["annotations"])
    ]
    evaluation = COCOeval(truth, truth.loadRes(detections), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)
    drawn = [int(truth.annToMask(one).sum()) for one in truth.dataset["annotations"]]
    assert [one["area"] for one in truth.dataset["annotations"]] == drawn


def mask_areas(dataset: Dataset, split: str) -> list[int]:
    return sorted(
        int(segmentation_to_mask(one.segmentation, sample.image.height, sample.image.width).sum())
        for sample in dataset.samples(split)
        for one in sample.annotations
    )


def test_supervision_reads_coco_and_yolo(tmp_path: Path, photographs: Path) -> None:
    sv = pytest.importorskip("supervision")
    expected = mask_areas(load_dataset(photographs), "train")
    coco, _ = convert_through(photographs, ["coco"], tmp_path / "coco")
    yolo, _ = convert_through(photographs, ["yolo"], tmp_path / "yolo")
    from_coco = sv.DetectionDataset.from_coco(
        str(coco / "images/train"), str(coco / "annotations/instances_train.json"), force_masks=True
    )
    from_yolo = sv.DetectionDataset.from_yolo(
        str(yolo / "images/train"), str(yolo / "labels/train"), str(yolo / "data.yaml"), force_masks=True
    )
    assert from_coco.classes == from_yolo.classes == ["bolt", "Mutter ö"]
    for read in (from_coco, from_yolo):
        areas = sorted(int(mask.sum()) for one in read.annotations.values() for mask in one.mask)
        assert len(areas) == len(expected)
        # It fills polygons up to and with their outline, which adds a row and a column of pixels.
        assert all(area <= more <= area * 1.2 for area, more in zip(expected, areas, strict=True))


def test_supervision_reads_voc_boxes(tmp_path: Path, photographs: Path) -> None:
    sv = pytest.importorskip("supervision")
    voc, _ = convert_through(photographs, ["voc"], tmp_path)
    read = sv.DetectionDataset.from_pascal_voc(str(voc / "JPEGImages"), str(voc / "Annotations"))
    assert sorted(read.classes) == ["Mutter ö", "bolt"]
    found = sorted(box_xyxy for one in read.annotations.values() for box_xyxy in one.xyxy.tolist())
    expected = sorted([x, y, x + w, y + h] for x, y, w, h in load_dataset(voc).annotations.bbox_xywh.tolist())
    assert len(found) == 14
    np.testing.assert_allclose(found, expected, atol=1)


def test_lvis_reads_lvis(tmp_path: Path) -> None:
    lvis = pytest.importorskip("lvis")
    target, _ = convert_through(write_hard_coco(tmp_path / "in"), ["lvis"], tmp_path / "out")
    read = lvis.LVIS(str(target / "annotations/lvis_v1_train.json"))
    assert len(read.anns) == 2 * len(HARD)
    assert all(int(read.ann_to_mask(one).sum()) == one["area"] for one in read.anns.values())
    assert {one["frequency"] for one in read.load_cats(read.get_cat_ids())} == {"r"}


READ_AS_ULTRALYTICS = """
import json, sys
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, verify_image_label
data = check_det_dataset(sys.argv[1], autodownload=False)
found = {"names": list(data["names"].values()), "segments": {}}
for split in ("train", "val"):
    dataset = YOLODataset(data[split], data=data, task="segment", imgsz=64, augment=False)
    for label in dataset.labels:
        image = label["im_file"]
        task = (image, image.replace("images", "labels").rsplit(".", 1)[0] + ".txt", "", False, 100, 0, 0, False)
        corrupt, message = verify_image_label(task)[8:]
        assert not corrupt and not message, message
        found["segments"][image] = len(label["segments"])
print("READ " + json.dumps(found))
"""


def test_ultralytics_reads_yolo(tmp_path: Path) -> None:
    """In a process of its own, since importing ultralytics replaces `PIL.Image.open`, and in another folder."""
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is an extra (AGPL-3.0): pip install 'maskwright[yolo]'")
    target, _ = convert_through(write_hard_coco(tmp_path / "in"), ["yolo"], tmp_path / "out")
    command = [sys.executable, "-c", READ_AS_ULTRALYTICS, str(target / "data.yaml")]
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.split("READ ")[1])
    assert found["names"] == list(NAMES.values())
    expected = instances_of(load_dataset(target))
    assert found["segments"] == {
        str(target / "images" / split / name): len(masks) for (split, name), masks in expected.items()
    }


def test_report_counts_and_carries_findings(tmp_path: Path) -> None:
    source = write_hard_coco(tmp_path / "in")
    (source / "images/train/bild ü.png").unlink()
    report = convert_dataset(source, tmp_path / "out", to="yolo")
    assert (report.images, report.annotations, report.splits) == (4, 3 * len(HARD), ("train", "val"))
    assert report.findings.counts["missing_image"] == 1
    assert report.findings.counts["annotation_without_image"] == len(HARD)


@pytest.mark.parametrize("target", ["in", "in/out", "in/images/train", "."], ids=["same", "inside", "images", "around"])
def test_target_that_overlaps_the_source_is_refused(tmp_path: Path, target: str) -> None:
    source = write_hard_coco(tmp_path / "in")
    with pytest.raises(RunFolderError, match="overlaps"):
        convert_dataset(source, tmp_path / target, to="yolo")
    assert len(load_dataset(source).images) == 5


def test_target_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="was not made by maskwright"):
        convert_dataset(write_hard_coco(tmp_path / "in"), tmp_path / "out", to="yolo")
    assert (tmp_path / "out/thesis.txt").exists()


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'kitti'; known: coco, lvis, voc, yolo"):
        convert_dataset(write_hard_coco(tmp_path / "in"), tmp_path / "out", to="kitti")
    assert not (tmp_path / "out").exists()


def test_conversion_may_be_repeated(tmp_path: Path) -> None:
    source = write_hard_coco(tmp_path / "in")
    for name in ("yolo", "voc"):
        convert_dataset(source, tmp_path / "out", to=name)
    assert load_dataset(tmp_path / "out").format == "voc"
    assert not (tmp_path / "out/data.yaml").exists()


def test_real_data_comes_through_every_format(tmp_path: Path, real_data: Path) -> None:
    before = load_dataset(real_data / "coco128-seg")
    target, _ = convert_through(real_data / "coco128-seg", ["yolo", "coco", "lvis", "voc", "coco"], tmp_path)
    found = instances_of(load_dataset(target))
    for sample in before.samples():
        pairs = zip(sample.annotations, found[sample.image.split, sample.image.file_name], strict=True)
        assert min((iou(*pair, (sample.image.height, sample.image.width)) for pair in pairs), default=1) >= 0.98
