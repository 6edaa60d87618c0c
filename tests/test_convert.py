"""Round trips: every instance keeps its mask through every format, and the outside world reads what we wrote."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskwright.data.convert import convert_dataset
from maskwright.data.load import load_dataset
from maskwright.data.masks import mask_to_rle, segmentation_to_mask
from maskwright.data.records import Dataset, MaskHW
from maskwright.errors import RunFolderError

HEIGHT, WIDTH = 48, 64
NAMES = {3: "bolt", 17: "Mutter ö", 90: "tiny thing"}
MaskKey = tuple[str, str, str]


def _box(x: int, y: int, w: int, h: int) -> MaskHW:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask[y : y + h, x : x + w] = True
    return mask


RING = _box(8, 8, 24, 20) & ~_box(14, 12, 8, 8)
PARTS = _box(2, 30, 10, 10) | _box(40, 34, 12, 9)
DIAGONAL = np.triu(_box(0, 0, 40, 40), 3)
INSTANCES = {
    "träin/ä 1.png": [(3, RING), (17, PARTS), (90, _box(60, 44, 3, 3))],
    "träin/b.png": [(3, _box(0, 0, WIDTH, HEIGHT)), (17, _box(10, 10, 30, 30)), (3, _box(30, 20, 34, 28))],
    "träin/c.png": [(17, DIAGONAL), (17, RING), (17, _box(20, 0, 5, 48))],
    "empty.png": [],
}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two splits with the same ids: holes, parts, overlaps, borders, a 3-px object, an image without an object."""
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for split, seed in (("train", 1), ("val", 2)):
        images, annotations = [], []
        for image_id, (name, instances) in enumerate(INSTANCES.items(), start=1):
            path = folder / "images" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed + image_id).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(path)
            images.append({"id": image_id, "file_name": name, "width": WIDTH, "height": HEIGHT})
            for category_id, mask in instances:
                counts = mask_to_rle(mask).counts.decode()
                segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
                entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id, "iscrowd": 0}
                annotations.append({**entry, "segmentation": segmentation, "area": int(mask.sum())})
        categories = [{"id": one, "name": name} for one, name in NAMES.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = folder / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def _masks(dataset: Dataset) -> dict[MaskKey, list[MaskHW]]:
    """Masks by split, image stem and class, largest first."""
    names = {category.category_id: category.name for category in dataset.categories}
    found: dict[MaskKey, list[MaskHW]] = {}
    for sample in dataset.samples():
        for one in sample.annotations:
            key = (sample.image.split, Path(sample.image.file_name).stem, names[one.category_id])
            mask = segmentation_to_mask(one.segmentation, sample.image.height, sample.image.width)
            found.setdefault(key, []).append(mask)
    for masks in found.values():
        masks.sort(key=lambda mask: -int(mask.sum()))
    return found


def _smallest_iou(before: Dataset, after: Dataset) -> float:
    first, second = _masks(before), _masks(after)
    assert {key: len(masks) for key, masks in first.items()} == {key: len(masks) for key, masks in second.items()}
    return min(
        float((a & b).sum() / (a | b).sum())
        for key, masks in first.items()
        for a, b in zip(masks, second[key], strict=True)
    )


@pytest.mark.parametrize(
    "formats",
    [["yolo"], ["voc"], ["lvis"], ["coco"], ["yolo", "coco", "lvis", "voc", "coco"], ["voc", "yolo", "lvis", "coco"]],
    ids="-".join,
)
def test_every_instance_survives_a_chain_of_formats(formats: list[str], coco: Path, tmp_path: Path) -> None:
    source = coco
    for number, name in enumerate(formats):
        target = tmp_path / f"{number} {name}"
        report = convert_dataset(source, target, to=name)
        assert report.annotations == 18
        assert report.splits == ("train", "val")
        source = target
    before, after = load_dataset(coco), load_dataset(source)
    assert _smallest_iou(before, after) >= 0.98
    assert {(c.category_id, c.name) for c in after.categories} == set(NAMES.items())
    assert len(after.images) == len(before.images)


@pytest.mark.parametrize("to", ["yolo", "coco", "lvis", "voc"])
def test_val_images_keep_their_bytes(to: str, coco: Path, tmp_path: Path) -> None:
    convert_dataset(coco, tmp_path / "out", to=to)
    written = {path.read_bytes() for path in (tmp_path / "out").rglob("*.png")}
    assert {path.read_bytes() for path in (coco / "images" / "val").rglob("*.png")} <= written


def test_ground_truth_scored_as_detections_is_perfect(coco: Path, tmp_path: Path) -> None:
    convert_dataset(coco, tmp_path / "yolo", to="yolo")
    convert_dataset(tmp_path / "yolo", tmp_path / "again", to="coco")
    truth = COCO(str(tmp_path / "again" / "annotations" / "instances_train.json"))
    detections = [{**one, "score": 1.0} for one in truth.anns.values()]
    for kind in ("segm", "bbox"):
        evaluation = COCOeval(truth, truth.loadRes(detections), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1.0)


def test_supervision_and_lvis_read_what_we_write(coco: Path, tmp_path: Path) -> None:
    import supervision
    from lvis import LVIS

    convert_dataset(coco, tmp_path / "lvis", to="lvis")
    convert_dataset(coco, tmp_path / "yolo", to="yolo")
    convert_dataset(coco, tmp_path / "out", to="coco")
    lvis = LVIS(str(next((tmp_path / "lvis" / "annotations").glob("*train*.json"))))
    assert len(lvis.anns) == 9
    assert all(lvis.ann_to_mask(one).sum() == one["area"] for one in lvis.anns.values())
    from_coco = supervision.DetectionDataset.from_coco(
        images_directory_path=str(tmp_path / "out" / "images" / "train"),
        annotations_path=str(tmp_path / "out" / "annotations" / "instances_train.json"),
        force_masks=True,
    )
    from_yolo = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(tmp_path / "yolo" / "images" / "train" / "träin"),
        annotations_directory_path=str(tmp_path / "yolo" / "labels" / "train" / "träin"),
        data_yaml_path=str(tmp_path / "yolo" / "data.yaml"),
        force_masks=True,
    )
    for read in (from_coco, from_yolo):
        assert sum(len(detections) for _, _, detections in read) == 9
        assert set(NAMES.values()) <= set(read.classes)


