"""Samples to files of the COCO family, one annotation at a time."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from .files import open_atomically
from .images import PlaceImage
from .masks import rle_area, rle_bbox, segmentation_to_json, segmentation_to_rle
from .records import Annotation, Category, Findings, ImageRecord, Polygons, Rle, Sample, SampleSource, Segmentation

JsonObject = dict[str, object]


@dataclass(slots=True)
class CategoryCount:
    """How often a category occurs in a file."""

    images: int = 0
    instances: int = 0


def category_lists(image: ImageRecord, category_shift: int) -> dict[str, list[int]]:
    """What LVIS annotators looked for in vain, and where they stopped counting."""
    return {
        "neg_category_ids": [one + category_shift for one in image.neg_category_ids],
        "not_exhaustive_category_ids": [one + category_shift for one in image.not_exhaustive_category_ids],
    }


def _coco_image_fields(image: ImageRecord, category_shift: int) -> JsonObject:
    return {key: ids for key, ids in category_lists(image, category_shift).items() if ids}


def _coco_category_fields(category: Category, _count: CategoryCount) -> JsonObject:
    return {"frequency": category.frequency} if category.frequency else {}


@dataclass(frozen=True, slots=True)
class InstanceFormat:
    """Where a format of the family differs: its further keys, and whether it knows crowds.

    COCO itself only carries on what came from LVIS; its readers skip keys that they do not know.
    """

    file_prefix: str
    image_fields: Callable[[ImageRecord, int], JsonObject] = _coco_image_fields
    """Given the image, and what is added to every category id."""
    category_fields: Callable[[Category, CategoryCount], JsonObject] = _coco_category_fields
    crowd_finding: str = ""
    """Kind of finding under which crowds are left out; empty: crowds are written."""


def save_instances(
    source: SampleSource, folder: Path, place: PlaceImage, file_format: InstanceFormat, *, findings: Findings
) -> dict[str, Path]:
    """Write every split's images and annotation file; see `save_coco`."""
    shift = int(any(category.category_id == 0 for category in source.categories))
    if shift:
        findings.add("category_ids_shifted", "category ids start at 0; written from 1")
    files: dict[str, Path] = {}
    for split in source.splits:
        files[split] = folder / "annotations" / f"{file_format.file_prefix}{split}.json"
        image_ids, annotation_ids = _number(source.samples(split), split, findings)
        writer = _SplitWriter(file_format, findings, shift, image_ids, annotation_ids)
        with open_atomically(files[split]) as file:
            file.write(b'{"info":{"description":"written by maskwright"},"annotations":[')
            for sample in source.samples(split):
                place(sample.image, folder / "images" / split / sample.image.file_name)
                writer.write_annotations(sample, file)
            writer.write_rest(source.categories, file)
    return files


def _number(samples: Iterable[Sample], split: str, findings: Findings) -> tuple[Iterator[int], Iterator[int]]:
    """Ids of a split's images and annotations, in order: their own where these are valid, else from 1."""
    image_ids, annotation_ids = array("q"), array("q")
    for sample in samples:
        image_ids.append(sample.image.image_id)
        annotation_ids.extend([annotation.annotation_id for annotation in sample.annotations])

    def valid_or_new(kind: str, ids: array[int]) -> Iterator[int]:
        if min(ids, default=1) >= 1 and len(np.unique(np.array(ids))) == len(ids):
            return iter(ids)
        findings.add(f"{kind}_ids_renumbered", f"split {split!r}: ids below 1 or repeated", len(ids))
        return count(1)

    return valid_or_new("image", image_ids), valid_or_new("annotation", annotation_ids)


@dataclass(slots=True)
class _SplitWriter:
    """Writes one file; what is short (images, categories) is kept until the annotations are out."""

    file_format: InstanceFormat
    findings: Findings
    category_shift: int
    image_ids: Iterator[int]
    annotation_ids: Iterator[int]
    _images: list[bytes] = field(default_factory=list)
    _licences: dict[str, int] = field(default_factory=dict)
    _counts: dict[int, CategoryCount] = field(default_factory=dict)
    _separator: bytes = b""

    def write_annotations(self, sample: Sample, file: BinaryIO) -> None:
        image, image_id = sample.image, next(self.image_ids)
        seen: set[int] = set()
        for annotation in sample.annotations:
            annotation_id = next(self.annotation_ids)
            where = f"{image.split}/{image.file_name}, annotation {annotation.annotation_id}"
            if annotation.is_crowd and self.file_format.crowd_finding:
                self.findings.add(self.file_format.crowd_finding, where)
                continue
            entry = annotation_to_json(annotation, image)
            if not entry["area"]:
                self.findings.add("empty_mask", where)
                continue
            category_id = annotation.category_id + self.category_shift
            entry |= {"id": annotation_id, "image_id": image_id, "category_id": category_id}
            file.write(self._separator + orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY))
            self._separator = b",\n"
            category_count = self._counts.setdefault(annotation.category_id, CategoryCount())
            category_count.instances += 1
            category_count.images += annotation.category_id not in seen
            seen.add(annotation.category_id)
        self._images.append(self._image_to_json(image, image_id))

    def _image_to_json(self, image: ImageRecord, image_id: int) -> bytes:
        entry: JsonObject = {
            "id": image_id,
            "file_name": image.file_name,
            "width": image.width,
            "height": image.height,
            **self.file_format.image_fields(image, self.category_shift),
        }
        if image.licence:
            entry["license"] = self._licences.setdefault(image.licence, len(self._licences) + 1)
        return orjson.dumps(entry)

    def write_rest(self, categories: Sequence[Category], file: BinaryIO) -> None:
        licences = [{"id": number, "name": name} for name, number in self._licences.items()]
        entries = [
            {
                "id": category.category_id + self.category_shift,
                "name": category.name,
                "supercategory": category.supercategory,
                **self.file_format.category_fields(category, self._counts.get(category.category_id, CategoryCount())),
            }
            for category in categories
        ]
        file.write(b'],\n"images":[' + b",\n".join(self._images))
        file.write(b'],\n"categories":' + orjson.dumps(entries) + b',\n"licenses":' + orjson.dumps(licences) + b"}\n")


def annotation_to_json(annotation: Annotation, image: ImageRecord) -> JsonObject:
    """An annotation without its ids; `segmentation` may hold arrays, for orjson."""
    rle = segmentation_to_rle(_as_read(annotation.segmentation), image.height, image.width)
    return {
        "segmentation": segmentation_to_json(rle if annotation.is_crowd else annotation.segmentation),
        "area": rle_area(rle),
        "bbox": rle_bbox(rle),
        "iscrowd": int(annotation.is_crowd),
    }


def _as_read(segmentation: Segmentation) -> Segmentation:
    """What a reader makes of the decimals that we write: float64, which may fall on another pixel than float32."""
    if isinstance(segmentation, Rle):
        return segmentation
    rings = orjson.loads(orjson.dumps(segmentation_to_json(segmentation), option=orjson.OPT_SERIALIZE_NUMPY))
    return Polygons(tuple(np.array(ring).reshape(-1, 2) for ring in rings))
