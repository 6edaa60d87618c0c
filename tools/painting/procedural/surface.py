"""What an image tells about the surface in it: light, sharpness, noise, the large-scale shading and the texture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ....data.records import MaskHW
from .fields import FieldHW, FieldHWC, blur, slopes

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
LINEAR_TOE = 0.0031308
LIGHT_TILT = 0.6
"""How far the light leans from the vertical: sine of the angle."""
REBLUR_PX = (1.0, 2.0)
"""Both above the noise, whose slopes would pass for the sharpest edges."""
EDGE_QUANTILE = 0.45
"""Among strong slopes: fine lines lose more to a blur than steps do and would pass for sharper ones."""
PATCH_TRIES = 12
MIN_SHADING_SLOPE = 0.08
"""Relative change of brightness across the object from which on it tells where the light comes from."""


@dataclass(frozen=True, slots=True)
class Light:
    """One distant light; (x, y) points towards it in the image's plane, y downwards; unit length with z."""

    x: float
    y: float
    z: float
    estimated: bool
    """From the image; else drawn from the seed."""

    @property
    def angle_deg(self) -> float:
        return float(np.degrees(np.arctan2(-self.y, self.x)) % 360)


def srgb_to_linear(image_hwc: npt.NDArray[np.uint8]) -> FieldHWC:
    """(H, W, C) uint8 sRGB to float32 linear light in [0, 1] (IEC 61966-2-1)."""
    return _TO_LINEAR[image_hwc]


def linear_to_srgb(linear_hwc: FieldHWC) -> FieldHWC:
    """(H, W, C) float32 linear light to sRGB levels in [0, 255], not rounded."""
    clipped = np.clip(linear_hwc, 0, 1)
    curved = 1.055 * np.power(np.maximum(clipped, LINEAR_TOE), 1 / 2.4) - 0.055
    return np.asarray(255 * np.where(clipped <= LINEAR_TOE, 12.92 * clipped, curved), dtype=np.float32)


def luminance(linear_hwc: FieldHWC) -> FieldHW:
    """(H, W) of one or three channels."""
    if linear_hwc.shape[2] == 1:
        return linear_hwc[..., 0]
    return np.asarray(linear_hwc @ LUMA, dtype=np.float32)


