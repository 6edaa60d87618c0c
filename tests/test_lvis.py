"""LVIS files: file names from URLs, frequencies, and what its own package makes of an export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.coco import load_coco, save_coco
from maskwright.data.images import place_image
from maskwright.data.lvis import load_lvis, save_lvis
from maskwright.data.records import Category, Dataset, Findings

HEIGHT, WIDTH = 48, 64
SQUARE = [10, 8, 30, 8, 30, 28, 10, 28]


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)).save(path)


def lvis_dataset(folder: Path, *, num_images: int = 1, frequency: str | None = "c", crowd: bool = False) -> Dataset:
    """A set as LVIS v1 publishes it: no `file_name`, no `iscrowd`; every image holds one cup."""
    for i in range(1, num_images + 1):
        write_image(folder / "images" / "train2017" / f"{i:04}.png")
    extra = {} if frequency is None else {"frequency": frequency}
    content = {
        "images": [
            {
                "id": i,
                "coco_url": f"http://images.cocodataset.org/train2017/{i:04}.png",
                "width": WIDTH,
                "height": HEIGHT,
                "neg_category_ids": [12],
                "not_exhaustive_category_ids": [3],
            }
            for i in range(1, num_images + 1)
        ],
        "categories": [
            {"id": 3, "name": "cup", "synset": "cup.n.01", "synonyms": ["cup"], "def": "a vessel", **extra},
            {"id": 12, "name": "brush", "synset": "brush.n.02", "synonyms": ["brush"], "def": "a tool", **extra},
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 3, "segmentation": [SQUARE], "bbox": [10, 8, 20, 20], "area": 400}
            | ({"iscrowd": 1} if crowd and i == 1 else {})
            for i in range(1, num_images + 1)
        ],
    }
    path = folder / "lvis_v1_train.json"
    path.write_text(json.dumps(content))
    return load_lvis({"train": path}, {"train": folder / "images"})


def export(folder: Path, dataset: Dataset) -> tuple[Path, Findings]:
    findings = Findings()
    return save_lvis(dataset, folder, place_image, findings=findings)["train"], findings


def test_published_form_is_read(tmp_path: Path) -> None:
    dataset = lvis_dataset(tmp_path)
    image = dataset.images[0]
    assert (dataset.format, image.file_name) == ("lvis", "train2017/0001.png")
    assert (image.neg_category_ids, image.not_exhaustive_category_ids) == ((12,), (3,))
    assert dataset.categories == (Category(3, "cup", frequency="c"), Category(12, "brush", frequency="c"))


def test_export_loads_with_the_lvis_package(tmp_path: Path) -> None:
    lvis = pytest.importorskip("lvis")
    path, findings = export(tmp_path / "out", lvis_dataset(tmp_path / "in", num_images=2))
    api = lvis.LVIS(str(path))
    assert api.get_cat_ids() == [3, 12]
    assert api.get_ann_ids(img_ids=[2]) == [2]
    assert api.ann_to_mask(api.load_anns([1])[0]).sum() == 400
    assert not findings.counts


def test_export_has_what_lvis_asks_for(tmp_path: Path) -> None:
    path, _ = export(tmp_path / "out", lvis_dataset(tmp_path / "in", num_images=2))
    content = json.loads(path.read_text())
    cup, brush = content["categories"]
    assert cup.items() >= {"synset": "cup", "def": "", "synonyms": ["cup"], "frequency": "c"}.items()
    assert [(one["image_count"], one["instance_count"]) for one in (cup, brush)] == [(2, 2), (0, 0)]
    image = content["images"][0]
    assert image["coco_url"] == "http://images.cocodataset.org/train/train2017/0001.png"
    assert (image["neg_category_ids"], image["not_exhaustive_category_ids"]) == ([12], [3])
    assert (tmp_path / "out" / "images" / "train" / "train2017" / "0001.png").is_file()


@pytest.mark.parametrize(("num_images", "frequency"), [(10, "r"), (11, "c"), (100, "c"), (101, "f")])
def test_frequency_is_counted_where_none_is_declared(tmp_path: Path, num_images: int, frequency: str) -> None:
    path, _ = export(tmp_path / "out", lvis_dataset(tmp_path / "in", num_images=num_images, frequency=None))
    cup, brush = json.loads(path.read_text())["categories"]
    assert (cup["frequency"], brush["frequency"]) == (frequency, "r")


def test_crowds_are_left_out_and_reported(tmp_path: Path) -> None:
    path, findings = export(tmp_path / "out", lvis_dataset(tmp_path / "in", num_images=2, crowd=True))
    assert [one["id"] for one in json.loads(path.read_text())["annotations"]] == [2]
    assert findings.counts == {"lvis_has_no_crowd": 1}
    assert "0001.png, annotation 1" in findings.examples["lvis_has_no_crowd"][0]


def test_names_and_lists_survive_a_detour_through_coco(tmp_path: Path) -> None:
    before = lvis_dataset(tmp_path / "in", num_images=2)
    coco = save_coco(before, tmp_path / "coco", place_image, findings=Findings())
    between = load_coco(coco, {"train": tmp_path / "coco" / "images" / "train"})
    path, _ = export(tmp_path / "out", between)
    after = load_lvis({"train": path}, {"train": tmp_path / "out" / "images" / "train"})
    assert after.categories == before.categories
    for one, other in zip(before.images, after.images, strict=True):
        assert one.file_name == other.file_name
        assert one.neg_category_ids == other.neg_category_ids
        assert one.not_exhaustive_category_ids == other.not_exhaustive_category_ids
