"""Anomaly data sets on disk: non-square pictures of noise with a bright patch for a defect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskwright.data.records import ImageRGB, MaskHW

HEIGHT, WIDTH = 48, 64


def picture(seed: int) -> ImageRGB:
    """Of its own for each seed."""
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def patch_mask(top: int = 8, left: int = 30) -> MaskHW:
    mask_hw = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_hw[top : top + 10, left : left + 20] = True
    return mask_hw


def write_picture(path: Path, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, mask_hw: MaskHW | None = None) -> Path:
    mask_hw = patch_mask() if mask_hw is None else mask_hw
    return write_picture(path, mask_hw.astype(np.uint8) * np.uint8(255))


def write_item(
    root: Path,
    *,
    item: str = "Rohr ü",
    num_good: int = 4,
    num_test_good: int = 0,
    defects: dict[str, int] | None = None,
) -> Path:
    """An item as MVTec AD lays it out; every picture is another one. Returns the item's folder."""
    folder = root / item
    seed = 0
    for split, num in (("train", num_good), ("test", num_test_good)):
        for i in range(num):
            write_picture(folder / split / "good" / f"{i:03d}.png", picture(seed := seed + 1))
    for defect, num in ({"Riß": 2} if defects is None else defects).items():
        for i in range(num):
            write_picture(folder / "test" / defect / f"{i:03d}.png", picture(seed := seed + 1))
            write_mask(folder / "ground_truth" / defect / f"{i:03d}_mask.png")
    return folder
