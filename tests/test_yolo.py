"""YOLO labels: what is read, counted and refused, and what the writer makes of parts, holes and crowds."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from maskwright.data.images import place_image
from maskwright.data.load import load_dataset
from maskwright.data.masks import mask_to_rle, segmentation_to_mask
from maskwright.data.records import (
    Annotation,
    Category,
    Dataset,
    Findings,
    ImageRecord,
    MaskHW,
    Polygons,
    Sample,
    Segmentation,
)
from maskwright.data.yolo import label_path, load_yolo, save_yolo
from maskwright.errors import DatasetError

HEIGHT, WIDTH = 48, 64
SQUARE = "0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)).save(path)


def write_yolo(folder: Path, labels: Mapping[str, str | None], **data_yaml: object) -> Path:
    """A data set with one image a label; None: no label file."""
    for name, text in labels.items():
        write_image(folder / "images" / f"{name}.png")
        if text is not None:
            label = folder / "labels" / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text, encoding="utf-8")
    content = {"train": "images/train", "names": ["bolt", "Mutter ö"], **data_yaml}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def test_polygons_are_in_pixels_of_width_and_height(tmp_path: Path) -> None:
    dataset = load_yolo(write_yolo(tmp_path, {"train/bild ü": "1 0.25 0.5 0.5 0.5 0.5 1\n"}))
    annotation = dataset.annotations[0]
    assert isinstance(annotation.segmentation, Polygons)
    np.testing.assert_array_equal(annotation.segmentation.rings[0], [(16, 24), (32, 24), (32, 48)])
    assert (annotation.annotation_id, annotation.category_id, annotation.area) == (1, 1, 192)
    assert annotation.bbox_xywh == (16, 24, 16, 24)
    assert (dataset.images[0].file_name, dataset.images[0].width, dataset.images[0].height) == ("bild ü.png", 64, 48)
    assert dataset.categories == (Category(0, "bolt"), Category(1, "Mutter ö"))
    assert not dataset.findings.counts


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"path": "."},
        {"path": "../datasets/elsewhere"},
        {"path": "/datasets/elsewhere"},
        {"train": "./images/train"},
        {"train": "../images/train"},
        {"train": ["images/train"]},
        {"path": "images", "train": "train"},
        {"train": "train.txt"},
        {"names": {0: "bolt", 1: "nut"}},
        {"names": {"0": "bolt", "1": "nut"}},
    ],
    ids=lambda extra: ", ".join(f"{key}={value}" for key, value in extra.items()) or "plain",
)
def test_spellings_of_data_yaml(tmp_path: Path, extra: dict[str, object]) -> None:
    data_yaml = write_yolo(tmp_path, {"train/a": SQUARE}, **extra)
    (tmp_path / "train.txt").write_text("./images/train/a.png\n")
    dataset = load_yolo(data_yaml)
    assert [image.path for image in dataset.images] == [tmp_path / "images/train/a.png"]
    assert len(dataset.annotations) == 1


def test_labels_are_looked_for_in_the_data_set_only(tmp_path: Path) -> None:
    """A folder `images` above the data set is no reason to read labels outside it; those beside the images count."""
    write_image(tmp_path / "images" / "mine" / "train" / "a.png")
    data_yaml = write_yolo(tmp_path / "images" / "mine", {}, train="train")
    outside = tmp_path / "labels" / "mine" / "train" / "a.txt"
    outside.parent.mkdir(parents=True)
    outside.write_text(f"{SQUARE}\n{SQUARE}")
    (data_yaml.parent / "train" / "a.txt").write_text(SQUARE)
    assert len(load_yolo(data_yaml).annotations) == 1


def test_ids_start_at_1_in_each_split(tmp_path: Path) -> None:
    labels = {"train/a": f"{SQUARE}\n{SQUARE}", "train/b": "", "val/a": SQUARE, "test/c": SQUARE}
    data_yaml = write_yolo(tmp_path, labels, val="images/val", test="images/test")
    dataset = load_yolo(data_yaml)
    assert dataset.annotations.annotation_id.tolist() == [1, 2, 1, 1]
    assert [(image.split, image.file_name) for image in dataset.images] == [
        ("train", "a.png"),
        ("train", "b.png"),
        ("val", "a.png"),
        ("test", "c.png"),
    ]


def test_val_that_is_train_is_no_val(tmp_path: Path) -> None:
    dataset = load_yolo(write_yolo(tmp_path, {"train/a": SQUARE, "train/b": SQUARE}, val="images/train"))
    assert dataset.splits == ("train",)
    assert len(dataset.annotations) == 2
    assert dataset.findings.counts == {"val_shares_train_images": 2}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("data/images/train/a.png", "data/labels/train/a.txt"),
        ("images/images/a.b.jpg", "images/labels/a.b.txt"),
        ("my-images/a.png", "my-images/a.txt"),
    ],
)
def test_last_images_becomes_labels(image: str, label: str) -> None:
    root = Path("images/root")
    assert label_path(root, root / image) == root / label


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 0.1 0.1 0.5 0.1 0.5 0.5", r"row 2: unknown class 2.*0\.\.1"),
        ("-1 0.1 0.1 0.5 0.1 0.5 0.5", "unknown class -1"),
        ("0.5 0.1 0.1 0.5 0.1 0.5 0.5", r"unknown class 0\.5"),
        ("nan 0.1 0.1 0.5 0.1 0.5 0.5", "unknown class nan"),
        ("bolt 0.1 0.1 0.5 0.1 0.5 0.5", "row 2: .*'bolt'"),
        ("0 0.1 0.1 0.5 0.1 0.5 0,5", "row 2"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.9", "row 2: 7 coordinates; expected pairs"),
    ],
    ids=["class beyond", "class negative", "class fraction", "class nan", "class word", "decimal comma", "odd"],
)
def test_malformed_rows_are_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        load_yolo(write_yolo(tmp_path, {"train/a": f"{SQUARE}\n{row}\n"}))
    assert "a.txt" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("0 0.1 0.1 0.5 0.5", "box_without_mask"),
        ("0 0.1 0.1", "short_polygon"),
        ("0", "short_polygon"),
        ("0 0.1 nan 0.5 0.1 0.5 0.5", "not_finite"),
        ("0 0.1 1e999 0.5 0.1 0.5 0.5", "not_finite"),
        ("0 0.1 0.1 0.5 0.1 0.9 0.1", "empty_mask"),
        ("0 0.5 0.5 0.501 0.5 0.501 0.501", "empty_mask"),
    ],
    ids=["box", "point", "class alone", "nan", "infinite", "flat", "below a pixel"],
)
def test_unusable_rows_are_counted(tmp_path: Path, row: str, kind: str) -> None:
    dataset = load_yolo(write_yolo(tmp_path, {"train/a": f"{row}\n{SQUARE}\n"}))
    assert len(dataset.annotations) == 1
    assert dataset.findings.counts == {kind: 1}


@pytest.mark.parametrize(
    ("row", "bbox_xywh"),
    [
        ("0 -0.5 0.25 0.5 0.25 0.5 0.75 -0.5 0.75", (0, 12, 32, 24)),
        ("0 0.5 0.5 1.5 0.5 1.5 1.5 0.5 1.5", (32, 24, 32, 24)),
    ],
    ids=["left", "corner"],
)
def test_polygons_are_clipped_to_the_frame(tmp_path: Path, row: str, bbox_xywh: tuple[float, ...]) -> None:
    dataset = load_yolo(write_yolo(tmp_path, {"train/a": row}))
    assert dataset.annotations[0].bbox_xywh == bbox_xywh
    assert dataset.annotations[0].area == bbox_xywh[2] * bbox_xywh[3]
    assert dataset.findings.counts == {"clipped_polygon": 1}


def test_polygon_outside_the_frame_is_an_empty_mask(tmp_path: Path) -> None:
    dataset = load_yolo(write_yolo(tmp_path, {"train/a": f"0 1.1 1.1 1.5 1.1 1.5 1.5\n{SQUARE}"}))
    assert len(dataset.annotations) == 1
    assert dataset.findings.counts == {"clipped_polygon": 1, "empty_mask": 1}


def test_files_without_partner_are_counted(tmp_path: Path) -> None:
    data_yaml = write_yolo(tmp_path, {"train/a": SQUARE, "train/no label": None, "train/broken": SQUARE})
    (tmp_path / "labels/train/no image.txt").write_text(SQUARE)
    (tmp_path / "images/train/broken.png").write_bytes(b"no image")
    dataset = load_yolo(data_yaml)
    assert [image.file_name for image in dataset.images] == ["a.png", "no label.png"]
    assert len(dataset.annotations) == 1
    assert dataset.findings.counts == {"label_without_image": 1, "image_without_label": 1, "unreadable_image": 1}
    assert "no image.txt" in dataset.findings.examples["label_without_image"][0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the keys"),
        ("- a\n- b", "got list"),
        ("train: [", "not readable as YAML"),
        ("when: 2024-99-99", "not readable as YAML"),
        ("\x00", "not readable as YAML"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("names: [a]", "names no images"),
        ("train: images/train", "`names` is None"),
        ("train: images/train\nnames: []", r"`names` is \[\]"),
        ("train: images/train\nnames: {0: a, 2: b}", r"expected 0\.\.1"),
        ("train: images/train\nnames: [a, a]", "'a' twice"),
        ("train: 7\nnames: [a]", "train is 7"),
        ("train: images/nowhere\nnames: [a]", "does not exist"),
        ("train: ../outside\nnames: [a]", "not a safe file name"),
        ("train: /tmp\nnames: [a]", "not a safe file name"),
        ("train: link\nnames: [a]", "is a link to"),
        ("train: list.txt\nnames: [a]", r"line 2.*not a safe file name"),
        ("train: images/train/a.png\nnames: [a]", "is no text"),
        ("train: images/train\nnames: [a]\nmaskwright_category_ids: [1, 2]", "maskwright_category_ids"),
        ("train: images/train\nnames: [a]\nmaskwright_category_ids: ['1']", "maskwright_category_ids"),
    ],
)
def test_malformed_data_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    folder, outside = tmp_path / "data", tmp_path / "outside"
    write_image(outside / "b.png")
    data_yaml = write_yolo(folder, {"train/a": SQUARE})
    (folder / "link").symlink_to(outside)
    (folder / "list.txt").write_text("images/train/a.png\n../outside/b.png\n")
    data_yaml.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        load_yolo(data_yaml)
    assert "data.yaml" in str(caught.value) or "list.txt" in str(caught.value) or "a.png" in str(caught.value)


@pytest.mark.parametrize("linked", ["images/train/b.png", "labels/train/a.txt"], ids=["image", "label"])
def test_links_that_lead_out_are_refused(tmp_path: Path, linked: str) -> None:
    data_yaml = write_yolo(tmp_path / "data", {"train/a": SQUARE})
    outside = tmp_path / "secret"
    write_image(outside.with_suffix(".png"))
    link = tmp_path / "data" / linked
    link.unlink(missing_ok=True)
    link.symlink_to(outside.with_suffix(".png"))
    with pytest.raises(DatasetError, match="is a link to"):
        load_yolo(data_yaml)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"train/a": ""}, "not one usable polygon"),
        ({"train/a": "0 0.1 0.1 0.5 0.5"}, "1 box_without_mask"),
        ({"train/a": None}, "1 image_without_label"),
    ],
    ids=["background only", "boxes only", "no labels"],
)
def test_nothing_usable_is_refused(tmp_path: Path, labels: Mapping[str, str | None], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_yolo(write_yolo(tmp_path, labels))


def test_no_image_that_opens_is_refused(tmp_path: Path) -> None:
    data_yaml = write_yolo(tmp_path, {"train/a": SQUARE})
    (tmp_path / "images/train/a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="no image that opens"):
        load_yolo(data_yaml)


def test_decompression_bomb_is_refused(tmp_path: Path) -> None:
    data_yaml = write_yolo(tmp_path, {"train/a": SQUARE})
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "images/train/a.png").write_bytes(png + struct.pack(">I", 0) + b"IEND" + b"\xaeB\x60\x82")
    with pytest.raises(DatasetError, match="decompression bomb"):
        load_yolo(data_yaml)


def ring_mask() -> MaskHW:
    """Two parts; one has a hole, the other touches the border."""
    mask_hw = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_hw[5:30, 8:40] = True
    mask_hw[12:20, 15:30] = False
    mask_hw[35:, 50:] = True
    return mask_hw


class OneImage:
    """A source that is no `Dataset`: one image with these masks, of category 7."""

    def __init__(self, folder: Path, *masks: Segmentation, crowd: bool = False) -> None:
        write_image(folder / "ä b.png")
        image = ImageRecord(1, "ä b.png", str(folder), WIDTH, HEIGHT)
        rows = (Annotation(i, 7, mask, (0, 0, 1, 1), 1.0, is_crowd=crowd) for i, mask in enumerate(masks, 1))
        self.sample = Sample(image, tuple(rows))
        self.categories = (Category(3, "bolt"), Category(7, "nut"))
        self.splits = ("train",)

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        yield self.sample


def test_parts_and_holes_survive_as_one_ring(tmp_path: Path) -> None:
    findings = Findings()
    data_yaml = save_yolo(
        OneImage(tmp_path, mask_to_rle(ring_mask())), tmp_path / "out", place_image, findings=findings
    )
    dataset = load_yolo(data_yaml)
    assert dataset.categories == (Category(3, "bolt"), Category(7, "nut"))
    assert (dataset.images[0].file_name, dataset.annotations[0].category_id) == ("ä b.png", 7)
    read = segmentation_to_mask(dataset.annotations[0].segmentation, HEIGHT, WIDTH)
    np.testing.assert_array_equal(read, ring_mask())
    assert findings.counts == {"yolo_val_is_train": 1}


def test_crowds_and_empty_masks_are_left_out_and_counted(tmp_path: Path) -> None:
    findings = Findings()
    crowd = OneImage(tmp_path, mask_to_rle(ring_mask()), crowd=True)
    empty = OneImage(tmp_path, mask_to_rle(np.zeros((HEIGHT, WIDTH), dtype=np.bool_)))
    for number, source in enumerate((crowd, empty)):
        save_yolo(source, tmp_path / str(number), place_image, findings=findings)
        assert (tmp_path / str(number) / "labels/train/ä b.txt").read_bytes() == b""
    assert findings.counts == {"yolo_has_no_crowd": 1, "empty_mask": 1, "yolo_val_is_train": 2}


class AsSource:
    """Hides that a source is a `Dataset`."""

    def __init__(self, dataset: Dataset) -> None:
        self.categories, self.splits, self.samples = dataset.categories, dataset.splits, dataset.samples


def test_tables_and_samples_are_written_alike(tmp_path: Path, photographs: Path) -> None:
    dataset = load_dataset(photographs)
    for name, source in (("table", dataset), ("samples", AsSource(dataset))):
        save_yolo(source, tmp_path / name, place_image, findings=Findings())
    written = sorted(path.relative_to(tmp_path / "table") for path in (tmp_path / "table").rglob("*.txt"))
    assert len(written) == 6
    for name in written:
        assert (tmp_path / "table" / name).read_bytes() == (tmp_path / "samples" / name).read_bytes()


def test_coordinates_keep_six_digits(tmp_path: Path) -> None:
    ring = np.array([(1 / 3, 1 / 7), (62.123456, 3.3), (50.1, 44.4)], dtype=np.float32)
    save_yolo(OneImage(tmp_path, Polygons((ring,))), tmp_path / "out", place_image, findings=Findings())
    row = (tmp_path / "out/labels/train/ä b.txt").read_text().split()
    assert row[0] == "1"
    read = np.array(row[1:], dtype=np.float64).reshape(-1, 2) * (WIDTH, HEIGHT)
    np.testing.assert_allclose(read, ring, rtol=1e-6)


def test_images_that_would_share_a_label_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp"):
        write_image(tmp_path / "images/train" / name)
    ring = [8, 8, 40, 8, 40, 40]
    content = {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in ((1, "a.png"), (2, "a.bmp"))
        ],
        "categories": [{"id": 1, "name": "bolt"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring]}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"'train/a.bmp' and 'train/a.png' share the label"):
        save_yolo(load_dataset(tmp_path), tmp_path / "out", place_image, findings=Findings())


def test_real_labels(real_data: Path) -> None:
    dataset = load_dataset(real_data / "coco128-seg")
    rows = [
        row
        for image in dataset.images
        if (label := label_path(dataset.root, image.path)).is_file()
        for row in label.read_text().splitlines()
        if row.strip()
    ]
    assert len(dataset.annotations) == len(rows) - dataset.findings.counts.get("empty_mask", 0)
    assert dataset.findings.counts["val_shares_train_images"] == len(dataset.images)
    assert os.path.basename(dataset.images[0].folder) == "train2017"
