"""The neutral records that every format reads into and writes from.

Masks stay encoded: polygons as one flat coordinate array, RLE as bytes. A table of a million
annotations costs its coordinates and about 60 bytes a row; nothing is decoded until asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

ImageRGB = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, sRGB."""
ImageRGBA = npt.NDArray[np.uint8]
"""(H, W, 4) uint8, sRGB with straight alpha."""
MaskHW = npt.NDArray[np.bool_]
"""(H, W) bool, True on the object."""
Frequency = Literal["r", "c", "f"]
BoxXYWH = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Category:
    """One class. `category_id` is the data set's own id; `frequency` is LVIS's r, c or f."""

    category_id: int
    name: str
    supercategory: str = ""
    frequency: Frequency | None = None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One photograph. `width` and `height` are those of the frame that the annotations refer to."""

    image_id: int
    file_name: str
    """POSIX path below `folder`; exports keep it."""
    folder: str
    width: int
    height: int
    split: str = "train"
    exif_transpose: bool = False
    """True where annotations refer to the EXIF-transposed pixels, not the stored ones."""
    not_exhaustive_category_ids: tuple[int, ...] = ()
    neg_category_ids: tuple[int, ...] = ()
    licence: str = ""
    stored_as: str = ""
    """POSIX path below `folder` of the bytes, where they lie under another name than `file_name`."""

    @property
    def path(self) -> Path:
        return Path(self.folder, self.stored_as or self.file_name)


@dataclass(frozen=True, slots=True)
class Polygons:
    """Union of rings, each (n, 2) float32 xy in pixel-edge coordinates: (0, 0) is the corner of the first pixel."""

    rings: tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO run-length encoding with compressed counts, column-major over (height, width)."""

    counts: bytes
    height: int
    width: int


Segmentation = Polygons | Rle


@dataclass(frozen=True, slots=True)
class Annotation:
    """One instance. `bbox_xywh` and `area` are in pixels of its image's frame."""

    annotation_id: int
    category_id: int
    segmentation: Segmentation
    bbox_xywh: BoxXYWH
    area: float
    is_crowd: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with all its annotations: what writers consume, one at a time."""

    image: ImageRecord
    annotations: tuple[Annotation, ...]


@dataclass(slots=True)
class Findings:
    """Oddities that do not stop a run: counted by kind, with the first few named."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    max_examples: int = 10

    def add(self, kind: str, entry: str, count: int = 1) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + count
        named = self.examples.setdefault(kind, [])
        if len(named) < self.max_examples:
            named.append(entry)

    def update(self, other: Findings) -> None:
        """Add another's counts, and its examples as far as there is room."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            named = self.examples.setdefault(kind, [])
            named += other.examples[kind][: self.max_examples - len(named)]

    def as_json(self) -> dict[str, dict[str, object]]:
        return {kind: {"count": n, "examples": self.examples[kind]} for kind, n in sorted(self.counts.items())}


class AnnotationTable(Sequence[Annotation]):
    """Columns of annotations, grouped by image. Build it with `AnnotationTableBuilder`."""

    def __init__(
        self,
        *,
        annotation_id: npt.NDArray[np.int64],
        image_index: npt.NDArray[np.int32],
        category_id: npt.NDArray[np.int32],
        bbox_xywh: npt.NDArray[np.float32],
        area: npt.NDArray[np.float32],
        is_crowd: npt.NDArray[np.bool_],
        coords_xy: npt.NDArray[np.float32],
        ring_start: npt.NDArray[np.int64],
        row_ring_start: npt.NDArray[np.int64],
        rles: dict[int, Rle],
        num_images: int,
    ) -> None:
        """Columns have N rows in insertion order.

        Args:
            image_index: position in `Dataset.images`.
            bbox_xywh: (N, 4) pixels.
            coords_xy: (P, 2) pixel-edge coordinates of all rings of all rows.
            ring_start: (R + 1,) offsets into `coords_xy`.
            row_ring_start: (N + 1,) offsets into `ring_start`.
            rles: row to RLE, for rows whose mask is no polygon.
        """
        self.annotation_id = annotation_id
        self.image_index = image_index
        self.category_id = category_id
        self.bbox_xywh = bbox_xywh
        self.area = area
        self.is_crowd = is_crowd
        self.coords_xy = coords_xy
        self.ring_start = ring_start
        self.row_ring_start = row_ring_start
        self.rles = rles
        self._order = np.argsort(image_index, kind="stable").astype(np.int32)
        self._image_start = np.searchsorted(image_index[self._order], np.arange(num_images + 1))

    def __len__(self) -> int:
        return len(self.annotation_id)

    def __getitem__(self, row: int) -> Annotation:  # type: ignore[override]  # rows only, no slices
        x, y, w, h = self.bbox_xywh[row].tolist()
        return Annotation(
            annotation_id=int(self.annotation_id[row]),
            category_id=int(self.category_id[row]),
            segmentation=self.segmentation(row),
            bbox_xywh=(x, y, w, h),
            area=float(self.area[row]),
            is_crowd=bool(self.is_crowd[row]),
        )

    def segmentation(self, row: int) -> Segmentation:
        rle = self.rles.get(row)
        if rle is not None:
            return rle
        first, last = int(self.row_ring_start[row]), int(self.row_ring_start[row + 1])
        bounds = self.ring_start[first : last + 1].tolist()
        return Polygons(tuple(self.coords_xy[a:b] for a, b in pairwise(bounds)))

    def rows_of_image(self, image_index: int) -> npt.NDArray[np.int32]:
        """Row numbers of one image's annotations, in insertion order."""
        return self._order[self._image_start[image_index] : self._image_start[image_index + 1]]


