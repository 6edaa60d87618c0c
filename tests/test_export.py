"""Exports: whole or absent, several formats with one copy of each image, nothing of the user's ever lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from maskwright.data.export import MARKER, export_dataset
from maskwright.data.load import load_dataset
from maskwright.data.records import AnnotationTableBuilder, Dataset, Findings
from maskwright.errors import DatasetError, RunFolderError


def _export(photographs: Path, folder: Path, *formats: str) -> Findings:
    findings = Findings()
    export_dataset(load_dataset(photographs), folder, formats, findings=findings)
    return findings


def test_formats_share_the_bytes_of_their_images(photographs: Path, tmp_path: Path) -> None:
    _export(photographs, tmp_path / "out", "coco", "yolo", "lvis", "voc")
    copies = [path for path in (tmp_path / "out").rglob("bild 3 ü.png") if "Segmentation" not in path.parent.name]
    assert len(copies) == 4
    assert len({path.stat().st_ino for path in copies}) == 1
    for name in ("coco", "yolo", "lvis", "voc"):
        assert len(load_dataset(tmp_path / "out" / name, name).annotations) == 14
    assert not list(tmp_path.glob("*.partial"))


def test_a_second_export_keeps_what_others_added_and_drops_what_is_stale(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _export(photographs, out, "coco", "yolo")
    (out / "yolo" / "labels" / "train.cache").write_text("made by the trainer")
    (out / "notes.md").write_text("mine")
    _export(photographs, out, "yolo")
    assert (out / "yolo" / "labels" / "train.cache").read_text() == "made by the trainer"
    assert (out / "notes.md").read_text() == "mine"
    assert not (out / "coco").exists()


def test_what_a_killed_export_left_is_replaced(photographs: Path, tmp_path: Path) -> None:
    half = tmp_path / "out.partial"
    (half / "coco").mkdir(parents=True)
    (half / MARKER).touch()
    (half / "coco" / "half.json").write_text("{")
    _export(photographs, tmp_path / "out", "coco")
    assert not half.exists()
    assert not list((tmp_path / "out").rglob("half.json"))


def test_a_kill_between_the_two_renames_loses_nothing(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _export(photographs, out, "coco")
    (out / "notes.md").write_text("mine")
    out.rename(tmp_path / "out.replaced")
    _export(photographs, out, "coco")
    assert (out / "notes.md").read_text() == "mine"
    assert [path.name for path in tmp_path.glob("out*")] == ["out"]


@pytest.mark.parametrize("name", ["out", "out.partial", "out.replaced"])
def test_a_folder_of_the_user_s_is_refused_untouched(name: str, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=name):
        _export(photographs, tmp_path / "out", "coco")
    assert (tmp_path / name / "thesis.tex").read_text() == "years of work"


def test_an_empty_export_is_an_error_and_leaves_nothing(photographs: Path, tmp_path: Path) -> None:
    full = load_dataset(photographs)
    empty = Dataset(full.root, full.format, full.categories, full.images, AnnotationTableBuilder().build(6))
    with pytest.raises(DatasetError, match="would be empty"):
        export_dataset(empty, tmp_path / "out", ["coco"], findings=Findings())
    with pytest.raises(DatasetError, match=r"'tfrecord'.*known: coco, lvis, voc, yolo"):
        export_dataset(full, tmp_path / "out", ["tfrecord"], findings=Findings())
    assert not list(tmp_path.glob("out*"))


def test_train_drops_the_orientation_tag_and_val_keeps_its_bytes(photographs: Path, tmp_path: Path) -> None:
    turned = photographs / "images" / "train" / "bild 4 ü.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(turned) as image:
        pixels = image.copy()
    pixels.save(turned, exif=exif)
    _export(photographs, tmp_path / "out", "coco")
    with Image.open(tmp_path / "out" / "coco" / "images" / "train" / turned.name) as exported:
        assert exported.getexif().get(0x0112, 1) == 1
        assert exported.tobytes() == pixels.tobytes()
    val = load_dataset(photographs)
    moved = Dataset(val.root, val.format, val.categories, [_as_val(image) for image in val.images], val.annotations)
    findings = Findings()
    with pytest.raises(DatasetError, match="not one training annotation"):
        export_dataset(moved, tmp_path / "val", ["coco"], findings=findings)
    assert findings.counts["exif_orientation_kept"] == 1


def _as_val(image: object) -> object:
    from dataclasses import replace

    return replace(image, split="val")  # type: ignore[type-var]
