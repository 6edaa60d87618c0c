"""YOLO segmentation, as ultralytics has it: data.yaml, images/ and labels/ side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from ..errors import DatasetError
from .files import write_atomically
from .images import PlaceImage, check_images, safe_join
from .records import Category, Dataset, Findings, ImageRecord, SampleSource
from .yolo_labels import LabelColumns, columns_to_table, iterate_label_rows, read_label_file, rows_to_text

SPLITS = ("train", "val", "test")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".mpo"})
CATEGORY_IDS_KEY = "maskwright_category_ids"
"""Our own key of data.yaml: the ids that the classes had, where they were not 0, 1, 2, …"""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What data.yaml says, with its paths found below its own folder."""

    categories: tuple[Category, ...]
    sources: Mapping[str, tuple[Path, ...]]
    """Folders of images, or text files that list them, by split."""


def load_yolo(data_yaml: Path) -> Dataset:
    """Read a YOLO segmentation data set.

    A val that is the same images as train is no val: they are kept in train alone, and counted.

    Raises:
        DatasetError: data.yaml or a label is malformed, a path leaves the folder, or nothing is usable.
    """
    root, findings = data_yaml.parent, Findings()
    layout = _read_layout(data_yaml)
    columns = LabelColumns()
    images: list[ImageRecord] = []
    known = frozenset(range(len(layout.categories)))
    seen: dict[Path, str] = {}
    for split, sources in layout.sources.items():
        paths = [path for source in sources for path in _image_paths(source, root)]
        shared = [path for path in paths if path in seen]
        if shared:
            findings.add(f"{split}_shares_{seen[shared[0]]}_images", str(shared[0]), len(shared))
        fresh = [path for path in dict.fromkeys(paths) if path not in seen]
        seen.update(dict.fromkeys(fresh, split))
        _count_labels_without_image(root, fresh, findings)
        for record in _to_records(fresh, split, root, len(images), findings):
            label = label_path(root, record.path)
            if label.is_file():
                read_label_file(label, len(images), known, columns, findings)
            else:
                findings.add("image_without_label", str(record.path))
            images.append(record)
    if not images:
        raise DatasetError(f"{data_yaml}: no image that opens was found; check the paths train, val and test in it")
    table = columns_to_table(columns, images, [c.category_id for c in layout.categories], findings)
    if not len(table):
        counts = ", ".join(f"{count} {kind}" for kind, count in findings.counts.items()) or "no labels at all"
        raise DatasetError(
            f"{data_yaml}: not one usable polygon ({counts}); expected rows `class x1 y1 x2 y2 x3 y3 …` "
            "in labels/, beside images/"
        )
    return Dataset(root, "yolo", layout.categories, images, table, findings)


def listed_images(data_yaml: Path, split: str) -> list[Path]:
    """What data.yaml names as a split's images, as often as it names them: twice in a list is drawn twice in training.

    Raises:
        DatasetError: data.yaml is malformed, or a path leaves the folder.
    """
    sources = _read_layout(data_yaml).sources.get(split, ())
    return [path for source in sources for path in _image_paths(source, data_yaml.parent)]


def label_path(root: Path, image_path: Path) -> Path:
    """The label file of an image: the last `images` of its path below `root` becomes `labels`.

    Raises:
        DatasetError: the label is a link that leads out of `root`.
    """
    return safe_join(root, _label_name(image_path.relative_to(root).as_posix()), source=str(image_path))


def _label_name(image_name: str) -> str:
    before, found, after = image_name.rpartition("images/")
    is_folder = bool(found) and (not before or before.endswith("/"))
    return os.path.splitext(f"{before}labels/{after}" if is_folder else image_name)[0] + ".txt"


def _read_layout(data_yaml: Path) -> _Layout:
    try:
        content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as exc:  # a date like 2024-99-99 is a ValueError
        raise DatasetError(f"{data_yaml}: not readable as YAML: {exc}") from exc
    if not isinstance(content, dict):
        raise DatasetError(f"{data_yaml}: expected the keys names, train and val; got {type(content).__name__}")
    base = _base_folder(data_yaml, content.get("path"))
    sources = {split: _sources(data_yaml, base, split, content[split]) for split in SPLITS if content.get(split)}
    if not sources:
        raise DatasetError(f"{data_yaml}: names no images; add `train: images/train`")
    return _Layout(_categories(data_yaml, content), sources)


def _base_folder(data_yaml: Path, path: object) -> Path:
    """Folder that the split paths start from: `path` where it lies inside the data set, else data.yaml's own."""
    folder = data_yaml.parent
    if path is None or not isinstance(path, str):
        return folder
    candidate = (folder / path).resolve()
    inside = candidate == folder.resolve() or folder.resolve() in candidate.parents
    return Path(os.path.normpath(folder / path)) if inside and candidate.is_dir() else folder


def _sources(data_yaml: Path, base: Path, split: str, value: object) -> tuple[Path, ...]:
    names = value if isinstance(value, list) else [value]
    found = []
    for name in names:
        if not isinstance(name, str):
            raise DatasetError(f"{data_yaml}: {split} is {name!r}; expected a folder of images or a .txt list")
        path = safe_join(base, _below(base, name), source=f"{data_yaml}, key {split}")
        if not path.exists():
            raise DatasetError(f"{data_yaml}: {split} names {name!r}, which does not exist below {base}")
        found.append(path)
    return tuple(found)


