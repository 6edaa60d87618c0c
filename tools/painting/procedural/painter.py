"""The embedded painter of defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from ....configs.anomaly import ProceduralSettings
from ....configs.anomaly_agent import Outline
from ....data.records import ImageRGB, MaskHW
from ...defects import DefectPlan, Edited, EditRequest, Family
from ...masking.half_height import end_at_half_height
from .contrast import bring_to_contrast, to_picture
from .fields import FieldHW, FieldHWC, blur
from .films import draw_contamination, draw_discolouration, draw_stain
from .layers import Layer, composite
from .lines import draw_crack, draw_scratch, draw_thread
from .recesses import draw_chip, draw_dent, draw_hole, draw_missing_part
from .site import LINE_FAMILIES, Site, find_site, flaw_of
from .surface import linear_to_srgb

FAMILIES: dict[Family, Callable[[Site], Layer]] = {
    "scratch": draw_scratch,
    "crack": draw_crack,
    "hole": draw_hole,
    "chip": draw_chip,
    "stain": draw_stain,
    "dent": draw_dent,
    "contamination": draw_contamination,
    "missing_part": draw_missing_part,
    "thread": draw_thread,
    "discolouration": draw_discolouration,
}
GRAIN_PX = 0.5
"""Neighbouring pixels share some of their noise, by demosaicking and compression."""
ENCLOSED_RATIO = 0.35
"""Unchanged gaps up to that share of a defect's width, as the level floor of a dent, belong to it."""
SEEN_THROUGH_PX = 0.7
"""Changes are compared with the threshold after this much blur, so that single grains neither make nor break a mask."""
GROWTHS, ENOUGH, MOST_GROWTH = 2, 0.9, 2.5
"""How often a defect is drawn larger, at which share of the planned area it is not, and the greatest factor."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    site: Site
    rgb: ImageRGB
    """The site's window."""
    mask_hw: MaskHW
    """All that changed in it."""


class ProceduralPainter:
    """Draws defects by their physics on the image's own surface, blended in linear light; the exact mask is known.

    Shapes have the planned area, place and axes; relief is lit from where the image's light comes; edges are as soft
    and covers as noisy as the image; a planned contrast is met as far as it stays the same kind of defect. Every pixel
    outside the mask is the original's.
    """

    name = "procedural"
    revision = "2"

    def __init__(self, settings: ProceduralSettings) -> None:
        self._settings = settings

    def paint(self, requests: Sequence[EditRequest]) -> list[Edited]:
        """One edit a request; a plan that cannot be drawn gets a flaw, not an error."""
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> Edited:
        flaw = flaw_of(request)
        if flaw:
            return _refused(request, flaw)
        drawn = self._attempt(request)
        if request.outline == "half_height":
            drawn = self._at_planned_size(request, drawn)
        if not drawn.mask_hw.any():
            unseen = f"a {request.plan.family} of severity {request.plan.severity!r} is not to be seen at that place"
            return _refused(request, f"{unseen}; plan it severer or larger")
        return _pasted(request, drawn)

    def _at_planned_size(self, request: EditRequest, drawn: _Drawn) -> _Drawn:
        """Drawn anew, larger, until the planned area lies within its outline: soft edges took some of it."""
        planned_px, factor = drawn.site.area_px, 1.0
        for _ in range(GROWTHS):
            window = _window_of(request.image_rgb, drawn.site)
            outlined_px = float(end_at_half_height(window, drawn.rgb, drawn.mask_hw).sum())
            if not ENOUGH * planned_px > outlined_px > 0:
                break
            factor = min(factor * planned_px / outlined_px, MOST_GROWTH)
            drawn = self._attempt(replace(request, plan=_enlarged(request.plan, factor)))
        return drawn

    def _attempt(self, request: EditRequest) -> _Drawn:
        site = find_site(request)
        layer = FAMILIES[request.plan.family](site)
        window = _window_of(request.image_rgb, site)
        painted = to_picture(self._draw(layer, site, window, request.outline) + self._grain(layer, site)[..., None])
        return _Drawn(site, painted, self._noticed(window, painted, site))

    def _draw(self, layer: Layer, site: Site, window: ImageRGB, outline: Outline) -> FieldHWC:
        """(H, W, C) sRGB levels, as strong as planned."""
        blur_px = site.blur_px * self._settings.edge_blur_ratio
        levels = linear_to_srgb(composite(layer, site, blur_px))
        if site.plan.contrast is None:
            return levels
        plain = replace(layer, base_hwc=site.shading_hwc)
        change = linear_to_srgb(composite(plain, site, blur_px)) - linear_to_srgb(site.shading_hwc)
        noticed_in = partial(self._noticed, window, site=site, outline=outline)
        return bring_to_contrast(levels, change, window, site.plan.contrast, noticed_in)

    def _grain(self, layer: Layer, site: Site) -> FieldHW:
        """(H, W) noise in sRGB levels where the cover hides the image's own."""
        noise = blur(site.generator.standard_normal(layer.alpha_hw.shape, dtype=np.float32), GRAIN_PX)
        noise /= max(float(noise.std()), 1e-6)
        return np.asarray(noise * layer.alpha_hw * (layer.grain * site.noise_levels * self._settings.grain_ratio))

    def _noticed(self, before: ImageRGB, after: ImageRGB, site: Site, outline: Outline = "changed") -> MaskHW:
        """(H, W) bool: changed by more than is just noticeable, with what such changes enclose, up to the outline."""
        change = after.astype(np.float32) - before
        seen = np.abs(blur(change, SEEN_THROUGH_PX)).max(axis=2)
        least = self._settings.just_noticeable_levels
        noticed = ((seen > least) & (np.abs(change).max(axis=2) > least / 2)).astype(np.uint8)
        side = int(np.clip(ENCLOSED_RATIO * site.axes.width_px, 3, 61))
        padded = cv2.copyMakeBorder(noticed, side, side, side, side, cv2.BORDER_REPLICATE)
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
        mask = np.asarray((closed[side:-side, side:-side] > 0) & site.paintable_hw)
        return end_at_half_height(before, after, mask) if outline == "half_height" else mask


