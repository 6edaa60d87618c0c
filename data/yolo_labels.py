"""YOLO segmentation labels: the text of a label file to columns, and columns back to text.

A row is `class x1 y1 x2 y2 …`, normalised by the image's width and height.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from ..errors import DatasetError, EmptyMaskError
from .masks import rle_area, segmentation_to_ring, segmentation_to_rle
from .records import (
    Annotation,
    AnnotationTable,
    Dataset,
    Findings,
    ImageRecord,
    Polygons,
    SampleSource,
    number_by_split,
)

LabelRow = tuple[int, npt.NDArray[np.float32]]
"""Class index and flat (2n,) float32 coordinates x1 y1 x2 y2 …, normalised to 0..1."""

_JSON_NUMBERS = b"0123456789.eE+- \n"
_LINE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
_COMMA_TO_SPACE = bytes.maketrans(b",", b" ")
_ROUNDING = 1e-5
_IMAGES_AT_ONCE = 1024


@dataclass(slots=True)
class LabelColumns:
    """Rows of many label files, in flat buffers; coordinates stay normalised."""

    class_index: array[int] = field(default_factory=lambda: array("i"))
    image_index: array[int] = field(default_factory=lambda: array("i"))
    length: array[int] = field(default_factory=lambda: array("q"))
    """Points of each row."""
    coords: array[float] = field(default_factory=lambda: array("f"))

    def add(self, class_index: int, image_index: int, coords: Sequence[float]) -> None:
        self.class_index.append(class_index)
        self.image_index.append(image_index)
        self.length.append(len(coords) // 2)
        self.coords.extend(coords)


def read_label_file(
    path: Path, image_index: int, known_classes: frozenset[int], columns: LabelColumns, findings: Findings
) -> None:
    """Append a label file's polygons; rows without a usable one are counted.

    Raises:
        DatasetError: a value is no number, a class is unknown, or a coordinate has no partner.
    """
    for number, row in enumerate(_text_to_rows(path), start=1):
        where = f"{path}, row {number}"
        if row[0] not in known_classes:
            raise DatasetError(
                f"{where}: unknown class {row[0]!r}; expected an integer of 0..{len(known_classes) - 1}. "
                "Correct the row, or add the class to `names` in data.yaml."
            )
        coords = row[1:]
        if len(coords) % 2:
            raise DatasetError(
                f"{where}: {len(coords)} coordinates; expected pairs of x and y. "
                "Write `class x1 y1 x2 y2 …`, without a confidence or track id."
            )
        if len(coords) < 6:
            findings.add("box_without_mask" if len(coords) == 4 else "short_polygon", where)
        elif not math.isfinite(sum(coords)):
            findings.add("not_finite", where)
        else:
            if min(coords) < -_ROUNDING or max(coords) > 1 + _ROUNDING:
                findings.add("clipped_polygon", where)
                coords = _clip_to_unit_square(coords)
            if coords:
                columns.add(int(row[0]), image_index, coords)
            else:
                findings.add("empty_mask", where)


def _text_to_rows(path: Path) -> list[list[float]]:
    """Parse a label file as one JSON array where its characters allow, about five times faster than `float`."""
    body = path.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    if not body:
        return []
    if not body.translate(None, _JSON_NUMBERS):
        try:
            rows: list[list[float]] = orjson.loads(b"[[" + body.replace(b"\n", b"],[").replace(b" ", b",") + b"]]")
        except orjson.JSONDecodeError:
            pass  # a spelling that only `float` reads, or an error that it names
        else:
            return [row for row in rows if row]
    rows = []
    for number, line in enumerate(body.decode("utf-8", "replace").splitlines(), start=1):
        if tokens := line.split():
            try:
                rows.append([float(token) for token in tokens])
            except ValueError as exc:
                raise DatasetError(
                    f"{path}, row {number}: {exc}; expected `class x1 y1 x2 y2 …`. Correct or remove the row."
                ) from exc
    return rows


def _clip_to_unit_square(flat: Sequence[float]) -> list[float]:
    """Clip a polygon by the four sides of the frame (Sutherland and Hodgman, 1974)."""
    points = list(zip(flat[::2], flat[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, 1.0, -1), (1, 0.0, 1), (1, 1.0, -1)):
        kept: list[tuple[float, float]] = []
        for before, here in zip(points[-1:] + points[:-1], points, strict=True):
            gap_before, gap_here = sign * (before[axis] - limit), sign * (here[axis] - limit)
            if (gap_before < 0) != (gap_here < 0):
                t = gap_before / (gap_before - gap_here)
                kept.append((before[0] + t * (here[0] - before[0]), before[1] + t * (here[1] - before[1])))
            if gap_here >= 0:
                kept.append(here)
        points = kept
    return [value for point in points for value in point] if len(points) >= 3 else []


def columns_to_table(
    columns: LabelColumns, images: Sequence[ImageRecord], category_ids: Sequence[int], findings: Findings
) -> AnnotationTable:
    """Scale to pixels and measure; rows that cover no pixel are dropped and counted as `empty_mask`.

    Args:
        images: grouped by split; annotation ids start at 1 in each.
        category_ids: id of each class index.
    """
    image_index = np.frombuffer(columns.image_index, dtype=np.int32)
    length = np.frombuffer(columns.length, dtype=np.int64)
    coords_xy = np.frombuffer(columns.coords, dtype=np.float32).reshape(-1, 2)
    wh = np.array([(image.width, image.height) for image in images], dtype=np.float32).reshape(-1, 2)
    np.clip(coords_xy, 0, 1, out=coords_xy)
    coords_xy *= np.repeat(wh[image_index], length, axis=0)

    start = np.concatenate([[0], np.cumsum(length)])
    bbox_xywh, area = _measure(coords_xy, start)
    keep = np.ones(len(length), dtype=np.bool_)
    for row in np.flatnonzero(area < bbox_xywh[:, 2:].max(axis=1)).tolist():  # less than a pixel thick on average
        image = images[image_index[row]]
        ring = Polygons((coords_xy[start[row] : start[row + 1]],))
        if not rle_area(segmentation_to_rle(ring, image.height, image.width)):
            keep[row] = False
            findings.add("empty_mask", f"{image.path}: a polygon of {length[row]} points")
    if not keep.all():
        coords_xy, length, image_index = coords_xy[np.repeat(keep, length)], length[keep], image_index[keep]

    class_index = np.frombuffer(columns.class_index, dtype=np.int32)[keep]
    return AnnotationTable(
        annotation_id=number_by_split(image_index, images),
        image_index=image_index,
        category_id=np.asarray(category_ids, dtype=np.int32)[class_index],
        bbox_xywh=bbox_xywh[keep],
        area=area[keep],
        is_crowd=np.zeros(len(length), dtype=np.bool_),
        coords_xy=coords_xy,
        ring_start=np.concatenate([[0], np.cumsum(length)]),
        row_ring_start=np.arange(len(length) + 1),
        rles={},
        num_images=len(images),
    )


def _measure(
    coords_xy: npt.NDArray[np.float32], start: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Tight box, (N, 4) xywh, and shoelace area, (N,), of rings that follow each other; a block of rows at a time."""
    bbox_xywh = np.empty((len(start) - 1, 4), dtype=np.float32)
    area = np.empty(len(start) - 1, dtype=np.float32)
    for first in range(0, len(area), 1 << 15):
        bounds = start[first : first + (1 << 15) + 1]
        points = coords_xy[bounds[0] : bounds[-1]].astype(np.float64)
        heads, tails = bounds[:-1] - bounds[0], bounds[1:] - bounds[0] - 1
        following = np.roll(points, -1, axis=0)
        following[tails] = points[heads]
        twice = np.add.reduceat(points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1], heads)
        low, high = np.minimum.reduceat(points, heads), np.maximum.reduceat(points, heads)
        rows = slice(first, first + len(heads))
        bbox_xywh[rows] = np.hstack([low, high - low])
        area[rows] = np.abs(twice) / 2
    return bbox_xywh, area


