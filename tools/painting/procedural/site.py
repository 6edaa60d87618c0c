"""Where a defect goes: a plan in units of its object becomes a window of pixels with a surface, axes and an area."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ....data.masks import mask_to_bbox
from ....data.records import ImageRGB, MaskHW
from ...defects import DefectPlan, EditRequest
from .fields import FieldHW, FieldHWC
from .shapes import Axes
from .surface import (
    Light,
    estimate_blur,
    estimate_light,
    estimate_noise,
    linear_to_srgb,
    luminance,
    shading_of,
    srgb_to_linear,
    transplant_texture,
)

BORDER_FAMILIES = ("chip", "missing_part")
LINE_FAMILIES = ("scratch", "crack", "thread")
MIN_LINE_ELONGATION = 6.0
MIN_LINE_WIDTH_PX = 3.0
"""What the lens makes of the thinnest line; a thinner plan gets a shorter line of the same area."""
MIN_AREA_PX = 4.0
CONTEXT_PX = 256
"""Sharpness and noise are measured in so large a crop around the defect."""
MARGIN_PX = 10
SEAM_PX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A window of the image, all in its pixels, and what was estimated of the surface there."""

    plan: DefectPlan
    generator: np.random.Generator
    origin_xy: tuple[int, int]
    """Of the window in the image."""
    linear_hwc: FieldHWC
    """Linear light; one channel where the image is grey."""
    foreground_hw: MaskHW
    paintable_hw: MaskHW
    """The foreground; where a piece breaks off, also the seam around it, which shows some of the piece."""
    centre_xy: tuple[float, float]
    axes: Axes
    area_px: float
    shading_hwc: FieldHWC
    """The surface without its texture."""
    texture_hw: FieldHW
    """Of another part of the object, turned; about 1."""
    light: Light
    blur_px: float
    noise_levels: float

    @property
    def angle_rad(self) -> float:
        return float(np.deg2rad(self.plan.orientation_deg))

    @property
    def crisp_area_px(self) -> float:
        """The area without what soft edges will add to it."""
        outline_px = np.pi * (self.axes.length_px + self.axes.width_px) / 2
        return max(self.area_px - 0.9 * self.blur_px * float(outline_px), 0.5 * self.area_px)

    @property
    def mean_light(self) -> float:
        return float(self.shading_hwc[self.foreground_hw].mean())

    @property
    def lift(self) -> float:
        """Sign of the relief."""
        return {"flat": 0.0, "removed": -1.0, "added": 1.0}[self.plan.relief]

    def paint_colour(self) -> FieldHWC | None:
        """The plan's colour, lit as the surface is lit there; None: it has none."""
        if self.plan.colour_rgb is None:
            return None
        colour = srgb_to_linear(np.array([[self.plan.colour_rgb]], np.uint8))
        if self.linear_hwc.shape[2] == 1:
            colour = luminance(colour)[..., None]
        return np.asarray(colour * self.relative_light()[..., None], dtype=np.float32)

    def relative_light(self) -> FieldHW:
        """Shading over its mean on the object, in [0.4, 1.8]."""
        shading = luminance(self.shading_hwc)
        return np.asarray(np.clip(shading / shading[self.foreground_hw].mean(), 0.4, 1.8), dtype=np.float32)


def flaw_of(request: EditRequest) -> str:
    """Why no defect can be made there; empty: it can."""
    if request.foreground_hw.shape != request.image_rgb.shape[:2]:
        sizes = f"{request.foreground_hw.shape!r}, the image of {request.image_rgb.shape[:2]!r}"
        return f"the foreground is of another size: {sizes}; give one of the image's"
    if not request.foreground_hw.any():
        return "the image has no foreground to put a defect on"
    x, y = request.plan.centre_xy
    if not (0 <= x <= 1 and 0 <= y <= 1):
        return f"the planned place {request.plan.centre_xy!r} lies outside the object; give a place within [0, 1]"
    away_px = _distance_to(request.foreground_hw, _planned_xy(request))
    reach_px = _sides_px(request)[0] / 2
    if away_px > reach_px:
        return (
            f"the planned place {request.plan.centre_xy!r} lies {away_px:.0f} px off the object, "
            f"more than the defect's reach of {reach_px:.0f} px; give a place on it"
        )
    return ""


