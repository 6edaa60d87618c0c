"""Images with labels only, from any format that says which classes an image shows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import DatasetError
from .defect_instances import item_folders
from .label_anomalies import read_anomaly_labels
from .label_drafts import ReadLabels, settle_labels
from .label_folders import SPLIT_OF_FOLDER, image_files, read_folder_labels, subfolders
from .label_instances import read_instance_labels
from .label_records import LabelDataset
from .label_tables import read_table, read_table_labels
from .label_voc import read_voc_labels
from .load import FORMATS as INSTANCE_FORMATS
from .load import detect_format
from .mvtec import IMAGE_SUFFIXES

_PLAIN_READERS: Mapping[str, Callable[[Path], ReadLabels]] = {
    "voc": read_voc_labels,
    "folders": read_folder_labels,
    "csv": read_table_labels,
}
LABEL_FORMATS = tuple(sorted({*INSTANCE_FORMATS, *_PLAIN_READERS, "mvtec"}))
_CLASS_LIST = re.compile(r".+_(train|val|trainval|test)\.txt$")


def load_labels(
    path: Path, *, format: str = "auto", item: str | None = None, images: Path | None = None
) -> LabelDataset:
    """Read which classes each image shows; headers are read, no pixel is decoded.

    Args:
        path: a data set's folder, or its file: COCO or LVIS JSON, YOLO's data.yaml, a CSV.
        format: one of `LABEL_FORMATS`, or "auto", which looks at the files.
        item: which one, where the data set is an anomaly data set with several.
        images: the folder that COCO's or LVIS's file names start from, where it cannot be guessed.

    Returns:
        Images by key. Findings: `missing_image`, `unreadable_image` (left out), `class_without_image` (left out of the
        classes), `copy_with_other_labels`, and what the reader of the format counts.

    Raises:
        DatasetError: nothing is recognised; files are malformed, unsafe or contradict each other; no label is left, or
            more classes than `MAX_CLASSES`.
    """
    if format not in ("auto", *LABEL_FORMATS):
        raise DatasetError(f"unknown format {format!r} of labels; known: {', '.join(LABEL_FORMATS)}, auto.")
    root = Path(os.path.abspath(path))
    if not root.exists():
        raise DatasetError(f"{str(path)!r} does not exist; expected a data set's folder, annotation file or table.")
    name = detect_labels(root) if format == "auto" else format
    if item is not None and name != "mvtec":
        raise DatasetError(f"{str(path)!r} is of format {name}, which has no item {item!r}. Leave the item out.")
    if images is not None and name not in ("coco", "lvis"):
        raise DatasetError(f"an image folder ({str(images)!r}) can be given for COCO and LVIS only; leave it out.")
    if name == "mvtec":
        return settle_labels(read_anomaly_labels(root, item))
    if name in _PLAIN_READERS:
        return settle_labels(_PLAIN_READERS[name](root))
    return settle_labels(read_instance_labels(root, name, images))


def detect_labels(path: Path) -> str:
    """Tell the format of a data set of labels.

    Raises:
        DatasetError: none is recognised, or a folder holds several tables.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        return "csv"
    if path.is_dir():
        if (path / "JPEGImages").is_dir() and _names_classes_as_voc(path):
            return "voc"
        if _looks_like_anomalies(path):
            return "mvtec"
        if _has_table_of_images(path):
            return "csv"
        if _looks_like_class_folders(path):
            return "folders"
    try:
        return detect_format(path)
    except DatasetError as exc:
        if path.is_dir() and any(path.glob("*.csv")):
            return "csv"
        raise DatasetError(
            f"{str(path)!r} has no labels that we know; looked for JPEGImages with ImageSets/Main/CLASS_train.txt or "
            "Annotations (VOC), train/good with test/DEFECT (MVTec AD), folders of images named by their class, "
            "annotations/*.json (COCO, LVIS), data.yaml (YOLO), *.csv. Give the folder that holds one of these, or "
            "name the format."
        ) from exc


def _names_classes_as_voc(path: Path) -> bool:
    lists = path / "ImageSets" / "Main"
    return (path / "Annotations").is_dir() or any(_CLASS_LIST.match(one.name) for one in lists.glob("*.txt"))


def _looks_like_anomalies(path: Path) -> bool:
    """An item or a folder of items; not class folders of which one is called good."""
    return any(_is_anomaly_item(folder) for folder in item_folders(path))


def _is_anomaly_item(folder: Path) -> bool:
    if (folder / "Data" / "Images").is_dir():
        return True
    if (folder / "train" / "good").is_dir():
        return (folder / "test").is_dir() and [one.name for one in subfolders(folder / "train")] == ["good"]
    if any((folder / name).is_dir() for name in ("masks", "mask", "ground_truth")):
        return True
    return any(one.stem.endswith("_mask") for one in folder.glob("*/*") if one.suffix.lower() in IMAGE_SUFFIXES)


def _has_table_of_images(path: Path) -> bool:
    """Whether a table names images that are there; class folders may have others beside them."""
    for one in path.glob("*.csv"):
        try:
            table = read_table(one)
        except DatasetError:
            continue
        if table.rows and (path / table.rows[0][1][0]).is_file():
            return True
    return False


def _looks_like_class_folders(path: Path) -> bool:
    if any((path / name).exists() for name in ("annotations", "labels", "images", "JPEGImages", "data.yaml")):
        return False
    splits = [path / name for name in SPLIT_OF_FOLDER if (path / name).is_dir()]
    return any(image_files(folder) for parent in splits or [path] for folder in subfolders(parent))
