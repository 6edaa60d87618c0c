"""YOLO by ultralytics as a `Detector`: each training and each detection in a process of its own."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from ..data.records import ImageRecord
from ..data.yolo import label_path, listed_images, load_yolo
from ..errors import BrokenRunError, DatasetError, MissingDependencyError
from .detectors import CocoResult, DetectorTraining, Trained
from .yolo_folder import TrainingFolder
from .yolo_models import identify_model, resolve_model
from .yolo_process import WORKER, run_worker
from .yolo_protocol import Detection, DetectJob, TrainedEvent, TrainJob


class YoloDetector:
    """Fits `Detector`. ultralytics is AGPL-3.0 and an extra; nothing of it is imported into the caller's process.

    A `.pt` file given as the model is unpickled by ultralytics, which can run code: give only files that you trust.
    """

    def __init__(self, *, checkpoint_s: float = 90.0, worker: Sequence[str] = WORKER) -> None:
        """
        Args:
            checkpoint_s: least seconds between two checkpoints of a training, which is what a kill may cost.
            worker: command of the process that does the work, as `yolo_protocol` says.
        """
        self._checkpoint_s, self._worker = checkpoint_s, tuple(worker)

    @property
    def name(self) -> str:
        return "ultralytics"

    @property
    def revision(self) -> str:
        _require_ultralytics()
        return importlib.metadata.version("ultralytics")

    def train(
        self,
        data_yaml: Path,
        training: DetectorTraining,
        folder: Path,
        *,
        on_step: Callable[[int], None] | None = None,
    ) -> Trained:
        """Train on the split train; a killed call goes on at its last checkpoint, a finished one only answers.

        A length in steps is divided into up to 100 rounds, by which learning rate, warm-up and mosaic go, so that
        data sets of different sizes are trained alike; one in epochs has a round an epoch. The curve has one row a
        round. Going on differs slightly from never having stopped: ultralytics keeps averaged half-precision weights.

        Args:
            data_yaml: a data set with polygons, as `save_yolo` writes it; val is not read.
            folder: of this training alone.
            on_step: gets the number of steps done.

        Raises:
            MissingDependencyError: ultralytics is not installed.
            DatasetError: the data set cannot be read, or has no training images.
            RecipeError: the model is unknown, or of another task.
            RunFolderError: `folder` is of another training, or another process trains in it.
            BrokenRunError: the disk is full, the device is gone, or the process died.
        """
        _require_ultralytics()
        model, data = resolve_model(training.model), _read_data(data_yaml)
        own = TrainingFolder(folder.resolve())
        with own.claimed(_fingerprint(training, model, data), asdict(training), data.category_ids):
            if (finished := own.result()) is not None:
                return finished
            job = _train_job(training, model, data, own, self._checkpoint_s)
            seconds_before, began = sum(row["seconds"] for row in own.curve()), time.monotonic()
            result = self._train_by_worker(job, own, on_step)
            own.finish(result, seconds_before + time.monotonic() - began)
            trained = own.result()
        assert trained is not None
        return trained

    def _train_by_worker(
        self, job: TrainJob, own: TrainingFolder, on_step: Callable[[int], None] | None
    ) -> TrainedEvent:
        log = own.path / "train.log"
        result: TrainedEvent | None = None
        with closing(run_worker(job, own.path, log, self._worker)) as events:
            for event in events:
                if event["event"] == "step" and on_step is not None:
                    on_step(event["step"])
                elif event["event"] == "trained":
                    result = event
        if result is None:
            raise BrokenRunError(f"the training ended without a result; see {str(log)!r}, and run again to go on.")
        return result

    def detect(
        self, trained: Trained, images: Sequence[ImageRecord], training: DetectorTraining
    ) -> Iterator[CocoResult]:
        """Detections down to a score of 0.001, at most 300 an image, in the images' order, as they are found.

        Boxes and masks are in the frame that the image's annotations refer to; masks have its size.

        Raises:
            MissingDependencyError: ultralytics is not installed.
            RunFolderError: beside the weights nothing says which classes they know.
            ImageDecodeError: an image cannot be read.
            BrokenRunError: the device is gone, or the process died.
        """
        _require_ultralytics()
        weights = trained.weights.resolve()
        own = TrainingFolder(weights.parent)
        job: DetectJob = {
            "kind": "detect",
            "weights": str(weights),
            "image_px": training.image_px,
            "batch": training.batch,
            "device": training.device,
            "threads": training.threads,
            "images": [
                {
                    "path": str(image.path.absolute()),
                    "width": image.width,
                    "height": image.height,
                    "exif_transpose": image.exif_transpose,
                }
                for image in images
            ],
        }
        return self._detect_by_worker(job, images, own.path, own.category_ids())

    def _detect_by_worker(
        self, job: DetectJob, images: Sequence[ImageRecord], folder: Path, category_ids: Sequence[int]
    ) -> Iterator[CocoResult]:
        waiting, log = iter(images), folder / "detect.log"
        with closing(run_worker(job, folder, log, self._worker)) as events:
            for event in events:
                if event["event"] == "image":
                    image = next(waiting)
                    for found in event["detections"]:
                        yield _to_coco_result(found, image, category_ids)
        if (missed := next(waiting, None)) is not None:
            raise BrokenRunError(f"detection ended before {str(missed.path)!r}; see {str(log)!r} and run again.")


def _to_coco_result(found: Detection, image: ImageRecord, category_ids: Sequence[int]) -> CocoResult:
    result: CocoResult = {
        "image_id": image.image_id,
        "category_id": category_ids[found["class_index"]],
        "bbox": found["bbox"],
        "score": found["score"],
    }
    if "segmentation" in found:
        result["segmentation"] = found["segmentation"]
    return result


def _require_ultralytics() -> None:
    if importlib.util.find_spec("ultralytics") is None:
        raise MissingDependencyError(
            "training and running YOLO needs ultralytics (AGPL-3.0), which is not installed; "
            "run `pip install 'maskwright[yolo]'`"
        )


@dataclass(frozen=True, slots=True)
class _TrainingData:
    """What of a data set decides a training."""

    images: Sequence[Path]
    """Some perhaps more than once."""
    names: Sequence[str]
    category_ids: Sequence[int]
    digest: str
    """Of class names, labels, and the names and sizes of the images."""


def _read_data(data_yaml: Path) -> _TrainingData:
    dataset = load_yolo(data_yaml.absolute())
    usable = {image.path for image in dataset.images if image.split == "train"}
    images = [path for path in listed_images(data_yaml.absolute(), "train") if path in usable]
    if not images:
        raise DatasetError(f"{str(data_yaml)!r} has no training images; add `train: images/train`")
    names = [category.name for category in dataset.categories]
    digest = hashlib.sha256(json.dumps(names).encode())
    for path in images:
        label = label_path(dataset.root, path)
        rows = label.read_bytes() if label.is_file() else b""
        name = path.relative_to(dataset.root).as_posix()
        digest.update(json.dumps([name, path.stat().st_size, hashlib.sha256(rows).hexdigest()]).encode())
    category_ids = [category.category_id for category in dataset.categories]
    return _TrainingData(images, names, category_ids, digest.hexdigest())


def _fingerprint(training: DetectorTraining, model: str, data: _TrainingData) -> str:
    """Of all that decides the result: not of where the model lies, nor of device, workers and threads."""
    deciding: dict[str, object] = {**asdict(training), "data": data.digest}
    for name in ("device", "workers", "threads"):
        del deciding[name]
    deciding["model"] = identify_model(model)
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _train_job(
    training: DetectorTraining, model: str, data: _TrainingData, own: TrainingFolder, checkpoint_s: float
) -> TrainJob:
    return {
        "kind": "train",
        "folder": str(own.path),
        "model": model,
        "task": training.task,
        "epochs": training.epochs,
        "steps": training.steps,
        "image_px": training.image_px,
        "batch": training.batch,
        "seed": training.seed,
        "precision": training.precision,
        "optimizer": training.optimizer,
        "hyperparameters": dict(training.hyperparameters),
        "device": training.device,
        "workers": training.workers,
        "threads": training.threads,
        "checkpoint_s": checkpoint_s,
        "images": str(own.write_images(data.images)),
        "names": list(data.names),
    }