def estimate_light(luminance_hw: FieldHW, foreground_hw: MaskHW, generator: np.random.Generator) -> Light:
    """Direction in which the object brightens, by a plane fitted to its brightness; drawn where it hardly does.

    An even tilt of a smooth object's shading is all that one photograph says of a distant light without its shape.
    """
    drawn_rad = float(generator.uniform(0, 2 * np.pi))
    side = 48
    small_wh = (min(side, luminance_hw.shape[1]), min(side, luminance_hw.shape[0]))
    small = cv2.resize(luminance_hw, small_wh, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(foreground_hw.astype(np.uint8), small_wh, interpolation=cv2.INTER_NEAREST) > 0
    y, x = np.nonzero(inside)
    columns = np.stack([x / small_wh[0] - 0.5, y / small_wh[1] - 0.5, np.ones(len(x))], axis=1)
    slope_x, slope_y = 0.0, 0.0
    if len(x) > 16:
        slope_x, slope_y, _ = np.linalg.lstsq(columns, small[inside], rcond=None)[0]
    steepness = float(np.hypot(slope_x, slope_y)) / (float(small[inside].mean()) + 1e-4 if len(x) else 1.0)
    estimated = steepness > MIN_SHADING_SLOPE
    angle_rad = float(np.arctan2(slope_y, slope_x)) if estimated else drawn_rad
    x_part, y_part = LIGHT_TILT * np.cos(angle_rad), LIGHT_TILT * np.sin(angle_rad)
    return Light(float(x_part), float(y_part), float(np.sqrt(1 - LIGHT_TILT**2)), estimated)


def estimate_blur(luminance_hw: FieldHW) -> float:
    """Sigma in pixels of the blur on the sharpest edges, in [0.5, 2.5].

    On an edge of blur s, blurs by a and b leave gradients in the ratio sqrt((s² + b²) / (s² + a²)) (after Zhuo and Sim,
    Defocus map estimation from a single image, 2011, with a first blur against the noise).
    """
    tone = np.sqrt(np.maximum(luminance_hw, 0))
    steepness = [np.hypot(*slopes(field)) for field in (blur(tone, px) for px in REBLUR_PX)]
    strong = steepness[0] >= max(float(np.quantile(steepness[0], 0.98)), 1e-3)
    if not strong.any():
        return 0.8
    squared = float(np.quantile(steepness[0][strong] / (steepness[1][strong] + 1e-6), EDGE_QUANTILE)) ** 2
    near, far = (px**2 for px in REBLUR_PX)
    sigma_squared = (far - squared * near) / max(squared - 1, 1e-3)
    return float(np.clip(np.sqrt(max(sigma_squared, 0)), 0.5, 2.5))


def estimate_noise(levels_hw: FieldHW) -> float:
    """Deviation of the noise in sRGB levels, from the flattest fifth of the image (Immerkær's mask, 1996)."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(levels_hw, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT))
    local = cv2.blur(response, (7, 7))
    return float(np.sqrt(np.pi / 2) / 6 * np.quantile(local, 0.2))


def shading_of(linear_hwc: FieldHWC, foreground_hw: MaskHW, sigma_px: float) -> FieldHWC:
    """The surface without its texture: a mean over the foreground around each pixel, at least 1e-4."""
    weight = foreground_hw.astype(np.float32)[..., None] + 1e-4
    mean = blur(linear_hwc * weight, sigma_px) / blur(weight, sigma_px)
    return np.asarray(np.maximum(mean, 1e-4), dtype=np.float32)


def transplant_texture(
    linear_hwc: FieldHWC,
    foreground_hw: MaskHW,
    shape_hw: tuple[int, int],
    smooth_px: float,
    generator: np.random.Generator,
) -> FieldHW:
    """Texture of another part of the object: its luminance over its shading, about 1, turned and mirrored.

    Args:
        linear_hwc, foreground_hw: the whole image.
        shape_hw: of the patch that is wanted.
        smooth_px: what counts as shading.
    """
    turned_hw = (shape_hw[1], shape_hw[0])
    height, width = (min(have, want) for have, want in zip(foreground_hw.shape, turned_hw, strict=True))
    tops = generator.integers(0, foreground_hw.shape[0] - height + 1, PATCH_TRIES)
    lefts = generator.integers(0, foreground_hw.shape[1] - width + 1, PATCH_TRIES)
    shares = [foreground_hw[t : t + height : 4, w : w + width : 4].mean() for t, w in zip(tops, lefts, strict=True)]
    best = int(np.argmax(shares))
    window = np.s_[tops[best] : tops[best] + height, lefts[best] : lefts[best] + width]
    patch = luminance(linear_hwc[window])
    ratio = patch / shading_of(patch[..., None], foreground_hw[window], smooth_px)[..., 0]
    ratio = np.where(foreground_hw[window], np.clip(ratio, 0.3, 2.5), 1).astype(np.float32)
    missing = (0, turned_hw[0] - height, 0, turned_hw[1] - width)
    whole = cv2.copyMakeBorder(ratio, *missing, cv2.BORDER_REFLECT) if max(missing) else ratio
    return np.ascontiguousarray(np.rot90(whole, 1 if generator.random() < 0.5 else 3))


def relight(height_hw: FieldHW, light: Light) -> FieldHW:
    """Diffuse brightness of a height field in pixels over that of level ground, in [0, 2.2] (Lambert)."""
    slope_y, slope_x = slopes(height_hw)
    facing = light.z - slope_x * light.x - slope_y * light.y
    shade = facing / (light.z * np.sqrt(1 + slope_x**2 + slope_y**2))
    return np.asarray(np.clip(shade, 0, 2.2), dtype=np.float32)


def occlusion(height_hw: FieldHW, radius_px: float) -> FieldHW:
    """Share of ambient light that reaches each point, in [0.2, 1]: less the deeper it lies below its surroundings."""
    below = np.maximum(blur(height_hw, radius_px) - height_hw, 0) / max(radius_px, 1e-3)
    return np.asarray(np.clip(1 - 0.9 * below, 0.2, 1), dtype=np.float32)


def _linear_table() -> npt.NDArray[np.float32]:
    level = np.arange(256) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4).astype(np.float32)


_TO_LINEAR = _linear_table()