def rows_to_text(rows: Sequence[LabelRow]) -> bytes:
    """Format label rows; every coordinate gets the shortest digits that name its float32."""
    lines = [orjson.dumps(row, option=_LINE) for row in rows]  # [0,[0.1,0.2,0.3,0.4]]
    return b"".join(lines).translate(_COMMA_TO_SPACE, b"[]")


def iterate_label_rows(
    source: SampleSource, class_of_category: dict[int, int], findings: Findings
) -> Iterator[tuple[ImageRecord, list[LabelRow]]]:
    """Every image with its label rows; crowds and empty masks are left out and counted."""
    if isinstance(source, Dataset):
        for first in range(0, len(source.images), _IMAGES_AT_ONCE):
            yield from _table_to_rows(source, first, class_of_category, findings)
        return
    for sample in source.samples():
        rows = (_annotation_to_row(one, sample.image, class_of_category, findings) for one in sample.annotations)
        yield sample.image, [row for row in rows if row is not None]


def _annotation_to_row(
    annotation: Annotation, image: ImageRecord, class_of_category: dict[int, int], findings: Findings
) -> LabelRow | None:
    where = f"{image.file_name}, annotation {annotation.annotation_id}"
    if annotation.is_crowd:
        findings.add("yolo_has_no_crowd", where)
        return None
    try:
        ring = segmentation_to_ring(annotation.segmentation, image.height, image.width)
    except EmptyMaskError:
        findings.add("empty_mask", where)
        return None
    normalised = np.clip(ring / np.array([image.width, image.height], dtype=np.float32), 0, 1)
    return class_of_category[annotation.category_id], np.ascontiguousarray(normalised, dtype=np.float32).ravel()


