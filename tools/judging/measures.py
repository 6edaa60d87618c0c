"""Deterministic numbers about one RGBA sample; cheap, so they run before any judge that costs money."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from ...data.masks import MASK_ALPHA, connected_components, mask_to_bbox
from ...data.records import BoxXYWH, ImageRGBA, MaskHW

COMPARE_SIDE_PX = 64
MIN_COMPONENT_SHARE = 0.01
HASH_BITS = 64


def alpha_to_mask(rgba: ImageRGBA) -> MaskHW:
    """(h, w) bool: where the sample is more there than not."""
    return np.asarray(rgba[..., 3] >= MASK_ALPHA)


def measure_instance(rgba: ImageRGBA, source_rgba: ImageRGBA, pool_hashes: Sequence[int]) -> dict[str, float]:
    """All measures of one cut-out.

    Args:
        rgba: (h, w, 4) uint8, the sample.
        source_rgba: (h', w', 4) uint8, what it was made from.
        pool_hashes: perceptual hashes of the accepted instances of its class.

    Returns:
        area_px; largest_component and components, parts of at least 1 % of the mask; sharpness, the variance of
        the Laplacian inside the mask in 8-bit grey levels squared; contrast, the standard deviation of grey inside
        the mask over full scale; source_difference, mean absolute colour difference in [0, 1] of the sample or its
        mirror image, whichever is less, since a copy that was only flipped is a copy; pool_distance_bits, 0 to 64,
        64 for an empty pool.

    Raises:
        EmptyMaskError: no pixel is opaque.
    """
    mask = alpha_to_mask(rgba)
    return {
        **measure_parts(mask),
        **measure_texture(rgba, mask),
        "source_difference": min(colour_difference(one, source_rgba) for one in (rgba, rgba[:, ::-1])),
        "pool_distance_bits": float(hash_distance(perceptual_hash(rgba), pool_hashes)),
    }


def measure_parts(mask: MaskHW) -> dict[str, float]:
    """area_px, largest_component and components of a mask, as `measure_instance` has them.

    Raises:
        EmptyMaskError: the mask has no pixel.
    """
    mask_to_bbox(mask)
    areas = connected_components(mask)
    total = sum(areas)
    return {
        "area_px": float(total),
        "largest_component": areas[0] / total,
        "components": float(sum(area >= MIN_COMPONENT_SHARE * total for area in areas)),
    }


def measure_texture(rgba: ImageRGBA, mask: MaskHW) -> dict[str, float]:
    """sharpness and contrast inside a mask, as `measure_instance` has them."""
    grey = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2GRAY)
    # The outline is an edge of any object; only what lies inside tells sharp from blurred.
    inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0).astype(np.bool_)
    region = inside if inside.any() else mask
    laplacian = cv2.Laplacian(grey, cv2.CV_32F)
    return {"sharpness": float(laplacian[region].var()), "contrast": float(grey[region].std() / 255)}


def colour_difference(first_rgba: ImageRGBA, second_rgba: ImageRGBA) -> float:
    """Mean absolute difference in [0, 1] of both cut-outs on grey, each fitted to the same square."""
    first, second = _on_grey(first_rgba, COMPARE_SIDE_PX), _on_grey(second_rgba, COMPARE_SIDE_PX)
    return float(np.abs(first.astype(np.int16) - second).mean() / 255)


def mask_iou(first: MaskHW, second: MaskHW) -> float:
    """Intersection over union of two (h, w) bool masks of one frame; 0 where both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


def perceptual_hash(rgba: ImageRGBA) -> int:
    """64-bit DCT hash of the cut-out on grey (pHash), as an unsigned integer."""
    return int(str(imagehash.phash(Image.fromarray(_on_grey(rgba, COMPARE_SIDE_PX)))), 16)


def hash_distance(sample: int, pool: Sequence[int]) -> int:
    """Least number of differing bits to any hash of the pool; 64 for an empty pool."""
    if not pool:
        return HASH_BITS
    different = np.bitwise_count(np.asarray(pool, dtype=np.uint64) ^ np.uint64(sample))
    return int(different.min())


def border_share(bbox_xywh: BoxXYWH, mask_hw: MaskHW) -> tuple[float, tuple[str, ...]]:
    """How far an image's border cuts an object: mask pixels along the border over the box's outline, and the sides.

    Args:
        bbox_xywh: tight box of the mask in the image, pixels.
        mask_hw: (H, W) bool, in the whole image's frame.
    """
    _, _, width, height = bbox_xywh
    runs = {"left": mask_hw[:, 0], "top": mask_hw[0], "right": mask_hw[:, -1], "bottom": mask_hw[-1]}
    cut_px = {side: int(run.sum()) for side, run in runs.items()}
    return sum(cut_px.values()) / (2 * (width + height)), tuple(side for side, run in cut_px.items() if run)


def _on_grey(rgba: ImageRGBA, side_px: int) -> npt.NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    flat = (rgba[..., :3] * alpha + 127 * (1 - alpha)).astype(np.uint8)
    shrinks = max(rgba.shape[:2]) > side_px
    resampling = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(flat, (side_px, side_px), interpolation=resampling), dtype=np.uint8)
