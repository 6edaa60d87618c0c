"""Where outlines lie: the step from the surroundings into a defect, pixel by pixel, of real defects and of a run's.

Run: make install && .venv/bin/python benchmarks/outlines.py RUN       # of `maskwright run anomaly`
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from rich.console import Console
from rich.table import Table

DEPTHS_PX = range(-2, 5)
"""Distances from the outline: 1 is the first labelled pixel, 0 the last one outside."""
RING_PX = (5, 10)
"""What counts as surroundings."""
Levels = npt.NDArray[np.float64]


def read_instances(annotations: Path, images: Path) -> Iterator[tuple[str, str, Levels, npt.NDArray[np.uint8]]]:
    """Class, file stem, (H, W) grey levels and (H, W) 0/1 mask of each instance."""
    coco = COCO(annotations)
    for entry in coco.anns.values():
        file_name = coco.imgs[entry["image_id"]]["file_name"]
        grey = cv2.imread(str(images / file_name), cv2.IMREAD_GRAYSCALE).astype(np.float64)
        yield coco.cats[entry["category_id"]]["name"], Path(file_name).stem, grey, coco.annToMask(entry)


def profile(grey_hw: Levels, mask_hw: npt.NDArray[np.uint8]) -> Levels:
    """(7,) mean grey at each depth less that of the surroundings; NaN where the defect is not so deep."""
    inside = cv2.distanceTransform(mask_hw, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - mask_hw, cv2.DIST_L2, 5)
    depth = np.rint(np.where(mask_hw > 0, inside, 1 - outside))
    ring = (outside > RING_PX[0]) & (outside < RING_PX[1])
    levels = [grey_hw[depth == px].mean() if (depth == px).any() else np.nan for px in DEPTHS_PX]
    return np.array(levels) - (grey_hw[ring].mean() if ring.any() else np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run / "dataset"
    made = {json.loads(line)["id"] for line in (folder / "provenance.jsonl").read_text("utf-8").splitlines()}
    rows: dict[tuple[str, str], list[tuple[int, Levels]]] = defaultdict(list)
    for name, stem, grey, mask in read_instances(
        folder / "coco/annotations/instances_train.json", folder / "coco/images/train"
    ):
        rows[name, "made" if stem in made else "real"].append((int(mask.sum()), profile(grey, mask)))
    table = Table("defect", "", "instances", "area, px", *(f"{px} px" for px in DEPTHS_PX))
    for (name, kind), measured in sorted(rows.items()):
        levels = np.nanmedian([step for _, step in measured], axis=0)
        area = np.median([area for area, _ in measured])
        table.add_row(name, kind, str(len(measured)), f"{area:.0f}", *(f"{level:.0f}" for level in levels))
    console = Console(width=120)
    console.print(table)
    console.print(
        "Medians, grey levels of 255 less the surroundings'; 1 px: the first labelled pixel, 0: the last outside."
    )


if __name__ == "__main__":
    main()
