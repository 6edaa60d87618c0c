"""Annotations of COCO and LVIS files, from JSON to checked rows of a table.

A few hundred are decoded at a time and checked as columns, so that the millions of coordinates of a large file
never exist as Python numbers all at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..errors import DatasetError
from .masks import Ring, rle_area, rle_bbox, segmentation_to_rle
from .records import AnnotationTableBuilder, Findings, Polygons, Rle
from .rings import clip_ring, rings_to_areas, rings_to_extents

CHUNK_ROWS = 256
"""Larger chunks are slower: their lists live long enough for the garbage collector to walk them."""
ROUNDING_PX = 1.0
"""What a declared box may stand out of its image."""

JsonId = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
JsonCategoryId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class JsonRle(msgspec.Struct, gc=False):
    """A mask as COCO's RLE: counts compressed to a string, or plain."""

    counts: str | list[int]
    size: tuple[int, int]


class JsonAnnotation(msgspec.Struct, gc=False):
    """One entry of a COCO or LVIS file's `annotations`; null stands for NaN."""

    id: JsonId
    image_id: JsonId
    category_id: JsonCategoryId
    segmentation: list[list[float | None]] | JsonRle | None = None
    bbox: list[float | None] | None = None
    area: float | None = None
    iscrowd: bool | int = False


@dataclass(slots=True)
class _Rows:
    """Columns of one chunk while it is checked; rings as in `rings.py`, `ring_row` says whose each one is."""

    entries: list[JsonAnnotation]
    image_index: npt.NDArray[np.int32]
    coords_xy: Ring
    points_per_ring: npt.NDArray[np.int64]
    ring_row: npt.NDArray[np.int64]
    rles: dict[int, Rle]

    @property
    def ring_start(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.points_per_ring)])

    @property
    def rings_per_row(self) -> npt.NDArray[np.int64]:
        return np.bincount(self.ring_row, minlength=len(self.entries))


