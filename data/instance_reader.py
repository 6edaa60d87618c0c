"""Annotations of COCO and LVIS files, from JSON to checked rows of a table.

A few thousand are decoded at a time and checked as columns, so that the millions of coordinates of a large
file never exist as Python numbers all at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..errors import DatasetError
from .masks import Ring, rle_area, rle_bbox, segmentation_to_rle
from .records import AnnotationTableBuilder, Findings, Polygons, Rle
from .rings import clip_ring, rings_to_areas, rings_to_extents

CHUNK_ROWS = 2048

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


class Frame(NamedTuple):
    """Where an image stands in `Dataset.images` (-1: it cannot be used), and its frame."""

    image_index: int
    width: int
    height: int


@dataclass(slots=True)
class _Rows:
    """Columns of one chunk while it is checked; rings as in `rings.py`, `ring_row` says whose each one is."""

    entries: list[JsonAnnotation]
    frames: list[Frame]
    coords_xy: Ring
    points_per_ring: npt.NDArray[np.int64]
    ring_row: npt.NDArray[np.int64]
    rles: dict[int, Rle] = field(default_factory=dict)

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
        frames: by image id.
    """

    source: str
    frames: Mapping[int, Frame]
    category_ids: set[int]
    builder: AnnotationTableBuilder
    findings: Findings
    _ids: array[int] = field(default_factory=lambda: array("q"))

    def read(self, raws: Sequence[msgspec.Raw]) -> None:
        """Append every usable annotation; the others are counted.

        Raises:
            DatasetError: an entry is malformed, repeats an id, names an image or category that the file does not
                have, or its RLE cannot be decoded.
        """
        for first in range(0, len(raws), CHUNK_ROWS):
            known = list(self._decode(raws[first : first + CHUNK_ROWS], first))
            used = [pair for pair in known if pair[1].image_index >= 0]
            if len(used) < len(known):
                self._count("annotation_without_image", known[0][0], len(known) - len(used))
            if used:
                self._append(self._pack([entry for entry, _ in used], [frame for _, frame in used]))
        ids, counts = np.unique(np.frombuffer(self._ids, dtype=np.int64), return_counts=True)
        if (counts > 1).any():
            raise DatasetError(
                f"{self.source}: annotation id {int(ids[counts > 1][0])} occurs more than once; expected unique ids. "
                "Number the annotations anew."
            )

    def _decode(self, raws: Sequence[msgspec.Raw], first: int) -> Iterator[tuple[JsonAnnotation, Frame]]:
        decode = msgspec.json.Decoder(JsonAnnotation).decode
        for at, raw in enumerate(raws, first):
            try:
                entry = decode(raw)
            except msgspec.ValidationError as exc:
                raise DatasetError(
                    f"{self.source}: annotations[{at}] is not a COCO annotation: {exc}. Correct the entry."
                ) from exc
            self._ids.append(entry.id)
            frame = self.frames.get(entry.image_id)
            if frame is None or entry.category_id not in self.category_ids:
                what = "image_id" if frame is None else "category_id"
                raise DatasetError(
                    f"{self.source}: annotation {entry.id} has {what} {getattr(entry, what)!r}, expected one listed "
                    f"under {'images' if frame is None else 'categories'}. Add it there or remove the annotation."
                )
            yield entry, frame

    def _pack(self, entries: list[JsonAnnotation], frames: list[Frame]) -> _Rows:
        """Lay out all rings in one array, without those that are too short to be one."""
        rings: list[list[float | None]] = []
        ring_row: list[int] = []
        rles: dict[int, Rle] = {}
        for row, entry in enumerate(entries):
            if isinstance(entry.segmentation, JsonRle):
                source = f"{self.source}: annotation {entry.id}"
                _, width, height = frames[row]
                rles[row] = json_to_rle(entry.segmentation, width, height, source=source)
                continue
            for ring in entry.segmentation or ():
                if len(ring) < 6 or len(ring) % 2:
                    self._count("odd_coordinates" if len(ring) % 2 else "short_polygon", entry)
                    continue
                rings.append(ring)
                ring_row.append(row)
        points_per_ring = np.array([len(ring) // 2 for ring in rings], dtype=np.int64)
        rows = _Rows(entries, frames, _to_coords(rings), points_per_ring, np.array(ring_row, dtype=np.int64), rles)
        if rings:
            self._clip(rows)
        return rows

    def _clip(self, rows: _Rows) -> None:
        """Clip rings to their image's frame, and drop those with a coordinate that is no number."""
        extents = rings_to_extents(rows.coords_xy, rows.ring_start)
        frames_wh = np.array([frame[1:] for frame in rows.frames], dtype=np.float32)[rows.ring_row]
        inside = (extents[:, :2] >= 0).all(axis=1) & (extents[:, 2:] <= frames_wh).all(axis=1)
        if inside.all():
            return
        rings = np.split(rows.coords_xy, rows.ring_start[1:-1])
        for at in np.flatnonzero(~inside).tolist():
            row = int(rows.ring_row[at])
            if np.isfinite(rings[at]).all():
                self._count("clipped_polygon", rows.entries[row])
                rings[at] = clip_ring(rings[at], *rows.frames[row][1:])
            else:
                self._count("not_finite", rows.entries[row])
                rings[at] = rings[at][:0]
            rows.entries[row].bbox = rows.entries[row].area = None  # they were those of the whole ring
        rows.coords_xy = np.concatenate(rings)
        points_per_ring = np.array([len(ring) for ring in rings], dtype=np.int64)
        rows.ring_row = rows.ring_row[points_per_ring > 0]
        rows.points_per_ring = points_per_ring[points_per_ring > 0]

    def _append(self, rows: _Rows) -> None:
        area, bbox_xywh = _measure(rows)
        keep = area > 0
        for row in np.flatnonzero(~keep).tolist():
            self._count("empty_mask", rows.entries[row])
        keep_ring = keep[rows.ring_row]
        kept = [entry for entry, k in zip(rows.entries, keep.tolist(), strict=True) if k]
        new_row = np.cumsum(keep) - 1
        self.builder.add_rows(
            annotation_id=np.array([entry.id for entry in kept], dtype=np.int64),
            image_index=np.array([frame.image_index for frame in rows.frames], dtype=np.int32)[keep],
            category_id=np.array([entry.category_id for entry in kept], dtype=np.int32),
            bbox_xywh=bbox_xywh[keep],
            area=area[keep],
            is_crowd=np.array([bool(entry.iscrowd) for entry in kept], dtype=np.bool_),
            coords_xy=rows.coords_xy if keep.all() else rows.coords_xy[np.repeat(keep_ring, rows.points_per_ring)],
            points_per_ring=rows.points_per_ring[keep_ring],
            rings_per_row=rows.rings_per_row[keep],
            rles={int(new_row[row]): rle for row, rle in rows.rles.items() if keep[row]},
        )

    def _count(self, kind: str, entry: JsonAnnotation, count: int = 1) -> None:
        self.findings.add(kind, f"{self.source}: annotation {entry.id}", count)


def _to_coords(rings: Sequence[Sequence[float | None]]) -> Ring:
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and found later
        try:
            return np.fromiter(chain.from_iterable(rings), dtype=np.float32).reshape(-1, 2)
        except TypeError:  # a null among the numbers, which becomes NaN
            return np.array(list(chain.from_iterable(rings)), dtype=np.float32).reshape(-1, 2)


def _measure(rows: _Rows) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Area and box of each row: the declared ones where they can be true, else the mask's. Area 0: no pixel."""
    count = len(rows.entries)
    area, bbox_xywh = np.zeros(count), np.zeros((count, 4))
    if len(rows.ring_row):
        _measure_rings(rows, area, bbox_xywh)
    for row, rle in rows.rles.items():
        area[row], bbox_xywh[row] = rle_area(rle), rle_bbox(rle)
    no_box: list[float | None] = [0.0] * 4
    boxes = [entry.bbox if entry.bbox and len(entry.bbox) == 4 else no_box for entry in rows.entries]
    declared_bbox = np.array(boxes, dtype=np.float64)
    declared_area = np.array([entry.area or 0.0 for entry in rows.entries])
    has_bbox = np.isfinite(declared_bbox).all(axis=1) & (declared_bbox[:, 2:] > 0).all(axis=1)
    bbox_xywh[has_bbox] = declared_bbox[has_bbox]
    area = np.where((area > 0) & (declared_area > 0), declared_area, area)
    return area.astype(np.float32), bbox_xywh.astype(np.float32)


def _measure_rings(rows: _Rows, area: npt.NDArray[np.float64], bbox_xywh: npt.NDArray[np.float64]) -> None:
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
        _, width, height = rows.frames[which[at]]
        area[which[at]] = rle_area(segmentation_to_rle(polygons, height, width))


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
