"""A detector that follows a script instead of learning, and runs to train it on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from arm_helpers import BOLT, CATEGORIES, NUT, Photo, Thing, write_dataset
from run_helpers import QUICK

from maskwright.configs.evaluation import EvaluationSettings
from maskwright.data.export import save_dataset
from maskwright.data.load import load_dataset
from maskwright.data.masks import segmentation_to_rle
from maskwright.data.records import Category, Dataset, Findings, ImageRecord, ImageRGB
from maskwright.evaluation.comparison import Comparison, open_comparison
from maskwright.evaluation.detectors import CocoResult, DetectorTraining, Trained
from maskwright.graphs.pipeline import run_recipe

SETTINGS = EvaluationSettings(steps=10, seeds=2, image_px=64, batch=2, at_once=1)
RING = 9
THREE_CLASSES = (*CATEGORIES, Category(RING, "Ring ß"))


def photographs() -> list[Photo]:
    """Six noisy training photographs with bolts and nuts, two of val and one of test; val has no nut."""
    found = []
    for split, count in (("train", 6), ("val", 2), ("test", 1)):
        for number in range(count):
            things = [Thing(BOLT, (4, 10, 12, 18 + number)), Thing(BOLT, (26, 10, 12, 18 + number))]
            things += [Thing(NUT, (48, 10, 12, 18 + number))] * (split == "train")
            found.append(Photo(f"bild {number} ü.png", things, split, noise=True))
    return found


def make_run(root: Path, photos: Sequence[Photo] = (), categories: tuple[Category, ...] = CATEGORIES) -> Path:
    """A run of instances at root/lauf, made from root/daten ü."""
    written = write_dataset(root / "bilder", photos or photographs(), categories)
    save_dataset(written, root / "daten ü", "coco", findings=Findings())
    outcome = run_recipe("instances", data=root / "daten ü", out=root / "lauf", overrides=QUICK)
    assert outcome.exit_code == 0
    return root


def copy_of(root: Path, folder: Path) -> Path:
    """A run and its data, to be spoilt."""
    for name in ("lauf", "daten ü"):
        shutil.copytree(root / name, folder / name)
    return folder


def open_made(root: Path, settings: EvaluationSettings = SETTINGS, **options: bool) -> Comparison:
    return open_comparison(root / "lauf", root / "daten ü", settings, Colours(), **options)


class Killed(BaseException):
    """What no handler catches."""


@dataclass
class Colours:
    """A stand-in embedder: colours of a grid, centred."""

    name: str = "colours"

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        rows = [cv2.resize(one, (8, 6), interpolation=cv2.INTER_AREA).astype(np.float32).ravel() for one in images]
        centred = np.array([row - row.mean() for row in rows], np.float32).reshape(len(images), 8 * 6 * 3)
        return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True)
class Training:
    """A training that the detector was asked for."""

    arm: str
    """real, copy_paste or ours."""
    num_images: int
    training: DetectorTraining
    folder: Path


@dataclass
class ScriptedDetector:
    """Finds as large a share of the true objects as is scripted for what it was trained on, and remembers trainings."""

    truth: Dataset
    finds: Callable[[Training], float]
    trained: list[Training] = field(default_factory=list)
    killed_at: int = -1
    """Number of the training that dies half-way, once."""
    score: float = 0.9
    name: str = "scripted"
    revision: str = "1"

    def train(
        self,
        data_yaml: Path,
        training: DetectorTraining,
        folder: Path,
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> Trained:
        num_images = sum(one.split == "train" for one in load_dataset(data_yaml).images)
        asked = Training(data_yaml.parent.parent.name, num_images, training, folder)
        if len(self.trained) == self.killed_at:
            self.killed_at = -1
            raise Killed
        if asked not in self.trained:
            self.trained.append(asked)
        assert training.steps is not None
        if on_step:
            on_step(training.steps)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "detector.pt").write_bytes(repr(asked.training).encode())
        curve = [
            {"step": 1.0, "train/seg_loss": 2.0, "train/sem_loss": 0.0},
            {"step": float(training.steps), "train/seg_loss": float("nan")},
        ]
        return Trained(weights=folder / "detector.pt", steps=training.steps, epochs=1, seconds=1.0, curve=curve)

    def detect(
        self, trained: Trained, images: Sequence[ImageRecord], training: DetectorTraining
    ) -> Iterator[CocoResult]:
        share = self.finds(next(one for one in self.trained if one.folder == trained.weights.parent))
        objects = [(s.image, one) for s in self.truth.samples() if s.image in images for one in s.annotations]
        for image, one in objects[: round(share * len(objects))]:
            rle = segmentation_to_rle(one.segmentation, image.height, image.width)
            yield {
                "image_id": image.image_id,
                "category_id": one.category_id,
                "bbox": list(one.bbox_xywh),
                "score": self.score,
                "segmentation": {"size": [image.height, image.width], "counts": rle.counts.decode()},
            }


def ours_is_better(asked: Training) -> float:
    """Of four objects: ours finds all, copy-paste three by the second seed, the others two."""
    return {"ours": 1.0, "copy_paste": 0.5 + 0.25 * asked.training.seed}.get(asked.arm, 0.5)


def script(comparison: Comparison, finds: Callable[[Training], float] = ours_is_better) -> ScriptedDetector:
    return ScriptedDetector(comparison.dataset, finds)
