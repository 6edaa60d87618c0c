"""What of an image is compared, and what it is laid on."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ...data.records import ImageRGB, ImageRGBA
from ...errors import SampleError
from ...models.lit import crop_to_alpha


def crop_object(image: ImageRGB | ImageRGBA) -> ImageRGB | ImageRGBA:
    """What of an image is compared: its visible pixels and a transparent margin; the whole if none is transparent.

    Args:
        image: (H, W, 3) or (H, W, 4) uint8, sRGB, straight alpha.

    Returns:
        (h, w, 4) where some alpha is below 255, else (H, W, 3); uint8.

    Raises:
        SampleError: the array is no such image.
        EmptyMaskError: no pixel is visible.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in image.shape:
        raise SampleError(
            f"image of shape {image.shape} and {image.dtype} cannot be compared; expected (H, W, 3) or (H, W, 4) uint8"
        )
    is_opaque = image.shape[2] == 3 or bool((image[..., 3] == 255).all())
    return np.ascontiguousarray(image[..., :3]) if is_opaque else crop_to_alpha(image)


def frame_object(image: ImageRGB | ImageRGBA) -> Image.Image:
    """Lay what `crop_object` leaves on a white square (X-Paste scores cut-outs on white). Raises as it does."""
    picture = Image.fromarray(crop_object(image))
    side = max(picture.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    mask = picture.getchannel("A") if picture.mode == "RGBA" else None
    square.paste(picture.convert("RGB"), ((side - picture.width) // 2, (side - picture.height) // 2), mask)
    return square