def _table_to_rows(
    dataset: Dataset, first: int, class_of_category: dict[int, int], findings: Findings
) -> Iterator[tuple[ImageRecord, list[LabelRow]]]:
    """Rows of `_IMAGES_AT_ONCE` images: those of one ring are normalised together, as columns."""
    table, images = dataset.annotations, dataset.images[first : first + _IMAGES_AT_ONCE]
    rows_of_image = [table.rows_of_image(first + i) for i in range(len(images))]
    rows = np.concatenate(rows_of_image)
    is_plain = (table.row_ring_start[rows + 1] - table.row_ring_start[rows] == 1) & ~table.is_crowd[rows]
    plain = rows[is_plain]
    ring = table.row_ring_start[plain]
    start, length = table.ring_start[ring], table.ring_start[ring + 1] - table.ring_start[ring]
    bounds = np.concatenate([[0], np.cumsum(length)])
    points = table.coords_xy[np.arange(bounds[-1]) + np.repeat(start - bounds[:-1], length)]
    wh = np.array([(image.width, image.height) for image in images], dtype=np.float32)
    points /= np.repeat(wh[table.image_index[plain] - first], length, axis=0)
    flat = np.clip(points, 0, 1, out=points).ravel()

    ends = (2 * bounds).tolist()
    coords_of_row = dict(zip(plain.tolist(), (flat[a:b] for a, b in pairwise(ends)), strict=True))
    for image, image_rows in zip(images, rows_of_image, strict=True):
        label_rows: list[LabelRow] = []
        for row, category_id in zip(image_rows.tolist(), table.category_id[image_rows].tolist(), strict=True):
            coords = coords_of_row.get(row)
            if coords is not None:
                label_rows.append((class_of_category[category_id], coords))
            elif label_row := _annotation_to_row(table[row], image, class_of_category, findings):
                label_rows.append(label_row)
        yield image, label_rows
