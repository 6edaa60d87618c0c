"""Masks between their encodings: dense, RLE, polygons, and one bridged polygon.

All polygons are in pixel-edge coordinates, in which a mask's outline follows the pixels' corners and
decodes back to the same pixels; contours through pixel centres would lose half a pixel on every side.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from ..errors import EmptyMaskError
from .records import BoxXYWH, MaskHW, Polygons, Rle, Segmentation

MASK_ALPHA = 128
"""Least alpha, of 255, of a pixel that belongs to an object's mask."""
Ring = npt.NDArray[np.float32]
"""(n, 2) float32 xy, pixel-edge coordinates, not closed."""


def segmentation_to_rle(segmentation: Segmentation, height: int, width: int) -> Rle:
    """Encode any mask as RLE; several rings become their union."""
    if isinstance(segmentation, Rle):
        return segmentation
    flat = [ring.astype(np.float64).ravel() for ring in segmentation.rings]
    merged = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return Rle(merged["counts"], height, width)


def rle_to_mask(rle: Rle) -> MaskHW:
    decoded = coco_mask.decode({"size": [rle.height, rle.width], "counts": rle.counts})
    return np.asarray(decoded, dtype=np.bool_)


def mask_to_rle(mask_hw: MaskHW) -> Rle:
    encoded = coco_mask.encode(np.asfortranarray(mask_hw, dtype=np.uint8))
    return Rle(encoded["counts"], *mask_hw.shape)


def segmentation_to_mask(segmentation: Segmentation, height: int, width: int) -> MaskHW:
    return rle_to_mask(segmentation_to_rle(segmentation, height, width))


def rle_area(rle: Rle) -> int:
    """Area in pixels, without decoding."""
    return int(coco_mask.area({"size": [rle.height, rle.width], "counts": rle.counts}))


def rle_bbox(rle: Rle) -> BoxXYWH:
    """Tight box in pixels, without decoding."""
    x, y, w, h = coco_mask.toBbox({"size": [rle.height, rle.width], "counts": rle.counts}).tolist()
    return (x, y, w, h)


