"""Named colours, and how an object takes one."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ...data.records import ImageRGBA

HUE_WIDTH = 40.0
"""Degrees on each side of an object's main hue that count as its colour."""
COLOURED = 0.25
"""Least saturation of a pixel with a colour of its own."""


@dataclass(frozen=True, slots=True)
class Tone:
    """A named colour: hue in degrees, factors on saturation and value, saturation given to a grey pixel."""

    hue: float
    saturation: float = 1.0
    value: float = 1.0
    tint: float = 0.65


TONES: dict[str, Tone] = {
    "red": Tone(0),
    "orange": Tone(28),
    "yellow": Tone(52),
    "green": Tone(120, value=0.85),
    "turquoise": Tone(175),
    "blue": Tone(217),
    "purple": Tone(275),
    "pink": Tone(335, saturation=0.6, value=1.15, tint=0.4),
    "brown": Tone(25, saturation=0.85, value=0.6),
    "black": Tone(0, saturation=0.15, value=0.3, tint=0.05),
    "white": Tone(0, saturation=0.1, value=1.6, tint=0.02),
    "grey": Tone(0, saturation=0.1, value=0.75, tint=0.02),
}


def recolour(rgba: ImageRGBA, tone: Tone) -> ImageRGBA:
    """Give an object's main colour another tone; its other colours stay.

    Args:
        rgba: (h, w, 4) uint8, straight alpha.
    """
    hsv = cv2.cvtColor(np.float32(rgba[..., :3]) / 255, cv2.COLOR_RGB2HSV)
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    coloured = saturation >= COLOURED
    main = _main_hue(hue, (coloured & (rgba[..., 3] > 128)) * saturation)
    distance = (hue - main + 180) % 360 - 180
    ours = coloured & (np.abs(distance) <= HUE_WIDTH)
    grey = ~coloured if ours.sum() < 0.3 * (rgba[..., 3] > 128).sum() else np.zeros_like(coloured)
    changed = ours | grey
    hsv[..., 0] = np.where(changed, (tone.hue + np.where(ours, distance / 3, 0)) % 360, hue)
    hsv[..., 1] = np.where(ours, saturation * tone.saturation, np.where(grey, tone.tint, saturation))
    hsv[..., 2] = np.where(changed, np.minimum(value * tone.value, 1), value)
    recoloured = rgba.copy()
    recoloured[..., :3] = (cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255).clip(0, 255).round()
    return recoloured


def _main_hue(hue: np.ndarray, weight: np.ndarray) -> float:
    """The 10-degree bin that weighs most with its two neighbours; 0 for an object without colour."""
    histogram, _ = np.histogram(hue, bins=36, range=(0, 360), weights=weight)
    smooth = histogram + np.roll(histogram, 1) + np.roll(histogram, -1)
    return float(smooth.argmax() * 10 + 5)
