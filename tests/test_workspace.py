"""What tools read and write: pictures of every kind, new names, and nothing outside their root."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toolkit_helpers import APPLE, DISC, HEIGHT, PHOTO, WIDTH, answer, disc_rgba, refusal, toolkit, write_pictures

from maskwright.data.convert import convert_dataset
from maskwright.errors import ImageSizeError, InputError
from maskwright.tools.agent_tools.workspace import Workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "wurzel ü"
    write_pictures(folder)
    return folder


@pytest.mark.parametrize(
    "name",
    ["../außen.png", "/etc/hostname", "bilder/../../außen.png", "bilder\\disc.png", "a\0b", "C:/x.png", "~/x.png", ""],
    ids=repr,
)
def test_a_name_that_leaves_the_root_is_refused(root: Path, name: str) -> None:
    Image.fromarray(disc_rgba()).save(root.parent / "außen.png")
    with pytest.raises(InputError, match=r"leaves '.*wurzel ü'"):
        Workspace(root).read_picture(name)


@pytest.mark.parametrize("name", ["x" * 5000, "\ud800.png", "kreis"], ids=["long", "surrogate", "loop"])
def test_a_name_that_is_no_path_is_refused(root: Path, name: str) -> None:
    (root / "kreis").symlink_to(root / "kreis")
    with pytest.raises(InputError, match="'"):
        Workspace(root).read_picture(name)


@pytest.mark.parametrize("link", ["bild.png", "ordner"])
def test_a_link_is_followed_only_within_the_root(root: Path, link: str) -> None:
    Image.fromarray(disc_rgba()).save(root.parent / "außen.png")
    (root / "bild.png").symlink_to(root.parent / "außen.png")
    (root / "ordner").symlink_to(root.parent)
    (root / "innen.png").symlink_to(root / DISC)
    workspace = Workspace(root)
    with pytest.raises(InputError, match="leaves"):
        workspace.read_picture(link if link.endswith(".png") else f"{link}/außen.png")
    assert workspace.read_picture("innen.png").shape == (HEIGHT, WIDTH, 4)


def test_outputs_that_lead_out_are_refused(root: Path) -> None:
    (root / "outputs").symlink_to(root.parent)
    assert "leaves" in refusal(toolkit(root), "generate_image", **APPLE, prompt="an apple")
    assert not list(root.parent.glob("*.png"))


def test_outputs_of_threads_never_overwrite_each_other(root: Path) -> None:
    workspaces, barrier = [Workspace(root) for _ in range(8)], threading.Barrier(8)

    def save(number: int) -> Path:
        barrier.wait()
        return workspaces[number].save_picture("bild", np.full((2, 3, 3), number, np.uint8))

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(save, range(8)))
    assert sorted(path.name for path in paths) == [f"bild-{number}.png" for number in range(1, 9)]
    assert [int(np.asarray(Image.open(path))[0, 0, 0]) for path in paths] == list(range(8))


def _grey(path: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 200).save(path)


def _grey_16(path: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 200 << 8, np.uint16)).save(path)


def _cmyk(path: Path) -> None:
    Image.new("CMYK", (WIDTH, HEIGHT), (0, 0, 0, 55)).save(path, "TIFF")


def _palette(path: Path) -> None:
    picture = Image.new("P", (WIDTH, HEIGHT), 1)
    picture.putpalette([0, 0, 0, 200, 200, 200])
    picture.save(path, transparency=0)


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (HEIGHT, WIDTH), (200, 200, 200)).save(path, "PNG", exif=exif)


@pytest.mark.parametrize("write", [_grey, _grey_16, _cmyk, _palette, _turned])
def test_pictures_of_every_kind_are_read(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "bild ü.png")
    rgba = Workspace(tmp_path).read_picture("bild ü.png")
    assert rgba.shape == (HEIGHT, WIDTH, 4)
    assert np.abs(rgba[..., :3].astype(int) - 200).max() <= 1
    assert rgba[..., 3].min() == 255


def test_a_huge_picture_is_not_decoded(root: Path) -> None:
    with pytest.raises(ImageSizeError, match="64x48 pixels, expected at most 100"):
        Workspace(root, max_pixels=100).read_picture(PHOTO)


def _image_name(folder: Path, outside: Path) -> None:
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["images"][0]["file_name"] = f"../../../{outside.name}/bild 1 ü.png"
    file.write_text(json.dumps(content), encoding="utf-8")


def _absolute_name(folder: Path, outside: Path) -> None:
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["images"][0]["file_name"] = str(outside / "bild 1 ü.png")
    file.write_text(json.dumps(content), encoding="utf-8")


def _image_link(folder: Path, outside: Path) -> None:
    path = folder / "images" / "train" / "bild 1 ü.png"
    path.unlink()
    path.symlink_to(outside / path.name)


def _folder_link(folder: Path, outside: Path) -> None:
    shutil.rmtree(folder / "images")
    (folder / "images").symlink_to(outside.parent)


def _annotation_link(folder: Path, outside: Path) -> None:
    path = folder / "annotations" / "instances_train.json"
    path.rename(outside / path.name)
    path.symlink_to(outside / path.name)


def _link_behind_a_link(folder: Path, outside: Path) -> None:
    beside = folder.parent / "daneben"
    (folder / "annotations").rename(beside)
    (folder / "annotations").symlink_to(beside)
    _annotation_link(folder, outside)


@pytest.fixture
def two_folders(photographs: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A data set in a root, and the same pictures outside of it."""
    folder, outside = tmp_path / "root" / "satz", tmp_path / "draußen"
    shutil.copytree(photographs, folder)
    shutil.copytree(photographs / "images" / "train", outside)
    return folder, outside


