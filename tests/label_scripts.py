"""What label runs are tested with: coloured blocks as classes, a painter and a classifier of such blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from anomaly_folders import write_picture

from maskwright.configs.label_agent import LabelClassifierSettings
from maskwright.data.images import read_image
from maskwright.data.label_records import LabelledImage
from maskwright.data.records import ImageRGB
from maskwright.errors import BrokenRunError, InputError
from maskwright.tools.scenes import PaintedScene, SceneRequest

HEIGHT, WIDTH = 48, 64
COLOURS = {"rot ü": (220, 20, 20), "blau": (20, 20, 220), "gelb": (220, 220, 20)}
PLACES = {"rot ü": 4, "blau": 24, "gelb": 44}


def draw(labels: Sequence[str], seed: int) -> ImageRGB:
    """Grey noise with a block of its colour for each label."""
    rng = np.random.default_rng(seed)
    rgb = np.repeat(rng.integers(90, 130, (HEIGHT, WIDTH, 1), dtype=np.uint8), 3, axis=2)
    for label in labels:
        rgb[10:30, PLACES[label] : PLACES[label] + 16] = COLOURS[label]
    return rgb


def write_class_folders(root: Path, counts: dict[str, int], num_empty: int = 20) -> Path:
    """A folder for each class, and `good` for images without one."""
    seed = 0
    for name, num in {**counts, "good": num_empty}.items():
        for number in range(num):
            seed += 1
            write_picture(root / name / f"{number:03d}.png", draw([] if name == "good" else [name], seed))
    return root


@dataclass
class BlockPainter:
    """Draws the labels' blocks; the first picture of every item whose number `misses` names lacks them."""

    known: frozenset[str] = frozenset(COLOURS)
    misses: frozenset[int] = frozenset()
    breaks_after: int | None = None
    name: str = "blocks"
    revision: str = "1"
    max_words: int | None = None
    requests: list[SceneRequest] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def knows(self, label: str) -> bool:
        return label in self.known

    def paint(self, requests: Sequence[SceneRequest]) -> list[PaintedScene]:
        return [self._paint(request) for request in requests]

    def _paint(self, request: SceneRequest) -> PaintedScene:
        if self.breaks_after is not None and len(self.requests) >= self.breaks_after:
            raise BrokenRunError("the disk is full")
        self.requests.append(request)
        is_first = request.item_id not in self._seen
        self._seen.add(request.item_id)
        is_missed = is_first and int(request.item_id[-6:]) in self.misses
        return PaintedScene(draw([] if is_missed else request.labels, request.seed % 2**32), "good/000.png", {})


@dataclass(frozen=True)
class Figures:
    """Of one class."""

    auc: float = 1.0
    auc_error: float = 0.01
    train: int = 6
    held_out: int = 2
    average_precision: float = 0.9
    calibration_error: float = 0.02
    shared: bool = False


@dataclass(frozen=True)
class Report:
    """Of all classes."""

    classes: dict[str, Figures]
    folds: int = 3
    backbone: str = "blocks"

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass
class BlockClassifier:
    """Sees the blocks; a blind one sees nothing."""

    classes: tuple[str, ...]
    is_blind: bool = False
    name: str = "blocks"
    revision: str = "seen"
    weak: frozenset[str] = frozenset()

    @property
    def report(self) -> Report:
        return Report({name: Figures(0.51 if name in self.weak else 1.0) for name in self.classes})

    def score(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        rows = [[0.05 if self.is_blind or not _shows(rgb, name) else 0.95 for name in self.classes] for rgb in images]
        return np.asarray(rows, dtype=np.float32)


def _shows(rgb: ImageRGB, name: str) -> bool:
    return bool((rgb == np.array(COLOURS[name], dtype=np.uint8)).all(axis=2).any())


@dataclass
class Trainer:
    """Hands out block classifiers, and notes who was taught what."""

    is_blind: bool = False
    weak: frozenset[str] = frozenset()
    """Classes that nobody can learn."""
    taught: list[tuple[frozenset[str], frozenset[str]]] = field(default_factory=list)
    """Keys of the training and of the held-out images."""

    def __call__(
        self,
        train: Sequence[LabelledImage],
        held_out: Sequence[LabelledImage],
        classes: Sequence[str],
        settings: LabelClassifierSettings,
        cache: Path,
    ) -> BlockClassifier:
        if self.weak & set(classes) and settings.min_auc > 0.52:
            raise InputError(f"cannot learn {sorted(self.weak)}")
        self.taught.append((frozenset(one.key for one in train), frozenset(one.key for one in held_out)))
        assert all(read_image(one.image).shape == (HEIGHT, WIDTH, 3) for one in train)
        return BlockClassifier(tuple(classes), self.is_blind, weak=self.weak)
