"""Pascal VOC, with instance masks: JPEGImages, Annotations, ImageSets, SegmentationObject, SegmentationClass.

VOC has one map of instances an image, so it cannot hold two that overlap, a crowd, or more than 254. Where
that loses something, `Masks/STEM.json` holds the image's exact annotations beside the map, as COCO has them,
and is read in its place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np

from ..errors import DatasetError
from .images import check_images, refuse_unsafe_name, safe_join
from .instance_reader import InstanceReader, JsonId
from .masks import mask_to_bbox, mask_to_segmentation
from .records import (
    AnnotationTableBuilder,
    Category,
    Dataset,
    Findings,
    ImageRecord,
    MaskHW,
    Polygons,
    number_by_split,
)
from .voc_classes import VocClasses, read_classes, read_own_json
from .voc_maps import INSTANCE_COLOURS, VOID, IndexMap, read_index_map
from .voc_writer import save_voc

__all__ = ["load_voc", "save_voc"]

_PLAIN_LISTS = ("train", "val", "test", "trainval", "default")
"""Lists of ImageSets/Main that name images; the others there tell for one class which image has it."""


class _JsonMasks(msgspec.Struct):
    """The exact annotations of one image, and the name that it had before VOC's one folder."""

    file_name: str
    image_id: JsonId
    annotations: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class _Description:
    """What an image's XML says."""

    size_wh: tuple[int, int]
    """(0, 0): not said."""
    names: tuple[str, ...]
    """Class of each object; the first is number 1 in the map of instances."""


def load_voc(root: Path) -> Dataset:
    """Read a VOC data set's instance masks; classes are numbered from 1, in the order of labelmap.txt or of VOC.

    An image that two splits list stays in the first, and is counted.

    Raises:
        DatasetError: a file is malformed, a name leaves the folder, a class is unknown, a map is not of its image's
            size, or nothing is usable.
    """
    findings = Findings()
    drafts = _draft_images(root, findings)
    described = [_read_description(_beside(root, "Annotations", image, ".xml")) for image in drafts]
    sized = [
        replace(image, width=one.size_wh[0], height=one.size_wh[1])
        for image, one in zip(drafts, described, strict=True)
    ]
    checked = zip(check_images(sized, findings), described, strict=True)
    usable = [(image, one) for image, one in checked if image is not None]
    classes = read_classes(root, {name for one in described for name in one.names if name})
    reader = _MaskReader(root, classes, [image for image, _ in usable], findings)
    for index, (_, one) in enumerate(usable):
        reader.read(index, one.names)
    if not len(reader.builder):
        counts = ", ".join(f"{count} {kind}" for kind, count in findings.counts.items()) or "no image listed"
        raise DatasetError(
            f"{root}: not one usable instance mask ({counts}); expected SegmentationObject/NAME.png for the images "
            "that ImageSets/Segmentation lists. Boxes alone are not enough."
        )
    table = reader.builder.build(len(reader.images))
    table.annotation_id = number_by_split(table.image_index, reader.images)
    return Dataset(root, "voc", classes.categories, reader.images, table, findings)


def _draft_images(root: Path, findings: Findings) -> list[ImageRecord]:
    """The listed images, each once, their sizes still unknown."""
    folder = root / "JPEGImages"
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    name_of_stem = {os.path.splitext(name)[0]: name for name in sorted(names, key=_is_jpeg)}
    drafts: list[ImageRecord] = []
    split_of_stem: dict[str, str] = {}
    for split, stems in _read_splits(root).items():
        for stem in stems:
            first = split_of_stem.setdefault(stem, split)
            if first != split:
                findings.add(f"{split}_shares_{first}_images", stem)
                continue
            name = name_of_stem.get(stem, f"{stem}.jpg")
            refuse_unsafe_name(folder, name, source=f"{root}, ImageSets, list {split}")
            drafts.append(ImageRecord(len(drafts) + 1, name, str(folder), 0, 0, split))
    return drafts


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg"))


def _read_splits(root: Path) -> dict[str, list[str]]:
    """Stems by split: those of ImageSets, else every map of instances as `train`. A list that is alone is `train`."""
    sets = root / "ImageSets"
    lists = {path.stem: path for path in (sets / "Segmentation").glob("*.txt")}
    lists = lists or {name: path for name in _PLAIN_LISTS if (path := sets / "Main" / f"{name}.txt").is_file()}
    if "train" in lists or "val" in lists:
        lists.pop("trainval", None)
    if not lists:
        maps = root / "SegmentationObject"
        return {"train": sorted(path.relative_to(maps).with_suffix("").as_posix() for path in maps.rglob("*.png"))}
    if len(lists) == 1:
        lists = {"train": next(iter(lists.values()))}
    order = {"train": 0, "val": 1, "test": 2}
    stems: dict[str, list[str]] = {}
    for split in sorted(lists, key=lambda name: (order.get(name, 3), name)):
        try:
            lines = lists[split].read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise DatasetError(f"{lists[split]}: not readable as text: {exc}. Save it as UTF-8.") from exc
        stems[split] = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    return stems


