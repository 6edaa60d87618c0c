"""Blend a cut-out into its surroundings, and measure the seam.

Every function works on a local window: the cut-out's box and a margin, clipped to the scene.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ...configs.compose import ComposeSettings
from ...data.masks import MASK_ALPHA
from ...data.records import ImageRGB, ImageRGBA
from ...errors import RecipeError

RING_PX = 8
"""Width of the rings inside and outside a seam that are compared, and the least margin of a window."""

Mask01 = npt.NDArray[np.uint8]
"""(h, w) uint8, 1 on the object, as OpenCV wants it."""


class Harmonizer(Protocol):
    """Composites one cut-out on one window of the scene. Thread-safe; equal inputs give equal pixels."""

    @property
    def margin_px(self) -> int:
        """How far a window reaches beyond the cut-out, where the scene does; at least `RING_PX`."""
        ...

    def harmonize(self, window_rgb: ImageRGB, cutout_rgba: ImageRGBA) -> ImageRGB:
        """Return a new window; pixels where alpha is 0 stay as they are, but for those that `diffusion` repaints.

        Args:
            window_rgb: (h, w, 3) uint8.
            cutout_rgba: (h, w, 4) uint8, straight alpha, aligned with the window.
        """
        ...


def alpha_to_mask(cutout_rgba: ImageRGBA) -> Mask01:
    """(h, w) uint8, 1 where alpha is at least `MASK_ALPHA`."""
    mask: Mask01 = cv2.threshold(cv2.extractChannel(cutout_rgba, 3), MASK_ALPHA - 1, 1, cv2.THRESH_BINARY)[1]
    return mask


class HardPaste:
    """Binary mask, no blending: the baseline that seams are measured against."""

    margin_px: ClassVar[int] = RING_PX

    def harmonize(self, window_rgb: ImageRGB, cutout_rgba: ImageRGBA) -> ImageRGB:
        pasted: ImageRGB = cv2.copyTo(_rgb(cutout_rgba), alpha_to_mask(cutout_rgba), window_rgb.copy())
        return pasted


class AlphaBlend:
    """Alpha blending; a 5x5 blur fades the edge inwards only, so that no background of the cut-out leaks out."""

    margin_px: ClassVar[int] = RING_PX

    def harmonize(self, window_rgb: ImageRGB, cutout_rgba: ImageRGBA) -> ImageRGB:
        return _blend(window_rgb, _rgb(cutout_rgba), cutout_rgba)


@dataclass(frozen=True, slots=True)
class ColorTransfer:
    """Move Lab mean and spread towards the ring around the object (Reinhard et al. 2001), in part only.

    A full transfer would paint a white dog green on a lawn: `strength` is the share of the way, and
    `max_shift` and `max_gain` bound what a class may lose of its own colour.
    """

    margin_px: ClassVar[int] = RING_PX
    strength: float = 0.4
    max_shift: tuple[float, float, float] = (24.0, 8.0, 8.0)
    """Most change of the mean of L, a, b, each in 0..255."""
    max_gain: float = 1.25

    def harmonize(self, window_rgb: ImageRGB, cutout_rgba: ImageRGBA) -> ImageRGB:
        mask = alpha_to_mask(cutout_rgba)
        ring = outer_ring(mask)
        rgb = _rgb(cutout_rgba)
        if cv2.countNonZero(mask) and cv2.countNonZero(ring):
            lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
            table = self._table(_statistics(lab, mask), _statistics(cv2.cvtColor(window_rgb, cv2.COLOR_RGB2LAB), ring))
            rgb = cv2.cvtColor(cv2.LUT(lab, table), cv2.COLOR_LAB2RGB)
        return _blend(window_rgb, rgb, cutout_rgba)

    def _table(self, own: _Statistics, around: _Statistics) -> npt.NDArray[np.uint8]:
        """(1, 256, 3) uint8: the affine map of each Lab channel."""
        gain = ((around.std + 1) / (own.std + 1)) ** self.strength
        gain = np.clip(gain, 1 / self.max_gain, self.max_gain)
        shift = np.clip(self.strength * (around.mean - own.mean), np.negative(self.max_shift), self.max_shift)
        levels = (np.arange(256)[:, None] - own.mean) * gain + own.mean + shift
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[None]


@dataclass(frozen=True, slots=True)
class Poisson:
    """Gradient-domain cloning (Pérez et al. 2003) at the seam, the object's own colours inside.

    The pure solution spreads the background's colours over the whole object, so that it looks like
    glass and its mask like a mistake. Here its share falls from `seam_share` to `inner_share`, over about
    `reach` of the object's side.
    """

    margin_px: ClassVar[int] = RING_PX
    seam_share: float = 0.75
    inner_share: float = 0.2
    reach: float = 0.05

    def harmonize(self, window_rgb: ImageRGB, cutout_rgba: ImageRGBA) -> ImageRGB:
        mask, rgb = alpha_to_mask(cutout_rgba), _rgb(cutout_rgba)
        if min(cv2.boundingRect(mask)[2:]) > 2:
            cloned = _seamless_clone(window_rgb, rgb, mask)
            depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
            reach_px = max(2.0, self.reach * float(np.sqrt(cv2.countNonZero(mask))))
            share = self.inner_share + (self.seam_share - self.inner_share) * np.exp(-depth / reach_px)
            rgb = cv2.blendLinear(cloned, rgb, share, 1 - share)
        return _blend(window_rgb, rgb, cutout_rgba)


def _diffusion(settings: ComposeSettings) -> Harmonizer:
    if settings.diffusion is None:
        raise RecipeError(
            "harmonization 'diffusion' has no settings; set at least `compose.diffusion.model` in the recipe."
        )
    from .diffusion_harmonizer import DiffusionHarmonizer

    return DiffusionHarmonizer(settings.diffusion)


HARMONIZERS: dict[str, Callable[[ComposeSettings], Harmonizer]] = {
    "none": lambda _: HardPaste(),
    "alpha": lambda _: AlphaBlend(),
    "color_transfer": lambda _: ColorTransfer(),
    "poisson": lambda _: Poisson(),
    "diffusion": _diffusion,
}


def build_harmonizer(settings: ComposeSettings) -> Harmonizer:
    """Build the harmonizer that the settings name; no weights are loaded yet.

    Raises:
        RecipeError: the name is unknown, or the harmonizer's own settings are missing or do not fit its model.
        ModelNotFetchedError: its model is not in the cache.
    """
    name = settings.harmonization
    if name not in HARMONIZERS:
        known = ", ".join(sorted(HARMONIZERS))
        raise RecipeError(f"unknown harmonization {name!r}; known: {known}. Set `compose.harmonization` in the recipe.")
    return HARMONIZERS[name](settings)


@dataclass(frozen=True, slots=True)
class SeamMeasures:
    """How much a seam shows; both are 0 where an object fills its window and has no seam.

    `edge_gradient` is the mean gradient along the seam over that of the rings beside it (about 1: no
    visible edge). `colour_gap` is the distance of Lab means plus that of Lab standard deviations
    between inner and outer ring, in CIE units (L in 0..100).
    """

    edge_gradient: float
    colour_gap: float


@dataclass(frozen=True, slots=True)
class Seam:
    """One paste, measured as a hard paste and as harmonized."""

    before: SeamMeasures
    after: SeamMeasures


def measure_seam(hard_rgb: ImageRGB, harmonized_rgb: ImageRGB, mask: Mask01) -> Seam:
    """Compare two windows, (h, w, 3) uint8, along the seam of the mask that was pasted in both."""
    outer, inner = outer_ring(mask), mask - cv2.erode(mask, _square(RING_PX))
    if not cv2.countNonZero(outer) or not cv2.countNonZero(inner):
        return Seam(SeamMeasures(0.0, 0.0), SeamMeasures(0.0, 0.0))
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, _square(1))
    beside = cv2.bitwise_and(outer | inner, 1 - cv2.dilate(edge, _square(1)))
    before, after = (
        SeamMeasures(_edge_gradient(window, edge, beside), _colour_gap(window, inner, outer))
        for window in (hard_rgb, harmonized_rgb)
    )
    return Seam(before, after)


def _edge_gradient(window_rgb: ImageRGB, edge: Mask01, beside: Mask01) -> float:
    grey = cv2.cvtColor(window_rgb, cv2.COLOR_RGB2GRAY)
    gradient = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    on_edge, off_edge = cv2.mean(gradient, edge)[0], cv2.mean(gradient, beside)[0]
    return float(on_edge / (off_edge + 1.0))


def _colour_gap(window_rgb: ImageRGB, inner: Mask01, outer: Mask01) -> float:
    lab = cv2.cvtColor(window_rgb, cv2.COLOR_RGB2LAB)
    inside, outside = _statistics(lab, inner), _statistics(lab, outer)
    to_cie = np.array([100 / 255, 1.0, 1.0])
    means, stds = (inside.mean - outside.mean) * to_cie, (inside.std - outside.std) * to_cie
    return float(np.linalg.norm(means) + np.linalg.norm(stds))


@dataclass(frozen=True, slots=True)
class _Statistics:
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]


def _statistics(lab: npt.NDArray[np.uint8], mask: Mask01) -> _Statistics:
    mean, std = cv2.meanStdDev(lab, mask=mask)
    return _Statistics(mean.ravel(), std.ravel())


def _square(radius_px: int) -> npt.NDArray[np.uint8]:
    return np.ones((2 * radius_px + 1, 2 * radius_px + 1), dtype=np.uint8)


def outer_ring(mask: Mask01) -> Mask01:
    """Pixels within `RING_PX` of a mask and outside it, as (h, w) uint8 of 0 and 1."""
    ring: Mask01 = cv2.dilate(mask, _square(RING_PX)) - mask
    return ring


def _rgb(cutout_rgba: ImageRGBA) -> ImageRGB:
    rgb: ImageRGB = cv2.cvtColor(cutout_rgba, cv2.COLOR_RGBA2RGB)
    return rgb


def _blend(window_rgb: ImageRGB, object_rgb: ImageRGB, cutout_rgba: ImageRGBA) -> ImageRGB:
    alpha = cv2.extractChannel(cutout_rgba, 3)
    weight = cv2.cvtColor(cv2.min(alpha, cv2.GaussianBlur(alpha, (5, 5), 0)), cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(window_rgb, 255 - weight, scale=1 / 255)
    blended: ImageRGB = cv2.add(cv2.multiply(object_rgb, weight, scale=1 / 255), behind)
    return blended


def _seamless_clone(window_rgb: ImageRGB, object_rgb: ImageRGB, mask: Mask01) -> ImageRGB:
    """`cv2.seamlessClone` in place; it needs free pixels around the mask, so the window is extended."""
    pad = RING_PX
    window, source = (
        cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_REPLICATE) for image in (window_rgb, object_rgb)
    )
    padded = cv2.copyMakeBorder(mask * 255, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    x, y, w, h = cv2.boundingRect(padded)
    cloned: ImageRGB = cv2.seamlessClone(source, window, padded, (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)
    return cloned[pad:-pad, pad:-pad]
