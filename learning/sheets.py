"""Contact sheets of transparent pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

BACKGROUND = (140, 158, 140)
GAP = 2


def draw_sheet(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size, row by row, on a grey-green ground."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP), rows * (height + GAP)), BACKGROUND)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet.paste(image, (column * (width + GAP), row * (height + GAP)), image)
    return sheet
