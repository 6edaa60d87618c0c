"""What pastes leave visible of the instances below them.

Masks are cut in the crop around an instance, never as whole frames; `segmentation_to_crop` and
`crop_to_segmentation` agree pixel by pixel with the whole-frame functions of `data.masks`.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, floor

import cv2
import numpy as np
import numpy.typing as npt

from ...configs.compose import ComposeSettings
from ...data.masks import mask_to_rle, mask_to_segmentation, rle_bbox, rle_to_mask, segmentation_to_mask
from ...data.records import Annotation, MaskHW, Polygons, Rle, Segmentation
from .placement import BoxPx


def segmentation_to_crop(segmentation: Segmentation, box: BoxPx) -> MaskHW:
    """Decode a mask, (h, w) bool, in a box from `segmentation_bounds`."""
    x, y, w, h = box
    if not w or not h:
        return np.zeros((h, w), dtype=np.bool_)
    if isinstance(segmentation, Rle):
        return rle_to_mask(segmentation)[y : y + h, x : x + w]
    return segmentation_to_mask(_shift(segmentation, -x, -y), h, w)


def segmentation_bounds(segmentation: Segmentation, frame_hw: tuple[int, int]) -> BoxPx:
    """A box in the frame that holds every pixel of a mask, without decoding; 0 wide or high if there is none."""
    if isinstance(segmentation, Rle):
        x, y, w, h = (int(v) for v in rle_bbox(segmentation))
        return x, y, w, h
    if not segmentation.rings:
        return 0, 0, 0, 0
    points = np.concatenate(segmentation.rings)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    x, y = max(floor(left) - 1, 0), max(floor(top) - 1, 0)
    return x, y, max(min(ceil(right) + 1, frame_hw[1]) - x, 0), max(min(ceil(bottom) + 1, frame_hw[0]) - y, 0)


def crop_to_segmentation(mask_hw: MaskHW, x: int, y: int, frame_hw: tuple[int, int]) -> Segmentation:
    """Encode a mask that fills the box with its corner at (x, y) of the frame; polygons where they are exact."""
    segmentation = mask_to_segmentation(mask_hw)
    if isinstance(segmentation, Polygons):
        return _shift(segmentation, x, y)
    frame = np.zeros(frame_hw, dtype=np.uint8, order="F")
    frame[y : y + mask_hw.shape[0], x : x + mask_hw.shape[1]] = mask_hw
    return mask_to_rle(frame.view(np.bool_))


def _shift(polygons: Polygons, dx: int, dy: int) -> Polygons:
    offset = np.array([dx, dy], dtype=np.float32)
    return Polygons(tuple(ring + offset for ring in polygons.rings))


def occlude(annotation: Annotation, owner_hw: npt.NDArray[np.int16], settings: ComposeSettings) -> Annotation | None:
    """Cut an original's mask where pastes cover it; None where it vanishes.

    Untouched, it is returned as it is. A cut one stays if its box moved at most `max_box_shift_px` or its
    mask keeps more than `min_mask_area_px` (X-Paste), and keeps `min_original_area_px` in any case. A crowd
    stays as long as one pixel does.

    Args:
        owner_hw: (H, W) int16, above 0 where a paste lies.
    """
    frame_hw = owner_hw.shape
    x, y, w, h = box = segmentation_bounds(annotation.segmentation, frame_hw)
    covered = owner_hw[y : y + h, x : x + w] > 0
    if not covered.any():
        return annotation
    mask = segmentation_to_crop(annotation.segmentation, box)
    visible = mask & ~covered
    if np.array_equal(visible, mask):
        return annotation
    area = int(np.count_nonzero(visible))
    if not area:
        return None
    before, after = _tight_box(mask), _tight_box(visible)
    if not annotation.is_crowd and not _survives(before, after, area, settings):
        return None
    left, top, width, height = after
    cut = visible[top : top + height, left : left + width]
    return replace(
        annotation,
        segmentation=crop_to_segmentation(cut, x + left, y + top, frame_hw),
        bbox_xywh=(float(x + left), float(y + top), float(width), float(height)),
        area=float(area),
    )


def _survives(before: BoxPx, after: BoxPx, area: int, settings: ComposeSettings) -> bool:
    if area < settings.min_original_area_px:
        return False
    shift = max(
        after[0] - before[0],
        after[1] - before[1],
        before[0] + before[2] - after[0] - after[2],
        before[1] + before[3] - after[1] - after[3],
    )
    return shift <= settings.max_box_shift_px or area > settings.min_mask_area_px


def _tight_box(mask_hw: MaskHW) -> BoxPx:
    x, y, w, h = cv2.boundingRect(mask_hw.view(np.uint8))
    return x, y, w, h
