"""What the image-text heads learn from: random views of the object pictures, seen by the locked image network."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..data.files import write_atomically
from ..data.records import ImageRGB, ImageRGBA
from ..models.lit import crop_to_alpha, pool_features
from ..models.sprites.tones import TONES, recolour
from ..tools.cutouts import resize_rgba
from .pictures import ObjectPicture

VIEWS = 8
"""Views of each object; the last `ASIDE_VIEWS` are kept out of the training."""
ASIDE_VIEWS = 2
OWN_TONE = -1
OBJECTS_A_FILE = 32
TONED_SHARE = 0.25
TRANSPARENT_SHARE = 0.5
SMALL_SHARE = 0.7
"""Views as small as the sprites model paints, or smaller."""
BLUR_SHARE = 0.2
JPEG_SHARE = 0.3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Views:
    """Features of all views.

    Attributes:
        features: (objects, VIEWS, 1280) float32, pooled by the locked network.
        tones: (objects, VIEWS) int64, index into `TONES`, or `OWN_TONE`.
    """

    features: torch.Tensor
    tones: torch.Tensor


def load_views(pictures: Sequence[ObjectPicture], cache: Path, seed: int) -> Views:
    """The views' features; computed where `cache` lacks them, so that a run that was stopped goes on.

    Args:
        cache: folder of one seed and one list of pictures.
    """
    backgrounds = _natural_backgrounds()
    parts = []
    for start in range(0, len(pictures), OBJECTS_A_FILE):
        path = cache / f"views-{seed}-{start:04d}.safetensors"
        part = _read_part(path)
        if part is None:
            group = pictures[start : start + OBJECTS_A_FILE]
            part = _see(group, [[seed, start + number] for number in range(len(group))], backgrounds)
            write_atomically(path, save(part))
            logger.info("%d of %d objects seen", start + len(group), len(pictures))
        parts.append(part)
    features = torch.cat([part["features"] for part in parts]).float()
    return Views(features, torch.cat([part["tones"] for part in parts]).long())


def _read_part(path: Path) -> dict[str, torch.Tensor] | None:
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError:
        logger.warning("%s is damaged and is made again", path)
        return None


def _see(
    pictures: Sequence[ObjectPicture], seeds: Sequence[Sequence[int]], backgrounds: Sequence[ImageRGB]
) -> dict[str, torch.Tensor]:
    images, tones = [], []
    for picture, seed in zip(pictures, seeds, strict=True):
        for view in range(VIEWS):
            rng = np.random.default_rng([*seed, view])
            tone = int(rng.integers(len(TONES))) if rng.random() < TONED_SHARE else OWN_TONE
            toned = picture.rgba if tone == OWN_TONE else recolour(picture.rgba, list(TONES.values())[tone])
            images.append(random_view(toned, rng, backgrounds))
            tones.append(tone)
    # Half the time; the rounding is far below the noise that the heads are trained with.
    with torch.autocast("cpu", torch.bfloat16):
        features = torch.from_numpy(pool_features(images)).view(len(pictures), VIEWS, -1)
    return {"features": features.half(), "tones": torch.tensor(tones, dtype=torch.int8).view(len(pictures), VIEWS)}


def random_view(rgba: ImageRGBA, rng: np.random.Generator, backgrounds: Sequence[ImageRGB]) -> ImageRGB | ImageRGBA:
    """An object turned, mirrored, stretched and made small; transparent, or on a random background.

    Args:
        rgba: (h, w, 4) uint8, straight alpha, some pixel visible.
        backgrounds: each (H, W, 3) uint8, at least 32 pixels a side.
    """
    cutout = crop_to_alpha(_turn(rgba, rng), margin_ratio=0)
    side = rng.integers(48, 97) if rng.random() < SMALL_SHARE else rng.integers(97, 225)
    scale = side / max(cutout.shape[:2])
    cutout = resize_rgba(cutout, *(max(4, round(length * scale)) for length in (cutout.shape[1], cutout.shape[0])))
    if rng.random() < BLUR_SHARE:
        cutout = _blur(cutout, float(rng.uniform(0.4, 1.5)))
    if rng.random() < TRANSPARENT_SHARE:
        return cutout
    scene = _place(cutout, rng, backgrounds)
    return _through_jpeg(scene, int(rng.integers(30, 90))) if rng.random() < JPEG_SHARE else scene


def _turn(rgba: ImageRGBA, rng: np.random.Generator) -> ImageRGBA:
    height, width = rgba.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.normal(0, 12)), 0.7)
    matrix[0] *= rng.uniform(0.8, 1.25)
    matrix[:, 2] += np.array([width, height]) / 2 - matrix @ [width / 2, height / 2, 1]
    turned = cv2.warpAffine(cv2.cvtColor(rgba, cv2.COLOR_RGBA2mRGBA), matrix, (width, height))
    turned = turned[:, ::-1] if rng.random() < 0.5 else turned
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(turned), cv2.COLOR_mRGBA2RGBA))


def _blur(rgba: ImageRGBA, sigma: float) -> ImageRGBA:
    blurred = cv2.GaussianBlur(cv2.cvtColor(rgba, cv2.COLOR_RGBA2mRGBA), (0, 0), sigma)
    return np.asarray(cv2.cvtColor(blurred, cv2.COLOR_mRGBA2RGBA))


def _place(cutout: ImageRGBA, rng: np.random.Generator, backgrounds: Sequence[ImageRGB]) -> ImageRGB:
    """Somewhere on a background that is up to 1.6 times as large."""
    height, width = cutout.shape[:2]
    full = round(max(height, width) * rng.uniform(1, 1.6))
    scene = _background(full, rng, backgrounds).astype(np.float32)
    top, left = rng.integers(0, full - height + 1), rng.integers(0, full - width + 1)
    alpha = cutout[..., 3:].astype(np.float32) / 255
    under = scene[top : top + height, left : left + width]
    scene[top : top + height, left : left + width] = under + alpha * (cutout[..., :3] - under)
    return scene.round().astype(np.uint8)


def _background(side: int, rng: np.random.Generator, backgrounds: Sequence[ImageRGB]) -> ImageRGB:
    """(side, side, 3) uint8: one colour, a gradient, cloudy noise, or a crop of a photograph."""
    kind = rng.integers(4)
    first, second = rng.integers(0, 256, (2, 3))
    if kind == 0:
        return np.full((side, side, 3), first, np.uint8)
    if kind == 1:
        ramp = np.linspace(0, 1, side)[:, None, None]
        gradient = np.broadcast_to(first + ramp * (second - first), (side, side, 3)).astype(np.uint8)
        return gradient if rng.random() < 0.5 else gradient.transpose(1, 0, 2)
    if kind == 2:
        cells = rng.integers(0, 256, (rng.integers(2, 12), rng.integers(2, 12), 3), dtype=np.uint8)
        return np.asarray(cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC))
    photo = backgrounds[int(rng.integers(len(backgrounds)))]
    crop = int(rng.integers(32, min(photo.shape[:2]) + 1))
    top, left = (rng.integers(0, length - crop + 1) for length in photo.shape[:2])
    part = photo[top : top + crop, left : left + crop]
    return np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA))


def _through_jpeg(scene: ImageRGB, quality: int) -> ImageRGB:
    content = io.BytesIO()
    Image.fromarray(scene).save(content, "JPEG", quality=quality)
    return np.array(Image.open(content))


def _natural_backgrounds() -> list[ImageRGB]:
    """Photographs and textures that scikit-image brings along."""
    motorcycle, *_ = skimage.data.stereo_motorcycle()
    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket(), motorcycle]
    textures = [skimage.data.brick(), skimage.data.grass(), skimage.data.gravel()]
    return [*photos, *(np.repeat(texture[..., None], 3, axis=2) for texture in textures)]
