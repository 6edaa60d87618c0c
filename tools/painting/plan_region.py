"""For painters that repaint a picture: where the plan puts its defect, and what of a repainted picture is the edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ...data.records import ImageRGB, MaskHW
from ..defects import Edited, EditRequest
from ..masking.difference import compare_images
from .procedural.site import LINE_FAMILIES, Site, find_site

MIN_GROW_PX = 2
MOST_COMPARED = 0.4
"""Share of the image beyond which what was left alone is too little to tell noise and tones from."""


@dataclass(frozen=True, slots=True)
class PlanRegion:
    """Where a planned defect may go."""

    mask_hw: MaskHW
    """(H, W) bool: the planned shape, clipped to the object, then grown."""
    alpha_hw: npt.NDArray[np.float32]
    """(H, W) float32 in [0, 1]: 1 on the planned shape, falling to 0 at the end of the mask."""


def plan_to_region(request: EditRequest, grow_ratio: float) -> PlanRegion:
    """The region of a plan: an ellipse, or for lines a box, along the planned axes, of the planned area.

    Args:
        request: one that `flaw_of` finds nothing wrong with.
        grow_ratio: how far the region reaches beyond the shape, of its mean side; two pixels at least.
    """
    site = find_site(request)
    shape_hw = _planned_shape(request, site)
    grow_px = max(MIN_GROW_PX, round(grow_ratio * float(np.sqrt(site.axes.length_px * site.axes.width_px))))
    away = cv2.distanceTransform((~shape_hw).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    alpha = np.clip(1 - away / (grow_px + 1), 0, 1).astype(np.float32)
    return PlanRegion(alpha > 0, alpha)


def keep_edit(
    request: EditRequest,
    repainted_rgb: ImageRGB,
    parameters: Mapping[str, float | str],
    *,
    region_hw: MaskHW | None = None,
    usd: float = 0.0,
) -> Edited:
    """Keep of a repainted picture what is an edit; all else becomes the original's, byte for byte.

    Args:
        repainted_rgb: (H, W, 3) uint8 in the frame of the request's image.
        region_hw: (H, W) bool: beyond it nothing was repainted; None: the model was free to repaint all.

    The mask is what `compare_images` finds; of a region that is most of the image, all that is not the original's.
    """
    original = request.image_rgb
    repainted = _as_grey_as(original, repainted_rgb)
    if region_hw is not None and region_hw.mean() > MOST_COMPARED:
        mask = region_hw & (repainted != original).any(axis=2)
    else:
        difference = compare_images(original, repainted)
        mask = difference.mask_hw
        if "replaced" in difference.global_changes:
            return Edited(repainted, mask, parameters, usd, "the whole picture was repainted, not one place of it")
    if not mask.any():
        return refuse(request, "the edit changes nothing that can be seen", parameters, usd=usd)
    return Edited(np.where(mask[..., None], repainted, original), mask, parameters, usd)


def refuse(
    request: EditRequest, flaw: str, parameters: Mapping[str, float | str] | None = None, *, usd: float = 0.0
) -> Edited:
    """The untouched original, an empty mask and the reason."""
    mask = np.zeros(request.image_rgb.shape[:2], np.bool_)
    return Edited(request.image_rgb.copy(), mask, parameters or {}, usd, flaw)


def _planned_shape(request: EditRequest, site: Site) -> MaskHW:
    axes = site.axes
    along = np.abs(axes.along_hw) / (axes.length_px / 2)
    across = np.abs(axes.across_hw) / (axes.width_px / 2)
    is_line = request.plan.family in LINE_FAMILIES
    inside = (np.maximum(along, across) if is_line else np.hypot(along, across)) <= 1
    x, y = (round(value) for value in site.centre_xy)
    inside[y, x] = True
    (left, top), (height, width) = site.origin_xy, inside.shape
    shape_hw = np.zeros(request.foreground_hw.shape, np.bool_)
    shape_hw[top : top + height, left : left + width] = inside & site.paintable_hw
    return shape_hw


def _as_grey_as(original_rgb: ImageRGB, rgb: ImageRGB) -> ImageRGB:
    """Without colours where the original has none."""
    if not np.array_equal(original_rgb.min(axis=2), original_rgb.max(axis=2)):
        return rgb
    return np.asarray(cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
