"""Any supported data set, from its folder or its annotation file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from ..errors import DatasetError
from .coco import dataset_root, load_instances, read_json
from .images import safe_join
from .records import Dataset

_JSON_GLOBS = (
    "annotations/instances_*.json",
    "annotations/lvis_v1_*.json",
    "annotations/*.json",
    "*/_annotations.coco.json",
    "*.json",
)
"""Where COCO and LVIS files lie in a data set's folder, in order of preference; the fourth is Roboflow's."""

_OTHER_COCO_TASKS = re.compile(r"^(captions|person_keypoints|image_info|panoptic|stuff)_")
_SPLIT_WORD = re.compile(r"train|val|test")


class _JsonCategory(msgspec.Struct):
    synset: str | None = None


class _JsonHead(msgspec.Struct):
    """Enough of a file to tell LVIS, which has synsets, from COCO."""

    categories: list[_JsonCategory]


def load_dataset(path: Path, format: str = "auto", *, images: Path | None = None) -> Dataset:
    """Read a data set.

    Args:
        path: its folder, or its annotation file: COCO or LVIS JSON, or YOLO's data.yaml. Of an anomaly data set (MVTec
            AD, VisA, plain folders) one item's.
        format: one of `FORMATS`, or "auto".
        images: the folder that COCO's or LVIS's file names start from, where it cannot be guessed.

    Raises:
        DatasetError: nothing is recognised, or the data set is malformed, unsafe or empty.
    """
    if format not in ("auto", *FORMATS):
        raise DatasetError(f"unknown data set format {format!r}; known: {', '.join(sorted(FORMATS))}, auto.")
    if not path.exists():
        raise DatasetError(f"{str(path)!r} does not exist; expected a data set's folder or annotation file.")
    return FORMATS[detect_format(path) if format == "auto" else format](path, images)


def refuse_leaving(path: Path, within: Path) -> None:
    """Make sure that reading a data set opens no file outside a folder, whatever its files name or link to.

    The readers refuse names that leave the folder of a data set. That leaves its links, which are all followed here,
    and an annotation file so high up that its images would be looked for above `within`.

    Args:
        path: the data set's folder, or its annotation file.

    Raises:
        DatasetError: it could lead out; the message names the link.
    """
    allowed = within.resolve()
    folder = path if path.is_dir() else dataset_root(path)
    for start in (path, folder):
        if not start.resolve().is_relative_to(allowed):
            raise DatasetError(f"{str(path)!r} reaches {str(start)!r}, outside {str(within)!r}; move it into a folder.")
    waiting, seen = [folder.resolve()], set[Path]()
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting += _folders_of(here, allowed)


def _folders_of(folder: Path, allowed: Path) -> Iterator[Path]:
    """The folders in a folder, and those that its links lead to."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_symlink():
                if entry.is_dir():
                    yield Path(entry.path)
                continue
            try:
                target = Path(entry.path).resolve()
            except RuntimeError:  # a link to itself; nothing can be read through it
                continue
            if not target.is_relative_to(allowed):
                raise DatasetError(
                    f"{entry.path!r} is a link to {str(target)!r}, outside {str(allowed)!r}. "
                    "Copy the file into the folder."
                )
            if target.is_dir():
                yield target


def detect_format(path: Path) -> str:
    """Tell the format of a data set's folder or annotation file.

    Raises:
        DatasetError: none is recognised; the message says what was looked for.
    """
    if path.suffix in (".yaml", ".yml") or _data_yaml(path):
        return "yolo"
    if (path / "JPEGImages").is_dir() and ((path / "SegmentationObject").is_dir() or (path / "Annotations").is_dir()):
        return "voc"
    files = _annotation_files(path)
    if not files:
        from .defect_instances import item_folders

        if item_folders(path):
            return "mvtec"
        raise DatasetError(
            f"{str(path)!r} is no data set that we know; looked for {', '.join(_JSON_GLOBS)} (COCO, LVIS), "
            "data.yaml (YOLO), JPEGImages with SegmentationObject (VOC), train/good (MVTec AD). Give the folder that "
            "holds one of these, or the annotation file itself."
        )
    head = read_json(files[0], _JsonHead)
    return "lvis" if any(category.synset is not None for category in head.categories) else "coco"


