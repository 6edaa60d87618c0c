"""How a picture is shown to a vision model: on plain grey, small enough for it, encoded."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from ...data.records import ImageRGB, ImageRGBA
from ...errors import SampleError

GREY = 127
"""What a cut-out is laid on: neither a dark nor a light object is lost on it."""
JPEG_QUALITIES = (90, 75, 60)
SHRINK_RATIO = 0.75
"""Of the sides, where no quality is enough."""


def show_picture(picture: ImageRGB | ImageRGBA, max_side_px: int, max_bytes: int) -> tuple[bytes, str]:
    """Encode a picture for a vision model: PNG where that fits, else JPEG of falling quality, then smaller.

    Args:
        picture: (h, w, 3) or (h, w, 4) uint8, sRGB, straight alpha; what is transparent is shown as mid grey.
        max_side_px: of the longer side; a smaller picture keeps its size.
        max_bytes: of the encoded picture.

    Returns:
        The encoded bytes and their MIME type.

    Raises:
        SampleError: the array is no such picture, or nothing of it fits in `max_bytes`.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (3, 4) or 0 in picture.shape:
        raise SampleError(
            f"picture of shape {picture.shape} and {picture.dtype} cannot be shown; "
            "expected (h, w, 3) or (h, w, 4) uint8"
        )
    bgr = cv2.cvtColor(_shrink(_lay_on_grey(picture), max_side_px), cv2.COLOR_RGB2BGR)
    for encoded, mime in _encodings(bgr):
        if len(encoded) <= max_bytes:
            return encoded, mime
    raise SampleError(f"no encoding of a picture fits in {max_bytes} bytes. Raise `max_image_bytes`.")


def _lay_on_grey(picture: ImageRGB | ImageRGBA) -> ImageRGB:
    if picture.shape[2] == 3:
        return picture
    alpha = picture[..., 3:].astype(np.float32) / 255
    return (picture[..., :3] * alpha + GREY * (1 - alpha)).round().astype(np.uint8)


def _shrink(image: ImageRGB, max_side_px: int) -> ImageRGB:
    height, width = image.shape[:2]
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return image
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk: ImageRGB = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return shrunk


def _encodings(bgr: ImageRGB) -> Iterator[tuple[bytes, str]]:
    """From the best to the smallest."""
    yield cv2.imencode(".png", bgr)[1].tobytes(), "image/png"
    while True:
        for quality in JPEG_QUALITIES:
            yield cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), "image/jpeg"
        side_px = int(max(bgr.shape[:2]) * SHRINK_RATIO)
        if side_px == 0:
            return
        bgr = _shrink(bgr, side_px)