@dataclass(slots=True)
class InstanceReader:
    """Reads the annotations of one file into a table.

    Args:
        source: the file, for messages.
        index_of_image: image id to position in `Dataset.images`; -1 for one that cannot be used.
        frames_wh: (num_images, 2) int32, width and height of `Dataset.images`.
    """

    source: str
    index_of_image: Mapping[int, int]
    frames_wh: npt.NDArray[np.int32]
    category_ids: Set[int]
    builder: AnnotationTableBuilder
    findings: Findings

    def read(self, raws: Sequence[msgspec.Raw]) -> None:
        """Append every usable annotation; the others are counted.

        Raises:
            DatasetError: an entry is malformed, repeats an id, names an image or category that the file does not
                have, or its RLE cannot be decoded.
        """
        ids = array("q")
        for first in range(0, len(raws), CHUNK_ROWS):
            entries = self._decode(raws[first : first + CHUNK_ROWS], first)
            ids.extend([entry.id for entry in entries])
            image_index = np.array([self.index_of_image[entry.image_id] for entry in entries], dtype=np.int32)
            usable = image_index >= 0
            if not usable.all():
                lost = [entry for entry, use in zip(entries, usable.tolist(), strict=True) if not use]
                self._count("annotation_without_image", lost[0], len(lost))
                entries = [entry for entry, use in zip(entries, usable.tolist(), strict=True) if use]
            if entries:
                self._append(self._pack(entries, image_index[usable]))
        unique_ids, counts = np.unique(np.array(ids), return_counts=True)
        if len(unique_ids) < len(ids):
            raise DatasetError(
                f"{self.source}: annotation id {int(unique_ids[counts > 1][0])} occurs more than once; "
                "expected unique ids. Number the annotations anew."
            )

    def _decode(self, raws: Sequence[msgspec.Raw], first: int) -> list[JsonAnnotation]:
        entries: list[JsonAnnotation] = []
        decode = msgspec.json.Decoder(JsonAnnotation).decode
        try:
            entries.extend(decode(raw) for raw in raws)
        except msgspec.ValidationError as exc:
            raise DatasetError(
                f"{self.source}: annotations[{first + len(entries)}] is not a COCO annotation: {exc}. "
                "Correct the entry."
            ) from exc
        for key, listed, known in (
            ("image_id", "images", self.index_of_image.keys()),
            ("category_id", "categories", self.category_ids),
        ):
            if not known >= {getattr(entry, key) for entry in entries}:
                entry = next(entry for entry in entries if getattr(entry, key) not in known)
                raise DatasetError(
                    f"{self.source}: annotation {entry.id} has {key} {getattr(entry, key)!r}, expected one listed "
                    f"under {listed}. Add it there or remove the annotation."
                )
        return entries

    def _pack(self, entries: list[JsonAnnotation], image_index: npt.NDArray[np.int32]) -> _Rows:
        """Lay out all rings in one array: whole, clipped to the frame, and without those that are none."""
        rings: list[list[float | None]] = []
        ring_row: list[int] = []
        rles: dict[int, Rle] = {}
        for row, entry in enumerate(entries):
            if isinstance(entry.segmentation, JsonRle):
                width, height = self.frames_wh[image_index[row]].tolist()
                source = f"{self.source}: annotation {entry.id}"
                rles[row] = json_to_rle(entry.segmentation, width, height, source=source)
                continue
            for ring in entry.segmentation or ():
                if len(ring) < 6 or len(ring) % 2:
                    self._count("odd_coordinates" if len(ring) % 2 else "short_polygon", entry)
                    continue
                rings.append(ring)
                ring_row.append(row)
        coords_xy = _to_floats(rings).reshape(-1, 2)
        points_per_ring = np.array([len(ring) // 2 for ring in rings], dtype=np.int64)
        rows = _Rows(entries, image_index, coords_xy, points_per_ring, np.array(ring_row, dtype=np.int64), rles)
        if rings:
            self._clip(rows)
        return rows

    def _clip(self, rows: _Rows) -> None:
        """Clip rings to their image's frame, and drop those with a coordinate that is no number."""
        extents = rings_to_extents(rows.coords_xy, rows.ring_start)
        frames_wh = self.frames_wh[rows.image_index[rows.ring_row]]
        inside = (extents[:, :2] >= 0).all(axis=1) & (extents[:, 2:] <= frames_wh).all(axis=1)
        if inside.all():
            return
        rings = np.split(rows.coords_xy, rows.ring_start[1:-1])
        for at in np.flatnonzero(~inside).tolist():
            entry = rows.entries[rows.ring_row[at]]
            if np.isfinite(rings[at]).all():
                self._count("clipped_polygon", entry)
                rings[at] = clip_ring(rings[at], *frames_wh[at].tolist())
            else:
                self._count("not_finite", entry)
                rings[at] = rings[at][:0]
            entry.bbox = entry.area = None  # they were those of the whole ring
        rows.coords_xy = np.concatenate(rings)
        points_per_ring = np.array([len(ring) for ring in rings], dtype=np.int64)
        rows.ring_row = rows.ring_row[points_per_ring > 0]
        rows.points_per_ring = points_per_ring[points_per_ring > 0]

    def _append(self, rows: _Rows) -> None:
        area, bbox_xywh = self._measure(rows)
        keep = area > 0
        for row in np.flatnonzero(~keep).tolist():
            self._count("empty_mask", rows.entries[row])
        keep_ring = keep[rows.ring_row]
        kept = [rows.entries[row] for row in np.flatnonzero(keep).tolist()]
        new_row = np.cumsum(keep) - 1
        self.builder.add_rows(
            annotation_id=np.array([entry.id for entry in kept], dtype=np.int64),
            image_index=rows.image_index[keep],
            category_id=np.array([entry.category_id for entry in kept], dtype=np.int32),
            bbox_xywh=bbox_xywh[keep],
            area=area[keep],
            is_crowd=np.array([bool(entry.iscrowd) for entry in kept], dtype=np.bool_),
            coords_xy=rows.coords_xy if keep.all() else rows.coords_xy[np.repeat(keep_ring, rows.points_per_ring)],
            points_per_ring=rows.points_per_ring[keep_ring],
            rings_per_row=rows.rings_per_row[keep],
            rles={int(new_row[row]): rle for row, rle in rows.rles.items() if keep[row]},
        )

    def _measure(self, rows: _Rows) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Area and box of each row: the declared ones where they can be true, else the mask's. Area 0: no pixel."""
        count = len(rows.entries)
        area, bbox_xywh = np.zeros(count), np.zeros((count, 4), dtype=np.float32)
        if len(rows.ring_row):
            self._measure_rings(rows, area, bbox_xywh)
        for row, rle in rows.rles.items():
            area[row], bbox_xywh[row] = rle_area(rle), rle_bbox(rle)
        no_box: list[float | None] = [0.0] * 4
        boxes = [entry.bbox if entry.bbox and len(entry.bbox) == 4 else no_box for entry in rows.entries]
        declared_bbox = _to_floats(boxes).reshape(-1, 4)
        declared_area = np.array([entry.area or 0.0 for entry in rows.entries])
        has_bbox = self._find_true_boxes(rows, declared_bbox)
        bbox_xywh[has_bbox] = declared_bbox[has_bbox]
        area = np.where((area > 0) & (declared_area > 0), declared_area, area)
        return area.astype(np.float32), bbox_xywh

    def _find_true_boxes(self, rows: _Rows, declared_bbox: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Which declared boxes, (N, 4) xywh, can be true: they have an area and lie in the frame, rounding aside."""
        low, high = declared_bbox[:, :2], declared_bbox[:, :2] + declared_bbox[:, 2:]
        frames_wh = self.frames_wh[rows.image_index]
        inside = (low >= -ROUNDING_PX).all(axis=1) & (high <= frames_wh + ROUNDING_PX).all(axis=1)
        is_true = inside & (declared_bbox[:, 2:] > 0).all(axis=1)
        for row in np.flatnonzero(~is_true).tolist():
            if (entry := rows.entries[row]).bbox:
                self.findings.add("wrong_box", f"{self.source}: annotation {entry.id}, bbox {entry.bbox}")
        return np.asarray(is_true)

    def _measure_rings(self, rows: _Rows, area: npt.NDArray[np.float64], bbox_xywh: npt.NDArray[np.float32]) -> None:
        """Fill in the rows that are polygons."""
        ring_start, extents = rows.ring_start, rings_to_extents(rows.coords_xy, rows.ring_start)
        which, first = np.unique(rows.ring_row, return_index=True)
        low, high = np.minimum.reduceat(extents[:, :2], first), np.maximum.reduceat(extents[:, 2:], first)
        area[which] = np.add.reduceat(rings_to_areas(rows.coords_xy, ring_start), first)
        bbox_xywh[which] = np.concatenate([low, high - low], axis=1)
        # Thinner than a pixel, or crossing itself: only drawing it tells what it covers.
        ends = np.append(first, len(rows.ring_row))
        for at in np.flatnonzero(area[which] < (high - low).max(axis=1)).tolist():
            bounds = ring_start[ends[at] : ends[at + 1] + 1].tolist()
            polygons = Polygons(tuple(rows.coords_xy[a:b] for a, b in pairwise(bounds)))
            width, height = self.frames_wh[rows.image_index[which[at]]].tolist()
            area[which[at]] = rle_area(segmentation_to_rle(polygons, height, width))

    def _count(self, kind: str, entry: JsonAnnotation, count: int = 1) -> None:
        self.findings.add(kind, f"{self.source}: annotation {entry.id}", count)


def _to_floats(lists: Sequence[Sequence[float | None]]) -> npt.NDArray[np.float32]:
    """One flat array of all numbers."""
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and found later
        try:
            return np.fromiter(chain.from_iterable(lists), dtype=np.float32)
        except TypeError:  # a null among the numbers, which becomes NaN
            return np.array(list(chain.from_iterable(lists)), dtype=np.float32)


def json_to_rle(encoded: JsonRle, width: int, height: int, *, source: str) -> Rle:
    """Check an RLE from a file, which pycocotools would read without looking.

    Raises:
        DatasetError: the size is not the image's, or the counts do not fill it exactly.
    """
    if encoded.size != (height, width):
        raise DatasetError(
            f"{source}: the RLE's size {list(encoded.size)} is not [{height}, {width}], height and width of its image. "
            "Encode the mask at the size of the image."
        )
    plain = isinstance(encoded.counts, list)
    runs = encoded.counts if isinstance(encoded.counts, list) else _counts_to_runs(encoded.counts.encode())
    if not len(runs) or min(runs) < 0 or sum(runs) != height * width:
        raise DatasetError(
            f"{source}: the RLE's counts cannot be decoded to {height * width} pixels. "
            "Write the mask again, for example with pycocotools.mask.encode."
        )
    if not plain:
        return Rle(str(encoded.counts).encode(), height, width)
    packed = coco_mask.frPyObjects({"counts": encoded.counts, "size": [height, width]}, height, width)
    return Rle(packed["counts"], height, width)


def _counts_to_runs(counts: bytes) -> list[int]:
    """Decompress COCO's counts: 5 bits a character, lowest first, each run less the one before the last.

    Follows rleFrString in pycocotools' maskApi.c; an empty list where it would read past the end.
    """
    chars = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(chars) or chars.min() < 0 or chars.max() > 63 or chars[-1] & 0x20:
        return []
    last = np.flatnonzero(chars & 0x20 == 0)
    length = np.diff(last, prepend=-1)
    if length.max() > 7:
        return []
    first = last - length + 1
    shift = 5 * (np.arange(len(chars)) - np.repeat(first, length))
    runs = np.add.reduceat((chars & 0x1F) << shift, first)
    runs -= np.where(chars[last] & 0x10, np.left_shift(1, 5 * length), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    decoded: list[int] = runs.tolist()
    return decoded
