"""Classes of a VOC data set: our own file, CVAT's labelmap.txt, VOC's twenty, or what XML names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import orjson

from ..errors import DatasetError
from .coco import JsonCategory
from .records import Category
from .voc_maps import INSTANCE_COLOURS, VOID, VOID_COLOUR, Colour, index_to_colour

CATEGORIES_FILE = "maskwright.json"
"""Our own file: the categories as they were, of which VOC knows only the names."""
BACKGROUND = "background"
VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Classes 1 to 20 of the challenge."""

Schema = TypeVar("Schema")


class _JsonCategories(msgspec.Struct):
    categories: list[JsonCategory]


@dataclass(frozen=True, slots=True)
class VocClasses:
    """Which category a name, an index or a colour stands for."""

    categories: tuple[Category, ...]
    """That of index i in a map of classes is at i - 1."""
    colours: Mapping[Colour, int]
    numbered: bool
    """False where only XML names classes, so that nobody knows what the indices mean."""

    def of_index(self, index: int, source: Path) -> Category:
        if index > len(self.categories):
            raise DatasetError(
                f"{source}: class {index} is unknown; expected 1..{len(self.categories)}, 0 for background, 255 for "
                "void. Draw the map with those indices, without smoothing, or add the class to labelmap.txt."
            )
        return self.categories[index - 1]

    def of_name(self, name: str, source: Path) -> Category:
        for category in self.categories:
            if category.name == name:
                return category
        known = ", ".join(category.name for category in self.categories)
        raise DatasetError(f"{source}: unknown class {name!r}; known: {known}. Add it to labelmap.txt.")


def read_classes(root: Path, names_in_xml: set[str]) -> VocClasses:
    """Classes of our own file, else of labelmap.txt, else VOC's, else those that XML names, sorted."""
    if (path := root / CATEGORIES_FILE).is_file():
        listed = read_own_json(path, _JsonCategories).categories
        if len({one.id for one in listed}) < len(listed) or len({one.name for one in listed}) < len(listed):
            raise DatasetError(f"{path}: a category's id or name occurs twice; expected each once. Renumber them.")
        ours = (Category(one.id, one.name, one.supercategory or "", one.frequency) for one in listed)
        return VocClasses(tuple(ours), INSTANCE_COLOURS, numbered=True)
    if (path := root / "labelmap.txt").is_file():
        labels = read_labelmap(path)
        names = [name for name, _ in labels if name != BACKGROUND]
        indices = {name: index for index, name in enumerate(names, start=1)} | {BACKGROUND: 0}
        if len(indices) != len(labels):
            raise DatasetError(f"{path}: a label occurs twice; expected each once. Rename one.")
        colours = {colour: indices[name] for name, colour in labels} | {VOID_COLOUR: VOID}
        return VocClasses(_number(names), colours, numbered=True)
    if names_in_xml <= {*VOC_NAMES}:
        return VocClasses(_number(VOC_NAMES), INSTANCE_COLOURS, numbered=True)
    return VocClasses(_number(sorted(names_in_xml)), INSTANCE_COLOURS, numbered=False)


def _number(names: Sequence[str]) -> tuple[Category, ...]:
    return tuple(Category(index, name) for index, name in enumerate(names, start=1))


def read_own_json(path: Path, schema: type[Schema]) -> Schema:
    try:
        return msgspec.json.decode(path.read_bytes(), type=schema)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DatasetError(f"{path}: not as maskwright writes it: {exc}. Export the data set again.") from exc


def read_labelmap(path: Path) -> list[tuple[str, Colour]]:
    """Classes of CVAT's labelmap.txt, `label:r,g,b:parts:actions`, in order; the first is the background.

    Raises:
        DatasetError: not text, or a line is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise DatasetError(f"{path}: not readable as text: {exc}. Save it as UTF-8.") from exc
    classes: list[tuple[str, Colour]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(":")
        values = rest.split(":")[0].split(",") if rest.split(":")[0] else []
        if (
            not name
            or len(values) not in (0, 3)
            or not all(v.strip().isascii() and v.strip().isdigit() for v in values)
        ):
            raise DatasetError(f"{path}, line {number}: {line!r}; expected `label:r,g,b:parts:actions`. Correct it.")
        red, green, blue = map(int, values) if values else index_to_colour(len(classes))
        classes.append((name, (red, green, blue)))
    if not any(name == BACKGROUND for name, _ in classes):
        classes.insert(0, (BACKGROUND, (0, 0, 0)))
    return classes


def labelmap_text(names: Sequence[str]) -> str:
    """labelmap.txt of these classes, numbered from 1; what would break a line is replaced."""
    lines = ["# label:color_rgb:parts:actions"]
    for index, name in enumerate((BACKGROUND, *names)):
        red, green, blue = index_to_colour(index)
        plain = name.translate(str.maketrans(":#\r\n", "____"))
        lines.append(f"{plain}:{red},{green},{blue}::")
    return "\n".join(lines) + "\n"


def categories_to_json(categories: Sequence[Category]) -> bytes:
    """Content of `CATEGORIES_FILE`."""
    entries = [
        {"id": one.category_id, "name": one.name, "supercategory": one.supercategory, "frequency": one.frequency}
        for one in categories
    ]
    return orjson.dumps({"categories": entries})
