"""Anomaly data sets: MVTec AD, VisA, and plain folders.

A path is one item or a folder of items, and an item's folders say how it is laid out:

    mvtec   train/good/, test/DEFECT/, ground_truth/DEFECT/NAME_mask.png (Bergmann et al., CVPR 2019)
    visa    Data/Images/Normal/, Data/Images/Anomaly/, Data/Masks/Anomaly/, image_anno.csv, and beside the items
            split_csv/1cls.csv (Zou et al., arXiv 2207.14315); the levels of its masks number kinds of defects
    plain   good/, DEFECT/, and the masks beside the images as NAME_mask.png, in DEFECT/masks/ or in masks/DEFECT/
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import DatasetError, ImageDecodeError, ImageSizeError
from .anomaly_records import GOOD, MASK_LEVEL, AnomalyDataset, AnomalyRecord
from .images import ImageHeader, read_header, refuse_unsafe_name, resolve_frame
from .mvtec_writer import AnomalySample, Saved, number_names, save_anomaly_diffusion, save_mvtec
from .records import Findings, ImageRecord

__all__ = [
    "AnomalySample",
    "Saved",
    "load_anomalies",
    "number_names",
    "save_anomaly_diffusion",
    "save_mvtec",
]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
UNNAMED_DEFECT = "anomaly"
"""Defect of VisA's images whose kind no image_anno.csv tells."""

Layout = Literal["mvtec", "visa", "plain"]
_MASK_FOLDERS = ("masks", "mask", "ground_truth")


@dataclass(frozen=True, slots=True)
class _Draft:
    """An image that was listed and not yet looked at; paths are POSIX, below the item's folder."""

    defect: str
    split: str
    image: str
    mask: str = ""


def load_anomalies(root: Path, item: str | None = None) -> AnomalyDataset:
    """Index one item, or a folder of items; no pixel is decoded.

    Args:
        item: leave the others out; None for all. One that is read alone has the name of its folder.

    Returns:
        Records and findings: `missing_image`, `unreadable_image` (left out); `missing_mask`, `unreadable_mask`,
        `mask_size_mismatch` (kept without mask); `mask_without_image`; `item_without_normals` (left out).

    Raises:
        DatasetError: no item there, none of that name, one that was asked for has no normal image, a malformed table,
            or a name that leaves the item's folder.
    """
    root = Path(os.path.abspath(root))
    folders = _find_items(root)
    if item is not None and item not in folders:
        raise DatasetError(f"{str(root)!r}: no item {item!r}; known: {', '.join(folders)}. Name one of them.")
    wanted = folders if item is None else {item: folders[item]}
    findings = Findings()
    records: list[AnomalyRecord] = []
    for name, (folder, layout) in wanted.items():
        found = [
            one for draft in _READERS[layout](folder, findings) if (one := _settle(folder, layout, draft, findings))
        ]
        if any(one.is_good and one.split == "train" for one in found):
            records += found
        elif len(wanted) == 1:
            raise DatasetError(f"{str(folder)!r} has no normal image; expected some in {_NORMALS[layout]}. Add them.")
        else:
            findings.add("item_without_normals", name)
    if not records:
        raise DatasetError(f"{str(root)!r}: no item has a normal image, of {', '.join(wanted)}. Add train/good/.")
    records.sort(key=lambda one: (one.item, not one.is_good, one.key))
    numbered = [replace(one, image=replace(one.image, image_id=i)) for i, one in enumerate(records, start=1)]
    return AnomalyDataset(root, tuple(numbered), findings)


def _find_items(root: Path) -> dict[str, tuple[Path, Layout]]:
    """Folder and layout of each item: of the root alone where it is one."""
    if not root.is_dir():
        raise DatasetError(f"{str(root)!r} is no folder; expected an item with train/good/, or a folder of such items.")
    own = _layout_of(root)
    if own is not None:
        return {root.name: (root, own)}
    items = {folder.name: (folder, layout) for folder in _folders(root) if (layout := _layout_of(folder))}
    if not items:
        raise DatasetError(
            f"{str(root)!r} holds no item; expected ITEM/train/good/ (MVTec AD), ITEM/Data/Images/Normal/ (VisA) "
            "or ITEM/good/, or one of these without ITEM/. Give the folder that contains them."
        )
    return items


def _layout_of(folder: Path) -> Layout | None:
    if any((folder / name).is_dir() for name in ("train", "test")):
        return "mvtec"
    if (folder / "Data" / "Images").is_dir():
        return "visa"
    return "plain" if (folder / GOOD).is_dir() else None


def _settle(folder: Path, layout: Layout, draft: _Draft, findings: Findings) -> AnomalyRecord | None:
    """Look at the headers: the image's frame is that of its mask."""
    for name in filter(None, (draft.image, draft.mask)):
        refuse_unsafe_name(folder, name, source=str(folder))
    path = folder / draft.image
    try:
        header = read_header(path)
    except ImageDecodeError as exc:
        findings.add("unreadable_image" if path.exists() else "missing_image", str(exc))
        return None
    mask_path, frame = None, resolve_frame(header, None)
    if draft.defect != GOOD:
        mask_path, frame = _settle_mask(path, folder / draft.mask if draft.mask else None, header, findings)
    width, height, exif_transpose = frame
    image = ImageRecord(
        0, f"{folder.name}/{draft.image}", str(folder.parent), width, height, draft.split, exif_transpose=exif_transpose
    )
    level = 1 if layout == "visa" else MASK_LEVEL
    return AnomalyRecord(item=folder.name, defect=draft.defect, image=image, mask_path=mask_path, mask_level=level)


