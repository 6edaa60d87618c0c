"""A small data set of lit grey plates with scratches, and anomaly runs on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from anomaly_folders import HEIGHT, WIDTH, patch_mask, write_mask, write_picture

from maskwright.graphs.pipeline import RunOutcome, run_recipe

NORMALS, DEFECTS = 8, 6
DEFECT = "Kratzer ß"


def plate(seed: int, *, colour: bool = False) -> npt.NDArray[np.uint8]:
    """(48, 64, 3) of smooth grey, or reddish, with grain."""
    grain = np.random.default_rng(seed).normal(0, 2, (HEIGHT, WIDTH, 1))
    levels = np.linspace(110, 150, WIDTH)[None, :, None] + grain
    return (levels * ([1.3, 0.9, 0.7] if colour else [1, 1, 1])).clip(0, 255).astype(np.uint8)


def write_plates(folder: Path) -> Path:
    """One item of grey plates with six real scratches."""
    for i in range(NORMALS):
        write_picture(folder / "train" / "good" / f"{i:03d}.png", plate(i))
    for i in range(DEFECTS):
        scratched = plate(100 + i)
        scratched[patch_mask()] = 30
        write_picture(folder / "test" / DEFECT / f"{i:03d}.png", scratched)
        write_mask(folder / "ground_truth" / DEFECT / f"{i:03d}_mask.png")
    return folder


def run(folder: Path, *overrides: str, count: int = 2) -> RunOutcome:
    settings = [f"agents.anomaly_agent.count={count}", "budget.workers=1", *overrides]
    return run_recipe("anomaly", data=folder, out=folder.parent.parent / "lauf", overrides=settings)


def entries(outcome: RunOutcome) -> list[dict[str, object]]:
    return [orjson.loads(path.read_bytes()) for path in sorted((outcome.folder / "items").rglob("*.json"))]
