"""Two ways to make defects that need no painter, to be beaten: DRAEM's Perlin noise, and CutPaste."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps

from ..data.records import ImageRGB, MaskHW
from .anomaly_samplers import DefectSampler

MAX_DRAWS = 100


@dataclass(frozen=True, slots=True)
class PerlinSampler:
    """DRAEM's defects (Zavrtanik et al., ICCV 2021): a foreign texture where Perlin noise is over a threshold."""

    normals: DefectSampler
    textures: DefectSampler | None = None
    """Pictures of anything; None: the normal image itself, its 8x8 parts shuffled (MemSeg, arXiv 2205.00908)."""
    threshold: float = 0.5

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        image_rgb, _ = self.normals.sample(rng)
        texture = self.textures.sample(rng)[0] if self.textures else _shuffled(image_rgb, rng)
        mask_hw = _until_any(lambda: _rotated(_perlin(image_rgb.shape[0], rng), rng) > self.threshold)
        opacity = 1 - rng.uniform(0, 0.8)
        mixed = opacity * _augmented(texture, rng).astype(np.float32) + (1 - opacity) * image_rgb
        pixels = np.where(mask_hw[..., None], np.rint(mixed), image_rgb).astype(np.uint8)
        return pixels, mask_hw


@dataclass(frozen=True, slots=True)
class CutPasteSampler:
    """A part of the image put elsewhere, as a patch or as a thin turned strip (CutPaste, Li et al., CVPR 2021)."""

    normals: DefectSampler

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        image_rgb, _ = self.normals.sample(rng)
        side = image_rgb.shape[0]
        is_strip = rng.uniform() < 0.5
        height, width = _strip_hw(side, rng) if is_strip else _patch_hw(side, rng)
        patch = _window(image_rgb, height, width, rng)
        patch = _jittered(patch, rng)
        alpha = np.ones((height, width), np.uint8)
        if is_strip:
            patch, alpha = _turned(patch, alpha, float(rng.uniform(-45, 45)))
        return _pasted(image_rgb, patch, alpha.astype(np.bool_), rng)


def _until_any(draw: Callable[[], MaskHW]) -> MaskHW:
    """The first mask that has a pixel; most have."""
    for _ in range(MAX_DRAWS):
        mask_hw = draw()
        if mask_hw.any():
            return mask_hw
    raise ValueError(f"{MAX_DRAWS} draws of Perlin noise stayed under the threshold; expected one over it. Lower it.")