def _data_yaml(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix in (".yaml", ".yml") else None
    return next((path / name for name in ("data.yaml", "data.yml", "dataset.yaml") if (path / name).is_file()), None)


def _annotation_files(path: Path) -> list[Path]:
    """JSON files of one kind, in order of name."""
    if path.is_file():
        return [path] if path.suffix == ".json" else []
    for pattern in _JSON_GLOBS:
        files = sorted(file for file in path.glob(pattern) if not _OTHER_COCO_TASKS.match(file.name))
        if files:
            return files
    return []


def _load_json_family(format_name: str, path: Path, images: Path | None) -> Dataset:
    by_split = _split_files(path)
    root = path if path.is_dir() else dataset_root(path)
    if images is not None and not images.is_dir():
        raise DatasetError(f"the image folder {str(images)!r} does not exist; give the one that file names start from.")

    def folder_of(split: str, names: Sequence[str]) -> Path:
        return _image_folder(root, images, by_split[split], split, names)

    dataset = replace(load_instances(format_name, by_split, folder_of), root=root)
    name = by_split["train"].stem if len(by_split) == 1 else ""
    if (word := _SPLIT_WORD.search(name.lower())) and word.group() != "train":
        dataset.findings.add("single_file_is_train", str(by_split["train"]))
    return dataset


def _split_files(path: Path) -> dict[str, Path]:
    """Annotation files by split. A file that is alone is `train`, whatever its name: it is all there is."""
    files = _annotation_files(path)
    if not files:
        raise DatasetError(f"{str(path)!r} holds none of {', '.join(_JSON_GLOBS)}. Give the annotation file itself.")
    if len(files) == 1:
        return {"train": files[0]}
    by_split: dict[str, Path] = {}
    for file in files:
        name = file.parent.name if file.name == "_annotations.coco.json" else file.stem
        word = _SPLIT_WORD.search(name.lower())
        split = word.group() if word else name.removeprefix("instances_")
        if split in by_split:
            raise DatasetError(
                f"{str(by_split[split])!r} and {str(file)!r} are both of split {split!r}; expected one file each. "
                "Give the annotation file itself, or move the other one away."
            )
        by_split[split] = file
    order = {"train": 0, "val": 1, "test": 2}
    return dict(sorted(by_split.items(), key=lambda item: (order.get(item[0], 3), item[0])))


def _image_folder(root: Path, images: Path | None, annotation_file: Path, split: str, names: Sequence[str]) -> Path:
    """The candidate that has most of the first images; the likeliest one where none has any."""
    stem = annotation_file.stem.removeprefix("instances_").removeprefix("lvis_v1_")
    parts = [stem, split, f"{split}2017", *(["valid"] if split == "val" else [])]
    if images is not None:
        candidates = [images, *(images / part for part in parts)]
    else:
        candidates = [root / "images" / part for part in parts] + [root / part for part in parts]
        candidates += [annotation_file.parent, root / "images", root]

    def hits(folder: Path) -> int:
        return sum(safe_join(folder, name, source=str(annotation_file)).is_file() for name in names[:32])

    return max((folder for folder in candidates if folder.is_dir()), key=hits)


def _load_yolo(path: Path, images: Path | None) -> Dataset:
    _refuse_images(images)
    data_yaml = _data_yaml(path)
    if data_yaml is None:
        raise DatasetError(f"{str(path)!r} holds no data.yaml. Give the YAML file of the YOLO data set.")
    from .yolo import load_yolo

    return load_yolo(data_yaml)


def _load_voc(path: Path, images: Path | None) -> Dataset:
    _refuse_images(images)
    from .voc import load_voc

    return load_voc(path)


def _load_mvtec(path: Path, images: Path | None) -> Dataset:
    _refuse_images(images)
    from .defect_instances import load_defects

    return load_defects(path)


def _refuse_images(images: Path | None) -> None:
    if images is not None:
        raise DatasetError(f"an image folder ({str(images)!r}) can be given for COCO and LVIS only; leave it out.")


FORMATS: Mapping[str, Callable[[Path, Path | None], Dataset]] = {
    "coco": partial(_load_json_family, "coco"),
    "lvis": partial(_load_json_family, "lvis"),
    "yolo": _load_yolo,
    "voc": _load_voc,
    "mvtec": _load_mvtec,
}
