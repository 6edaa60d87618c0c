"""What a reader of labels hands over, and the checks that are the same for all of them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import DatasetError
from .images import check_images
from .label_records import MAX_CLASSES, LabelDataset, LabelledImage, TruthReader, count_labels
from .records import Findings, ImageRecord


@dataclass(frozen=True, slots=True)
class LabelDraft:
    """An image that was listed and perhaps not yet looked at."""

    image: ImageRecord
    """Of width 0 where its size is not known."""
    labels: frozenset[str]


@dataclass(frozen=True, slots=True)
class ReadLabels:
    """What a data set says, as its reader found it."""

    root: Path
    format: str
    classes: tuple[str, ...]
    drafts: Sequence[LabelDraft]
    findings: Findings
    make_truth: Callable[[Mapping[str, int]], TruthReader] | None = None
    """Given each class's level in class maps; None where there are no masks."""


def settle_labels(read: ReadLabels) -> LabelDataset:
    """Look at the headers, and refuse what nothing can be learned from; see `load_labels`."""
    findings = read.findings
    if not read.drafts:
        raise DatasetError(f"{str(read.root)!r} ({read.format}) lists no image; expected some. Check the path.")
    _refuse_twice(read)
    checked = check_images([draft.image for draft in read.drafts], findings)
    usable = [
        LabelledImage(image=image, labels=draft.labels)
        for image, draft in zip(checked, read.drafts, strict=True)
        if image is not None
    ]
    usable.sort(key=lambda one: one.key)
    classes = _shown_classes(read, usable)
    _find_copies(usable, findings)
    images = tuple(replace(one, image=replace(one.image, image_id=i)) for i, one in enumerate(usable, start=1))
    read_truth = read.make_truth({name: level for level, name in enumerate(classes, 1)}) if read.make_truth else None
    return LabelDataset(read.root, read.format, classes, images, read_truth, findings)


def _shown_classes(read: ReadLabels, usable: Sequence[LabelledImage]) -> tuple[str, ...]:
    counts = count_labels(usable, read.classes)
    for name, count in counts.items():
        if not count:
            read.findings.add("class_without_image", f"{name!r} has no image and is left out; add some that show it")
    classes = tuple(name for name, count in counts.items() if count)
    if not classes:
        raise DatasetError(_nothing_left(read, usable))
    if len(classes) > MAX_CLASSES:
        raise DatasetError(
            f"{str(read.root)!r} has {len(classes)} classes; expected at most {MAX_CLASSES}, which fit a class map. "
            "Leave some out."
        )
    return classes


def refuse_contradictions(contradictions: Sequence[str], source: Path) -> None:
    """Raise DatasetError where an image is said to show a class and not to show it."""
    if contradictions:
        raise DatasetError(
            f"{str(source)!r}: {len(contradictions)} contradictory label sets; the first: {contradictions[0]}. "
            "Expected one label set an image. Correct the one that is wrong."
        )


def _refuse_twice(read: ReadLabels) -> None:
    counts = Counter(draft.image.file_name for draft in read.drafts)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise DatasetError(f"{str(read.root)!r}: {twice[0]!r} is listed twice; expected each image once. Rename one.")


def _nothing_left(read: ReadLabels, usable: Sequence[LabelledImage]) -> str:
    counted = ", ".join(f"{count} {kind}" for kind, count in read.findings.counts.items()) or "nothing odd was found"
    return (
        f"{str(read.root)!r} ({read.format}): no label at all on its {len(usable)} usable images, of "
        f"{len(read.drafts)} ({counted}); expected images that show a class. Check the labels and the image folder."
    )


def _find_copies(images: Sequence[LabelledImage], findings: Findings) -> None:
    """The same bytes with other labels: an error where one copy shows nothing at all, else a finding.

    Only files of equal size are read.
    """
    contradictions: list[str] = []
    for copies in _copies(images):
        first = copies[0]
        for other in copies[1:]:
            if other.labels == first.labels:
                continue
            told = f"{first.key!r} {_told(first)} and its copy {other.key!r} {_told(other)}"
            if first.labels and other.labels:
                findings.add("copy_with_other_labels", told)
            else:
                contradictions.append(told)
    refuse_contradictions(contradictions, Path(images[0].image.folder))


def _told(image: LabelledImage) -> str:
    return "shows " + (", ".join(map(repr, sorted(image.labels))) or "no class")


def _copies(images: Iterable[LabelledImage]) -> list[list[LabelledImage]]:
    """Images with the same bytes, those that have a copy only."""
    by_size = _grouped(images, lambda one: one.path.stat().st_size)
    return [
        copies
        for alike in by_size
        for copies in _grouped(alike, lambda one: hashlib.sha256(one.path.read_bytes()).digest())
    ]


def _grouped(
    images: Iterable[LabelledImage], key_of: Callable[[LabelledImage], int | bytes]
) -> list[list[LabelledImage]]:
    """Groups of at least two, in order of their first."""
    groups: dict[int | bytes, list[LabelledImage]] = defaultdict(list)
    for one in images:
        groups[key_of(one)].append(one)
    return [group for group in groups.values() if len(group) > 1]