def mask_to_bbox(mask_hw: MaskHW) -> tuple[int, int, int, int]:
    """Tight (x, y, w, h) in pixels.

    Raises:
        EmptyMaskError: the mask has no pixel.
    """
    columns, rows = np.flatnonzero(mask_hw.any(axis=0)), np.flatnonzero(mask_hw.any(axis=1))
    if not len(columns):
        raise EmptyMaskError(f"a mask of {mask_hw.shape[1]}x{mask_hw.shape[0]} has no pixel")
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def mask_to_rings(mask_hw: MaskHW) -> list[tuple[Ring, list[Ring]]]:
    """Outline every 8-connected part: its outer ring and the rings of its holes.

    Each pixel is doubled, so that OpenCV's contour through pixel centres names a pixel corner:
    coordinate u of the doubled image lies on the pixel edge (u + 1) // 2.
    """
    twice_as_wide = (mask_hw.astype(np.uint16, order="C") * 0x0101).view(np.uint8)
    doubled = np.repeat(twice_as_wide, 2, axis=0)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if hierarchy is None:
        return []
    rings = [_corners((contour.reshape(-1, 2) + 1) // 2) for contour in contours]
    parents = np.asarray(hierarchy).reshape(-1, 4)[:, 3].tolist()
    return [
        (ring, [rings[j] for j, parent in enumerate(parents) if parent == i])
        for i, ring in enumerate(rings)
        if parents[i] < 0
    ]


def _corners(path_xy: npt.NDArray[np.int32]) -> Ring:
    """Drop repeated and collinear points of a closed axis-aligned path."""
    step = np.diff(path_xy, axis=0, append=path_xy[:1])
    moves = step.any(axis=1)
    horizontal = step[moves, 0] != 0
    corners: Ring = path_xy[moves][horizontal != np.roll(horizontal, 1)].astype(np.float32)
    return corners


def mask_to_segmentation(mask_hw: MaskHW) -> Segmentation:
    """Polygons where they decode to exactly these pixels (parts without holes), else RLE."""
    rle = mask_to_rle(mask_hw)
    parts = mask_to_rings(mask_hw)
    if parts and not any(holes for _, holes in parts):
        polygons = Polygons(tuple(outer for outer, _ in parts))
        if segmentation_to_rle(polygons, *mask_hw.shape) == rle:
            return polygons
    return rle


def bridge_rings(rings: Sequence[Ring]) -> Ring:
    """Join rings into one, by zero-width bridges between nearest points.

    YOLO labels hold one ring an object. Each bridge is walked both ways, so it encloses nothing, and
    a hole whose ring runs against the outer one stays a hole under the even-odd rule.
    """
    joined = rings[0]
    for ring in sorted(rings[1:], key=len, reverse=True):
        pairs = len(joined) * len(ring)
        gaps = ((joined[:, None, :] - ring[None, :, :]) ** 2).sum(axis=2) if pairs < 4_000_000 else None
        if gaps is None:
            at, start = 0, int(((ring - joined[0]) ** 2).sum(axis=1).argmin())
        else:
            at, start = divmod(int(gaps.argmin()), gaps.shape[1])
        loop = np.concatenate([ring[start:], ring[: start + 1]])
        joined = np.concatenate([joined[: at + 1], loop, joined[at:]])
    return joined


def segmentation_to_ring(segmentation: Segmentation, height: int, width: int) -> Ring:
    """One ring for one instance, parts and holes bridged.

    Raises:
        EmptyMaskError: nothing to outline.
    """
    rings = list(segmentation.rings) if isinstance(segmentation, Polygons) else _outline(segmentation)
    if not rings:
        raise EmptyMaskError(f"a mask of {width}x{height} has no pixel to outline")
    if len(rings) == 1:
        return rings[0]
    bridged = bridge_rings(rings)
    if isinstance(segmentation, Rle):
        return bridged
    union = segmentation_to_rle(segmentation, height, width)
    if segmentation_to_rle(Polygons((bridged,)), height, width) == union:
        return bridged
    # Rings that overlap cancel out under the even-odd rule; the outline of their union does not.
    return segmentation_to_ring(union, height, width)


def _outline(rle: Rle) -> list[Ring]:
    return [ring for outer, holes in mask_to_rings(rle_to_mask(rle)) for ring in (outer, *holes)]


def connected_components(mask_hw: MaskHW) -> list[int]:
    """Areas in pixels of the 8-connected parts, largest first."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask_hw.astype(np.uint8), connectivity=8)
    return sorted(stats[1:, cv2.CC_STAT_AREA].tolist(), reverse=True)


def flip_sides(sides: tuple[str, ...]) -> tuple[str, ...]:
    """Sides of a frame after a horizontal flip."""
    mirrored = {"left": "right", "right": "left"}
    return tuple(mirrored.get(side, side) for side in sides)


def segmentation_to_json(segmentation: Segmentation) -> list[Ring] | dict[str, object]:
    """COCO's JSON form, for orjson with arrays: polygons as flat rings, an RLE with its counts as text."""
    if isinstance(segmentation, Rle):
        return {"size": [segmentation.height, segmentation.width], "counts": segmentation.counts.decode("ascii")}
    return [ring.reshape(-1) for ring in segmentation.rings]


def json_to_segmentation(segmentation: list[list[float]] | dict[str, object], height: int, width: int) -> Segmentation:
    """The inverse of `segmentation_to_json`, for JSON that we wrote."""
    if isinstance(segmentation, dict):
        return Rle(str(segmentation["counts"]).encode("ascii"), height, width)
    return Polygons(tuple(np.array(ring, dtype=np.float32).reshape(-1, 2) for ring in segmentation))


def disc(radius_px: int) -> npt.NDArray[np.uint8]:
    """(2r + 1, 2r + 1) uint8, 1 within the radius: a round structuring element."""
    y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    return np.asarray(np.hypot(x, y) <= radius_px, dtype=np.uint8)
