"""Defects as instances: parts of masks, sides, odd masks, and other packages that read what is written."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from anomaly_folders import HEIGHT, WIDTH, patch_mask, picture, write_item, write_mask, write_picture
from anomaly_plates import DEFECT, run, write_plates
from pycocotools.coco import COCO

from maskwright.configs.anomaly_agent import AnomalySplitSettings
from maskwright.configs.export import ExportFormat
from maskwright.data.anomaly_records import read_defect_mask
from maskwright.data.anomaly_splits import SplitShares
from maskwright.data.convert import convert_dataset
from maskwright.data.defect_instances import SHARES, split_parts
from maskwright.data.images import read_image
from maskwright.data.load import detect_format, load_dataset
from maskwright.data.masks import segmentation_to_mask
from maskwright.data.mvtec import load_anomalies
from maskwright.data.records import Dataset, MaskHW, Sample
from maskwright.data.splits import dataset_digest
from maskwright.errors import DatasetError, RunFolderError
from maskwright.graphs.anomaly_instances import InstanceExport, export_instances

READ_AS_ULTRALYTICS = """
import json, sys
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset(sys.argv[1], autodownload=False)
found = {}
for split in ("train", "val", "test"):
    labels = YOLODataset(data[split], data=data, task="segment", imgsz=64, augment=False).labels
    found[split] = {label["im_file"].rsplit("/", 1)[1]: len(label["segments"]) for label in labels}
