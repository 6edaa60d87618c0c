"""Pascal VOC's image-level labels: lists that tell of one class which image shows it, else the objects of the XML."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..errors import DatasetError, EmptyMaskError, ImageDecodeError
from .images import refuse_unsafe_name, safe_join
from .label_drafts import LabelDraft, ReadLabels, refuse_contradictions
from .label_records import UNKNOWN_LEVEL, ClassMapHW, LabelledImage, TruthReader
from .label_voc_lists import Flag, read_class_lists, share_out_stems
from .records import Findings, ImageRecord
from .voc_classes import VOC_NAMES, VocClasses, read_classes
from .voc_maps import VOID, read_index_map


@dataclass(frozen=True, slots=True)
class _Objects:
    """Classes of an XML's objects."""

    clear: frozenset[str]
    difficult: frozenset[str]
    """Of classes with objects that are all marked hard to see."""


@dataclass(frozen=True, slots=True)
class _VocTruth:
    """Reads SegmentationClass; void and classes without a level are unknown."""

    root: Path
    classes: VocClasses
    levels: Mapping[str, int]

    def __call__(self, image: LabelledImage) -> ClassMapHW:
        name = os.path.splitext(image.key)[0] + ".png"
        path = safe_join(self.root / "SegmentationClass", name, source=f"image {image.key!r}")
        if not path.is_file():
            raise EmptyMaskError(f"{str(path)!r} does not exist; expected the class map of {image.key!r}")
        try:
            index_map = read_index_map(path, (image.image.width, image.image.height), self.classes.colours)
        except DatasetError as exc:
            raise ImageDecodeError(str(exc)) from exc
        level_of_index = np.full(VOID + 1, UNKNOWN_LEVEL, dtype=np.uint8)
        level_of_index[0] = 0
        for index, category in enumerate(self.classes.categories[: VOID - 1], start=1):
            level_of_index[index] = self.levels.get(category.name, UNKNOWN_LEVEL)
        return level_of_index[index_map]


def read_voc_labels(root: Path) -> ReadLabels:
    """Read a VOC folder; keys are file names in JPEGImages.

    Classes stand in VOC's order, others sorted. Where ImageSets/Segmentation has train_aug, as weakly supervised
    segmentation uses it, that and val say what trains and what does not; else the lists of ImageSets/Main do.

    Findings: `difficult_only`, an image that shows a class only in objects marked difficult, which is no label;
    `object_without_list`, an object of a class that has no list where others have; `unlabelled_image`, in a list but
    with neither flags nor XML, left out; `SPLIT_shares_train_images`, left where it was listed first.

    Raises:
        DatasetError: a malformed file, a name that leaves the folder, or lists and XML that contradict each other.
    """
    folder = root / "JPEGImages"
    if not folder.is_dir():
        raise DatasetError(f"{str(root)!r} has no JPEGImages; expected the folder of a VOC data set, such as VOC2012.")
    findings, lists = Findings(), read_class_lists(root)
    name_of_stem = _image_names(folder)
    contradictions = list(lists.contradictions)
    drafts = []
    for stem, split in share_out_stems(root, lists, findings).items():
        flags = {name: of_stem[stem] for name, of_stem in lists.flags.items() if stem in of_stem}
        refuse_unsafe_name(root / "Annotations", f"{stem}.xml", source=f"{root}, ImageSets")
        objects = _read_objects(root / "Annotations" / f"{stem}.xml")
        if not flags and objects is None:
            findings.add("unlabelled_image", f"{stem!r} has neither a flag nor an XML")
            continue
        if objects and flags:
            contradictions += _contradictions(stem, flags, objects)
        labels = _labels(stem, flags, objects, frozenset(lists.flags), findings)
        name = name_of_stem.get(stem, f"{stem}.jpg")
        refuse_unsafe_name(folder, name, source=f"{root}, ImageSets")
        drafts.append(LabelDraft(ImageRecord(0, name, str(folder), 0, 0, split), labels))
    refuse_contradictions(contradictions, root)
    classes = set(lists.flags).union(*(draft.labels for draft in drafts))
    ordered = (*(name for name in VOC_NAMES if name in classes), *sorted(classes - {*VOC_NAMES}))
    return ReadLabels(root, "voc", ordered, drafts, findings, _truth_maker(root, classes, findings))


def _image_names(folder: Path) -> dict[str, str]:
    """File name of each stem; a JPEG before others."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names.sort(key=lambda name: name.lower().endswith((".jpg", ".jpeg")))
    return {os.path.splitext(name)[0]: name for name in names}


def _read_objects(path: Path) -> _Objects | None:
    if not path.is_file():
        return None
    try:
        # Python's expat limits entity expansion (2.4.1 and later) and etree loads nothing external.
        annotation = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, ValueError) as exc:
        raise DatasetError(f"{str(path)!r}: not a VOC annotation: {exc}. Export the file again.") from exc
    clear: set[str] = set()
    difficult: set[str] = set()
    for one in annotation.iter("object"):
        name = (one.findtext("name") or "").strip()
        (difficult if (one.findtext("difficult") or "").strip() == "1" else clear).add(name)
    return _Objects(frozenset(clear - {""}), frozenset(difficult - clear - {""}))


def _contradictions(stem: str, flags: Mapping[str, Flag], objects: _Objects) -> list[str]:
    """Where a list denies what the XML has, or claims what it lacks; how hard an object is to see decides nothing."""
    found = objects.clear | objects.difficult
    denied = [name for name, flag in flags.items() if flag == -1 and name in found]
    claimed = [name for name, flag in flags.items() if flag != -1 and name not in found]
    return [f"{stem!r} has {name!r} in its XML, and its list says -1" for name in denied] + [
        f"{stem!r} has no {name!r} in its XML, and its list says {flags[name]}" for name in claimed
    ]


def _labels(
    stem: str, flags: Mapping[str, Flag], objects: _Objects | None, listed: frozenset[str], findings: Findings
) -> frozenset[str]:
    """Flags before objects."""
    clear = objects.clear if objects else frozenset[str]()
    difficult = objects.difficult if objects else frozenset[str]()
    for name in sorted((clear | difficult) - listed) if listed else ():
        findings.add("object_without_list", f"{stem!r}: {name!r}")
    if listed:
        clear, difficult = clear & listed, difficult & listed
    shown = {name for name, flag in flags.items() if flag == 1} | (clear - flags.keys())
    hard = {name for name, flag in flags.items() if flag == 0} | (difficult - flags.keys())
    for name in sorted(hard):
        findings.add("difficult_only", f"{stem!r}: {name!r}")
    return frozenset(shown)


def _truth_maker(root: Path, names: set[str], findings: Findings) -> Callable[[Mapping[str, int]], TruthReader] | None:
    if not (root / "SegmentationClass").is_dir():
        return None
    classes = read_classes(root, names)
    if not classes.numbered:
        findings.add("unnumbered_class_maps", "SegmentationClass has indices, and no labelmap.txt says of which class")
        return None
    return lambda levels: _VocTruth(root, classes, levels)
