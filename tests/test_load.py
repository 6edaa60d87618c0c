"""Finding a data set's format, files, splits and images from its folder or file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.load import FORMATS, detect_format, load_dataset
from maskwright.errors import DatasetError

HEIGHT, WIDTH = 48, 64


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)).save(path)


def write_coco(path: Path, name: str = "a.png", **category: str) -> None:
    ring = [10, 8, 30, 8, 30, 28, 10, 28]
    content = {
        "images": [{"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "cup", **category}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring]}],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


LAYOUTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "coco 2017": (
        {"annotations/instances_train2017.json": "train", "annotations/instances_val2017.json": "val"},
        {"train": "train2017", "val": "val2017"},
    ),
    "images by split": (
        {"annotations/instances_train.json": "train", "annotations/instances_test.json": "test"},
        {"train": "images/train", "test": "images/test"},
    ),
    "one image folder": (
        {"annotations/instances_train.json": "train", "annotations/instances_val.json": "val"},
        {"train": "images", "val": "images"},
    ),
    "roboflow": (
        {"train/_annotations.coco.json": "train", "valid/_annotations.coco.json": "val"},
        {"train": "train", "val": "valid"},
    ),
    "plain names": (
        {"annotations/train.json": "train", "annotations/validation.json": "val"},
        {"train": "train", "val": "validation"},
    ),
    "one file at the root": ({"result.json": "train"}, {"train": ""}),
    "one file of cvat": ({"annotations/instances_default.json": "train"}, {"train": "images/default"}),
    "split of its own": (
        {"annotations/instances_night.json": "night", "annotations/instances_day.json": "day"},
        {"night": "images/night", "day": "images/day"},
    ),
}


@pytest.mark.parametrize(("files", "folders"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_coco_layouts(tmp_path: Path, files: dict[str, str], folders: dict[str, str]) -> None:
    for file, split in files.items():
        write_coco(tmp_path / file, f"{split}図.png")
        write_image(tmp_path / folders[split] / f"{split}図.png")
    dataset = load_dataset(tmp_path)
    assert (dataset.format, dataset.root) == ("coco", tmp_path)
    assert {image.split: image.path for image in dataset.images} == {
        split: tmp_path / folder / f"{split}図.png" for split, folder in folders.items()
    }
    assert not dataset.findings.counts


def test_train_comes_first(tmp_path: Path) -> None:
    for split in ("test", "val", "train", "extra"):
        write_coco(tmp_path / "annotations" / f"instances_{split}.json", f"{split}.png")
        write_image(tmp_path / "images" / split / f"{split}.png")
    assert load_dataset(tmp_path).splits == ("train", "val", "test", "extra")


def test_other_coco_tasks_are_passed_over(tmp_path: Path) -> None:
    write_coco(tmp_path / "annotations" / "train.json")
    (tmp_path / "annotations" / "captions_train.json").write_text("{}")
    write_image(tmp_path / "a.png")
    assert load_dataset(tmp_path).splits == ("train",)


def test_a_file_alone_is_train_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "annotations" / "instances_val2017.json"
    write_coco(path)
    write_image(tmp_path / "val2017" / "a.png")
    for start in (path, tmp_path):
        dataset = load_dataset(start)
        assert (dataset.splits, dataset.root) == (("train",), tmp_path)
        assert dataset.findings.examples == {"single_file_is_train": [str(path)]}


@pytest.mark.parametrize("inside", ["", "train", "images"], ids=["itself", "by split", "named in the entry"])
def test_image_folder_can_be_given(tmp_path: Path, inside: str) -> None:
    name = "images/a.png" if inside == "images" else "a.png"
    write_coco(tmp_path / "set" / "train.json", name)
    write_image(tmp_path / "pictures" / inside / "a.png")
    dataset = load_dataset(tmp_path / "set", images=tmp_path / "pictures")
    assert dataset.images[0].path == tmp_path / "pictures" / inside / "a.png"


def test_lvis_is_told_by_its_synsets(tmp_path: Path) -> None:
    write_coco(tmp_path / "lvis_v1_train.json", "train2017/a.png", synset="cup.n.01", frequency="r")
    write_image(tmp_path / "images" / "train2017" / "a.png")
    dataset = load_dataset(tmp_path / "lvis_v1_train.json")
    assert (dataset.format, dataset.categories[0].frequency) == ("lvis", "r")


def test_format_can_be_forced(tmp_path: Path) -> None:
    write_coco(tmp_path / "train.json")
    write_image(tmp_path / "a.png")
    assert load_dataset(tmp_path, "lvis").format == "lvis"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["data.yaml"], "yolo"),
        (["JPEGImages/a.jpg", "SegmentationObject/a.png"], "voc"),
        (["JPEGImages/a.jpg", "Annotations/a.xml"], "voc"),
    ],
    ids=["yolo", "voc masks", "voc boxes"],
)
def test_other_formats_are_told_by_their_files(tmp_path: Path, files: list[str], expected: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert detect_format(tmp_path) == expected


def test_yaml_file_is_yolo(tmp_path: Path) -> None:
    (tmp_path / "coco8-seg.yaml").touch()
    assert detect_format(tmp_path / "coco8-seg.yaml") == "yolo"


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'kitti'; known: coco, lvis, mvtec, voc, yolo"):
        load_dataset(tmp_path, "kitti")


def test_nothing_recognised_says_what_was_looked_for(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"instances_\*\.json.*data\.yaml.*JPEGImages"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("format_name", ["auto", "coco"])
def test_absent_path_is_refused(tmp_path: Path, format_name: str) -> None:
    with pytest.raises(DatasetError, match=r"'.*absent' does not exist"):
        load_dataset(tmp_path / "absent", format_name)


@pytest.mark.parametrize("format_name", ["coco", "lvis", "yolo"])
def test_forced_format_without_its_files_is_refused(tmp_path: Path, format_name: str) -> None:
    with pytest.raises(DatasetError, match="holds"):
        load_dataset(tmp_path, format_name)


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "old_train"):
        write_coco(tmp_path / "annotations" / f"{name}.json")
    with pytest.raises(DatasetError, match="both of split 'train'"):
        load_dataset(tmp_path)


def test_absent_image_folder_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path / "train.json")
    with pytest.raises(DatasetError, match=r"'.*pictures' does not exist"):
        load_dataset(tmp_path, images=tmp_path / "pictures")


@pytest.mark.parametrize("format_name", ["yolo", "voc"])
def test_image_folder_is_refused_where_it_means_nothing(tmp_path: Path, format_name: str) -> None:
    (tmp_path / "data.yaml").touch()
    with pytest.raises(DatasetError, match="for COCO and LVIS only"):
        load_dataset(tmp_path, format_name, images=tmp_path)


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd"], ids=["parent", "absolute"])
def test_unsafe_name_is_refused_before_anything_is_opened(tmp_path: Path, name: str) -> None:
    write_coco(tmp_path / "set" / "train.json", name)
    write_image(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="not a safe file name"):
        load_dataset(tmp_path / "set")


def test_formats_are_the_promised_ones() -> None:
    assert sorted(FORMATS) == ["coco", "lvis", "mvtec", "voc", "yolo"]


@pytest.mark.skipif("MASKWRIGHT_DATA" not in os.environ, reason="set MASKWRIGHT_DATA to the folder of real data sets")
def test_real_data_set_loads() -> None:
    dataset = load_dataset(Path(os.environ["MASKWRIGHT_DATA"]) / "coco128-seg")
    assert len(dataset.annotations) > 700
    assert len(dataset.categories) == 80