def _settle_mask(
    path: Path, mask_path: Path | None, header: ImageHeader, findings: Findings
) -> tuple[Path | None, tuple[int, int, bool]]:
    """The mask where it is usable, and the image's frame: that of the mask, else the upright one."""
    if mask_path is None or not mask_path.is_file():
        findings.add("missing_mask", f"{str(path)!r} has no mask")
        return None, resolve_frame(header, None)
    try:
        mask = read_header(mask_path)
    except ImageDecodeError as exc:
        findings.add("unreadable_mask", str(exc))
        return None, resolve_frame(header, None)
    try:
        return mask_path, resolve_frame(header, (mask.width, mask.height))
    except ImageSizeError:
        sizes = f"{mask.width}x{mask.height} pixels, its image has {header.width}x{header.height}"
        findings.add("mask_size_mismatch", f"{str(mask_path)!r} has {sizes}. Draw it at the size of its image.")
        return None, resolve_frame(header, None)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """Images in a folder, by name; hidden files, such as those that macOS leaves, are none."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def _pair(images: Iterable[Path], masks: Iterable[Path], findings: Findings) -> Iterator[tuple[Path, Path | None]]:
    """Each image with its mask NAME_mask or NAME; counts the masks that belong to none."""
    mask_of_stem = {path.stem: path for path in masks}
    for image in images:
        mask = mask_of_stem.pop(f"{image.stem}_mask", None) or mask_of_stem.pop(image.stem, None)
        yield image, mask
    for mask in mask_of_stem.values():
        findings.add("mask_without_image", str(mask))


def _drafts(
    folder: Path, defect: str, split: str, images: Iterable[Path], masks: Iterable[Path], findings: Findings
) -> Iterator[_Draft]:
    for image, mask in _pair(images, masks, findings):
        below = mask.relative_to(folder).as_posix() if mask else ""
        yield _Draft(defect, split, image.relative_to(folder).as_posix(), below)


def _read_mvtec(folder: Path, findings: Findings) -> Iterator[_Draft]:
    yield from _drafts(folder, GOOD, "train", _images(folder / "train" / GOOD), [], findings)
    yield from _drafts(folder, GOOD, "test", _images(folder / "test" / GOOD), [], findings)
    names = {path.name for part in ("test", "ground_truth") for path in _folders(folder / part)} - {GOOD}
    for defect in sorted(names):
        masks = _images(folder / "ground_truth" / defect)
        yield from _drafts(folder, defect, "test", _images(folder / "test" / defect), masks, findings)


def _read_plain(folder: Path, findings: Findings) -> Iterator[_Draft]:
    for place in _folders(folder):
        if place.name in _MASK_FOLDERS:
            continue
        files = _images(place)
        masks = [path for path in files if path.stem.endswith("_mask")]
        masks += [
            path for name in _MASK_FOLDERS for path in _images(place / name) + _images(folder / name / place.name)
        ]
        images = [path for path in files if not path.stem.endswith("_mask")]
        split = "train" if place.name == GOOD else "test"
        yield from _drafts(folder, place.name, split, images, masks, findings)


def _read_visa(folder: Path, findings: Findings) -> Iterator[_Draft]:
    """By split_csv/1cls.csv, else all normal images for training and all others for test."""
    kinds = {row["image"]: row["label"] for row in _rows(folder / "image_anno.csv", ("image", "label"))}
    table = folder.parent / "split_csv" / "1cls.csv"
    for row in _rows(table, ("object", "split", "label", "image", "mask")):
        if row["object"] == folder.name:
            if row["split"] not in ("train", "test"):
                raise DatasetError(
                    f"{str(table)!r}: split {row['split']!r} of {row['image']!r}; expected train or test."
                )
            defect = GOOD if row["label"] == "normal" else kinds.get(row["image"]) or UNNAMED_DEFECT
            image, mask = (_below_item(row[column], folder, table) for column in ("image", "mask"))
            yield _Draft(defect, row["split"], image, mask)
    if table.is_file():
        return
    yield from _drafts(folder, GOOD, "train", _images(folder / "Data/Images/Normal"), [], findings)
    masks = _images(folder / "Data/Masks/Anomaly")
    for draft in _drafts(folder, UNNAMED_DEFECT, "test", _images(folder / "Data/Images/Anomaly"), masks, findings):
        yield replace(draft, defect=kinds.get(f"{folder.name}/{draft.image}") or UNNAMED_DEFECT)


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a table, stripped; none where there is no such file."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if missing := [name for name in columns if name not in (table.fieldnames or ())]:
                raise DatasetError(f"{str(path)!r} has no column {missing[0]!r}; expected {', '.join(columns)}.")
            return [{name: (row[name] or "").strip() for name in columns} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DatasetError(f"{str(path)!r} is not readable as a table: {exc}. Save it as CSV in UTF-8.") from exc


def _below_item(name: str, folder: Path, table: Path) -> str:
    if not name:
        return ""
    first, *rest = PurePosixPath(name).parts
    if first != folder.name or not rest:
        raise DatasetError(f"{str(table)!r}: {name!r} of item {folder.name!r}; expected a path below {folder.name!r}/.")
    return "/".join(rest)


_READERS: dict[Layout, Callable[[Path, Findings], Iterator[_Draft]]] = {
    "mvtec": _read_mvtec,
    "visa": _read_visa,
    "plain": _read_plain,
}
_NORMALS: dict[Layout, str] = {"mvtec": "train/good/", "visa": "Data/Images/Normal/", "plain": "good/"}