def _below(base: Path, name: str) -> str:
    """Drop a leading `./`, and Roboflow's `../` where the name means a folder of the data set, as ultralytics does."""
    stripped = name.removeprefix("./")
    if stripped.startswith("../") and (base / stripped[3:]).exists():
        return stripped[3:]
    return stripped


def _categories(data_yaml: Path, content: Mapping[object, object]) -> tuple[Category, ...]:
    names = content.get("names")
    by_index = dict(enumerate(names)) if isinstance(names, list) else names
    if isinstance(by_index, dict):
        by_index = {int(key) if str(key).isdigit() else key: name for key, name in by_index.items()}
    if not isinstance(by_index, dict) or not by_index:
        raise DatasetError(f"{data_yaml}: `names` is {names!r}; expected a list of class names, or index: name")
    if sorted(by_index, key=str) != sorted(range(len(by_index)), key=str):
        raise DatasetError(f"{data_yaml}: `names` has the indices {list(by_index)}; expected 0..{len(by_index) - 1}")
    listed = [str(by_index[index]) for index in range(len(by_index))]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise DatasetError(f"{data_yaml}: `names` holds {twice[0]!r} twice; class names must differ")
    ids = content.get(CATEGORY_IDS_KEY, list(range(len(listed))))
    ids = [one for one in ids if type(one) is int and 0 <= one < 2**31] if isinstance(ids, list) else []
    if len(set(ids)) != len(listed) or len(ids) != len(listed):
        found = content[CATEGORY_IDS_KEY]
        raise DatasetError(f"{data_yaml}: {CATEGORY_IDS_KEY} is {found!r}; expected {len(listed)} different integers")
    return tuple(Category(one, name) for one, name in zip(ids, listed, strict=True))


def _image_paths(source: Path, root: Path) -> list[Path]:
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        return [safe_join(root, path.relative_to(root).as_posix(), source=str(source)) for path in found]
    try:
        lines = source.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{source}: is no text; expected a folder of images, or a .txt that lists them") from exc
    names = [line.strip().removeprefix("./") for line in lines if line.strip()]
    return [safe_join(root, name, source=f"{source}, line {number}") for number, name in enumerate(names, start=1)]


def _to_records(paths: Sequence[Path], split: str, root: Path, first: int, findings: Findings) -> Iterator[ImageRecord]:
    """Records of the images that open; names are given below the folder that holds the split's images."""
    present = [path for path in paths if path.is_file()]
    for path in paths:
        if not path.is_file():
            findings.add("missing_image", str(path))
    folder = _common_folder(present, root)
    drafts = [
        ImageRecord(first + number, path.relative_to(folder).as_posix(), str(folder), 0, 0, split)
        for number, path in enumerate(present, start=1)
    ]
    return (record for record in check_images(drafts, findings) if record is not None)


def _common_folder(paths: Sequence[Path], root: Path) -> Path:
    folders = {path.parent for path in paths}
    if len(folders) == 1:
        return folders.pop()
    common = [folder for folder in (root, *root.rglob("images/*")) if all(folder in path.parents for path in paths)]
    return max(common, key=lambda folder: len(folder.parts), default=root)


def _count_labels_without_image(root: Path, images: Sequence[Path], findings: Findings) -> None:
    stems = {label_path(root, path) for path in images}
    for folder in sorted({label.parent for label in stems}):
        for label in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            if label not in stems:
                findings.add("label_without_image", str(label))


def save_yolo(source: SampleSource, folder: Path, place: PlaceImage, *, findings: Findings) -> Path:
    """Write data.yaml, images/SPLIT/ and labels/SPLIT/; parts and holes of an instance are bridged into one ring.

    ultralytics refuses a data.yaml without `val`; where the source has none, `val` names the training
    images and the finding says so.

    Args:
        findings: gets crowds, which YOLO cannot hold, and empty masks.

    Returns:
        data.yaml's path.
    """
    class_of_category = {category.category_id: index for index, category in enumerate(source.categories)}
    made: set[str] = set()
    taken: dict[str, str] = {}
    for image, rows in iterate_label_rows(source, class_of_category, findings):
        name = f"{image.split}/{image.file_name}"
        label = os.path.join(folder, _label_name(f"images/{name}"))
        if taken.setdefault(label, name) != name:
            raise DatasetError(f"{name!r} and {taken[label]!r} share the label {label!r}; rename one")
        if (parent := os.path.dirname(label)) not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        place(image, folder / "images" / name)
        with open(label, "wb") as file:
            file.write(rows_to_text(rows))
    data_yaml = folder / "data.yaml"
    write_atomically(data_yaml, _data_yaml_text(source, findings).encode())
    return data_yaml


def _data_yaml_text(source: SampleSource, findings: Findings) -> str:
    # Without `path`, ultralytics starts from data.yaml's own folder; "." would be the working folder.
    content: dict[str, object] = {split: f"images/{split}" for split in source.splits}
    for missing in {"train", "val"} - set(source.splits):
        instead = "train" if "train" in source.splits else source.splits[0]
        findings.add(
            f"yolo_{missing}_is_{instead}", f"the data set has no {missing}; data.yaml names {instead} instead"
        )
        content[missing] = f"images/{instead}"
    content["names"] = {index: category.name for index, category in enumerate(source.categories)}
    ids = [category.category_id for category in source.categories]
    if ids != list(range(len(ids))):
        content[CATEGORY_IDS_KEY] = ids
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
