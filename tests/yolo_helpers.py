"""A YOLO data set of noise, and a worker process that follows a script."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from maskwright.data.records import ImageRecord
from maskwright.data.yolo import load_yolo
from maskwright.evaluation.detectors import DetectorTraining
from maskwright.evaluation.yolo_detector import YoloDetector

HEIGHT, WIDTH = 48, 64
TRAINING = DetectorTraining(steps=6, image_px=64, batch=2, device="cpu")
CATEGORY_IDS = [7, 3]

REPLIES = """
import json, os, signal, sys, time
job = json.loads(sys.stdin.readline())
with open({seen!r}, "a") as file:
    print(json.dumps({{"job": job, "pid": os.getpid()}}), file=file)
for reply in {replies!r}:
    if isinstance(reply, dict):
        print(json.dumps(reply), flush=True)
    else:
        exec(reply)
"""
WRITE_WEIGHTS = "open(os.path.join(job['folder'], 'detector.pt'), 'wb').close()"
TRAINED = {"event": "trained", "steps": 6, "epochs": 4}


class ScriptedWorker:
    """A process that answers a job with what it is told: events, or statements to execute."""

    def __init__(self, folder: Path) -> None:
        self._script, self._seen = folder / "worker.py", folder / "seen.jsonl"

    def detector(self, *replies: Mapping[str, object] | str) -> YoloDetector:
        text = REPLIES.format(seen=str(self._seen), replies=list(replies))
        self._script.write_text(text, encoding="utf-8")
        return YoloDetector(worker=[sys.executable, str(self._script)])

    @property
    def starts(self) -> list[dict[str, object]]:
        lines = self._seen.read_text().splitlines() if self._seen.exists() else []
        return [json.loads(line) for line in lines]


def write_data(folder: Path, num_images: int = 5) -> Path:
    """Two squares of two classes a picture, and a validation picture of each EXIF turn that matters."""
    rng = np.random.default_rng(0)
    for number in range(num_images + 2):
        split = "train" if number < num_images else "val"
        pixels, rows = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8), []
        for index, x in enumerate((4, 36)):
            y = int(rng.integers(4, 20))
            pixels[y : y + 20, x : x + 20, 2 * index] = 220
            corners = ((x, y), (x + 20, y), (x + 20, y + 20), (x, y + 20))
            rows.append(" ".join([str(index), *(f"{a / WIDTH:.5f} {b / HEIGHT:.5f}" for a, b in corners)]))
        image, label = (folder / room / split / f"bild {number} ü" for room in ("images", "labels"))
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number == num_images:
            exif[274] = 6
        Image.fromarray(pixels).save(image.with_suffix(".jpg"), exif=exif, quality=95)
        label.with_suffix(".txt").write_text("\n".join(rows) + "\n")
    content = {"train": "images/train", "val": "images/val", "names": ["bolt", "Mutter ö"]}
    data_yaml = folder / "data.yaml"
    data_yaml.write_text(yaml.safe_dump({**content, "maskwright_category_ids": CATEGORY_IDS}, allow_unicode=True))
    return data_yaml


def validation_images(data_yaml: Path) -> list[ImageRecord]:
    return [image for image in load_yolo(data_yaml).images if image.split == "val"]
