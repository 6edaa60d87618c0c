"""Exports: whole or absent, images placed once, validation bytes untouched, nobody's folder overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.export import MARKER, WRITERS, export_dataset
from maskwright.data.load import load_dataset
from maskwright.data.records import Dataset, Findings, Sample
from maskwright.errors import DatasetError, RunFolderError

HEIGHT, WIDTH = 48, 64
ORIENTATION = 274


def write_coco(folder: Path, splits: dict[str, list[str]], *, orientation: int = 0) -> Path:
    """Two textured images a split, each with one square; with `orientation`, labelled on the stored pixels."""
    rng = np.random.default_rng(3)
    for split, names in splits.items():
        images, annotations = [], []
        for number, name in enumerate(names, start=1):
            path = folder / "images" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            exif = Image.Exif()
            if orientation:
                exif[ORIENTATION] = orientation
            Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path, exif=exif)
            images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            ring = [8, 4, 40, 4, 40, 30, 8, 30]
            annotations.append({"id": number, "image_id": number, "category_id": 4, "segmentation": [ring]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 4, "name": "bolt"}]}
        path = folder / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def two_splits(folder: Path, *, orientation: int = 0) -> Dataset:
    names = {"train": ["a.jpg", "ü b.jpg"], "val": ["a.jpg", "c.jpg"]}
    return load_dataset(write_coco(folder, names, orientation=orientation))


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_each_format_reads_back(tmp_path: Path, name: str) -> None:
    findings = Findings()
    export_dataset(two_splits(tmp_path / "in"), tmp_path / "out", [name], findings=findings)
    read = load_dataset(tmp_path / "out" / name, name)
    assert [(image.split, image.file_name) for image in read.images] == [
        ("train", "a.jpg"),
        ("train", "ü b.jpg"),
        ("val", "a.jpg"),
        ("val", "c.jpg"),
    ]
    assert [one.area for one in read.annotations] == [32 * 26] * 4
    assert [(one.category_id, one.name) for one in read.categories] == [(4, "bolt")]
    assert findings.counts == ({"voc_renamed": 1} if name == "voc" else {})


def test_images_are_placed_once_for_all_formats(tmp_path: Path) -> None:
    placed: list[None] = []
    export_dataset(
        two_splits(tmp_path / "in"),
        tmp_path / "out",
        ["coco", "yolo", "lvis"],
        findings=Findings(),
        on_image=lambda: placed.append(None),
    )
    assert len(placed) == 4
    first, *others = (tmp_path / "out" / name / "images/train/ü b.jpg" for name in ("coco", "yolo", "lvis"))
    assert all(other.samefile(first) for other in others)


@pytest.mark.parametrize("orientation", [0, 3, 6], ids=["upright", "half turn", "quarter turn"])
def test_validation_images_keep_their_bytes(tmp_path: Path, orientation: int) -> None:
    export_dataset(
        two_splits(tmp_path / "in", orientation=orientation), tmp_path / "out", ["coco", "voc"], findings=Findings()
    )
    for written in ("coco/images/val/c.jpg", "voc/JPEGImages/c.jpg"):
        assert (tmp_path / "out" / written).read_bytes() == (tmp_path / "in/images/val/c.jpg").read_bytes()


def test_training_images_lose_their_orientation_and_no_pixel(tmp_path: Path) -> None:
    export_dataset(two_splits(tmp_path / "in", orientation=6), tmp_path / "out", ["yolo"], findings=Findings())
    with (
        Image.open(tmp_path / "in/images/train/ü b.jpg") as before,
        Image.open(tmp_path / "out/yolo/images/train/ü b.jpg") as after,
    ):
        assert before.getexif().get(ORIENTATION) == 6
        assert ORIENTATION not in after.getexif()
        np.testing.assert_array_equal(np.array(after), np.array(before))


def test_oriented_validation_images_are_named(tmp_path: Path) -> None:
    findings = Findings()
    export_dataset(two_splits(tmp_path / "in", orientation=6), tmp_path / "out", ["coco"], findings=findings)
    assert findings.counts == {"exif_orientation_kept": 2}


def test_export_without_training_annotations_is_refused(tmp_path: Path) -> None:
    dataset = two_splits(tmp_path / "in")

    class ValOnly:
        categories, splits = dataset.categories, dataset.splits

        def samples(self, split: str | None = None) -> Iterator[Sample]:
            for sample in dataset.samples(split):
                yield sample if sample.image.split == "val" else Sample(sample.image, ())

    with pytest.raises(DatasetError, match="the export would be empty"):
        export_dataset(ValOnly(), tmp_path / "out", ["coco"], findings=Findings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'kitti'; known: coco, lvis, voc, yolo"):
        export_dataset(two_splits(tmp_path / "in"), tmp_path / "out", ["coco", "kitti"], findings=Findings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["out", "out.partial", "out.replaced"])
def test_folder_of_others_is_refused_and_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match=f"{name}: exists and was not made by maskwright"):
        export_dataset(two_splits(tmp_path / "in"), tmp_path / "out", ["coco"], findings=Findings())
    assert (tmp_path / name / "thesis.txt").read_text() == "years of work"


def test_file_in_the_way_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("years of work")
    with pytest.raises(RunFolderError, match="was not made by maskwright"):
        export_dataset(two_splits(tmp_path / "in"), tmp_path / "out", ["coco"], findings=Findings())
    assert (tmp_path / "out").read_text() == "years of work"


def test_killed_export_is_redone(tmp_path: Path) -> None:
    half = tmp_path / "out.partial" / "coco" / "images" / "train" / "half.jpg"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half an image")
    (tmp_path / "out.partial" / MARKER).touch()
    export_dataset(two_splits(tmp_path / "in"), tmp_path / "out", ["coco"], findings=Findings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert not (tmp_path / "out/coco/images/train/half.jpg").exists()
    assert len(load_dataset(tmp_path / "out/coco").annotations) == 4


@pytest.mark.parametrize("new_is_there", [False, True], ids=["before the new one came", "after"])
def test_kill_between_two_renames_loses_nothing(tmp_path: Path, new_is_there: bool) -> None:
    dataset, out, replaced = two_splits(tmp_path / "in"), tmp_path / "out", tmp_path / "out.replaced"
    export_dataset(dataset, out, ["coco"], findings=Findings())
    (out / "notes.txt").write_text("mine")
    out.rename(replaced)
    if new_is_there:
        out.mkdir()
        (out / MARKER).write_text("")
    export_dataset(dataset, out, ["yolo"], findings=Findings())
    assert not replaced.exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "coco").exists()


def test_failure_midway_leaves_the_earlier_export(tmp_path: Path) -> None:
    dataset, out = two_splits(tmp_path / "in"), tmp_path / "out"
    export_dataset(dataset, out, ["coco"], findings=Findings())

    class Broken:
        categories, splits = dataset.categories, dataset.splits

        def samples(self, split: str | None = None) -> Iterator[Sample]:
            yield dataset.sample(0)
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        export_dataset(Broken(), out, ["yolo"], findings=Findings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert len(load_dataset(out / "coco").annotations) == 4


def test_export_replaces_ours_and_keeps_what_others_put_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dataset(two_splits(tmp_path / "in"), out, ["coco"], findings=Findings())
    (out / "coco/labels.cache").write_text("theirs")
    smaller = load_dataset(write_coco(tmp_path / "smaller", {"train": ["a.jpg"]}))
    export_dataset(smaller, out, ["coco"], findings=Findings())
    assert (out / "coco/labels.cache").read_text() == "theirs"
    assert sorted(path.name for path in (out / "coco").rglob("*.jpg")) == ["a.jpg"]
    assert not (out / "coco/annotations/instances_val.json").exists()