def _beside(root: Path, folder: str, image: ImageRecord, suffix: str) -> Path:
    """A file that describes an image: its stem, in another folder."""
    stem = os.path.splitext(image.stored_as or image.file_name)[0]
    return safe_join(root / folder, stem + suffix, source=f"{root}, image {image.file_name!r}")


def _read_description(path: Path) -> _Description:
    if not path.is_file():
        return _Description((0, 0), ())
    try:
        # Python's expat limits entity expansion (2.4.1 and later) and etree loads nothing external.
        annotation = ElementTree.parse(path).getroot()
        width, height = (int(float(annotation.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    except (OSError, ElementTree.ParseError, ValueError, OverflowError) as exc:
        raise DatasetError(f"{path}: not a VOC annotation: {exc}. Export the file again.") from exc
    names = tuple((one.findtext("name") or "").strip() for one in annotation.iter("object"))
    return _Description((width, height) if width > 0 and height > 0 else (0, 0), names)


class _MaskReader:
    """Appends the instances of one image after another to a table."""

    def __init__(self, root: Path, classes: VocClasses, images: Sequence[ImageRecord], findings: Findings) -> None:
        self.images = list(images)
        self.builder = AnnotationTableBuilder()
        self._root, self._classes, self._findings = root, classes, findings
        self._frames_wh = np.array([(image.width, image.height) for image in images], dtype=np.int32).reshape(-1, 2)
        self._category_ids = {category.category_id for category in classes.categories}
        self._taken: set[tuple[str, str]] = set()

    def read(self, index: int, names: Sequence[str]) -> None:
        """Read the exact masks where they lie beside the map, else the map."""
        image = self.images[index]
        exact = _beside(self._root, "Masks", image, ".json")
        objects = _beside(self._root, "SegmentationObject", image, ".png")
        if exact.is_file():
            self._read_exact(exact, index)
        elif objects.is_file():
            self._read_map(objects, index, names)
        elif names:
            self._findings.add("box_without_mask", str(image.path), len(names))
        else:
            self._findings.add("image_without_label", str(image.path))
        key = (image.split, self.images[index].file_name)
        if key in self._taken:
            raise DatasetError(f"{exact}: {key[1]!r} is another image's name too; expected each once. Rename one.")
        self._taken.add(key)

    def _read_exact(self, path: Path, index: int) -> None:
        image, content = self.images[index], read_own_json(path, _JsonMasks)
        refuse_unsafe_name(Path(image.folder), content.file_name, source=str(path))
        if content.file_name != image.file_name:
            self.images[index] = replace(image, file_name=content.file_name, stored_as=image.file_name)
        InstanceReader(
            str(path), {content.image_id: index}, self._frames_wh, self._category_ids, self.builder, self._findings
        ).read(content.annotations)

    def _read_map(self, path: Path, index: int, names: Sequence[str]) -> None:
        image = self.images[index]
        objects = read_index_map(path, (image.width, image.height), INSTANCE_COLOURS)
        class_path = _beside(self._root, "SegmentationClass", image, ".png")
        class_map = None
        if self._classes.numbered and class_path.is_file():
            class_map = read_index_map(class_path, (image.width, image.height), self._classes.colours)
        numbers = [number for number in np.unique(objects).tolist() if number not in (0, VOID)]
        for number in numbers:
            mask_hw = objects == number
            category = self._category(class_map, mask_hw, class_path)
            if category is None:
                if number > len(names):
                    raise DatasetError(
                        f"{path}: instance {number} has no class: neither a pixel in {class_path.name} of "
                        f"SegmentationClass nor one of the {len(names)} objects of the XML. Add one of them."
                    )
                category = self._classes.of_name(names[number - 1], path)
            self._add(index, category, mask_hw)
        boxes_only = len(names) - len([number for number in numbers if number <= len(names)])
        if boxes_only:
            self._findings.add("box_without_mask", str(image.path), boxes_only)

    def _category(self, class_map: IndexMap | None, mask_hw: MaskHW, source: Path) -> Category | None:
        """The class that most of an instance's pixels have; None where none of them has one."""
        if class_map is None:
            return None
        votes = np.bincount(class_map[mask_hw], minlength=VOID + 1)
        votes[[0, VOID]] = 0
        return self._classes.of_index(int(votes.argmax()), source) if votes.any() else None

    def _add(self, index: int, category: Category, mask_hw: MaskHW) -> None:
        segmentation = mask_to_segmentation(mask_hw)
        self.builder.add(
            annotation_id=len(self.builder) + 1,
            image_index=index,
            category_id=category.category_id,
            segmentation=[ring.ravel() for ring in segmentation.rings]
            if isinstance(segmentation, Polygons)
            else segmentation,
            bbox_xywh=mask_to_bbox(mask_hw),
            area=int(np.count_nonzero(mask_hw)),
        )
