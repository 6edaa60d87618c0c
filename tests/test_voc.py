"""Pascal VOC: maps as others write them, what is counted and refused, and what lies beside the map when it must."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from maskwright.data.images import place_image
from maskwright.data.masks import mask_to_rle, segmentation_to_mask, segmentation_to_rle
from maskwright.data.records import (
    AnnotationTableBuilder,
    Category,
    Dataset,
    Findings,
    ImageRecord,
    MaskHW,
    Rle,
)
from maskwright.data.voc import load_voc, save_voc
from maskwright.data.voc_maps import index_to_colour
from maskwright.errors import DatasetError

HEIGHT, WIDTH = 48, 64
UInt8 = npt.NDArray[np.uint8]


def box_mask(top: int, left: int, height: int, width: int) -> MaskHW:
    mask_hw = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_hw[top : top + height, left : left + width] = True
    return mask_hw


def two_instances() -> tuple[UInt8, UInt8]:
    """Maps of a dog, number 1, with a void outline, and a person, number 2, on the border."""
    objects = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    classes = objects.copy()
    for map_hw, dog, person in ((objects, 1, 2), (classes, 12, 15)):
        map_hw[4:22, 4:32] = 255
        map_hw[5:21, 5:31] = dog
        map_hw[30:, 40:] = person
    return objects, classes


def as_palette(index_map: UInt8) -> Image.Image:
    image = Image.fromarray(index_map)
    image.putpalette([value for i in range(256) for value in index_to_colour(i)])
    return image


def as_colours(index_map: UInt8) -> Image.Image:
    colours = np.array([index_to_colour(i) for i in range(255)] + [(224, 224, 192)], dtype=np.uint8)
    return Image.fromarray(colours[index_map])


def xml_of(*names: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>a.jpg</filename>{size}{objects}</annotation>"


def write_voc(root: Path, encode: Callable[[UInt8], Image.Image] = as_palette) -> Path:
    """One image with a dog and a person, as VOC has them."""
    for folder in ("JPEGImages", "Annotations", "SegmentationObject", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)).save(root / "JPEGImages/a.jpg")
    objects, classes = two_instances()
    encode(objects).save(root / "SegmentationObject/a.png")
    encode(classes).save(root / "SegmentationClass/a.png")
    (root / "Annotations/a.xml").write_text(xml_of("dog", "person"))
    (root / "ImageSets/Segmentation/train.txt").write_text("a\n")
    return root


def names_and_masks(dataset: Dataset) -> list[tuple[str, MaskHW]]:
    return [
        (dataset.category(one.category_id).name, segmentation_to_mask(one.segmentation, HEIGHT, WIDTH))
        for one in dataset.annotations
    ]


@pytest.mark.parametrize(
    "encode", [as_palette, lambda index_map: Image.fromarray(index_map), as_colours], ids=["palette", "grey", "colours"]
)
@pytest.mark.parametrize("absent", ["", "Annotations/a.xml", "SegmentationClass/a.png"], ids=lambda name: name or "all")
def test_instances_get_their_class_from_map_or_xml(
    tmp_path: Path, encode: Callable[[UInt8], Image.Image], absent: str
) -> None:
    root = write_voc(tmp_path, encode)
    if absent:
        (root / absent).unlink()
    dataset = load_voc(root)
    objects, _ = two_instances()
    found = names_and_masks(dataset)
    assert [name for name, _ in found] == ["dog", "person"]
    for number, (_, mask_hw) in enumerate(found, start=1):
        np.testing.assert_array_equal(mask_hw, objects == number)
    assert [one.category_id for one in dataset.annotations] == [12, 15]
    assert [one.area for one in dataset.annotations] == [16 * 26, 18 * 24]
    assert dataset.annotations[1].bbox_xywh == (40, 30, 24, 18)
    assert len(dataset.categories) == 20
    assert not dataset.findings.counts


def test_labelmap_names_indices_and_colours(tmp_path: Path) -> None:
    root = write_voc(tmp_path, as_colours)
    objects, _ = two_instances()
    classes = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    classes[objects == 1], classes[objects == 2] = (10, 20, 30), (0, 200, 7)
    Image.fromarray(classes).save(root / "SegmentationClass/a.png")
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nÖl:0,200,7::\nnut:10,20,30::"
    )
    dataset = load_voc(root)
    assert dataset.categories == (Category(1, "Öl"), Category(2, "nut"))
    assert [name for name, _ in names_and_masks(dataset)] == ["nut", "Öl"]


def test_classes_that_only_xml_names_are_sorted(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    (root / "Annotations/a.xml").write_text(xml_of("nut", "bolt"))
    dataset = load_voc(root)
    assert dataset.categories == (Category(1, "bolt"), Category(2, "nut"))
    assert [name for name, _ in names_and_masks(dataset)] == ["nut", "bolt"]


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({}, {"a": "train", "b": "train"}),
        ({"Segmentation/default": "a b"}, {"a": "train", "b": "train"}),
        (
            {"Segmentation/train": "b", "Segmentation/val": "a", "Segmentation/trainval": "a b"},
            {"b": "train", "a": "val"},
        ),
        ({"Main/train": "a", "Main/test": "b", "Main/dog_train": "a b"}, {"a": "train", "b": "test"}),
        ({"Segmentation/train": "a", "Main/train": "a b"}, {"a": "train"}),
    ],
    ids=["no list", "one list", "trainval", "main", "segmentation first"],
)
def test_splits(tmp_path: Path, lists: dict[str, str], splits: dict[str, str]) -> None:
    root = write_voc(tmp_path)
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationObject", "png"), ("SegmentationClass", "png")):
        (root / folder / f"b.{suffix}").write_bytes((root / folder / f"a.{suffix}").read_bytes())
    (root / "ImageSets/Segmentation/train.txt").unlink()
    for name, stems in lists.items():
        path = root / "ImageSets" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(stems.split()) + "\n")
    dataset = load_voc(root)
    assert {Path(image.file_name).stem: image.split for image in dataset.images} == splits


def test_oddities_are_counted(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    for name in ("background", "boxes", "both lists"):
        (root / f"JPEGImages/{name}.jpg").write_bytes((root / "JPEGImages/a.jpg").read_bytes())
    (root / "Annotations/a.xml").write_text(xml_of("dog", "person", "cat"))
    (root / "Annotations/boxes.xml").write_text(xml_of("dog", "dog"))
    (root / "ImageSets/Segmentation/train.txt").write_text("a\nbackground\nboxes\nmissing\nboth lists\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("both lists\n")
    dataset = load_voc(root)
    assert len(dataset.annotations) == 2
    assert dataset.findings.counts == {
        "box_without_mask": 3,
        "image_without_label": 2,
        "missing_image": 1,
        "val_shares_train_images": 1,
    }


def soft_edges(root: Path) -> None:
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint8) * 3, (HEIGHT, 1))
    for folder in ("SegmentationObject", "SegmentationClass"):
        Image.fromarray(ramp).save(root / folder / "a.png")


def write_map(folder: str, image: Image.Image) -> Callable[[Path], None]:
    return lambda root: image.save(root / folder / "a.png")


def write_text(name: str, text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)

    return write


def without_class_map(names: Sequence[str], labelmap: str = "") -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / "SegmentationClass/a.png").unlink()
        (root / "Annotations/a.xml").write_text(xml_of(*names))
        if labelmap:
            (root / "labelmap.txt").write_text(labelmap)

    return change


def exact_masks(**changed: object) -> Callable[[Path], None]:
    segmentation = {"size": [HEIGHT, WIDTH], "counts": mask_to_rle(box_mask(5, 5, 9, 9)).counts.decode()}
    annotation = {"id": 1, "image_id": 1, "category_id": 12, "segmentation": segmentation, **changed}
    content = {"file_name": changed.get("file_name", "a.jpg"), "image_id": 1, "annotations": [annotation]}
    return write_text("Masks/a.json", json.dumps(content))


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 100}">' for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (write_map("SegmentationObject", Image.new("P", (HEIGHT, WIDTH))), "48x64 pixels; expected 64x48"),
        (write_map("SegmentationClass", Image.new("L", (32, 24))), "32x24 pixels; expected 64x48"),
        (write_map("SegmentationObject", Image.new("RGBA", (WIDTH, HEIGHT))), "mode 'RGBA'"),
        (write_map("SegmentationObject", Image.new("I;16", (WIDTH, HEIGHT))), "mode 'I;16'"),
        (write_map("SegmentationClass", Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3))), r"colour \(1, 2, 3\)"),
        (soft_edges, r"class \d+ is unknown; expected 1\.\.20"),
        (write_text("SegmentationObject/a.png", "no image"), "not readable as an index map"),
        (without_class_map(["dog"]), "instance 2 has no class"),
        (without_class_map(["dog", "nut"], "dog:1,1,1::"), "unknown class 'nut'; known: dog"),
        (write_text("labelmap.txt", "dog:1,1::"), "line 1: 'dog:1,1::'"),
        (write_text("labelmap.txt", "dog:1,1,1::\ndog:2,2,2::"), "label occurs twice"),
        (write_text("maskwright.json", "{"), "not as maskwright writes it"),
        (write_text("maskwright.json", json.dumps({"categories": [{"id": 1, "name": "a"}] * 2})), "occurs twice"),
        (write_text("Annotations/a.xml", "<annotation>"), "not a VOC annotation"),
        (write_text("Annotations/a.xml", xml_of("dog").replace("64", "wide")), "not a VOC annotation"),
        (write_text("Annotations/a.xml", LAUGHS + "]><annotation>&g;</annotation>"), "not a VOC annotation"),
        (write_text("ImageSets/Segmentation/train.txt", "../a\n"), "not a safe file name"),
        (write_text("ImageSets/Segmentation/train.txt", "/etc/passwd\n"), "not a safe file name"),
        (write_text("Masks/a.json", "[]"), "not as maskwright writes it"),
        (exact_masks(file_name="../a.jpg"), "not a safe file name"),
        (exact_masks(category_id=21), "category_id 21"),
        (exact_masks(image_id=2), "image_id 2"),
        (exact_masks(segmentation={"size": [WIDTH, HEIGHT], "counts": "0"}), r"\[64, 48\] is not \[48, 64\]"),
        (exact_masks(segmentation={"size": [HEIGHT, WIDTH], "counts": [7, 7]}), "cannot be decoded to 3072 pixels"),
        (without_class_map([]), "instance 1 has no class"),
        (write_map("SegmentationObject", Image.new("P", (WIDTH, HEIGHT))), "not one usable instance mask"),
    ],
    ids=[
        *("map turned", "class map small", "map rgba", "map 16 bit", "unknown colour", "soft edges", "no image"),
        *("no class", "unknown class", "labelmap line", "labelmap twice", "categories cut", "categories twice"),
        *("xml cut", "xml size", "xml bomb", "list leaves", "list absolute", "masks list", "masks leave"),
        *("masks category", "masks image", "masks size", "masks counts", "neither map nor xml", "all background"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    root = write_voc(tmp_path)
    change(root)
    with pytest.raises(DatasetError, match=message):
        load_voc(root)


def test_map_that_links_out_is_refused(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    link = root / "SegmentationObject/a.png"
    link.rename(tmp_path / "outside.png")
    link.symlink_to(tmp_path / "outside.png")
    with pytest.raises(DatasetError, match="is a link to"):
        load_voc(root)


def make_dataset(folder: Path, masks: dict[str, Sequence[MaskHW]], *, crowd: bool = False) -> Dataset:
    """Images `SPLIT/NAME` with these masks, of categories 90 and 7 in turn; with `crowd`, the first mask is one."""
    builder, images = AnnotationTableBuilder(), []
    for index, (name, masks_hw) in enumerate(masks.items()):
        split, file_name = name.split("/", 1)
        path = folder / split / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)).save(path)
        images.append(ImageRecord(index + 1, file_name, str(folder / split), WIDTH, HEIGHT, split))
        for number, mask_hw in enumerate(masks_hw):
            builder.add(
                annotation_id=len(builder) + 1,
                image_index=index,
                category_id=(90, 7)[number % 2],
                segmentation=mask_to_rle(mask_hw),
                bbox_xywh=(0, 0, 1, 1),
                area=1,
                is_crowd=crowd and number == 0,
            )
    categories = (Category(90, "Kiste: groß", "box", "r"), Category(7, "dog"))
    return Dataset(folder, "coco", categories, images, builder.build(len(images)))


Instances = dict[tuple[str, str], list[tuple[int, bool, Rle]]]


def instances_of(dataset: Dataset) -> Instances:
    return {
        (sample.image.split, sample.image.file_name): [
            (one.category_id, one.is_crowd, segmentation_to_rle(one.segmentation, HEIGHT, WIDTH))
            for one in sample.annotations
        ]
        for sample in dataset.samples()
    }


SEPARATE = (box_mask(0, 0, 9, 20), box_mask(20, 10, 12, 30))
OVERLAPPING = (box_mask(5, 5, 20, 40), box_mask(10, 10, 4, 4))
GRID = [box_mask(2 * (i // 32), 2 * (i % 32), 1, 2) for i in range(24 * 32)]


@pytest.mark.parametrize(
    ("masks", "crowd", "aside", "counts"),
    [
        ({"train/a.jpg": SEPARATE, "val/b ü.jpg": SEPARATE[:1]}, False, [], {}),
        ({"train/a.jpg": SEPARATE, "train/none.jpg": []}, False, [], {}),
        ({"train/a.jpg": OVERLAPPING}, False, ["a"], {"voc_exact_masks_aside": 1}),
        ({"train/a.jpg": SEPARATE}, True, ["a"], {"voc_exact_masks_aside": 1}),
        ({"train/a.jpg": GRID[:254]}, False, [], {}),
        ({"train/a.jpg": GRID[:255]}, False, ["a"], {"voc_exact_masks_aside": 1}),
        ({"train/a.jpg": SEPARATE, "val/a.jpg": SEPARATE[:1]}, False, ["a-val"], {"voc_renamed": 1}),
        ({"train/a.jpg": SEPARATE, "train/a.png": []}, False, ["a-train"], {"voc_renamed": 1, "voc_not_jpeg": 1}),
        ({"train/ a.jpg": SEPARATE}, False, ["a"], {"voc_renamed": 1}),
        ({"train/deep/a.v1.jpg": OVERLAPPING}, False, ["deep/a.v1"], {"voc_exact_masks_aside": 1}),
    ],
    ids=[
        *("separate", "background", "overlap", "crowd", "254", "255", "same name in two splits", "same stem"),
        *("name with a space before", "folder"),
    ],
)
def test_everything_comes_back(
    tmp_path: Path, masks: dict[str, Sequence[MaskHW]], crowd: bool, aside: list[str], counts: dict[str, int]
) -> None:
    dataset, findings, root = make_dataset(tmp_path / "in", masks, crowd=crowd), Findings(), tmp_path / "out"
    save_voc(dataset, root, place_image, findings=findings)
    read = load_voc(root)
    assert instances_of(read) == instances_of(dataset)
    assert read.categories == dataset.categories
    assert findings.counts == counts
    written = sorted((root / "Masks").rglob("*.json"))
    assert [path.relative_to(root / "Masks").with_suffix("").as_posix() for path in written] == aside
    assert all(image.path.is_file() for image in read.images)


def test_small_instances_stay_visible_on_large_ones(tmp_path: Path) -> None:
    save_voc(make_dataset(tmp_path, {"train/a.jpg": OVERLAPPING[::-1]}), tmp_path, place_image, findings=Findings())
    with Image.open(tmp_path / "SegmentationObject/a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image) == 1, OVERLAPPING[1])
    with Image.open(tmp_path / "SegmentationClass/a.png") as image:
        assert image.convert("RGB").getpixel((10, 10)) == (128, 0, 0)
        assert image.convert("RGB").getpixel((6, 6)) == (0, 128, 0)


def test_crowds_are_void_in_the_map_and_no_object(tmp_path: Path) -> None:
    save_voc(make_dataset(tmp_path, {"train/a.jpg": SEPARATE}, crowd=True), tmp_path, place_image, findings=Findings())
    with Image.open(tmp_path / "SegmentationObject/a.png") as image:
        assert np.unique(np.array(image)[SEPARATE[0]]).tolist() == [255]
        assert np.unique(np.array(image)[SEPARATE[1]]).tolist() == [1]
    assert len(list(ElementTree.parse(tmp_path / "Annotations/a.xml").iter("object"))) == 1


def test_boxes_count_pixels_from_1(tmp_path: Path) -> None:
    save_voc(make_dataset(tmp_path, {"train/a.jpg": SEPARATE}), tmp_path, place_image, findings=Findings())
    root = ElementTree.parse(tmp_path / "Annotations/a.xml").getroot()
    boxes = [[int(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")] for box in root.iter("bndbox")]
    assert boxes == [[1, 1, 20, 9], [11, 21, 40, 32]]
    assert [name.text for name in root.iterfind("object/name")] == ["Kiste: groß", "dog"]
    assert (root.findtext("size/width"), root.findtext("size/height")) == ("64", "48")


def test_labelmap_is_one_that_others_read(tmp_path: Path) -> None:
    save_voc(make_dataset(tmp_path, {"train/a.jpg": SEPARATE}), tmp_path, place_image, findings=Findings())
    assert (tmp_path / "labelmap.txt").read_text(encoding="utf-8").splitlines() == [
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "Kiste_ groß:128,0,0::",
        "dog:0,128,0::",
    ]
    (tmp_path / "maskwright.json").unlink()
    assert [name for name, _ in names_and_masks(load_voc(tmp_path))] == ["Kiste_ groß", "dog"]


def test_names_that_clash_in_exact_masks_are_refused(tmp_path: Path) -> None:
    masks = {"train/a.jpg": SEPARATE, "train/b.jpg": OVERLAPPING}
    save_voc(make_dataset(tmp_path, masks), tmp_path, place_image, findings=Findings())
    path = tmp_path / "Masks/b.json"
    path.write_text(path.read_text().replace("b.jpg", "a.jpg"))
    with pytest.raises(DatasetError, match=r"'a\.jpg' is another image's name"):
        load_voc(tmp_path)
