"""Pictures as vision models are shown them."""

from __future__ import annotations

import cv2
import numpy as np

from ..data.records import ImageRGBA

CAPTION_SIDE_PX = 512
"""What a vision model looks at anyway."""


def picture_to_png(rgba: ImageRGBA) -> bytes:
    """PNG of a picture on white, no side longer than `CAPTION_SIDE_PX`.

    Args:
        rgba: (h, w, 4) uint8, straight alpha.
    """
    alpha = rgba[..., 3:].astype(np.float32) / 255
    flat = (rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    scale = min(1.0, CAPTION_SIDE_PX / max(flat.shape[:2]))
    if scale < 1:
        size_wh = tuple(max(1, round(side * scale)) for side in (flat.shape[1], flat.shape[0]))
        flat = cv2.resize(flat, size_wh, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".png", cv2.cvtColor(flat, cv2.COLOR_RGB2BGR))[1].tobytes())
