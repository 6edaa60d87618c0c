"""Pictures small enough to live inside a page: scaled, outlined, encoded as data URIs."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ..data.masks import Ring, mask_to_rings, rle_to_mask
from ..data.records import ImageRGB, ImageRGBA, Rle
from ..memory.entries import JsonSegmentation, SceneResult

INSTANCE_SIDE_PX = 160
INSTANCE_MAX_BYTES = 8_000
ATTEMPT_MAX_BYTES = 4_000
SCENE_SIDE_PX = 640
"""Scenes are shown about half as large; the rest is for dense screens and the enlarged view."""
SCENE_MAX_BYTES = 72_000

REAL_COLOUR = (232, 232, 232)
_SHADOW_OPACITY = 0.45
_QUALITIES = (80, 60, 40, 20)
_GOLDEN_ANGLE_TURNS = 0.381966
_SUBPIXEL_BITS = 4
_SMOOTHING_PX = 0.7

Colour = tuple[int, int, int]
"""sRGB, 0 to 255 each."""


def class_colour(category_id: int) -> Colour:
    """A bright colour; ids that follow each other get hues far apart."""
    red, green, blue = colorsys.hls_to_rgb(category_id * _GOLDEN_ANGLE_TURNS % 1.0, 0.62, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def colour_to_hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def scene_to_thumbnail(image_rgb: ImageRGB, scene: SceneResult) -> ImageRGB:
    """Scale a scene down and outline its instances: real ones thin and grey, synthetic ones in their class's colour.

    Returns:
        (h, w, 3) uint8, its longest side at most `SCENE_SIDE_PX`.
    """
    height, width = image_rgb.shape[:2]
    scale = min(1.0, SCENE_SIDE_PX / max(height, width))
    thumbnail = _resize(image_rgb, scale)
    drawn = [
        (
            [ring * scale for ring in json_to_rings(one["segmentation"])],
            one["origin"] == "synthetic",
            one["category_id"],
        )
        for one in scene["instances"]
    ]
    shadow = thumbnail.copy()
    for rings, is_new, _ in drawn:
        _draw_rings(shadow, rings, (0, 0, 0), 7 if is_new else 3)
    thumbnail[:] = cv2.addWeighted(shadow, _SHADOW_OPACITY, thumbnail, 1 - _SHADOW_OPACITY, 0)
    for rings, is_new, category_id in sorted(drawn, key=lambda one: one[1]):
        _draw_rings(thumbnail, rings, class_colour(category_id) if is_new else REAL_COLOUR, 4 if is_new else 1)
    return thumbnail


def instance_to_thumbnail(rgba: ImageRGBA, colour: Colour) -> ImageRGBA:
    """Scale a cut-out and outline its mask; small ones are enlarged, so that every outline is as thin.

    Returns:
        (h, w, 4) uint8, its longest side at most `INSTANCE_SIDE_PX`.
    """
    margin = 3
    scaled = _resize(rgba, (INSTANCE_SIDE_PX - 2 * margin) / max(rgba.shape[:2]))
    # A line's soft edge blends with what lies hidden under alpha 0, so that must be of the line's colour.
    scaled[scaled[..., 3] == 0, :3] = colour
    thumbnail = np.full((scaled.shape[0] + 2 * margin, scaled.shape[1] + 2 * margin, 4), (*colour, 0), np.uint8)
    thumbnail[margin:-margin, margin:-margin] = scaled
    mask = thumbnail[..., 3] >= 128
    rings = [ring for outer, holes in mask_to_rings(mask) for ring in (outer, *holes)]
    smooth = [cv2.approxPolyDP(ring[:, None], _SMOOTHING_PX, closed=True)[:, 0] for ring in rings]
    _draw_rings(thumbnail, smooth, (*colour, 255), 2)
    return thumbnail


def edges_to_thumbnail(edges_rgb: ImageRGB) -> ImageRGB:
    """Scale a map of edges so that its longest side is `INSTANCE_SIDE_PX`."""
    return _resize(edges_rgb, INSTANCE_SIDE_PX / max(edges_rgb.shape[:2]))


def json_to_rings(segmentation: JsonSegmentation) -> list[Ring]:
    """All outlines of a mask, holes too, in pixel-edge coordinates of its image."""
    if isinstance(segmentation, list):
        return [np.array(ring, dtype=np.float32).reshape(-1, 2) for ring in segmentation]
    height, width = segmentation["size"]  # type: ignore[misc]  # COCO's pair
    mask = rle_to_mask(Rle(str(segmentation["counts"]).encode("ascii"), height, width))  # type: ignore[has-type]
    return [ring for outer, holes in mask_to_rings(mask) for ring in (outer, *holes)]


def image_to_data_uri(image: npt.NDArray[np.uint8], max_bytes: int) -> str:
    """Encode (h, w, 3 or 4) uint8 as WebP, at lower quality and then smaller until it holds `max_bytes`."""
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "WEBP", quality=quality, alpha_quality=quality, method=4)
            if buffer.tell() <= max_bytes or max(image.shape[:2]) <= 16:
                return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        image = _resize(image, 0.7)


def picture_to_data_uri(image: npt.NDArray[np.uint8], side_px: int, max_bytes: int) -> str:
    """The same of a picture whose longer side is brought down to `side_px`; a smaller one stays as it is."""
    scale = min(1.0, side_px / max(image.shape[:2]))
    return image_to_data_uri(_resize(image, scale) if scale < 1 else image, max_bytes)


def _resize(image: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    """A copy; Pillow weighs colours by alpha, so nothing hidden bleeds into an edge."""
    size_wh = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    filtered = Image.fromarray(image).resize(size_wh, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.array(filtered)


def _draw_rings(image: npt.NDArray[np.uint8], rings: Sequence[Ring], colour: tuple[int, ...], width_px: int) -> None:
    """Draw closed lines in place. OpenCV names pixel centres, half a pixel from our edges."""
    points = [np.rint((ring - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32) for ring in rings]
    if points:
        cv2.polylines(image, points, True, colour, width_px, cv2.LINE_AA, _SUBPIXEL_BITS)
