"""Records of images that only have labels: which classes an image shows, and nothing on where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from .records import Findings, ImageRecord

Side = Literal["train", "held_out", "test"]
"""Train teaches the classifier and the networks, held-out calibrates the classifier, test measures."""
ClassMapHW = npt.NDArray[np.uint8]
"""(H, W) uint8: 0 on background, 1 + place in `LabelDataset.classes` on a class, 255 where nothing is known."""
UNKNOWN_LEVEL = 255
MAX_CLASSES = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One photograph and the classes that it shows."""

    image: ImageRecord
    """Its `file_name` is a POSIX path below the data set, unique in it; its `split` is the data set's own."""
    labels: frozenset[str]
    """Empty: none of the classes, a background or a good part."""

    @property
    def key(self) -> str:
        return self.image.file_name

    @property
    def path(self) -> Path:
        return self.image.path


TruthReader = Callable[[LabelledImage], ClassMapHW]
"""Reads the true classes of an image's pixels, in the frame of `read_image(one.image)`. Only scores may ask for it.

Raises EmptyMaskError or ImageDecodeError where the image has none that can be used."""


@dataclass(frozen=True, slots=True)
class LabelDataset:
    """An index of labelled images; only headers and annotation files were read."""

    root: Path
    format: str
    """As `data.format`: voc, coco, lvis, yolo, folders (one folder a class), csv, mvtec (an item of an anomaly set)."""
    classes: tuple[str, ...]
    images: tuple[LabelledImage, ...]
    """Sorted by key."""
    read_truth: TruthReader | None = None
    """None where the data set has no masks."""
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True, slots=True)
class LabelSplit:
    """Who learns from which image, decided once per data set."""

    seed: int
    sides: Mapping[Side, tuple[LabelledImage, ...]]
    apart: bool = False
    """Whether photographs of one object were kept on one side."""

    def of(self, side: Side) -> tuple[LabelledImage, ...]:
        return self.sides[side]


def count_labels(images: Iterable[LabelledImage], classes: Iterable[str]) -> dict[str, int]:
    """Images that show each class."""
    counts = Counter(label for image in images for label in image.labels)
    return {name: counts[name] for name in classes}
