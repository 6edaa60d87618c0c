"""The pictures of the review page: the cut-out, the whole picture with the mask's outline, and the source."""

from __future__ import annotations

import re
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ..data.masks import MASK_ALPHA, mask_to_rings
from ..data.records import ImageRGB, ImageRGBA
from ..errors import ImageDecodeError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt, ItemResult

View = Literal["cutout", "outline", "source"]
VIEWS: tuple[View, ...] = ("cutout", "outline", "source")
MAX_SIDE_PX = 1600
OUTLINED_SIDE_PX = 960
"""Smaller pictures are enlarged before an outline is drawn, or it would hide them."""
OUTLINE_RGB = (255, 64, 160)
GREY = 127
_KEY = re.compile(r"[0-9a-f]{64}\.[a-z]{3,4}")


def views_of(result: ItemResult) -> list[View]:
    """What there is to see of an item's images."""
    return [view for view in VIEWS if view != "source" or result["source"] is not None]


def draw_view(view: View, result: ItemResult, attempt: Attempt, artifacts: ArtifactStore) -> bytes:
    """One view of an image as PNG, no side longer than `MAX_SIDE_PX`.

    Raises:
        ImageDecodeError: its artifact is missing or damaged, or its key would lead out of the run folder.
    """
    if view == "source" and result["source"] is not None:
        return _to_png(_read(result["source"]["artifact"], artifacts))
    cut_out = _read(attempt["artifact"], artifacts)
    if view == "cutout":
        return _to_png(cut_out)
    return _to_png(outline(_read(attempt.get("painted", attempt["artifact"]), artifacts), cut_out))


def outline(picture: ImageRGB | ImageRGBA, cut_out: ImageRGB | ImageRGBA) -> ImageRGB:
    """Draw the outline of a cut-out's mask over the picture that it was cut from.

    Args:
        picture: (H, W, 3 or 4) uint8; what is transparent is shown on grey.
        cut_out: (h, w, 4) uint8, of the picture's size or cropped from it. One that is not found in the picture is
            drawn over itself.

    Returns:
        (H', W', 3) uint8, its longest side at least `OUTLINED_SIDE_PX`.
    """
    if cut_out.shape[2] != 4:
        return _on_grey(cut_out)
    corner_xy = _locate(picture, cut_out)
    if corner_xy is None:
        picture, corner_xy = cut_out, (0, 0)
    scale = max(1.0, OUTLINED_SIDE_PX / max(picture.shape[:2]))
    drawn = _resize(_on_grey(picture), scale)
    rings = [ring for outer, holes in mask_to_rings(cut_out[..., 3] >= MASK_ALPHA) for ring in (outer, *holes)]
    # In sixteenths of a pixel; OpenCV names pixel centres, half a pixel from our edges.
    points = [np.rint(((ring + corner_xy) * scale - 0.5) * 16).astype(np.int32) for ring in rings]
    width_px = max(2, round(max(drawn.shape[:2]) / 400))
    for colour, width in (((0, 0, 0), 2 * width_px + 1), (OUTLINE_RGB, width_px)):
        cv2.polylines(drawn, points, True, colour, width, cv2.LINE_AA, 4)
    return drawn


def _locate(picture: ImageRGB | ImageRGBA, cut_out: ImageRGBA) -> tuple[int, int] | None:
    """Upper left corner of a cut-out in the picture that it is a crop of; None where it is none."""
    if picture.shape[:2] == cut_out.shape[:2]:
        return 0, 0
    visible = cut_out[..., 3] >= MASK_ALPHA
    height, width = cut_out.shape[:2]
    if height > picture.shape[0] or width > picture.shape[1] or not visible.any():
        return None
    mask = np.repeat(visible[..., None].astype(np.uint8), 3, axis=2)
    distance = cv2.matchTemplate(
        np.ascontiguousarray(picture[..., :3]), np.ascontiguousarray(cut_out[..., :3]), cv2.TM_SQDIFF, mask=mask
    )
    x, y = cv2.minMaxLoc(distance)[2]
    found = picture[y : y + height, x : x + width, :3]
    return (x, y) if np.array_equal(found[visible], cut_out[..., :3][visible]) else None


def _read(key: str, artifacts: ArtifactStore) -> npt.NDArray[np.uint8]:
    if not _KEY.fullmatch(key):
        raise ImageDecodeError(f"{key!r} is no artifact key; expected a sha256 and a suffix. Run the item again")
    return artifacts.get_image(key)


def _on_grey(picture: ImageRGB | ImageRGBA) -> ImageRGB:
    """A copy without alpha."""
    if picture.shape[2] == 3:
        return picture.copy()
    alpha = picture[..., 3:].astype(np.float32) / 255
    return np.rint(picture[..., :3] * alpha + GREY * (1 - alpha)).astype(np.uint8)


def _resize(picture: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.uint8]:
    if scale == 1:
        return picture
    size_wh = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    resized: npt.NDArray[np.uint8] = cv2.resize(
        picture, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    return resized


def _to_png(picture: npt.NDArray[np.uint8]) -> bytes:
    small = _resize(picture, min(1.0, MAX_SIDE_PX / max(picture.shape[:2])))
    order = cv2.COLOR_RGBA2BGRA if small.shape[2] == 4 else cv2.COLOR_RGB2BGR
    encoded = cv2.imencode(".png", cv2.cvtColor(small, order), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return bytes(encoded.tobytes())
