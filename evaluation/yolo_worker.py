"""The process in which ultralytics runs: `python -m maskwright.evaluation.yolo_worker`, a job on stdin.

It ends when its stdin does, so that it never outlives the process that started it.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.images import read_image
from ..data.masks import mask_to_rle
from ..data.records import ImageRecord
from ..errors import BrokenRunError, MaskwrightError
from .yolo_protocol import Detection, DetectJob, Event, ImageToRead, Job

if TYPE_CHECKING:
    from ultralytics.engine.results import Results

MAX_DETECTIONS, LEAST_SCORE, NMS_IOU = 300, 0.001, 0.7
MASK_BYTES = 2 * 2**30
"""Most bytes of masks that the images of one batch may have together."""


def main() -> int:
    """Do the job that stdin holds; returns the exit code."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what ultralytics prints is log, not events

    def report(event: Event) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    job: Job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        _do(job, report)
    except MaskwrightError as exc:
        report({"event": "error", "kind": type(exc).__name__, "message": str(exc)})
        return 1
    except (OSError, RuntimeError) as exc:
        if reason := _reason(exc):
            report({"event": "error", "kind": BrokenRunError.__name__, "message": reason})
            return 1
        raise
    return 0


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1):  # unbuffered: a buffer's lock would be held at exit
        pass
    os._exit(1)


def _reason(exc: OSError | RuntimeError) -> str:
    """What a person can do about an error that is the machine's; empty where it is none."""
    text = str(exc).splitlines()[0] if str(exc) else ""
    # torch's writer of files says no more than that.
    if getattr(exc, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "PytorchStreamWriter failed" in text:
        return f"the disk is full ({text}). Free space and run again: it goes on at the last checkpoint."
    if "out of memory" in text.lower():
        return f"the device's memory does not hold a batch ({text}). Set a smaller `batch` or `image_px`."
    return ""


def _do(job: Job, report: Callable[[Event], None]) -> None:
    from PIL import Image

    pillow_open = Image.open
    from . import yolo_training

    Image.open = pillow_open
    yolo_training.tame()
    if job["kind"] == "train":
        report(yolo_training.train(job, report))
        return
    for detections in detect(job):
        report({"event": "image", "detections": detections})
    report({"event": "detected"})


def detect(job: DetectJob) -> Iterator[list[Detection]]:
    """Each image's detections, in the job's order.

    Raises:
        ImageDecodeError: an image cannot be read, or is of another size than recorded.
    """
    from ultralytics import YOLO

    from ..models.device import resolve_device

    model, device = YOLO(job["weights"]), str(resolve_device(job["device"]))
    for batch in batches_within(job["images"], job["batch"], MASK_BYTES // MAX_DETECTIONS):
        pictures_bgr = [np.ascontiguousarray(read_image(_to_record(image))[..., ::-1]) for image in batch]
        results = model.predict(
            pictures_bgr,
            imgsz=job["image_px"],
            conf=LEAST_SCORE,
            iou=NMS_IOU,
            max_det=MAX_DETECTIONS,
            retina_masks=True,
            rect=False,  # else an image's padding, and so its detections, would depend on its neighbours
            device=device,
            verbose=False,
            save=False,
        )
        yield from map(_to_detections, results)


def batches_within(images: Sequence[ImageToRead], batch: int, max_pixels: int) -> Iterator[list[ImageToRead]]:
    """Runs of at most `batch` images with at most `max_pixels` together, or of a single larger one."""
    run: list[ImageToRead] = []
    for image in images:
        pixels = sum(one["width"] * one["height"] for one in [*run, image])
        if run and (len(run) == batch or pixels > max_pixels):
            yield run
            run = []
        run.append(image)
    if run:
        yield run


def _to_record(image: ImageToRead) -> ImageRecord:
    path = Path(image["path"])
    size = (image["width"], image["height"])
    return ImageRecord(0, path.name, str(path.parent), *size, exif_transpose=image["exif_transpose"])


def _to_detections(result: Results) -> list[Detection]:
    boxes = result.boxes.cpu().numpy()
    masks = None if result.masks is None else result.masks.data.cpu().numpy()
    detections: list[Detection] = []
    for row, (left, top, right, bottom) in enumerate(boxes.xyxy.tolist()):
        found: Detection = {
            "class_index": int(boxes.cls[row]),
            "score": float(boxes.conf[row]),
            "bbox": [left, top, right - left, bottom - top],
        }
        if masks is not None:
            rle = mask_to_rle(masks[row].astype(bool))
            found["segmentation"] = {"size": [rle.height, rle.width], "counts": rle.counts.decode("ascii")}
        detections.append(found)
    return detections


if __name__ == "__main__":
    raise SystemExit(main())
