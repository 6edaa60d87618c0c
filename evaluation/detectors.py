"""What a detector is trained with and what it answers; whoever trains one fits `Detector`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NotRequired, Protocol, TypedDict

from ..data.records import ImageRecord
from ..errors import RecipeError

Task = Literal["segment", "detect"]
Precision = Literal["auto", "float32", "bfloat16"]
Optimizer = Literal["AdamW", "SGD", "MuSGD"]
HYPERPARAMETERS: Final = (
    *("lr0", "lrf", "weight_decay", "box", "cls", "dfl", "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale"),
    *("shear", "perspective", "flipud", "fliplr", "mosaic", "mixup", "cutmix", "copy_paste", "erasing"),
    "mask_ratio",
)
"""Of ultralytics, those that change neither what is trained on nor for how long."""


MAX_THREADS = 8
"""Of one training, as ultralytics limits it."""


def usable_threads(at_once: int) -> int:
    """Threads of each of so many trainings side by side: together they fill the CPU, up to `MAX_THREADS` each."""
    return max(1, min(MAX_THREADS, (os.cpu_count() or 1) // at_once))


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorTraining:
    """What decides a detector, beside its pictures. Exactly one of `epochs` and `steps` is given."""

    model: str = "yolo11n-seg.yaml"
    """A YAML of ultralytics: from nothing; a .pt file: from its weights."""
    task: Task = "segment"
    epochs: int | None = None
    steps: int | None = None
    """Optimizer steps, so that a larger data set is not seen longer."""
    image_px: int = 640
    """Longer side of a picture, a multiple of 32."""
    batch: int = 16
    seed: int = 0
    precision: Precision = "auto"
    """Of activations; losses and weights are always float32. auto: bfloat16 on GPUs that have it."""
    optimizer: Optimizer = "AdamW"
    """AdamW is what ultralytics takes for short trainings; MuSGD learns in fewer steps from nothing."""
    hyperparameters: Mapping[str, float] = field(default_factory=dict, hash=False)
    """By ultralytics' names, those of `HYPERPARAMETERS`; others are as it sets them."""
    device: str = "auto"
    workers: int = 2
    """Processes that read pictures."""
    threads: int = field(default_factory=lambda: usable_threads(1), compare=False)
    """That compute on a CPU; trainings that differ in nothing else are equal."""

    def __post_init__(self) -> None:
        given = [name for name in ("epochs", "steps") if getattr(self, name) is not None]
        if len(given) != 1:
            raise RecipeError(
                f"{' and '.join(given) or 'neither epochs nor steps'} given; expected exactly one of them."
            )
        for name in (*given, "image_px", "batch", "threads"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)!r}; expected at least 1. Correct the settings.")
        if unknown := sorted(self.hyperparameters.keys() - set(HYPERPARAMETERS)):
            raise RecipeError(
                f"unknown hyperparameter {unknown[0]!r}; known: {', '.join(HYPERPARAMETERS)}. Leave it out."
            )
        ratio = self.hyperparameters.get("mask_ratio", 1)
        if ratio not in (1, 2, 4):
            raise RecipeError(f"hyperparameter mask_ratio is {ratio!r}; expected 1, 2 or 4: pixels to a mask's cell.")
        if self.image_px % 32:
            raise RecipeError(f"image_px is {self.image_px!r}; expected a multiple of 32, such as 640.")


class CocoRle(TypedDict):
    size: list[int]
    """Height, width."""
    counts: str


class CocoResult(TypedDict):
    """One detection in COCO's result format."""

    image_id: int
    """Of the `ImageRecord`."""
    category_id: int
    """The data set's own."""
    bbox: list[float]
    """x, y, width, height in pixels of the image's frame."""
    score: float
    """In [0, 1]."""
    segmentation: NotRequired[CocoRle]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained detector."""

    weights: Path
    steps: int
    epochs: int
    seconds: float
    """Over all calls, where a killed training went on."""
    curve: Sequence[Mapping[str, float]]
    """One row a round, which is an epoch, or a hundredth of a training given in steps: `step`, `epoch`, `seconds`, and
    the trainer's own losses and rates, by its names."""


class Detector(Protocol):
    """Trains on a YOLO data set and finds objects."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """Version of the library."""
        ...

    def train(
        self,
        data_yaml: Path,
        training: DetectorTraining,
        folder: Path,
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> Trained:
        """Train; a killed call goes on at its last epoch, a finished one only answers.

        Args:
            folder: of this training alone; another training's is refused.
            on_step: is told the steps done so far.

        Raises:
            MissingDependencyError: the library is not installed.
            RunFolderError: `folder` is of another training.
            BrokenRunError: the disk is full, the device is gone, or the trainer died.
        """
        ...

    def detect(
        self, trained: Trained, images: Sequence[ImageRecord], training: DetectorTraining
    ) -> Iterator[CocoResult]:
        """Detections down to a score of 0.001, at most 300 an image, in the images' order."""
        ...
