"""A sheet of pictures: what the networks of an arm saw on test images."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from ..data.files import write_atomically
from ..data.label_records import UNKNOWN_LEVEL, ClassMapHW
from ..data.records import ImageRGB
from .thumbnails import class_colour
from .wsss_data import map_to_frame

COLUMNS = ("picture", "map", "mask from the map", "found", "truth")
CELL_PX = 160
GAP_PX = 4
OPACITY = 0.6
_UNKNOWN_RGB = (128, 128, 128)
SheetRow = tuple[ImageRGB, npt.NDArray[np.float32], ClassMapHW, ClassMapHW, ClassMapHW]
"""Picture (S, S, 3), map (S, S) in [0, 1], mask, found (S, S) levels, truth (H, W) levels."""


def save_sheet(rows: Sequence[SheetRow], path: Path) -> None:
    """Write a JPEG with a row for each image and the columns `COLUMNS`; nothing without rows."""
    if not rows:
        return
    stream = BytesIO()
    Image.fromarray(np.vstack([_row(*row) for row in rows])).save(stream, "JPEG", quality=88)
    write_atomically(path, stream.getvalue())


def colour_levels(picture: ImageRGB, levels_hw: ClassMapHW) -> ImageRGB:
    """(H, W, 3) uint8: the picture with each class in its colour; background stays."""
    coloured = picture.copy()
    for level in np.unique(levels_hw[levels_hw > 0]):
        colour = _UNKNOWN_RGB if level == UNKNOWN_LEVEL else class_colour(int(level))
        where = levels_hw == level
        coloured[where] = np.rint((1 - OPACITY) * picture[where] + OPACITY * np.array(colour)).astype(np.uint8)
    return coloured


def _row(
    picture: ImageRGB, cam_hw: npt.NDArray[np.float32], mask: ClassMapHW, found: ClassMapHW, truth: ClassMapHW
) -> ImageRGB:
    heat = cv2.applyColorMap(np.rint(cam_hw * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    levels = [mask, found, map_to_frame(truth, *picture.shape[:2])]
    cells = [picture, np.ascontiguousarray(heat), *(colour_levels(picture, one) for one in levels)]
    scaled = [cv2.resize(cell, (CELL_PX, CELL_PX), interpolation=cv2.INTER_AREA) for cell in cells]
    return np.hstack([np.pad(cell, ((0, GAP_PX), (0, GAP_PX), (0, 0))) for cell in scaled])
