"""The small files of a VOC folder of labels: XML, lists, and tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from xml.etree import ElementTree

import numpy as np

from .label_names import name_to_number
from .label_tables import OWN_COLUMNS, TABLE_NAME
from .voc_classes import labelmap_text
from .voc_writer import add_texts

_NOT_IN_FILE_NAME = re.compile(r"^\.|[/\\\0\r\n]")
_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """What lists and tables say of an image."""

    name: str
    """Without ending."""
    size_wh: tuple[int, int]
    labels: frozenset[str]
    split: str
    source: str
    background: str
    prompt: str
    original: str

    def to_xml(self) -> bytes:
        """VOC's annotation without boxes: nobody knows where things are."""
        root = ElementTree.Element("annotation")
        add_texts(root, {"folder": "JPEGImages", "filename": f"{self.name}.jpg"})
        width, height = self.size_wh
        add_texts(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
        add_texts(root, {"segmented": 0})
        for label in sorted(self.labels):
            add_texts(ElementTree.SubElement(root, "object"), {"name": label, "difficult": 0})
        ElementTree.indent(root)
        xml: bytes = ElementTree.tostring(root, encoding="utf-8")
        return xml


def list_files(classes: Sequence[str], images: Sequence[ListedImage]) -> Iterator[tuple[str, bytes]]:
    """Path and content of everything that is not of one image; lists are in the order given."""
    file_names = list_names(classes)
    for part, splits in _PARTS.items():
        members = [one for one in images if one.split in splits]
        names = _lines(one.name for one in members)
        yield f"ImageSets/Main/{part}.txt", names
        yield f"ImageSets/Segmentation/{part}.txt", names
        for label in classes:
            flags = (f"{one.name} {1 if label in one.labels else -1:2d}" for one in members)
            yield f"ImageSets/Main/{file_names[label]}_{part}.txt", _lines(flags)
        if part == "train":
            yield "ImageSets/Segmentation/train_aug.txt", names
            yield "ImageSets/Segmentation/train_aug_id.txt", names
        elif part == "val":
            yield "ImageSets/Segmentation/val_id.txt", names
    vectors = _label_vectors(classes, images)
    yield "cls_labels.npy", vectors
    yield "ImageSets/Segmentation/cls_labels_onehot.npy", vectors
    yield "class_names.txt", _lines([" ".join(name.split()) for name in classes])
    yield "labelmap.txt", labelmap_text(classes).encode()
    yield TABLE_NAME, _table(classes, images)


def list_names(classes: Sequence[str]) -> dict[str, str]:
    """What a list of each class is called: its own name, without what cannot stand in a file's, and no name twice."""
    names: dict[str, str] = {}
    for label in classes:
        wanted = name = _NOT_IN_FILE_NAME.sub("_", label) or "_"
        number = 1
        while name in names.values():
            number += 1
            name = f"{wanted}-{number}"
        names[label] = name
    return names


def _lines(lines: Iterator[str] | Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _label_vectors(classes: Sequence[str], images: Sequence[ListedImage]) -> bytes:
    """A pickled dictionary of (C,) float32 by name, and by the number that IRN makes of it."""
    vectors: dict[str | int, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}
    for one in images:
        vector = np.array([label in one.labels for label in classes], dtype=np.float32)
        vectors[one.name] = vectors[name_to_number(one.name)] = vector
    buffer = BytesIO()
    np.save(buffer, np.array(vectors, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _table(classes: Sequence[str], images: Sequence[ListedImage]) -> bytes:
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*OWN_COLUMNS, *classes])
    for one in images:
        own = [f"JPEGImages/{one.name}.jpg", one.split, one.source, one.background, one.prompt, one.original]
        writer.writerow([*own, *(int(label in one.labels) for label in classes)])
    return buffer.getvalue().encode()