class AnnotationTableBuilder:
    """Appends rows to flat buffers; memory is that of the coordinates."""

    def __init__(self) -> None:
        self._annotation_id = array("q")
        self._image_index = array("i")
        self._category_id = array("i")
        self._bbox = array("f")
        self._area = array("f")
        self._is_crowd = array("b")
        self._coords = array("f")
        self._ring_start = array("q", [0])
        self._row_ring_start = array("q", [0])
        self._rles: dict[int, Rle] = {}

    def __len__(self) -> int:
        return len(self._annotation_id)

    def add(
        self,
        *,
        annotation_id: int,
        image_index: int,
        category_id: int,
        segmentation: Iterable[Iterable[float]] | Rle,
        bbox_xywh: Sequence[float],
        area: float,
        is_crowd: bool = False,
    ) -> None:
        """Append one row; polygon rings come flat, [x0, y0, x1, y1, …], as COCO has them."""
        if isinstance(segmentation, Rle):
            self._rles[len(self._annotation_id)] = segmentation
        else:
            for ring in segmentation:
                self._coords.extend(ring)
                self._ring_start.append(len(self._coords) // 2)
        self._row_ring_start.append(len(self._ring_start) - 1)
        self._annotation_id.append(annotation_id)
        self._image_index.append(image_index)
        self._category_id.append(category_id)
        self._bbox.extend(bbox_xywh)
        self._area.append(area)
        self._is_crowd.append(is_crowd)

    def add_rows(
        self,
        *,
        annotation_id: npt.NDArray[np.int64],
        image_index: npt.NDArray[np.int32],
        category_id: npt.NDArray[np.int32],
        bbox_xywh: npt.NDArray[np.float32],
        area: npt.NDArray[np.float32],
        is_crowd: npt.NDArray[np.bool_],
        coords_xy: npt.NDArray[np.float32],
        points_per_ring: npt.NDArray[np.int64],
        rings_per_row: npt.NDArray[np.int64],
        rles: Mapping[int, Rle],
    ) -> None:
        """Append n rows as columns, shaped as in `AnnotationTable`; `rles` is keyed by row, from 0 to n - 1."""
        self._rles.update({len(self) + row: rle for row, rle in rles.items()})
        self._ring_start.frombytes((self._ring_start[-1] + np.cumsum(points_per_ring)).tobytes())
        self._row_ring_start.frombytes((self._row_ring_start[-1] + np.cumsum(rings_per_row)).tobytes())
        self._annotation_id.frombytes(annotation_id.tobytes())
        self._image_index.frombytes(image_index.tobytes())
        self._category_id.frombytes(category_id.tobytes())
        self._bbox.frombytes(bbox_xywh.tobytes())
        self._area.frombytes(area.tobytes())
        self._is_crowd.frombytes(is_crowd.tobytes())
        self._coords.frombytes(coords_xy.tobytes())

    def build(self, num_images: int) -> AnnotationTable:
        return AnnotationTable(
            annotation_id=np.frombuffer(self._annotation_id, dtype=np.int64),
            image_index=np.frombuffer(self._image_index, dtype=np.int32),
            category_id=np.frombuffer(self._category_id, dtype=np.int32),
            bbox_xywh=np.frombuffer(self._bbox, dtype=np.float32).reshape(-1, 4),
            area=np.frombuffer(self._area, dtype=np.float32),
            is_crowd=np.frombuffer(self._is_crowd, dtype=np.bool_),
            coords_xy=np.frombuffer(self._coords, dtype=np.float32).reshape(-1, 2),
            ring_start=np.frombuffer(self._ring_start, dtype=np.int64),
            row_ring_start=np.frombuffer(self._row_ring_start, dtype=np.int64),
            rles=self._rles,
            num_images=num_images,
        )


def number_by_split(image_index: npt.NDArray[np.int32], images: Sequence[ImageRecord]) -> npt.NDArray[np.int64]:
    """(N,) ids of rows, from 1 in each split, for formats that have none; `images` are grouped by split."""
    splits = list(dict.fromkeys(image.split for image in images))
    split_of_image = np.array([splits.index(image.split) for image in images], dtype=np.int64)
    split_of_row = split_of_image[image_index]
    return np.arange(1, len(split_of_row) + 1) - np.searchsorted(split_of_row, split_of_row)


class SampleSource(Protocol):
    """What the writers of `data/` need: a data set read from disk, or one that a run has made."""

    @property
    def categories(self) -> tuple[Category, ...]: ...

    @property
    def splits(self) -> tuple[str, ...]: ...

    def samples(self, split: str | None = None) -> Iterator[Sample]: ...


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as an index: no pixel is read, no mask decoded."""

    root: Path
    format: str
    categories: tuple[Category, ...]
    images: Sequence[ImageRecord]
    annotations: AnnotationTable
    findings: Findings = field(default_factory=Findings)

    @property
    def splits(self) -> tuple[str, ...]:
        """Split names in order of first appearance."""
        return tuple(dict.fromkeys(image.split for image in self.images))

    def category(self, category_id: int) -> Category:
        return next(c for c in self.categories if c.category_id == category_id)

    def sample(self, image_index: int) -> Sample:
        rows = self.annotations.rows_of_image(image_index).tolist()
        return Sample(self.images[image_index], tuple(self.annotations[row] for row in rows))

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        """Images with their annotations, one at a time, in index order."""
        for index, image in enumerate(self.images):
            if split is None or image.split == split:
                yield self.sample(index)