def find_site(request: EditRequest) -> Site:
    """The window of a request that `flaw_of` finds nothing wrong with."""
    generator = np.random.default_rng(request.seed)
    image = _grey_if_grey(request.image_rgb)
    linear = srgb_to_linear(image)
    centre = _snap(request)
    sides = _sides_px(request)
    left, top, right, bottom = _window(centre, sides, request.foreground_hw.shape)
    window = np.s_[top:bottom, left:right]
    shape_hw = (bottom - top, right - left)
    grey = luminance(linear)
    context = _context(centre, request.foreground_hw.shape)
    light = estimate_light(grey, request.foreground_hw, generator)
    smooth_px = float(np.clip(0.12 * max(shape_hw), 4, 40))
    local_xy = (centre[0] - left, centre[1] - top)
    return Site(
        plan=request.plan,
        generator=generator,
        origin_xy=(left, top),
        linear_hwc=linear[window],
        foreground_hw=request.foreground_hw[window],
        paintable_hw=_paintable(request)[window],
        centre_xy=local_xy,
        axes=Axes.at(shape_hw, local_xy, float(np.deg2rad(request.plan.orientation_deg)), sides),
        area_px=_area_px(request),
        shading_hwc=shading_of(linear[window], request.foreground_hw[window], smooth_px),
        texture_hw=transplant_texture(linear, request.foreground_hw, shape_hw, smooth_px, generator),
        light=light,
        blur_px=estimate_blur(grey[context]),
        noise_levels=estimate_noise(linear_to_srgb(linear[context]).mean(axis=2)),
    )


def _grey_if_grey(rgb: ImageRGB) -> ImageRGB:
    """(H, W, 1) where the three channels agree."""
    same = np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])
    return rgb[..., :1] if same else rgb


def _planned_xy(request: EditRequest) -> tuple[float, float]:
    x, y, width, height = mask_to_bbox(request.foreground_hw)
    return x + request.plan.centre_xy[0] * (width - 1), y + request.plan.centre_xy[1] * (height - 1)


def _distance_to(mask_hw: MaskHW, point_xy: tuple[float, float]) -> float:
    y, x = np.nonzero(mask_hw)
    return float(np.hypot(x - point_xy[0], y - point_xy[1]).min())


def _inner(foreground_hw: MaskHW) -> MaskHW:
    """All but its border; the image's border is one too."""
    padded = np.pad(foreground_hw.astype(np.uint8), 1)
    return np.asarray(cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0)


def _snap(request: EditRequest) -> tuple[float, float]:
    """The nearest pixel of the foreground; for what breaks off, of its border."""
    x, y = _planned_xy(request)
    allowed = request.foreground_hw
    if request.plan.family in BORDER_FAMILIES:
        allowed = allowed & ~_inner(allowed)
    elif allowed[round(y), round(x)]:
        return x, y
    rows, columns = np.nonzero(allowed)
    nearest = int(np.argmin((columns - x) ** 2 + (rows - y) ** 2))
    return float(columns[nearest]), float(rows[nearest])


def _paintable(request: EditRequest) -> MaskHW:
    if request.plan.family not in BORDER_FAMILIES:
        return request.foreground_hw
    seam = np.ones((2 * SEAM_PX + 1, 2 * SEAM_PX + 1), np.uint8)
    return np.asarray(cv2.dilate(request.foreground_hw.astype(np.uint8), seam) > 0)


def _area_px(request: EditRequest) -> float:
    return max(request.plan.size_ratio**2 * float(request.foreground_hw.sum()), MIN_AREA_PX)


def _sides_px(request: EditRequest) -> tuple[float, float]:
    """Length and width: of the ribbon for lines, of the ellipse for the others."""
    area, elongation = _area_px(request), max(request.plan.elongation, 1.0)
    if request.plan.family in LINE_FAMILIES:
        longest = np.sqrt(area / MIN_LINE_ELONGATION)
        width = float(np.clip(np.sqrt(area / elongation), min(MIN_LINE_WIDTH_PX, longest), longest))
        return area / width, width
    area *= 4 / np.pi * (2 if request.plan.family in BORDER_FAMILIES else 1)
    return float(np.sqrt(area * elongation)), float(np.sqrt(area / elongation))


def _window(
    centre_xy: tuple[float, float], sides_px: tuple[float, float], shape_hw: tuple[int, ...]
) -> tuple[int, int, int, int]:
    half = 0.8 * sides_px[0] + MARGIN_PX
    left, top = (max(int(c - half), 0) for c in centre_xy)
    right, bottom = (min(int(c + half) + 1, side) for c, side in zip(centre_xy, shape_hw[::-1], strict=True))
    return left, top, right, bottom


def _context(centre_xy: tuple[float, float], shape_hw: tuple[int, ...]) -> tuple[slice, slice]:
    starts = [
        int(np.clip(c - CONTEXT_PX / 2, 0, max(side - CONTEXT_PX, 0)))
        for c, side in zip(centre_xy, shape_hw[::-1], strict=True)
    ]
    return slice(starts[1], starts[1] + CONTEXT_PX), slice(starts[0], starts[0] + CONTEXT_PX)