def _window_of(image_rgb: ImageRGB, site: Site) -> ImageRGB:
    (left, top), (height, width) = site.origin_xy, site.foreground_hw.shape
    return image_rgb[top : top + height, left : left + width]


def _enlarged(plan: DefectPlan, factor: float) -> DefectPlan:
    """The plan with that many times its area; a line gets it in width alone."""
    elongation = max(1.0, plan.elongation / factor) if plan.family in LINE_FAMILIES else plan.elongation
    return replace(plan, size_ratio=min(1.0, plan.size_ratio * float(np.sqrt(factor))), elongation=elongation)


def _pasted(request: EditRequest, drawn_on: _Drawn) -> Edited:
    site, mask_hw = drawn_on.site, drawn_on.mask_hw
    rgb, mask = request.image_rgb.copy(), np.zeros(request.foreground_hw.shape, np.bool_)
    _window_of(rgb, site)[mask_hw] = drawn_on.rgb[mask_hw]
    (left, top), (height, width) = site.origin_xy, mask_hw.shape
    mask[top : top + height, left : left + width] = mask_hw
    drawn: dict[str, float | str] = {
        "family": request.plan.family,
        "centre_x_px": round(left + site.centre_xy[0], 2),
        "centre_y_px": round(top + site.centre_xy[1], 2),
        "length_px": round(site.axes.length_px, 2),
        "width_px": round(site.axes.width_px, 2),
        "light_deg": round(site.light.angle_deg, 1),
        "light": "estimated" if site.light.estimated else "drawn",
        "blur_px": round(site.blur_px, 3),
        "noise_levels": round(site.noise_levels, 3),
    }
    return Edited(rgb, mask, drawn)


def _refused(request: EditRequest, flaw: str) -> Edited:
    """The untouched original, an empty mask and the reason."""
    mask = np.zeros(request.image_rgb.shape[:2], np.bool_)
    return Edited(request.image_rgb.copy(), mask, {"family": request.plan.family}, flaw=flaw)