print("READ " + json.dumps([data["names"], found]))
"""


def box(top: int, left: int, height: int, width: int) -> MaskHW:
    mask_hw = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_hw[top : top + height, left : left + width] = True
    return mask_hw


RING = box(20, 4, 20, 24) & ~box(26, 10, 8, 9)
NOTHING = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)


@pytest.mark.parametrize(
    ("mask_hw", "areas", "num_specks"),
    [
        (patch_mask(), [200], 0),
        (RING, [20 * 24 - 8 * 9], 0),
        (box(0, 0, 4, 5) | box(30, 50, 3, 3), [20, 9], 0),
        (box(0, 0, 4, 5) | box(4, 5, 3, 6), [38], 0),
        (box(0, 0, 4, 5) | box(30, 50, 2, 4) | box(40, 9, 1, 1), [20], 2),
        (box(47, 60, 1, 4), [], 1),
        (NOTHING, [], 0),
    ],
    ids=["one", "a hole", "two", "touching at a corner", "two specks", "a speck alone", "black"],
)
def test_parts(mask_hw: MaskHW, areas: list[int], num_specks: int) -> None:
    parts, left_out = split_parts(mask_hw, 9)
    assert sorted((int(part.sum()) for part in parts), reverse=True) == areas
    assert left_out == num_specks
    assert not np.any(sum((part.astype(int) for part in parts), np.zeros((HEIGHT, WIDTH), int)) > mask_hw)


def union(sample: Sample) -> MaskHW:
    mask_hw = NOTHING.copy()
    for one in sample.annotations:
        mask_hw |= segmentation_to_mask(one.segmentation, HEIGHT, WIDTH)
    return mask_hw


@pytest.fixture
def item(tmp_path: Path) -> Path:
    """Ten good images and two for test; nine tears of one, two and holed parts, six dents."""
    folder = write_item(tmp_path / "daten ü", num_good=10, num_test_good=2, defects={"Riß": 9, "delle": 6})
    for number, mask_hw in enumerate((box(2, 2, 6, 9) | box(30, 40, 9, 14) | box(45, 0, 1, 3), RING)):
        write_mask(folder / f"ground_truth/Riß/{number:03d}_mask.png", mask_hw)
    return folder


def names(dataset: Dataset, split: str) -> list[str]:
    return sorted(image.file_name for image in dataset.images if image.split == split)


def test_an_item_is_an_instance_data_set(item: Path) -> None:
    dataset = load_dataset(item)
    assert (dataset.format, dataset.root, dataset.splits) == ("mvtec", item, ("train", "val", "test"))
    assert [(one.category_id, one.name) for one in dataset.categories] == [(1, "Riß"), (2, "delle")]
    assert [image.image_id for image in dataset.images] == list(range(1, 28))
    assert dataset.annotations.annotation_id.tolist() == list(range(1, len(dataset.annotations) + 1))
    assert dataset.findings.counts == {"mask_speck": 1}
    for sample in dataset.samples():
        name = sample.image.file_name
        classes = {dataset.category(one.category_id).name for one in sample.annotations}
        assert classes == (set() if "good" in name else {name.partition("_")[0]})
        assert [one.area for one in sample.annotations] == [
            segmentation_to_mask(one.segmentation, HEIGHT, WIDTH).sum() for one in sample.annotations
        ]
        assert read_image(sample.image).shape == (HEIGHT, WIDTH, 3)


def test_masks_and_boxes_are_exact(item: Path) -> None:
    dataset = load_dataset(item)
    by_name = {sample.image.file_name: sample for sample in dataset.samples()}
    two, ring, plain = (by_name[f"Riß_{number:03d}.png"] for number in range(3))
    assert [one.bbox_xywh for one in two.annotations] == [(2, 2, 9, 6), (40, 30, 14, 9)]
    np.testing.assert_array_equal(union(ring), RING)
    np.testing.assert_array_equal(union(plain), patch_mask())


def test_sides_are_those_of_the_protocol(item: Path) -> None:
    """The first third by name is learned from, a part of it as val; a run of the anomaly agent shares out alike."""
    dataset = load_dataset(item)
    for defect, num_learned in (("Riß", 3), ("delle", 2)):
        sides = {split: [name for name in names(dataset, split) if defect in name] for split in dataset.splits}
        assert sorted(sides["train"] + sides["val"]) == [f"{defect}_{i:03d}.png" for i in range(num_learned)]
        assert len(sides["val"]) == 1
    assert [name for name in names(dataset, "test") if "good" in name] == ["test_good_000.png", "test_good_001.png"]
    assert sum("good" in name for name in names(dataset, "val")) == 1
    assert SplitShares(**AnomalySplitSettings().model_dump(exclude={"apart"})) == SHARES


def test_sides_and_digest_are_the_same_from_anywhere(item: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_dataset(item)
    monkeypatch.chdir(item.parent)
    for path in (Path(item.name), Path(".")):
        again = load_dataset(path)
        assert dataset_digest(again) == dataset_digest(first)
        assert again.root == first.root


def stray(folder: Path) -> npt.NDArray[np.uint8]:
    return np.where(patch_mask(), 200, 90).astype(np.uint8)


ODD: dict[str, tuple[Callable[[Path], object], dict[str, int], int]] = {
    "stray values": (lambda path: write_picture(path, stray(path)), {"stray_mask_values": 1}, 1),
    "black": (lambda path: write_mask(path, NOTHING), {"empty_mask": 1}, 0),
    "another size": (
        lambda path: write_picture(path, np.full((WIDTH, 50), 255, np.uint8)),
        {"mask_size_mismatch": 1},
        0,
    ),
    "turned": (lambda path: write_picture(path, np.full((WIDTH, HEIGHT), 255, np.uint8)), {"mask_size_mismatch": 1}, 0),
    "missing": (lambda path: path.unlink(), {"missing_mask": 1}, 0),
    "no image": (lambda path: path.write_bytes(b"\x89PNG"), {"unreadable_mask": 1}, 0),
    "a speck alone": (lambda path: write_mask(path, box(9, 9, 2, 4)), {"only_specks": 1}, 0),
}


@pytest.mark.parametrize(("spoil", "findings", "kept"), ODD.values(), ids=ODD.keys())
def test_odd_masks_are_counted(
    tmp_path: Path, spoil: Callable[[Path], object], findings: dict[str, int], kept: int
) -> None:
    """An image of a defect without its mask is no good one either: it is left out."""
    folder = write_item(tmp_path, num_good=4, defects={"Riß": 6})
    spoil(folder / "ground_truth/Riß/001_mask.png")
    dataset = load_dataset(folder, "mvtec")
    assert sum(image.file_name == "Riß_001.png" for image in dataset.images) == kept
    assert {kind: count for kind, count in dataset.findings.counts.items() if kind in findings} == findings
    assert len(dataset.annotations) == 5 + kept


def test_a_rare_defect_that_nothing_is_learned_of_is_named(tmp_path: Path) -> None:
    dataset = load_dataset(write_item(tmp_path, num_good=4, defects={"Riß": 6, "selten": 2}))
    assert [text.split(";")[0] for text in dataset.findings.examples["defect_not_in_train"]] == ["'selten'"]


def write_plain(root: Path) -> Path:
    for number in range(4):
        write_picture(root / f"good/{number}.png", picture(number))
        write_picture(root / f"Riß/{number}.png", picture(9 + number))
        write_mask(root / f"Riß/{number}_mask.png")
    return root


def write_visa(root: Path, label: str = "Riß") -> Path:
    rows = ["image,label"]
    for number in range(4):
        write_picture(root / f"kerze/Data/Images/Normal/{number}.png", picture(number))
        write_picture(root / f"kerze/Data/Images/Anomaly/{number}.png", picture(9 + number))
        write_picture(root / f"kerze/Data/Masks/Anomaly/{number}.png", patch_mask().astype(np.uint8) * np.uint8(2))
        rows.append(f"kerze/Data/Images/Anomaly/{number}.png,{label}")
    (root / "kerze/image_anno.csv").write_text("\n".join(rows), encoding="utf-8")
    return root / "kerze"


@pytest.mark.parametrize("write", [write_plain, write_visa], ids=["plain", "visa"])
@pytest.mark.parametrize("format_name", ["auto", "mvtec"])
def test_other_layouts(tmp_path: Path, write: Callable[[Path], Path], format_name: str) -> None:
    dataset = load_dataset(write(tmp_path / "daten ü"), format_name)
    assert [one.name for one in dataset.categories] == ["Riß"]
    assert Counter(image.split for image in dataset.images) == {"train": 3, "test": 4, "val": 1}
    assert len(dataset.annotations) == 4


def test_a_folder_of_items(tmp_path: Path) -> None:
    write_item(tmp_path, item="Rohr ü")
    assert load_dataset(tmp_path).categories[0].name == "Riß"
    write_item(tmp_path, item="Schraube")
    assert detect_format(tmp_path) == "mvtec"
    with pytest.raises(DatasetError, match=r"the items Rohr ü, Schraube; .*Give its folder: '.*Rohr ü'"):
        load_dataset(tmp_path)


def write_one_name_twice(root: Path) -> Path:
    folder = write_item(root, num_good=4, defects={"a_b": 3})
    for number in range(3):
        write_picture(folder / f"test/a/b_{number:03d}.png", picture(50 + number))
        write_mask(folder / f"ground_truth/a/b_{number:03d}_mask.png")
    return folder


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_one_name_twice, "both called 'a_b_000.png' in 'train'"),
        (lambda root: write_item(root, defects={}), "not one usable defect mask"),
        (lambda root: write_item(root, num_good=0), "train/good"),
        (lambda root: write_visa(root, "../../out/x"), "not a safe file name"),
        (lambda root: (root / "train/good").mkdir(parents=True) or root, "no normal image"),
    ],
    ids=["one name twice", "no defect", "no good image", "a label that leaves the folder", "empty"],
)
def test_unusable_items_are_refused(tmp_path: Path, write: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        load_dataset(write(tmp_path / "daten"), "mvtec")


def test_an_image_folder_means_nothing_here(item: Path) -> None:
    with pytest.raises(DatasetError, match="for COCO and LVIS only"):
        load_dataset(item, images=item)


def test_pycocotools_and_supervision_read_the_conversion(item: Path, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    read = load_dataset(item)
    report = convert_dataset(item, tmp_path / "daten ü" / "coco", to="coco")
    assert (report.images, report.annotations) == (27, len(read.annotations))
    areas: dict[str, dict[str, list[int]]] = {"coco": {}, "expected": {}}
    for split in read.splits:
        truth = COCO(str(tmp_path / f"daten ü/coco/annotations/instances_{split}.json"))
        for one in truth.anns.values():
            name = truth.imgs[one["image_id"]]["file_name"]
            areas["coco"].setdefault(name, []).append(int(truth.annToMask(one).sum()))
            assert one["area"] == areas["coco"][name][-1]
    for sample in read.samples():
        for one in sample.annotations:
            areas["expected"].setdefault(sample.image.file_name, []).append(int(one.area))
    assert areas["coco"] == areas["expected"]
    convert_dataset(item, tmp_path / "yolo", to="yolo")
    folder = tmp_path / "yolo"
    seen = sv.DetectionDataset.from_yolo(
        str(folder / "images/test"), str(folder / "labels/test"), str(folder / "data.yaml"), force_masks=True
    )
    assert seen.classes == ["Riß", "delle"]
    assert sum(len(one) for one in seen.annotations.values()) == 6 + 4


def read_as_ultralytics(folder: Path, cwd: Path) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Class names, and instances by split and image. In a process of its own, since it replaces `PIL.Image.open`."""
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is an extra (AGPL-3.0): pip install 'maskwright[yolo]'")
    command = [sys.executable, "-c", READ_AS_ULTRALYTICS, str(folder / "data.yaml")]
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(cwd), "YOLO_OFFLINE": "true"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stderr
    classes, found = json.loads(done.stdout.split("READ ")[1])
    return list(classes.values()), found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of two scratches and two dents, of which the data set has none, and its data set."""
    folder = tmp_path_factory.mktemp("ü")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = write_plates(folder / "daten" / "Platte ü")
        outcome = run(data, f"agents.anomaly_agent.defects=[{json.dumps(DEFECT, ensure_ascii=False)}, Beule]")
    assert outcome.content["defects"] == {DEFECT: 2, "Beule": 2}
    return outcome.folder, data


def export(finished: tuple[Path, Path], *, originals: bool = True, min_part_px: int = 1) -> InstanceExport:
    run_folder, data = finished
    formats: tuple[ExportFormat, ...] = ("coco", "yolo")
    return export_instances(run_folder, data.parent, data.name, formats, originals=originals, min_part_px=min_part_px)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_samples_are_training_images_with_their_exact_masks(finished: tuple[Path, Path]) -> None:
    run_folder, data = finished
    exported = export(finished)
    assert exported.folders == (run_folder / "dataset/coco", run_folder / "dataset/yolo")
    dataset = load_dataset(run_folder / "dataset/coco")
    assert [(one.category_id, one.name) for one in dataset.categories] == [(1, DEFECT), (2, "Beule")]
    made = {name for name in names(dataset, "train") if name.startswith("anomaly-")}
    lines = (run_folder / "dataset/provenance.jsonl").read_bytes().splitlines()
    assert {f"{orjson.loads(line)['id']}.png" for line in lines} == made
    assert exported.samples == len(made) == 4
    samples = load_anomalies(run_folder / "dataset/mvtec").of_item(data.name)
    masks = {read_image(one.image).tobytes(): read_defect_mask(one) for one in samples if not one.is_good}
    for sample in dataset.samples("train"):
        if sample.image.file_name in made:
            np.testing.assert_array_equal(union(sample), masks[read_image(sample.image).tobytes()])


def test_a_sample_of_specks_is_left_out_and_counted(finished: tuple[Path, Path]) -> None:
    areas = load_dataset(export(finished).folders[0]).annotations.area
    exported = export(finished, min_part_px=int(areas.min()) + 1)
    assert (exported.samples, exported.findings.counts["only_specks"]) == (3, 1)


def test_the_users_images_keep_their_sides_and_their_bytes(finished: tuple[Path, Path]) -> None:
    run_folder, data = finished
    images = export(finished).images
    sides = orjson.loads((run_folder / "split.json").read_bytes())["sides"]
    assert images == {
        "train": len(sides["normal"]) + len(sides["reference"]) + 4,
        "val": len(sides["validation"]),
        "test": len(sides["test"]),
    }
    for split, side in (("val", "validation"), ("test", "test")):
        written = files(run_folder / "dataset/yolo/images" / split)
        assert sorted(written.values()) == sorted((data.parent / key).read_bytes() for key in sides[side])
        assert not any(name.startswith("anomaly-") for name in written)


def test_ultralytics_reads_the_export(finished: tuple[Path, Path], tmp_path: Path) -> None:
    export(finished)
    classes, found = read_as_ultralytics(finished[0] / "dataset/yolo", tmp_path)
    assert classes == [DEFECT, "Beule"]
    for split in ("train", "val", "test"):
        dataset = load_dataset(finished[0] / "dataset/coco")
        expected = {sample.image.file_name: len(sample.annotations) for sample in dataset.samples(split)}
        assert found[split] == expected
    assert sum(found["train"].values()) >= 5


def test_exported_again_it_is_the_same(finished: tuple[Path, Path]) -> None:
    export(finished)
    before = files(finished[0] / "dataset")
    export(finished)
    assert files(finished[0] / "dataset") == before
    assert export(finished, originals=False).images["train"] == 4


def test_an_export_of_something_else_is_refused(finished: tuple[Path, Path], tmp_path: Path) -> None:
    run_folder, data = finished
    other = write_item(tmp_path, item=data.name)
    with pytest.raises(DatasetError, match="expected the data set that was split"):
        export_instances(run_folder, other, data.name, ("coco",))
    with pytest.raises(RunFolderError, match="does not tell an anomaly run's samples"):
        export_instances(tmp_path / "no run", data, data.name, ("coco",))
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/provenance.jsonl").touch()
    with pytest.raises(RunFolderError, match="names no accepted sample"):
        export_instances(tmp_path, data, data.name, ("coco",))
