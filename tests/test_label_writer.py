"""Labels out: a folder that torchvision and code for weakly supervised segmentation read as they are."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.dom import minidom

import numpy as np
import numpy.typing as npt
import pytest
from anomaly_folders import HEIGHT, WIDTH, write_item, write_picture
from label_folders import labels_of, picture, save_turned, write_text
from PIL import Image

from maskwright.data.label_names import free_name, name_to_number
from maskwright.data.label_sources import load_labels
from maskwright.data.label_splits import split_labels
from maskwright.data.label_writer import ExportedImage, SavedLabels, save_label_folder, split_to_exports
from maskwright.errors import DatasetError, ImageDecodeError, LeakError, RunFolderError

CLASSES = ("Riß", "tiefes Loch")


def real(key: str, picture: Path, *labels: str) -> ExportedImage:
    return ExportedImage(key=key, picture=picture, labels=frozenset(labels), split="train", source="real")


def write_entries(tmp_path: Path) -> list[ExportedImage]:
    """Two real images, one to measure with, and a synthetic one."""
    photograph = write_picture(tmp_path / "a.jpg", picture(0))
    grey = tmp_path / "ü.png"
    Image.fromarray(picture(1)[..., 0]).save(grey)
    class_map = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    class_map[:8], class_map[8] = 2, 255
    synthetic = ExportedImage(
        key="scene-1",
        picture=picture(3),
        labels=frozenset(CLASSES),
        split="train",
        source="synthetic",
        background="Rohr, ü/good.png",
        prompt="0f3a",
    )
    return [
        real("a.jpg", photograph, "Riß"),
        real("ü.png", grey),
        replace(real("b/2007_000032.jpg", photograph, "tiefes Loch"), split="val", class_map=class_map),
        synthetic,
    ]


def export(folder: Path, entries: list[ExportedImage]) -> SavedLabels:
    return save_label_folder(folder, CLASSES, iter(entries))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_names(folder: Path, path: str) -> list[str]:
    return (folder / "ImageSets" / path).read_text(encoding="utf-8").splitlines()


def as_irn_reads(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """voc12/dataloader.py of jiwoon-ahn/irn, whose lists are numbers."""
    labels = np.load(folder / "cls_labels.npy", allow_pickle=True).item()
    number = np.int32(int(name))
    text = str(int(number))
    image = np.asarray(Image.open(folder / "JPEGImages" / f"{text[:4]}_{text[4:]}.jpg"))
    assert image[..., 2].shape == (HEIGHT, WIDTH)
    vector: npt.NDArray[np.float32] = np.array([labels[one] for one in [number]])[0]
    return vector


def as_mctformer_reads(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """datasets.py of xulianuwa/MCTformer."""
    labels = np.load(folder / "cls_labels.npy", allow_pickle=True).item()
    assert name in [line.strip() for line in (folder / "ImageSets/Segmentation/train_aug_id.txt").open().readlines()]
    Image.open(folder / "JPEGImages" / f"{name}.jpg").convert("RGB")
    vector: npt.NDArray[np.float32] = labels[name] if name in labels else labels[name + ".jpg"]
    return vector


def as_toco_reads(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """datasets/voc.py of rulixiang/ToCo, as far as its labels go."""
    lists = folder / "ImageSets" / "Segmentation"
    assert name in np.loadtxt(lists / "train_aug.txt", dtype=str)
    vector: npt.NDArray[np.float32] = np.load(lists / "cls_labels_onehot.npy", allow_pickle=True).item()[name]
    return vector


def as_its_xml_says(folder: Path, name: str) -> npt.NDArray[np.float32]:
    """As IRN makes its dictionary of labels."""
    elements = minidom.parse(str(folder / "Annotations" / f"{name}.xml")).getElementsByTagName("name")
    found = {element.firstChild.data for element in elements}  # type: ignore[union-attr]
    return np.array([label in found for label in CLASSES], dtype=np.float32)


@pytest.mark.parametrize("read", [as_irn_reads, as_mctformer_reads, as_toco_reads, as_its_xml_says])
def test_labels_are_read_as_code_bases_read_them(tmp_path: Path, read: object) -> None:
    assert callable(read)
    result = export(tmp_path / "voc", write_entries(tmp_path))
    for key, expected in {"a.jpg": [1, 0], "ü.png": [0, 0], "scene-1": [1, 1]}.items():
        vector = read(tmp_path / "voc", result.names[key])
        assert vector.dtype == np.float32
        assert vector.tolist() == expected


def test_torchvision_reads_it(tmp_path: Path) -> None:
    from torchvision.datasets import VOCDetection, VOCSegmentation

    folder = tmp_path / "VOCdevkit" / "VOC2012"
    result = export(folder, write_entries(tmp_path))
    shown: dict[str, list[str]] = {}
    for image, target in VOCDetection(tmp_path, image_set="trainval"):
        annotation = target["annotation"]
        assert image.size == (int(annotation["size"]["width"]), int(annotation["size"]["height"])) == (WIDTH, HEIGHT)
        shown[annotation["filename"]] = [one["name"] for one in annotation["object"]]
    keys = {"a.jpg": ["Riß"], "ü.png": [], "b/2007_000032.jpg": ["tiefes Loch"], "scene-1": [*CLASSES]}
    assert shown == {f"{result.names[key]}.jpg": labels for key, labels in keys.items()}
    [(image, class_map)] = VOCSegmentation(tmp_path, image_set="val")
    assert class_map.size == image.size
    assert np.unique(np.asarray(class_map)).tolist() == [0, 2, 255]


def test_synthetic_images_only_train_and_have_no_mask(tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    names = export(folder, write_entries(tmp_path)).names
    train = sorted([names["a.jpg"], names["ü.png"], names["scene-1"]])
    for path in ("Main/train.txt", "Segmentation/train.txt", "Segmentation/train_aug.txt"):
        assert read_names(folder, path) == train
    assert read_names(folder, "Main/val.txt") == read_names(folder, "Segmentation/val.txt") == ["2007_000032"]
    assert read_names(folder, "Main/trainval.txt") == ["2007_000032", *train]
    cracked = {names["a.jpg"], names["scene-1"]}
    assert read_names(folder, "Main/Riß_train.txt") == [
        f"{one} {'' if one in cracked else '-'}1".replace(" 1", "  1") for one in train
    ]
    assert [path.name for path in (folder / "SegmentationClass").iterdir()] == ["2007_000032.png"]
    assert (folder / "class_names.txt").read_text(encoding="utf-8") == "Riß\ntiefes Loch\n"


def test_the_table_tells_where_images_are_from(tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    names = export(folder, write_entries(tmp_path)).names
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["original"]: row for row in csv.DictReader(file)}
    assert rows["scene-1"] == {
        "file": f"JPEGImages/{names['scene-1']}.jpg",
        "split": "train",
        "source": "synthetic",
        "background": "Rohr, ü/good.png",
        "prompt": "0f3a",
        "original": "scene-1",
        "Riß": "1",
        "tiefes Loch": "1",
    }
    assert (rows["ü.png"]["source"], rows["ü.png"]["Riß"], rows["b/2007_000032.jpg"]["split"]) == ("real", "0", "val")


@pytest.mark.parametrize("format", ["csv", "voc"])
def test_it_reads_back(tmp_path: Path, format: str) -> None:
    folder = tmp_path / "voc"
    names = export(folder, write_entries(tmp_path)).names
    dataset = load_labels(folder, format=format)
    assert dataset.classes == CLASSES
    found = {Path(key).stem: labels for key, labels in labels_of(dataset).items()}
    assert found == {
        names["a.jpg"]: ["Riß"],
        names["ü.png"]: [],
        "2007_000032": ["tiefes Loch"],
        names["scene-1"]: [*CLASSES],
    }
    assert {one.path.stem for one in dataset.images if one.image.split == "val"} == {"2007_000032"}


def test_colour_jpegs_are_copied_and_others_encoded(tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    save_turned(tmp_path / "turned.jpg", 4)
    grey = tmp_path / "grey.jpg"
    Image.fromarray(picture(5)[..., 0]).save(grey)
    png_called_jpg = write_picture(tmp_path / "png.png", picture(6)).rename(tmp_path / "png.jpg")
    entries = [
        *write_entries(tmp_path),
        *(real(path.name, path) for path in (tmp_path / "turned.jpg", grey, png_called_jpg)),
    ]
    result = export(folder, entries)
    assert result.encoded == 5, "the grey PNG, the scene, and these three"
    stored = {key: folder / "JPEGImages" / f"{name}.jpg" for key, name in result.names.items()}
    assert stored["a.jpg"].read_bytes() == (tmp_path / "a.jpg").read_bytes()
    for path in stored.values():
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
    with Image.open(stored["turned.jpg"]) as image:
        assert image.size == (HEIGHT, WIDTH)
        assert not image.getexif()
    smooth = np.tile(np.arange(WIDTH, dtype=np.uint8)[None, :, None] * 3, (HEIGHT, 1, 3))
    name = export(folder, [replace(entries[-1], key="smooth", picture=smooth)]).names["smooth"]
    with Image.open(folder / "JPEGImages" / f"{name}.jpg") as image:
        assert np.abs(np.asarray(image).astype(int) - smooth).max() <= 3


def test_written_again_it_is_the_same(tmp_path: Path) -> None:
    folder, entries = tmp_path / "voc", write_entries(tmp_path)
    first = export(folder, entries)
    files = snapshot(folder)
    again = export(folder, entries[::-1])
    assert snapshot(folder) == files
    assert (again.saved.written, again.saved.kept) == (0, first.saved.written)


def test_a_killed_export_goes_on(tmp_path: Path) -> None:
    folder, entries = tmp_path / "voc", write_entries(tmp_path)

    def killed() -> object:
        yield from entries[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_label_folder(folder, CLASSES, killed())  # type: ignore[arg-type]
    assert not (folder / "labels.csv").exists()
    left = write_text(folder / "JPEGImages" / "x.partial", "half")
    assert export(folder, entries).saved.kept == 4
    assert not left.exists()
    whole = snapshot(folder)
    export(tmp_path / "at once", entries)
    assert snapshot(tmp_path / "at once") == whole


def test_what_is_no_longer_among_the_entries_goes_and_what_others_wrote_stays(tmp_path: Path) -> None:
    folder, entries = tmp_path / "voc", write_entries(tmp_path)
    name = export(folder, entries).names["scene-1"]
    note = write_text(folder / "pseudo_masks" / "note.txt", "mine")
    export(folder, entries[:-1])
    assert not list(folder.glob(f"*/{name}.*"))
    assert name not in read_names(folder, "Main/train.txt")
    assert note.read_text() == "mine"
    export(tmp_path / "without", entries[:-1])
    assert snapshot(folder).keys() - snapshot(tmp_path / "without").keys() == {"pseudo_masks/note.txt"}


def test_names_are_numbers_of_32_bits_and_unique() -> None:
    taken: set[str] = set()
    keys = [f"{folder}/{i}.png" for folder in ("a", "ü") for i in range(500)] + [
        "a/2008_000001.jpg",
        "b/2008_000001.jpg",
    ]
    names = [free_name(key, "real", taken) for key in keys] + [free_name(key, "synthetic", taken) for key in keys]
    assert len(set(names)) == len(names) == len(taken)
    assert names.count("2008_000001") == 1
    for name in names:
        text = str(int(np.int32(name_to_number(name))))
        assert f"{text[:4]}_{text[4:]}" == name
    assert all(name >= "2100_" for name in names[len(keys) :])
    assert free_name("a/0.png", "real", {names[0]}) != names[0]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"labels": frozenset({"Beule"})}, DatasetError, "shows 'Beule'; expected some of Riß"),
        ({"key": "ü.png"}, DatasetError, "'ü.png' is to be written twice"),
        ({"source": "synthetic", "split": "val"}, LeakError, "is synthetic and would measure"),
        ({"class_map": np.zeros((HEIGHT, WIDTH), np.uint8)}, LeakError, "has a class map and would train"),
        ({"picture": Path("/nowhere.png")}, ImageDecodeError, "nowhere"),
    ],
    ids=["unknown label", "twice", "synthetic val", "map to train on", "missing file"],
)
def test_entries_that_are_refused(
    tmp_path: Path, change: Mapping[str, object], error: type[Exception], said: str
) -> None:
    entries = write_entries(tmp_path)
    with pytest.raises(error, match=said):
        export(tmp_path / "voc", [*entries[1:], replace(entries[0], **change)])  # type: ignore[arg-type]


def test_lists_are_called_as_files_can_be(tmp_path: Path) -> None:
    classes = ["a/b", "a_b", "..", "split", "x\ny"]
    entry = replace(write_entries(tmp_path)[0], labels=frozenset(classes))
    name = save_label_folder(tmp_path / "voc", classes, [entry]).names["a.jpg"]
    lists = {path.name for path in (tmp_path / "voc" / "ImageSets" / "Main").glob("*_train.txt")}
    assert lists == {f"{stem}_train.txt" for stem in ("a_b", "a_b-2", "_.", "split", "x_y")}
    assert read_names(tmp_path / "voc", "Main/a_b-2_train.txt") == [f"{name}  1"]
    assert load_labels(tmp_path / "voc" / "labels.csv").classes == tuple(classes)


def test_folders_of_others_and_empty_exports_are_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "theirs" / "JPEGImages" / "a.jpg", "x")
    with pytest.raises(RunFolderError, match="not made by maskwright"):
        export(tmp_path / "theirs", [])
    entries = write_entries(tmp_path)
    with pytest.raises(DatasetError, match="not one image for training"):
        export(tmp_path / "voc", entries[2:3])


def test_the_test_side_becomes_val_with_its_truth(tmp_path: Path) -> None:
    dataset = load_labels(write_item(tmp_path, num_good=4, defects={"Riß": 6}))
    split = split_labels(dataset, held_out=0.25, test=0.3, seed=0)
    entries = list(split_to_exports(split, dataset.read_truth))
    assert {one.key for one in entries if one.split == "val"} == {one.key for one in split.of("test")}
    assert len(entries) == len(dataset.images)
    assert all((one.class_map is not None) == (one.split == "val") for one in entries)
    result = save_label_folder(tmp_path / "voc", dataset.classes, entries)
    maps = {path.stem for path in (tmp_path / "voc" / "SegmentationClass").iterdir()}
    assert maps == {result.names[one.key] for one in split.of("test")}
