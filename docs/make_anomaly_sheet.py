"""Draws a run's made-up defects, a row each, with real ones of the reference third in the row below.

python docs/make_anomaly_sheet.py RUN --data PATH docs/anomaly.jpg

RUN is a folder of `maskwright run anomaly`, PATH the data set that it was made of. A row has as many of the one as of
the other, evenly taken from all; test images are not shown, since whoever looks learns from them too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from maskwright.data.anomaly_records import AnomalyRecord, read_defect_mask
from maskwright.data.anomaly_split_files import load_split
from maskwright.data.images import read_image
from maskwright.data.masks import mask_to_bbox
from maskwright.data.mvtec import load_anomalies
from maskwright.data.records import ImageRGB

TILE_PX = 112
GAP_PX = 3
LABEL_PX = 18
MIN_CROP_PX = 64
SURROUNDINGS = 1.5
"""Side of a crop over the longer side of its defect."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of an anomaly run")
    parser.add_argument("out", type=Path, help="PNG or JPEG to write")
    parser.add_argument("--data", type=Path, required=True, help="the data set that the run was made of")
    parser.add_argument("--columns", type=int, default=11, help="most pictures of a defect")
    arguments = parser.parse_args()
    made = load_anomalies(arguments.run / "dataset" / "mvtec")
    [item] = made.items
    dataset = load_anomalies(arguments.data)
    if item in dataset.items:
        dataset = load_anomalies(arguments.data, item)
    split = load_split(arguments.run / "split.json", dataset)
    real = [one for side in ("reference", "validation") for one in split.of(side)]
    rows, shown = [], 0
    for defect in made.defects(item):
        pair = [[one for one in records if one.defect == defect] for records in (made.records, real)]
        count = min(arguments.columns, *map(len, pair))
        shown += count
        for label, records in zip(("made up", "real"), pair, strict=True):
            rows.append(_row(_evenly(records, count), f"{defect}: {label}", arguments.columns))
    Image.fromarray(np.vstack(rows)).save(arguments.out, quality=90)
    print(f"{shown} made-up defects beside {shown} real ones: {arguments.out}")


def _evenly(records: Sequence[AnomalyRecord], count: int) -> list[AnomalyRecord]:
    return [records[int(place)] for place in np.linspace(0, len(records) - 1, count)]


def _row(records: Sequence[AnomalyRecord], label: str, columns: int) -> ImageRGB:
    width = columns * (TILE_PX + GAP_PX)
    row = np.full((LABEL_PX + TILE_PX, width, 3), 255, np.uint8)
    cv2.putText(row, label, (2, LABEL_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    for place, record in enumerate(records):
        left = place * (TILE_PX + GAP_PX)
        row[LABEL_PX:, left : left + TILE_PX] = _tile(record)
    return row


def _tile(record: AnomalyRecord) -> ImageRGB:
    """A square about the defect, as large as it and some surface around it, its darkest level black and so on."""
    rgb, mask_hw = read_image(record.image), read_defect_mask(record)
    x, y, width, height = mask_to_bbox(mask_hw)
    side = int(min(max(SURROUNDINGS * max(width, height), MIN_CROP_PX), *rgb.shape[:2]))
    left = int(np.clip(x + width / 2 - side / 2, 0, rgb.shape[1] - side))
    top = int(np.clip(y + height / 2 - side / 2, 0, rgb.shape[0] - side))
    crop = rgb[top : top + side, left : left + side].astype(np.float32)
    low, high = np.percentile(crop, (0.5, 99.5))
    stretched = np.clip((crop - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(stretched, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)


if __name__ == "__main__":
    main()
