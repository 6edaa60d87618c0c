"""What the YOLO trainer's two processes say to each other: a job on stdin, one JSON event a line on stdout."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from .detectors import CocoRle, Optimizer, Precision, Task

WEIGHTS, CHECKPOINT, CURVE = "detector.pt", "weights/last.pt", "curve.jsonl"
"""Names below a training's folder: the result; where a killed training goes on; one JSON object a round."""


class TrainJob(TypedDict):
    """A training. The fields of `DetectorTraining` mean the same here."""

    kind: Literal["train"]
    folder: str
    model: str
    """An absolute path, or the name of a YAML that ultralytics ships."""
    task: Task
    epochs: int | None
    steps: int | None
    image_px: int
    batch: int
    seed: int
    precision: Precision
    optimizer: Optimizer
    hyperparameters: dict[str, float]
    device: str
    workers: int
    threads: int
    checkpoint_s: float
    """Least seconds between two checkpoints; the last round always writes one."""
    images: str
    """A text file with the absolute path of one training image a line; labels/ lies beside its images/."""
    names: list[str]
    """Class names by class index."""


class ImageToRead(TypedDict):
    """Of an `ImageRecord`, what reading it in its frame needs."""

    path: str
    width: int
    height: int
    exif_transpose: bool


class DetectJob(TypedDict):
    kind: Literal["detect"]
    weights: str
    image_px: int
    batch: int
    device: str
    threads: int
    images: list[ImageToRead]


class Detection(TypedDict):
    class_index: int
    score: float
    bbox: list[float]
    """x, y, width, height in pixels of the image's frame."""
    segmentation: NotRequired[CocoRle]


class StepEvent(TypedDict):
    event: Literal["step"]
    step: int
    """Optimizer steps done; the first of a training that goes on is later than 1."""


class ImageEvent(TypedDict):
    """One image's detections; the images come in the job's order."""

    event: Literal["image"]
    detections: list[Detection]


class TrainedEvent(TypedDict):
    event: Literal["trained"]
    steps: int
    """As the average of the weights counted them."""
    epochs: int
    """Passes over the training images, the last one perhaps unfinished."""


class DetectedEvent(TypedDict):
    event: Literal["detected"]


class ErrorEvent(TypedDict):
    event: Literal["error"]
    kind: str
    """Name of a class of `errors.py`."""
    message: str


Job = TrainJob | DetectJob
Event = StepEvent | ImageEvent | TrainedEvent | DetectedEvent | ErrorEvent