def _perlin(side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(S, S) noise of about [-1, 1] with 2^0 to 2^5 cells on each axis."""
    cells_yx = [2 ** int(power) for power in rng.integers(0, 6, 2)]
    angles = rng.uniform(0, 2 * np.pi, (cells_yx[0] + 1, cells_yx[1] + 1))
    y, x = (np.linspace(0, cells, side, endpoint=False) for cells in cells_yx)
    row, column = y.astype(int)[:, None], x.astype(int)[None]
    dy, dx = (y % 1)[:, None], (x % 1)[None]

    def corner(down: int, right: int) -> npt.NDArray[np.float64]:
        angle = angles[row + down, column + right]
        return np.asarray(np.sin(angle) * (dy - down) + np.cos(angle) * (dx - right))

    fade_y, fade_x = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (dy, dx))
    upper = corner(0, 0) * (1 - fade_x) + corner(0, 1) * fade_x
    lower = corner(1, 0) * (1 - fade_x) + corner(1, 1) * fade_x
    return np.asarray(np.sqrt(2) * (upper * (1 - fade_y) + lower * fade_y), np.float32)


def _rotated(field: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """By any angle up to a quarter turn; what comes in from outside is 0."""
    centre = ((field.shape[1] - 1) / 2, (field.shape[0] - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, float(rng.uniform(-90, 90)), 1.0)
    return np.asarray(cv2.warpAffine(field, turn, field.shape[::-1]), np.float32)


def _shuffled(image_rgb: ImageRGB, rng: np.random.Generator, parts: int = 8) -> ImageRGB:
    """The parts of an image in another order; where the side is no multiple of 8, the rest stays."""
    cell = image_rgb.shape[0] // parts
    side = cell * parts
    cells = image_rgb[:side, :side].reshape(parts, cell, parts, cell, 3).swapaxes(1, 2).reshape(-1, cell, cell, 3)
    moved = cells[rng.permutation(len(cells))].reshape(parts, parts, cell, cell, 3).swapaxes(1, 2)
    texture = image_rgb.copy()
    texture[:side, :side] = moved.reshape(side, side, 3)
    return texture


_CHANGES: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, share: _relevelled(image, lambda level: 255 * (level / 255) ** (0.5 + 1.5 * share)),
    lambda image, share: _relevelled(image, lambda level: level * (0.8 + 0.4 * share) + 60 * share - 30),
    lambda image, share: ImageEnhance.Sharpness(image).enhance(1 + 4 * share),
    lambda image, share: ImageEnhance.Color(image).enhance(2 * share),
    lambda image, share: ImageOps.solarize(image, round(32 + 96 * share)),
    lambda image, share: ImageOps.posterize(image, 2 + round(4 * share)),
    lambda image, _: ImageOps.invert(image),
    lambda image, share: ImageOps.autocontrast(image, cutoff=5 * share),
    lambda image, _: ImageOps.equalize(image),
    lambda image, share: image.rotate(90 * share - 45),
)
"""DRAEM's ten ways to change a texture; the number is in [0, 1]."""


def _relevelled(image: Image.Image, curve: Callable[[float], float]) -> Image.Image:
    return image.point([min(max(round(curve(level)), 0), 255) for level in range(256)] * 3)


def _augmented(texture: ImageRGB, rng: np.random.Generator) -> ImageRGB:
    """By three of the ten ways."""
    image = Image.fromarray(texture)
    for change in rng.choice(len(_CHANGES), 3, replace=False):
        image = _CHANGES[int(change)](image, float(rng.uniform()))
    return np.asarray(image)


def _patch_hw(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """2 to 15 % of the image, up to 3.3 times as long as wide."""
    area = rng.uniform(0.02, 0.15) * side * side
    aspect = rng.uniform(0.3, 1) if rng.uniform() < 0.5 else rng.uniform(1, 3.3)
    height, width = (round(float(np.sqrt(area * factor))) for factor in (1 / aspect, aspect))
    return min(height, side), min(width, side)


def _strip_hw(side: int, rng: np.random.Generator) -> tuple[int, int]:
    """2 to 16 by 10 to 25 pixels of an image of 256."""
    height, width = (round(float(rng.uniform(*sides)) * side / 256) for sides in ((10, 25), (2, 16)))
    return max(height, 1), max(width, 1)


def _window(image_rgb: ImageRGB, height: int, width: int, rng: np.random.Generator) -> ImageRGB:
    top, left = _corner(image_rgb, height, width, rng)
    return image_rgb[top : top + height, left : left + width]


def _corner(image_rgb: ImageRGB, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of such a window anywhere inside."""
    return int(rng.integers(image_rgb.shape[0] - height + 1)), int(rng.integers(image_rgb.shape[1] - width + 1))


def _jittered(patch: ImageRGB, rng: np.random.Generator) -> ImageRGB:
    """Brightness, contrast and saturation up to a tenth up or down."""
    image = Image.fromarray(patch)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(float(rng.uniform(0.9, 1.1)))
    return np.asarray(image)


def _turned(patch: ImageRGB, alpha: npt.NDArray[np.uint8], angle_deg: float) -> tuple[ImageRGB, npt.NDArray[np.uint8]]:
    turned = [np.asarray(Image.fromarray(pixels).rotate(angle_deg, expand=True)) for pixels in (patch, alpha)]
    return turned[0], turned[1]


def _pasted(
    image_rgb: ImageRGB, patch: ImageRGB, alpha_hw: MaskHW, rng: np.random.Generator
) -> tuple[ImageRGB, MaskHW]:
    """The patch anywhere inside; the mask is where it lies, whether it changed a pixel or not."""
    height, width = (min(part, side) for part, side in zip(alpha_hw.shape, image_rgb.shape, strict=False))
    top, left = _corner(image_rgb, height, width, rng)
    pixels, mask_hw = image_rgb.copy(), np.zeros(image_rgb.shape[:2], np.bool_)
    place = (slice(top, top + height), slice(left, left + width))
    mask_hw[place] = alpha_hw[:height, :width]
    pixels[place] = np.where(alpha_hw[:height, :width, None], patch[:height, :width], pixels[place])
    return pixels, mask_hw