@pytest.mark.parametrize(
    "break_out", [_image_name, _absolute_name, _image_link, _folder_link, _annotation_link, _link_behind_a_link]
)
@pytest.mark.parametrize("tool", ["inspect_dataset", "export_dataset"])
def test_no_coco_data_set_leads_out(
    two_folders: tuple[Path, Path], break_out: Callable[[Path, Path], None], tool: str
) -> None:
    folder, outside = two_folders
    break_out(folder, outside)
    more = {"to": "voc"} if tool == "export_dataset" else {}
    assert "safe file name" in (said := refusal(toolkit(folder.parent), tool, path="satz", **more)) or "outside" in said
    assert not list((folder.parent / "outputs").glob("*"))


@pytest.mark.parametrize(
    "train", ["../../draußen", "{outside}", "liste.txt", "link"], ids=["relative", "absolute", "list", "link"]
)
def test_no_yolo_data_set_leads_out(two_folders: tuple[Path, Path], train: str) -> None:
    folder, outside = two_folders
    yolo = folder.parent / "yolo"
    convert_dataset(folder, yolo, to="yolo")
    (yolo / "liste.txt").write_text(f"{outside}/bild 1 ü.png\n", encoding="utf-8")
    if train == "link":
        (yolo / "link").symlink_to(outside)
    content = f"train: {train.format(outside=outside)}\nnames: [bolt, Mutter]\n"
    (yolo / "data.yaml").write_text(content, encoding="utf-8")
    said = refusal(toolkit(folder.parent), "inspect_dataset", path="yolo")
    assert "safe file name" in said or "outside" in said


@pytest.mark.parametrize("path", ["../../draußen", "{outside}"], ids=["relative", "absolute"])
def test_a_yolo_path_of_another_machine_is_not_followed(two_folders: tuple[Path, Path], path: str) -> None:
    folder, outside = two_folders
    yolo = folder.parent / "yolo"
    convert_dataset(folder, yolo, to="yolo")
    shutil.copy(outside / "bild 1 ü.png", outside / "fremd.png")
    content = f"path: {path.format(outside=outside)}\ntrain: .\nnames: [bolt, Mutter]\n"
    (yolo / "data.yaml").write_text(content, encoding="utf-8")
    assert answer(toolkit(folder.parent), "inspect_dataset", path="yolo")["images_by_split"] == {"train": 6}


@pytest.mark.parametrize("part", ["JPEGImages", "SegmentationObject", "ImageSets"])
def test_no_voc_data_set_leads_out(two_folders: tuple[Path, Path], tmp_path: Path, part: str) -> None:
    folder, outside = two_folders
    convert_dataset(folder, voc := tmp_path / "root" / "voc", to="voc")
    assert answer(toolkit(tmp_path / "root"), "inspect_dataset", path="voc")["format"] == "voc"
    (voc / part).rename(outside / part)
    (voc / part).symlink_to(outside / part)
    assert "outside" in refusal(toolkit(tmp_path / "root"), "inspect_dataset", path="voc")


def test_a_file_whose_images_lie_above_the_root_is_refused(two_folders: tuple[Path, Path]) -> None:
    folder, _ = two_folders
    kit = toolkit(folder / "annotations")
    assert "outside" in refusal(kit, "inspect_dataset", path="instances_train.json")
