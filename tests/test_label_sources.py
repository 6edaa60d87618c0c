"""Labels in: what each format says, what is counted, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from anomaly_folders import HEIGHT, WIDTH, patch_mask, write_item, write_picture
from label_folders import (
    labels_of,
    picture,
    save_turned,
    voc_xml,
    write_class_folders,
    write_class_map,
    write_pictures,
    write_text,
    write_voc_labels,
)

from maskwright.data.images import read_image
from maskwright.data.label_records import UNKNOWN_LEVEL, LabelledImage, count_labels
from maskwright.data.label_sources import detect_labels, load_labels
from maskwright.errors import DatasetError, EmptyMaskError, ImageDecodeError


def find(images: tuple[LabelledImage, ...], key: str) -> LabelledImage:
    return next(one for one in images if one.key == key)


def test_voc_lists_tell_each_class(tmp_path: Path) -> None:
    dataset = load_labels(write_voc_labels(tmp_path / "VOC ü"))
    assert dataset.format == "voc"
    assert dataset.classes == ("cat", "dog")
    assert labels_of(dataset) == {"a.jpg": ["cat", "dog"], "b.jpg": ["dog"], "c ü.jpg": []}
    assert dataset.read_truth is None
    assert not dataset.findings.counts
    first = dataset.images[0]
    assert (first.image.width, first.image.height, first.image.split) == (WIDTH, HEIGHT, "train")


@pytest.mark.parametrize(
    ("lists", "xml", "expected", "counted"),
    [
        pytest.param(
            {}, {"a": voc_xml("dog", "zebra"), "b": voc_xml()}, {"a.jpg": ["dog", "zebra"], "b.jpg": []}, {}, id="xml"
        ),
        pytest.param({"train": "b\n"}, {"a": voc_xml("dog"), "b": voc_xml("cat")}, {"b.jpg": ["cat"]}, {}, id="listed"),
        pytest.param(
            {"dog_train": "a 1\nb 0\n"}, {}, {"a.jpg": ["dog"], "b.jpg": []}, {"difficult_only": 1}, id="difficult"
        ),
        pytest.param(
            {"train": "a\nb\n"},
            {"a": voc_xml("dog", difficult=["cat", "dog"]), "b": voc_xml(difficult=["dog"])},
            {"a.jpg": ["dog"], "b.jpg": []},
            {"difficult_only": 2},
            id="difficult objects",
        ),
        pytest.param(
            {"dog_train": "a 1\nb -1\n"},
            {"a": voc_xml("dog", "hat"), "b": voc_xml()},
            {"a.jpg": ["dog"], "b.jpg": []},
            {"object_without_list": 1},
            id="a class without list",
        ),
        pytest.param(
            {"dog_train": "a 1\n", "cat_train": "a -1\n"},
            {},
            {"a.jpg": ["dog"]},
            {"class_without_image": 1},
            id="empty class",
        ),
        pytest.param(
            {"dog_train": "a 1\nnowhere 1\n"}, {}, {"a.jpg": ["dog"]}, {"missing_image": 1}, id="unknown image"
        ),
        pytest.param(
            {"train": "a\nb\n"}, {"a": voc_xml("dog")}, {"a.jpg": ["dog"]}, {"unlabelled_image": 1}, id="nothing said"
        ),
    ],
)
def test_voc(
    tmp_path: Path,
    lists: Mapping[str, str],
    xml: Mapping[str, str],
    expected: dict[str, list[str]],
    counted: dict[str, int],
) -> None:
    dataset = load_labels(write_voc_labels(tmp_path, lists=lists, xml=xml, stems="ab"), format="voc")
    assert labels_of(dataset) == expected
    assert dataset.findings.counts == counted
    assert set(dataset.classes) == {label for labels in expected.values() for label in labels}


@pytest.mark.parametrize(
    ("lists", "expected", "counted"),
    [
        pytest.param({"x_val": "a 1\n", "x_test": "b 1\n"}, {"a": "val", "b": "test"}, {}, id="val and test"),
        pytest.param({"x_val": "a 1\nb 1\n"}, {"a": "train", "b": "train"}, {}, id="one list is all there is"),
        pytest.param(
            {"x_train": "a 1\n", "x_val": "b 1\n", "x_trainval": "a 1\nb 1\n"}, {"a": "train", "b": "val"}, {}, id="voc"
        ),
        pytest.param(
            {"x_train": "a 1\n", "x_val": "a 1\nb 1\n"},
            {"a": "train", "b": "val"},
            {"val_shares_train_images": 1},
            id="the first list has it",
        ),
        pytest.param(
            {"x_train": "a 1\nb 1\n", "../Segmentation/train_aug": "b\n", "../Segmentation/val": "a\n"},
            {"a": "val", "b": "train"},
            {},
            id="weakly supervised segmentation's own",
        ),
    ],
)
def test_voc_splits(
    tmp_path: Path, lists: Mapping[str, str], expected: dict[str, str], counted: dict[str, int]
) -> None:
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    dataset = load_labels(write_voc_labels(tmp_path, lists=lists, stems="ab"))
    assert {one.path.stem: one.image.split for one in dataset.images} == expected
    assert dataset.findings.counts == counted


def test_the_truth_of_voc_is_its_class_map(tmp_path: Path) -> None:
    root = write_voc_labels(tmp_path)
    write_class_map(root / "SegmentationClass" / "a.png", x0=8, x1=12, x2=15, x3=255)
    write_picture(root / "SegmentationClass" / "b.png", np.zeros((WIDTH, HEIGHT), dtype=np.uint8))
    dataset = load_labels(root)
    assert dataset.read_truth is not None
    class_map = dataset.read_truth(find(dataset.images, "a.jpg"))
    assert class_map.shape == (HEIGHT, WIDTH)
    assert class_map[0, :5].tolist() == [1, 2, UNKNOWN_LEVEL, UNKNOWN_LEVEL, 0], "cat, dog, a person, void, background"
    with pytest.raises(ImageDecodeError, match="expected 64x48"):
        dataset.read_truth(find(dataset.images, "b.jpg"))
    with pytest.raises(EmptyMaskError, match="c ü"):
        dataset.read_truth(find(dataset.images, "c ü.jpg"))


def test_class_maps_that_nobody_numbered_are_no_truth(tmp_path: Path) -> None:
    root = write_voc_labels(tmp_path, lists={"Riß_train": "a 1\n"})
    write_class_map(root / "SegmentationClass" / "a.png", x0=1)
    dataset = load_labels(root)
    assert dataset.read_truth is None
    assert dataset.findings.counts == {"unnumbered_class_maps": 1}
    write_text(root / "labelmap.txt", "background:::\nRiß:::\n")
    numbered = load_labels(root)
    assert numbered.read_truth is not None
    assert numbered.read_truth(numbered.images[0])[0, :2].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("lists", "xml", "said"),
    [
        pytest.param({"x_train": "a 1\n", "x_val": "a -1\n"}, {}, "another list of 'x' 1", id="two lists"),
        pytest.param({"x_train": "a -1\n"}, {"a": voc_xml("x")}, "its list says -1", id="denied"),
        pytest.param(
            {"x_train": "a -1\n"}, {"a": voc_xml(difficult=["x"])}, "its list says -1", id="denied, difficult"
        ),
        pytest.param({"x_train": "a 1\n"}, {"a": voc_xml("y")}, "'a' has no 'x'", id="claimed"),
        pytest.param({"x_train": "a\n"}, {}, "expected an image's name and 1", id="no flag"),
        pytest.param({"x_train": "a 2\n"}, {}, "expected an image's name and 1", id="unknown flag"),
        pytest.param({"x_train": "../../a 1\n"}, {}, "not a safe file name", id="leaves the folder"),
        pytest.param({"x_train": "a 1\n"}, {"a": "<annotation>"}, "not a VOC annotation", id="broken XML"),
        pytest.param({"x_train": "a -1\nb 0\n"}, {}, "no label at all.*1 difficult_only, 1 class_without", id="empty"),
        pytest.param({}, {}, "lists no image", id="nothing"),
    ],
)
def test_voc_that_is_refused(tmp_path: Path, lists: Mapping[str, str], xml: Mapping[str, str], said: str) -> None:
    root = write_voc_labels(tmp_path / "Ordner ü", lists=lists, xml=xml, stems="ab")
    with pytest.raises(DatasetError, match=said):
        load_labels(root, format="voc")


def test_instances_are_labels_and_their_masks_the_truth(photographs: Path) -> None:
    annotations = photographs / "annotations" / "instances_train.json"
    content = json.loads(annotations.read_text(encoding="utf-8"))
    inner, crowd = dict(content["annotations"][0]), dict(content["annotations"][0])
    inner |= {"id": 101, "category_id": 7, "segmentation": [[6, 12, 10, 12, 10, 16, 6, 16]]}
    counts = [64 * 48 - 48, 48]
    crowd |= {"id": 102, "iscrowd": 1, "segmentation": {"counts": counts, "size": [48, 64]}}
    content["annotations"] += [inner, crowd]
    content["categories"].append({"id": 9, "name": "never"})
    annotations.write_text(json.dumps(content), encoding="utf-8")
    dataset = load_labels(photographs)
    assert dataset.format == "coco"
    assert dataset.classes == ("bolt", "Mutter ö")
    assert dataset.findings.counts["class_without_image"] == 1
    assert count_labels(dataset.images, dataset.classes) == {"bolt": 6, "Mutter ö": 2}
    first = dataset.images[0]
    assert first.key == "images/train/bild 1 ü.png"
    assert dataset.read_truth is not None
    class_map = dataset.read_truth(first)
    assert class_map.shape == read_image(first.image).shape[:2]
    assert [int(class_map[row, x]) for row, x in ((11, 5), (13, 7), (11, 49), (0, 63), (0, 0))] == [1, 2, 2, 255, 0]


def test_an_item_has_its_defects_as_labels(tmp_path: Path) -> None:
    item = write_item(tmp_path, num_good=3, num_test_good=1, defects={"Riß": 2, "Loch": 1})
    dataset = load_labels(item)
    assert (dataset.format, dataset.classes) == ("mvtec", ("Loch", "Riß"))
    assert count_labels(dataset.images, dataset.classes) == {"Loch": 1, "Riß": 2}
    assert dataset.read_truth is not None
    cracked = next(one for one in dataset.images if one.labels == {"Riß"})
    assert np.array_equal(dataset.read_truth(cracked), patch_mask() * 2)
    good = find(dataset.images, "Rohr ü/train/good/000.png")
    assert not good.labels
    assert not dataset.read_truth(good).any()


def test_one_of_several_items_is_named(tmp_path: Path) -> None:
    for item in ("Rohr ü", "Deckel"):
        write_item(tmp_path, item=item)
    with pytest.raises(DatasetError, match="items Deckel, Rohr ü; name one"):
        load_labels(tmp_path)
    assert load_labels(tmp_path, item="Deckel").classes == ("Riß",)


@pytest.mark.parametrize(
    ("counts", "expected", "splits"),
    [
        ({"Riß": 2, "good": 1}, {"Riß": 2}, {"train"}),
        ({"Katze": 1, "Hund": 2, "background": 1}, {"Hund": 2, "Katze": 1}, {"train"}),
        ({"train/a": 2, "val/a": 1, "train/negative": 1, "test/b": 1}, {"a": 3, "b": 1}, {"train", "val", "test"}),
        ({"train/good": 1, "train/Riß": 1}, {"Riß": 1}, {"train"}),
    ],
    ids=["good", "background", "splits", "good beside others"],
)
def test_folders_are_classes(
    tmp_path: Path, counts: dict[str, int], expected: dict[str, int], splits: set[str]
) -> None:
    dataset = load_labels(write_class_folders(tmp_path, counts))
    assert dataset.format == "folders"
    assert count_labels(dataset.images, dataset.classes) == expected
    assert len(dataset.images) == sum(counts.values())
    assert {one.image.split for one in dataset.images} == splits
    assert dataset.read_truth is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "file,labels\na.png,Riß;tiefes Loch\nü/b.png,\n", {"a.png": ["Riß", "tiefes Loch"]}, id="semicolon"
        ),
        pytest.param("file,labels\na.png,x y\nü/b.png,y\n", {"a.png": ["x", "y"], "ü/b.png": ["y"]}, id="space"),
        pytest.param("Bild,y,x\na.png,1,0\nü/b.png,,1.0\n", {"a.png": ["y"], "ü/b.png": ["x"]}, id="columns"),
        pytest.param('\ufefff,"a, b"\r\na.png,true\r\n\r\nü/b.png,0\r\n', {"a.png": ["a, b"]}, id="as Excel writes it"),
        pytest.param("f,labels\na.png,x\n./a.png,x\nü/b.png,x\n", {"a.png": ["x"], "ü/b.png": ["x"]}, id="twice alike"),
    ],
)
def test_tables(tmp_path: Path, text: str, expected: dict[str, list[str]]) -> None:
    write_text(write_pictures(tmp_path, ["a.png", "ü/b.png"]) / "Tabelle.csv", text)
    by_folder, by_file = load_labels(tmp_path), load_labels(tmp_path / "Tabelle.csv")
    assert labels_of(by_folder) == labels_of(by_file) == {"a.png": [], "ü/b.png": []} | expected
    assert by_folder.findings.counts == ({"listed_twice": 1} if "./a.png" in text else {})


def test_a_table_says_which_images_are_set_aside(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.png", "b.png"])
    path = write_text(tmp_path / "labels.csv", "file,split,x\na.png,Train,1\nb.png,validation,1\n")
    dataset = load_labels(path)
    assert dataset.classes == ("x",)
    assert [one.image.split for one in dataset.images] == ["train", "val"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,labels\na.png,x\na.png,y\n", "1 contradictory label sets; the first: line 3 lists 'a.png' again"),
        ("file,x,split\na.png,1,train\na.png,1,val\n", "as 'x' in val, earlier as 'x' in train"),
        ("file,labels\n../a.png,x\n", "not a safe file name"),
        ("file,labels\n/etc/passwd,x\n", "not a safe file name"),
        ("file,x\na.png,yes\n", "line 2: 'yes' in the column 'x'; expected 0 or 1"),
        ("file,x,split\na.png,1,later\n", "split 'later'; expected train, val or test"),
        ("file;labels\na.png;x\n", "has the columns 'file;labels'"),
        ("file,x,x\na.png,1,1\n", "each of its own name"),
        ("file,x\na.png,1,0\n", "line 2: 3 cells, expected 2"),
        ("file,x\na.png,0\n", "no label at all on its 1 usable images"),
        ("file,x\nb.png,1\n", "no label at all on its 0 usable images.*1 missing_image"),
        ("file,x\n", "lists no image"),
        ("", "has the columns"),
    ],
    ids=lambda value: value.replace("\n", "|")[:30],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = write_text(write_pictures(tmp_path, ["a.png"]) / "t.csv", text)
    with pytest.raises(DatasetError, match=said):
        load_labels(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = write_picture(tmp_path / "elsewhere.png", picture(0))
    root = write_class_folders(tmp_path / "data", {"x": 1})
    (root / "x" / "link.png").symlink_to(outside)
    with pytest.raises(DatasetError, match=r"link\.png.*outside"):
        load_labels(root)


def test_copies_with_other_labels(tmp_path: Path) -> None:
    """That a picture shows two classes in two folders may be meant; that it shows one and none cannot."""
    root = write_class_folders(tmp_path, {"x": 1, "y": 1, "good": 1})
    write_picture(root / "x" / "copy.png", picture(2))
    dataset = load_labels(root)
    assert dataset.findings.examples == {
        "copy_with_other_labels": ["'x/copy.png' shows 'x' and its copy 'y/000.png' shows 'y'"]
    }
    write_picture(root / "x" / "good one.png", picture(3))
    with pytest.raises(
        DatasetError, match=r"contradictory.*'good/000\.png' shows no class.*'x/good one\.png' shows 'x'"
    ):
        load_labels(root)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"x": 1})
    write_text(root / "x" / "no picture.png", "x")
    save_turned(root / "x" / "turned.png", 5)
    dataset = load_labels(root)
    assert dataset.findings.counts == {"unreadable_image": 1}
    turned = find(dataset.images, "x/turned.png")
    assert read_image(turned.image).shape[:2] == (turned.image.height, turned.image.width) == (WIDTH, HEIGHT)


def test_a_class_map_holds_254_classes(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a.png"])
    names = [f"c{i}" for i in range(255)]
    path = tmp_path / "t.csv"
    write_text(path, f"file,labels\na.png,{';'.join(names[:254])}\n")
    assert len(load_labels(path).classes) == 254
    write_text(path, f"file,labels\na.png,{';'.join(names)}\n")
    with pytest.raises(DatasetError, match="255 classes; expected at most 254"):
        load_labels(path)


def _two_tables(root: Path) -> None:
    for name in ("a.csv", "b.csv"):
        write_text(root / name, "file,labels\n")


def _table_beside_folders(root: Path) -> None:
    write_class_folders(root, {"x": 1, "y": 1})
    write_text(root / "prices.csv", "article,price\nbolt,1\n")


def _table_of_folders(root: Path) -> None:
    write_class_folders(root, {"photographs": 1})
    write_text(root / "shown.csv", "file,labels\nphotographs/000.png,x\n")


def _plain_item(root: Path) -> None:
    write_class_folders(root, {"good": 1, "Riß": 1})
    write_picture(root / "Riß" / "000_mask.png", patch_mask().astype(np.uint8) * np.uint8(255))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda root: write_voc_labels(root), "voc"),
        (lambda root: write_voc_labels(root, lists={}, xml={"a": voc_xml("x")}), "voc"),
        (lambda root: write_item(root), "mvtec"),
        (_plain_item, "mvtec"),
        (lambda root: write_class_folders(root, {"good": 1, "Riß": 1}), "folders"),
        (lambda root: write_class_folders(root, {"train/good": 1, "train/Riß": 1}), "folders"),
        (lambda root: write_class_folders(root, {"train/good": 1, "val/Riß": 1}), "folders"),
        (_two_tables, "csv"),
        (_table_beside_folders, "folders"),
        (_table_of_folders, "csv"),
    ],
    ids=[
        "voc lists",
        "voc xml",
        "mvtec",
        "plain item",
        "good and others",
        "train/good and others",
        "good alone trains",
        "csv",
        "other table",
        "its table",
    ],
)
def test_formats_are_told_apart(tmp_path: Path, make: Callable[[Path], None], expected: str) -> None:
    make(tmp_path)
    assert detect_labels(tmp_path) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "looked for JPEGImages.*train/good.*csv"),
        ({"format": "vok"}, "unknown format 'vok'.*known: coco, csv, folders, lvis, mvtec, voc, yolo, auto"),
        ({"format": "folders", "item": "Rohr"}, "no item 'Rohr'"),
        ({"format": "voc"}, "has no JPEGImages"),
        ({"format": "csv"}, "has the tables none"),
    ],
)
def test_what_is_not_known_is_named(tmp_path: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        load_labels(tmp_path, **options)  # type: ignore[arg-type]


def test_several_tables_in_a_folder(tmp_path: Path) -> None:
    _two_tables(tmp_path)
    with pytest.raises(DatasetError, match=r"tables a\.csv, b\.csv; expected one"):
        load_labels(tmp_path)
    with pytest.raises(DatasetError, match="does not exist"):
        load_labels(tmp_path / "nowhere")
