"""Measures of a painted picture with its mask: is it one whole, clean object inside its frame?"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ...data.masks import MASK_ALPHA, mask_to_bbox
from ...data.records import ImageRGBA, MaskHW
from .blemishes import focus, rim_difference, twin_share
from .measures import alpha_to_mask, hash_distance, measure_parts, measure_texture, perceptual_hash


def measure_painted(rgba: ImageRGBA, pool_hashes: Sequence[int]) -> dict[str, float]:
    """All measures of one painted picture.

    Args:
        rgba: (h, w, 4) uint8, straight alpha, the whole frame as it was painted and masked.
        pool_hashes: `painted_hash` of the accepted instances of its class.

    Returns:
        area_share, mask pixels over all pixels; largest_component and components, parts of at least 1 % of the mask;
        border_contact, share of the outer outline that lies on the frame; hole_share, holes over the mask with its
        holes filled; edge_sharpness, in [0, 1], mean step of alpha from a pixel inside the outline to its neighbour
        outside, 1 for a hard mask, about 0.4 / s for one blurred by s pixels, 0 where the outline is all frame;
        alpha_softness, share of the visible pixels that are neither transparent nor opaque; sharpness and contrast
        as of `measure_instance`; focus, twin_share and rim_difference as of `blemishes`;
        pool_distance_bits, 0 to 64, 64 for an empty pool.

    Raises:
        EmptyMaskError: no pixel belongs to the mask.
    """
    mask = alpha_to_mask(rgba)
    parts = measure_parts(mask)
    filled = fill_holes(mask)
    return {
        "area_share": parts.pop("area_px") / mask.size,
        **parts,
        "border_contact": border_contact(filled),
        "hole_share": 1 - float(mask.sum() / filled.sum()),
        "edge_sharpness": edge_sharpness(rgba),
        "alpha_softness": alpha_softness(rgba),
        **measure_texture(rgba, mask),
        "focus": focus(rgba, mask),
        "twin_share": twin_share(mask),
        "rim_difference": rim_difference(rgba, mask),
        "pool_distance_bits": float(hash_distance(painted_hash(rgba), pool_hashes)),
    }


def painted_hash(rgba: ImageRGBA) -> int:
    """Perceptual hash of the object alone, so that its place in the frame does not count.

    Raises:
        EmptyMaskError: no pixel belongs to the mask.
    """
    x, y, width, height = mask_to_bbox(alpha_to_mask(rgba))
    return perceptual_hash(rgba[y : y + height, x : x + width])


def fill_holes(mask: MaskHW) -> MaskHW:
    """(h, w) bool: the mask and every gap in it from which no 4-connected path leads to the frame's border."""
    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    return np.asarray(labels[1:-1, 1:-1] != labels[0, 0])


def border_contact(mask: MaskHW) -> float:
    """Share of a mask's outline, in pixel edges, that lies on the frame's border; 0 for an empty mask."""
    on_border = int(mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum())
    inside = int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
    return on_border / max(on_border + inside, 1)


def edge_sharpness(rgba: ImageRGBA) -> float:
    """Mean step of alpha across the mask's outline, over full scale; 0 where none of it lies inside the frame."""
    alpha = rgba[..., 3].astype(np.int16)
    steps = [
        np.abs(first - second)[(first >= MASK_ALPHA) != (second >= MASK_ALPHA)]
        for first, second in ((alpha[1:], alpha[:-1]), (alpha[:, 1:], alpha[:, :-1]))
    ]
    across = np.concatenate(steps)
    return float(across.mean() / 255) if len(across) else 0.0


def alpha_softness(rgba: ImageRGBA) -> float:
    """Share of the visible pixels whose alpha is neither 0 nor 255; 0 where nothing is visible."""
    alpha = rgba[..., 3]
    visible = int((alpha > 0).sum())
    return float(((alpha > 0) & (alpha < 255)).sum() / max(visible, 1))
