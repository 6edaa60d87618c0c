"""Data sets of labels on disk: non-square pictures of noise, each another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from anomaly_folders import HEIGHT, WIDTH, picture, write_picture
from PIL import Image

from maskwright.data.label_records import ClassMapHW, LabelDataset
from maskwright.data.voc_maps import write_index_map

VOC_FLAGS = {"dog_train": "a 1\nb 1\nc ü -1\n", "cat_train": "a  1\nb -1\nc ü -1\n"}
"""a shows both, b a dog, `c ü` neither."""


def write_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def voc_xml(*names: str, difficult: Sequence[str] = ()) -> str:
    objects = "".join(f"<object><name>{name}</name><difficult>0</difficult></object>" for name in names)
    hard = "".join(f"<object><name>{name}</name><difficult>1</difficult></object>" for name in difficult)
    return f"<annotation>{objects}{hard}</annotation>"


def write_voc_labels(
    root: Path, *, lists: Mapping[str, str] | None = None, xml: Mapping[str, str] | None = None, stems: str = "abc"
) -> Path:
    """A VOC folder of JPEGs: by default `VOC_FLAGS` and no XML."""
    for seed, stem in enumerate(stems):
        write_picture(root / "JPEGImages" / ("c ü.jpg" if stem == "c" else f"{stem}.jpg"), picture(seed))
    for name, text in (VOC_FLAGS if lists is None else lists).items():
        write_text(root / "ImageSets" / "Main" / f"{name}.txt", text)
    for stem, text in (xml or {}).items():
        write_text(root / "Annotations" / f"{stem}.xml", text)
    return root


def write_class_map(path: Path, **level_of_column: int) -> None:
    """Zero but for some columns, named x0, x1 and so on."""
    index_map: ClassMapHW = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for column, level in level_of_column.items():
        index_map[:, int(column.removeprefix("x"))] = level
    write_index_map(index_map, path)


def write_class_folders(root: Path, counts: Mapping[str, int], *, start: int = 0) -> Path:
    """`counts`: pictures by folder, such as {"train/Riß": 2}."""
    seed = start
    for folder, num in counts.items():
        for i in range(num):
            write_picture(root / folder / f"{i:03d}.png", picture(seed := seed + 1))
    return root


def write_pictures(root: Path, names: Sequence[str]) -> Path:
    for seed, name in enumerate(names):
        write_picture(root / name, picture(seed))
    return root


def labels_of(dataset: LabelDataset) -> dict[str, list[str]]:
    return {one.key: sorted(one.labels) for one in dataset.images}


def save_turned(path: Path, seed: int) -> None:
    """A picture that its tag turns by a quarter."""
    exif = Image.Exif()
    exif[274] = 6
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path, exif=exif)
