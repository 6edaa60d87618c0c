"""VOC's index maps: PNG files whose pixels are numbers of classes or instances, shown in VOC's colours."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DatasetError, ImageDecodeError
from .images import read_header

IndexMap = npt.NDArray[np.uint8]
"""(H, W) uint8: 0 is background, 255 is void, the pixels in between belong to a class or an instance."""
Colour = tuple[int, int, int]

VOID = 255
MAX_INDEX = VOID - 1
VOID_COLOUR: Colour = (224, 224, 192)


def index_to_colour(index: int) -> Colour:
    """VOC's colour of an index: its bits, dealt to red, green and blue in turn, lowest first, from their highest down.

    Follows VOClabelcolormap.m of the VOC devkit.
    """
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> (3 * bit) & 1) << (7 - bit)
        green |= (index >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (index >> (3 * bit + 2) & 1) << (7 - bit)
    return red, green, blue


INSTANCE_COLOURS: Mapping[Colour, int] = {index_to_colour(i): i for i in range(VOID)} | {VOID_COLOUR: VOID}
_PALETTE = [value for colour in INSTANCE_COLOURS for value in colour]


def index_map_to_png(index_map: IndexMap) -> bytes:
    """A palette PNG in VOC's colours."""
    image, buffer = Image.fromarray(index_map), BytesIO()
    image.putpalette(_PALETTE)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_index_map(index_map: IndexMap, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(index_map_to_png(index_map))


def read_index_map(path: Path, size_wh: tuple[int, int], colours: Mapping[Colour, int]) -> IndexMap:
    """Read a palette or grey PNG as it is, and an RGB one, as CVAT writes it, by its colours.

    Args:
        size_wh: the image's, which the map must have.
        colours: index of each colour.

    Raises:
        DatasetError: not readable, of another size or mode, or of a colour that has no index.
    """
    try:
        header = read_header(path)
        if (header.width, header.height) != size_wh:
            raise DatasetError(
                f"{path}: {header.width}x{header.height} pixels; expected {size_wh[0]}x{size_wh[1]} as its image has. "
                "Draw the map at the size of the image."
            )
        with Image.open(path) as image:
            mode, pixels = image.mode, np.array(image)
    except (ImageDecodeError, OSError, SyntaxError, ValueError) as exc:
        raise DatasetError(f"{path}: not readable as an index map: {exc}. Export the map again.") from exc
    if mode in ("P", "L"):
        return pixels.astype(np.uint8, copy=False)
    if mode == "RGB":
        return _colours_to_indices(pixels, colours, path)
    raise DatasetError(f"{path}: a PNG of mode {mode!r}; expected a palette, 8-bit grey or RGB one. Convert the map.")


def _colours_to_indices(pixels_rgb: npt.NDArray[np.uint8], colours: Mapping[Colour, int], path: Path) -> IndexMap:
    packed = pixels_rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    used, which = np.unique(packed, return_inverse=True)
    indices = np.empty(len(used), dtype=np.uint8)
    for at, value in enumerate(used.tolist()):
        colour = (value >> 16, value >> 8 & 255, value & 255)
        if colour not in colours:
            raise DatasetError(
                f"{path}: colour {colour} stands for no index; expected only colours of labelmap.txt, without "
                "smoothing or compression. Export the map again."
            )
        indices[at] = colours[colour]
    return indices[which].reshape(packed.shape)
