"""What a family draws: light let through, light of its own, and how much of the surface it hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .fields import FieldHW, FieldHWC, blur, shifted
from .site import Site

COVER_BLUR_RATIO = 0.7
"""A cover is drawn from smooth fields already."""
Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Result in linear light: base × gain × (1 − alpha) + cover × alpha."""

    alpha_hw: Floats
    """In [0, 1]: how far the surface with its texture is hidden."""
    cover_hwc: Floats
    gain_hwc: Floats | None = None
    """At least 0, 1 where nothing changes; None: 1 everywhere."""
    base_hwc: Floats | None = None
    """The surface where it was moved; None: as it was."""
    grain: float = 1.0
    """In [0, 1]: how much of the image's noise the cover lacks."""


def composite(layer: Layer, site: Site, blur_px: float) -> FieldHWC:
    """(H, W, C) linear light; what was drawn is as soft as the image."""
    alpha = blur(layer.alpha_hw.astype(np.float32), blur_px)[..., None]
    cover = blur(np.clip(layer.cover_hwc, 0, 1).astype(np.float32), COVER_BLUR_RATIO * blur_px)
    base = site.linear_hwc if layer.base_hwc is None else layer.base_hwc
    if layer.gain_hwc is not None:
        base = base * blur(layer.gain_hwc.astype(np.float32), blur_px)
    return np.asarray(base * (1 - alpha) + cover * alpha, dtype=np.float32)


def mix(low: float, high: float, share: float) -> float:
    """Straight from `low` at 0 to `high` at 1."""
    return low + (high - low) * share


def surface_light(site: Site, factor: float) -> FieldHWC:
    """What bare material sends back: that share of the surface's light, or the plan's colour, the purer the severer."""
    colour = site.paint_colour()
    if colour is None:
        return np.asarray(site.shading_hwc * factor, dtype=np.float32)
    purity = mix(0.35, 1.0, site.plan.severity)
    return np.asarray(site.shading_hwc * (1 - purity) + colour * purity, dtype=np.float32)


def detail(site: Site) -> FieldHWC:
    """The surface's own texture: its light over its shading."""
    return np.asarray(np.clip(site.linear_hwc / site.shading_hwc, 0.2, 3), dtype=np.float32)


def cast_shadow(site: Site, alpha_hw: FieldHW, height_px: float, strength: float) -> FieldHWC:
    """(H, W, 1) gain beneath something that high, on the side away from the light."""
    reach = height_px * 0.75
    shadow = np.maximum.reduce(
        [shifted(alpha_hw, (-site.light.x * reach * share, -site.light.y * reach * share)) for share in (0.5, 1.0, 1.5)]
    )
    return np.asarray(1 - strength * blur(shadow, max(0.35 * height_px, 0.5))[..., None], dtype=np.float32)
