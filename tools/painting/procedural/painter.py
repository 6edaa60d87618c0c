"""The embedded painter of defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from ....configs.anomaly import ProceduralSettings
from ....data.records import ImageRGB, MaskHW
from ...defects import Edited, EditRequest, Family
from .fields import FieldHW, blur
from .films import draw_contamination, draw_discolouration, draw_stain
from .layers import Layer, composite
from .lines import draw_crack, draw_scratch, draw_thread
from .recesses import draw_chip, draw_dent, draw_hole, draw_missing_part
from .site import Site, find_site, flaw_of
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


class ProceduralPainter:
    """Draws defects by their physics on the image's own surface, blended in linear light; the exact mask is known.

    Shapes have the planned area, place and axes; relief is lit from where the image's light comes; edges are as soft
    and covers as noisy as the image. Every pixel outside the mask is the original's.
    """

    name = "procedural"
    revision = "1"

    def __init__(self, settings: ProceduralSettings) -> None:
        self._settings = settings

    def paint(self, requests: Sequence[EditRequest]) -> list[Edited]:
        """One edit a request; a plan that cannot be drawn gets a flaw, not an error."""
        return [self._edit(request) for request in requests]

    def _edit(self, request: EditRequest) -> Edited:
        flaw = flaw_of(request)
        if flaw:
            return _refused(request, flaw)
        site = find_site(request)
        layer = FAMILIES[request.plan.family](site)
        blur_px = site.blur_px * self._settings.edge_blur_ratio
        levels = linear_to_srgb(composite(layer, site, blur_px)) + self._grain(layer, site)[..., None]
        window = _window_of(request.image_rgb, site)
        painted = np.clip(np.rint(np.broadcast_to(levels, window.shape)), 0, 255).astype(np.uint8)
        mask = self._noticed(window, painted, site)
        if not mask.any():
            unseen = f"a {request.plan.family} of severity {request.plan.severity!r} is not to be seen at that place"
            return _refused(request, f"{unseen}; plan it severer or larger")
        return _pasted(request, site, painted, mask)

    def _grain(self, layer: Layer, site: Site) -> FieldHW:
        """(H, W) noise in sRGB levels where the cover hides the image's own."""
        noise = blur(site.generator.standard_normal(layer.alpha_hw.shape, dtype=np.float32), GRAIN_PX)
        noise /= max(float(noise.std()), 1e-6)
        return np.asarray(noise * layer.alpha_hw * (layer.grain * site.noise_levels * self._settings.grain_ratio))

    def _noticed(self, before: ImageRGB, after: ImageRGB, site: Site) -> MaskHW:
        """(H, W) bool: changed by more than is just noticeable, with what such changes enclose."""
        change = after.astype(np.float32) - before
        seen = np.abs(blur(change, SEEN_THROUGH_PX)).max(axis=2)
        least = self._settings.just_noticeable_levels
        noticed = ((seen > least) & (np.abs(change).max(axis=2) > least / 2)).astype(np.uint8)
        side = int(np.clip(ENCLOSED_RATIO * site.axes.width_px, 3, 61))
        padded = cv2.copyMakeBorder(noticed, side, side, side, side, cv2.BORDER_REPLICATE)
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
        return np.asarray((closed[side:-side, side:-side] > 0) & site.paintable_hw)


def _window_of(image_rgb: ImageRGB, site: Site) -> ImageRGB:
    (left, top), (height, width) = site.origin_xy, site.foreground_hw.shape
    return image_rgb[top : top + height, left : left + width]


def _pasted(request: EditRequest, site: Site, painted: ImageRGB, mask_hw: MaskHW) -> Edited:
    rgb, mask = request.image_rgb.copy(), np.zeros(request.foreground_hw.shape, np.bool_)
    _window_of(rgb, site)[mask_hw] = painted[mask_hw]
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
