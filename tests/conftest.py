"""Shared fixtures: the command line, and a small COCO data set on disk, with all that goes wrong in swapped sizes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright import cli
from maskwright.data.masks import mask_to_rle, mask_to_segmentation
from maskwright.data.records import Rle

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def maskwright(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs a command line in this process; returns its exit code and everything it printed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["maskwright", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        captured = capfd.readouterr()
        return int(exit_info.value.code or 0), captured.out + captured.err

    return run


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A COCO folder: 6 textured 48x64 images, 2 classes with an id gap, 12 and 2 instances."""
    rng = np.random.default_rng(5)
    folder = tmp_path / "photographs"
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    images, annotations = [], []
    for number in range(1, 7):
        name = f"bild {number} ü.png"
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for slot, (category, x) in enumerate(((3, 4), (3, 26), (7, 48))):
            if category == 7 and number > 2:
                continue
            mask = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
            mask[10 : 28 + number, x : x + 12] = True
            pixels[mask] = (pixels[mask] * 0.5 + rng.integers(0, 128, 3)).astype(np.uint8)
            annotations.append(_annotation(len(annotations) + 1, number, category, mask, as_rle=slot == 1))
        Image.fromarray(pixels).save(folder / "images" / "train" / name)
    categories = [{"id": 3, "name": "bolt"}, {"id": 7, "name": "Mutter ö"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / "instances_train.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _annotation(number: int, image_id: int, category_id: int, mask: np.ndarray, *, as_rle: bool) -> dict[str, object]:
    rle = mask_to_rle(mask)
    polygons = mask_to_segmentation(mask)
    assert not isinstance(polygons, Rle)
    rings = [ring.ravel().tolist() for ring in polygons.rings]
    ys, xs = np.nonzero(mask)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle.counts.decode()} if as_rle else rings,
        "bbox": [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1],
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets that MASKWRIGHT_DATA names."""
    folder = os.environ.get("MASKWRIGHT_DATA")
    if not folder:
        pytest.skip("MASKWRIGHT_DATA is not set; set it to a folder that holds coco128-seg")
    return Path(folder)