CHECK_LABELS = """
import sys
from pathlib import Path
from ultralytics.data.utils import check_det_dataset, verify_image_label
root, num_classes = Path(sys.argv[1]), int(sys.argv[2])
data = check_det_dataset(str(root / "data.yaml"), autodownload=False)
assert len(data["names"]) == num_classes
images = [path for path in (root / "images").rglob("*") if path.is_file()]
assert images
for image in images:
    label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
    task = (str(image), str(label), "", False, num_classes, 0, 0, False)
    _, rows, _, segments, _, missing, _, _, corrupt, message = verify_image_label(task)
    assert (corrupt, missing) == (0, 0), message
    assert len(rows) == len(segments) == len(label.read_text().splitlines())
"""


def test_ultralytics_label_checker_takes_every_label(coco: Path, tmp_path: Path) -> None:
    """In a process of its own: importing ultralytics replaces `PIL.Image.open`."""
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is an extra (AGPL-3.0): make install")
    convert_dataset(coco, tmp_path / "yolo", to="yolo")
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"}
    command = [sys.executable, "-c", CHECK_LABELS, str(tmp_path / "yolo"), str(len(NAMES))]
    checked = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("where", [".", "images", "images/train/new", ".."])
def test_a_target_that_overlaps_the_source_is_refused_untouched(where: str, coco: Path) -> None:
    before = {path: path.read_bytes() for path in coco.rglob("*") if path.is_file()}
    for source in (coco, coco / "annotations" / "instances_train.json"):
        with pytest.raises(RunFolderError, match=r"overlaps|not made by maskwright"):
            convert_dataset(source, coco / where, to="yolo")
    assert {path: path.read_bytes() for path in coco.rglob("*") if path.is_file()} == before


def test_crowds_are_named_where_a_format_has_none(coco: Path, tmp_path: Path) -> None:
    path = coco / "annotations" / "instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(content), encoding="utf-8")
    findings = {
        to: convert_dataset(coco, tmp_path / f"to {to}", to=to).findings.counts for to in ("yolo", "lvis", "coco")
    }
    assert findings["yolo"]["yolo_has_no_crowd"] == 1
    assert findings["lvis"]["lvis_has_no_crowd"] == 1
    assert not any("crowd" in kind for kind in findings["coco"])


def test_real_photographs_survive(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "coco128-seg"
    for number, name in enumerate(["coco", "lvis", "voc", "yolo"]):
        convert_dataset(source, tmp_path / str(number), to=name)
        source = tmp_path / str(number)
    assert _smallest_iou(load_dataset(real_data / "coco128-seg"), load_dataset(source)) >= 0.98
