"""ImageFolder: one folder a class, and where a folder is called good, background or negative, images of no class."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import DatasetError
from .images import refuse_unsafe_name
from .label_drafts import LabelDraft, ReadLabels
from .mvtec import IMAGE_SUFFIXES
from .records import Findings, ImageRecord

NO_CLASS: Final = frozenset({"good", "background", "negative"})
SPLIT_OF_FOLDER: Final = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read_folder_labels(root: Path) -> ReadLabels:
    """Read `CLASS/…/NAME.jpg`, or the same below train/, val/, test/; classes are sorted.

    Raises:
        DatasetError: not a folder, or a link leads out of it.
    """
    if not root.is_dir():
        raise DatasetError(f"{str(root)!r} is no folder; expected one that holds a folder of images for each class.")
    parts = {name: root / name for name in SPLIT_OF_FOLDER if (root / name).is_dir()}
    drafts: list[LabelDraft] = []
    classes: set[str] = set()
    for part, split in [(parts[name], SPLIT_OF_FOLDER[name]) for name in parts] or [(root, "train")]:
        for folder in subfolders(part):
            labels = frozenset[str]() if folder.name.lower() in NO_CLASS else frozenset({folder.name})
            classes |= labels
            drafts += [LabelDraft(_record(root, path, split), labels) for path in image_files(folder)]
    return ReadLabels(root, "folders", tuple(sorted(classes)), drafts, Findings())


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder by name, without hidden ones."""
    return sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))


def image_files(folder: Path) -> list[Path]:
    """Images below a folder by path, without hidden ones."""
    return sorted(
        one
        for one in folder.rglob("*")
        if one.suffix.lower() in IMAGE_SUFFIXES and not one.name.startswith(".") and not one.is_dir()
    )


def _record(root: Path, path: Path, split: str) -> ImageRecord:
    name = path.relative_to(root).as_posix()
    refuse_unsafe_name(root, name, source=str(root))
    return ImageRecord(0, name, str(root), 0, 0, split)
