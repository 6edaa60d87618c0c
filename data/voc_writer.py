"""A data set as Pascal VOC, and beside it whatever VOC cannot say."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import orjson

from .images import PlaceImage
from .instance_writer import annotation_to_json
from .masks import mask_to_bbox, segmentation_to_mask
from .records import Annotation, Category, Findings, ImageRecord, MaskHW, Sample, SampleSource
from .voc_classes import CATEGORIES_FILE, categories_to_json, labelmap_text
from .voc_maps import MAX_INDEX, VOID, write_index_map

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class _Instance:
    annotation: Annotation
    category_index: int
    """From 1."""
    mask_hw: MaskHW
    area: int


def save_voc(source: SampleSource, folder: Path, place: PlaceImage, *, findings: Findings) -> None:
    """Write images, XML, lists, and maps of instances and classes; for CVAT, also labelmap.txt.

    Images of all splits share JPEGImages: one whose name is taken gets another (`voc_renamed`).

    Args:
        findings: gets the images whose exact masks lie in `Masks/`, because the map cannot hold them.
    """
    writer = _VocWriter(source.categories, folder, place, findings)
    for sample in source.samples():
        writer.write(sample)
    for split in source.splits:
        for kind in ("Segmentation", "Main"):
            path = folder / "ImageSets" / kind / f"{split}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{stem}\n" for stem in writer.stems.get(split, ())), encoding="utf-8")
    (folder / "labelmap.txt").write_text(labelmap_text([one.name for one in source.categories]), encoding="utf-8")
    (folder / CATEGORIES_FILE).write_bytes(categories_to_json(source.categories))


@dataclass(slots=True)
class _VocWriter:
    categories: tuple[Category, ...]
    folder: Path
    place: PlaceImage
    findings: Findings
    stems: dict[str, list[str]] = field(default_factory=dict)
    """Names without suffix, by split."""
    _taken: set[str] = field(default_factory=set)
    _index_of_category: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self._index_of_category = {one.category_id: index for index, one in enumerate(self.categories, start=1)}

    def write(self, sample: Sample) -> None:
        image = sample.image
        stem = self._free_stem(image)
        name = stem + os.path.splitext(image.file_name)[1]
        self.stems.setdefault(image.split, []).append(stem)
        self.place(image, self.folder / "JPEGImages" / name)
        if not name.lower().endswith((".jpg", ".jpeg")):
            self.findings.add("voc_not_jpeg", f"{name}: some readers expect .jpg")
        instances = self._to_instances(sample)
        self._write_xml(name, stem, image, [one for one in instances if not one.annotation.is_crowd])
        is_exact = self._write_maps(stem, image, instances)
        if not is_exact:
            self.findings.add("voc_exact_masks_aside", f"{image.split}/{image.file_name}")
        if not is_exact or name != image.file_name:
            self._write_exact(stem, image, instances)

    def _free_stem(self, image: ImageRecord) -> str:
        """The name without suffix, fit for a line of a list; changed where another image has it."""
        own = os.path.splitext(image.file_name)[0]
        stem = wanted = own.strip().replace("\n", " ") or "image"
        number = 1
        while stem in self._taken:
            stem = f"{wanted}-{image.split}" if number == 1 else f"{wanted}-{image.split}-{number}"
            number += 1
        if stem != own:
            self.findings.add("voc_renamed", f"{image.split}/{image.file_name} is {stem!r}")
        self._taken.add(stem)
        return stem

    def _to_instances(self, sample: Sample) -> list[_Instance]:
        instances = []
        for one in sample.annotations:
            mask_hw = segmentation_to_mask(one.segmentation, sample.image.height, sample.image.width)
            area = int(np.count_nonzero(mask_hw))
            if area:
                instances.append(_Instance(one, self._index_of_category[one.category_id], mask_hw, area))
            else:
                self.findings.add("empty_mask", f"{sample.image.file_name}, annotation {one.annotation_id}")
        return instances

    def _write_xml(self, name: str, stem: str, image: ImageRecord, objects: Sequence[_Instance]) -> None:
        root = ElementTree.Element("annotation")
        add_texts(root, {"folder": "JPEGImages", "filename": name})
        size = {"width": image.width, "height": image.height, "depth": 3}
        add_texts(ElementTree.SubElement(root, "size"), size)
        add_texts(root, {"segmented": int(bool(objects))})
        for one in objects:
            element = ElementTree.SubElement(root, "object")
            texts = {"name": self.categories[one.category_index - 1].name, "pose": "Unspecified"}
            add_texts(element, {**texts, "truncated": 0, "difficult": 0})
            x, y, w, h = mask_to_bbox(one.mask_hw)
            # VOC counts pixels from 1, and the last one belongs to the box.
            box = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}
            add_texts(ElementTree.SubElement(element, "bndbox"), box)
        path = self.folder / "Annotations" / f"{stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.indent(root)
        path.write_bytes(ElementTree.tostring(root, encoding="utf-8"))

    def _write_maps(self, stem: str, image: ImageRecord, instances: Sequence[_Instance]) -> bool:
        """Draw both maps, small instances over large ones and crowds as void; True where no pixel is lost."""
        object_map = np.zeros((image.height, image.width), dtype=np.uint8)
        class_map = object_map.copy()
        for one in instances:
            if one.annotation.is_crowd:
                object_map[one.mask_hw] = class_map[one.mask_hw] = VOID
        numbered = list(enumerate((one for one in instances if not one.annotation.is_crowd), start=1))
        for number, one in sorted(numbered, key=lambda item: item[1].area, reverse=True):
            object_map[one.mask_hw] = number if number <= MAX_INDEX else VOID
            class_map[one.mask_hw] = one.category_index if one.category_index <= MAX_INDEX else VOID
        write_index_map(object_map, self.folder / "SegmentationObject" / f"{stem}.png")
        write_index_map(class_map, self.folder / "SegmentationClass" / f"{stem}.png")
        overlap = sum(one.area for one in instances) > np.count_nonzero(object_map)
        fits = len(numbered) <= MAX_INDEX and all(one.category_index <= MAX_INDEX for one in instances)
        return fits and not overlap and len(numbered) == len(instances)

    def _write_exact(self, stem: str, image: ImageRecord, instances: Sequence[_Instance]) -> None:
        entries = [
            {"id": number, "image_id": image.image_id, "category_id": one.annotation.category_id}
            | annotation_to_json(one.annotation, image)
            for number, one in enumerate(instances, start=1)
        ]
        content = {"file_name": image.file_name, "image_id": image.image_id, "annotations": entries}
        path = self.folder / "Masks" / f"{stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def add_texts(parent: ElementTree.Element, texts: Mapping[str, object]) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = _NOT_XML.sub("\ufffd", str(text))
