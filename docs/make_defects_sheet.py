"""Draws defects of every family on an item's good images, with its real ones (if it has any) in the rows below.

python docs/make_defects_sheet.py PATH/TO/ITEM sheet.png

The item's folder has train/good and, for the real ones, test/DEFECT with ground_truth/DEFECT/NAME_mask.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from PIL import Image

from maskwright.configs.anomaly import ProceduralSettings
from maskwright.data.masks import mask_to_bbox
from maskwright.data.records import ImageRGB, MaskHW
from maskwright.tools.defects import DefectPlan, EditRequest, Family
from maskwright.tools.painting.procedural.painter import ProceduralPainter

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
TILE_PX = 160
LABEL_PX = 20
MIN_CROP_PX = 64
LOOKS: dict[Family, dict[str, Any]] = {
    "scratch": {"size_ratio": 0.05, "elongation": 50.0, "relief": "removed"},
    "crack": {"size_ratio": 0.05, "elongation": 40.0, "relief": "removed"},
    "hole": {"size_ratio": 0.05, "elongation": 1.4, "relief": "removed"},
    "chip": {"size_ratio": 0.13, "elongation": 2.5, "relief": "removed"},
    "stain": {"size_ratio": 0.15, "elongation": 1.5},
    "dent": {"size_ratio": 0.12, "elongation": 1.4, "relief": "removed"},
    "contamination": {"size_ratio": 0.06, "elongation": 1.3, "relief": "added"},
    "missing_part": {"size_ratio": 0.2, "elongation": 2.0, "relief": "removed"},
    "thread": {"size_ratio": 0.05, "elongation": 45.0, "relief": "added"},
    "discolouration": {"size_ratio": 0.25, "elongation": 1.5, "relief": "removed"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("item", type=Path, help="folder of an item, with train/good")
    parser.add_argument("out", type=Path, help="PNG or JPEG to write")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    good = _images(arguments.item / "train" / "good")
    rows = [_drawn_row(family, good, arguments.columns, generator) for family in get_args(Family)]
    rows += list(_real_rows(arguments.item, arguments.columns))
    Image.fromarray(np.vstack(rows)).save(arguments.out)


def _drawn_row(family: Family, good: list[Path], columns: int, generator: np.random.Generator) -> ImageRGB:
    painter, tiles = ProceduralPainter(ProceduralSettings()), []
    for path in generator.choice(np.array(good, dtype=object), columns):
        rgb = _read(path)
        look = LOOKS[family]
        plan = DefectPlan(
            defect=family,
            family=family,
            centre_xy=(float(generator.uniform(0.15, 0.85)), float(generator.uniform(0.15, 0.85))),
            orientation_deg=float(generator.uniform(0, 180)),
            irregularity=float(generator.uniform(0.1, 0.7)),
            severity=float(generator.uniform(0.35, 0.9)),
            **look,
        )
        whole = np.ones(rgb.shape[:2], np.bool_)
        seed = int(generator.integers(2**32))
        request = EditRequest(item_id=path.stem, seed=seed, plan=plan, image_rgb=rgb, foreground_hw=whole)
        [edited] = painter.paint([request])
        tiles.append(_tile(edited.rgb, edited.mask_hw))
    return _labelled(np.hstack(tiles), family)


def _real_rows(item: Path, columns: int) -> Iterator[ImageRGB]:
    for folder in sorted(item.glob("test/*")):
        if folder.name == "good" or not folder.is_dir():
            continue
        paths = _images(folder)
        tiles = []
        for path in paths[:: max(1, len(paths) // columns)][:columns]:
            mask_path = item / "ground_truth" / folder.name / f"{path.stem}_mask.png"
            tiles.append(_tile(_read(path), np.array(Image.open(mask_path).convert("L")) >= 128))
        blank = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
        yield _labelled(np.hstack([*tiles, *[blank] * (columns - len(tiles))]), f"real: {folder.name}")


def _tile(rgb: ImageRGB, mask_hw: MaskHW | None) -> ImageRGB:
    """A square about the defect, as large as it and some surface around it."""
    if mask_hw is None or not mask_hw.any():
        x, y, width, height = 0.0, 0.0, float(rgb.shape[1]), float(rgb.shape[0])
    else:
        x, y, width, height = mask_to_bbox(mask_hw)
    side = int(min(max(1.4 * max(width, height), MIN_CROP_PX), *rgb.shape[:2]))
    left = int(np.clip(x + width / 2 - side / 2, 0, rgb.shape[1] - side))
    top = int(np.clip(y + height / 2 - side / 2, 0, rgb.shape[0] - side))
    crop = rgb[top : top + side, left : left + side]
    return np.asarray(cv2.resize(crop, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _labelled(row: ImageRGB, label: str) -> ImageRGB:
    band = np.full((LABEL_PX, row.shape[1], 3), 255, np.uint8)
    cv2.putText(
        band, label.replace("_", " "), (4, LABEL_PX - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA
    )
    return np.vstack([band, row])


def _images(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SystemExit(f"no images in {str(folder)!r}; expected an item's folder with train/good")
    return paths


def _read(path: Path) -> ImageRGB:
    return np.array(Image.open(path).convert("RGB"))


if __name__ == "__main__":
    main()
