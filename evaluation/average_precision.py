"""Average precision of one class by pycocotools, from boxes and run-length encoded masks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from pycocotools import coco as coco_module
from pycocotools import cocoeval as cocoeval_module
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..data.records import BoxXYWH, ImageRecord

MAX_PER_CLASS = 100
"""Detections of one class in one image that count, as COCOeval has it."""
MAX_PER_IMAGE = 300
"""Detections in one image that count where LVIS's rules hold."""
LARGEST_AREA_PX = 1e10
IouType = Literal["bbox", "segm"]
_EVALUATING = threading.Lock()


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Each in [0, 1]."""

    ap: float
    """Mean over the thresholds 0.5, 0.55, … 0.95 of IoU."""
    ap50: float
    ap75: float


class LocatedObject(NamedTuple):
    """A true or a found object of one class."""

    image_id: int
    bbox_xywh: BoxXYWH
    counts: str | bytes = ""
    """Of its COCO RLE in the image's frame; empty where boxes alone are measured."""
    score: float = 1.0
    is_crowd: bool = False


@contextlib.contextmanager
def _without_prints() -> Iterator[None]:
    """pycocotools prints each step. Its own `print` is shadowed, because stdout belongs to other threads too."""
    with _EVALUATING:
        coco_module.print = cocoeval_module.print = _say_nothing
        try:
            yield
        finally:
            del coco_module.print, cocoeval_module.print


def _say_nothing(*_: object, **__: object) -> None:
    return None


def average_precision(
    images: Mapping[int, ImageRecord],
    category_id: int,
    truths: Sequence[LocatedObject],
    detections: Sequence[LocatedObject],
    iou_type: IouType,
    *,
    federated: bool,
) -> AveragePrecision:
    """Of one class. Crowds neither count as instances nor against a detection on them.

    Args:
        images: by image id, of all objects.
        truths: at least one that is no crowd.
        federated: by LVIS's rules (Gupta et al., arXiv 1908.03195, section 4): a detection counts only in images where
            its class was looked for, and a superfluous one only where all of the class are labelled.
    """
    if federated:
        detections = _where_looked_for(images, category_id, truths, detections)
    if not detections:
        return AveragePrecision(0.0, 0.0, 0.0)
    with _without_prints():
        coco = _to_coco(images, category_id, truths, detections)
        evaluation = COCOeval(coco, coco.loadRes(_to_entries(images, category_id, detections)), iou_type)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0.0, LARGEST_AREA_PX]], ["all"]
        evaluation.params.maxDets = [MAX_PER_IMAGE if federated else MAX_PER_CLASS]
        evaluation.evaluate()
        for one in filter(None, evaluation.evalImgs):
            if category_id in images[one["image_id"]].not_exhaustive_category_ids:
                one["dtIgnore"] |= one["dtMatches"] == 0
        evaluation.accumulate()
    by_threshold = evaluation.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
    at_50, at_75 = (int(np.abs(evaluation.params.iouThrs - iou).argmin()) for iou in (0.5, 0.75))
    return AveragePrecision(float(by_threshold.mean()), float(by_threshold[at_50]), float(by_threshold[at_75]))


def mean_precision(figures: Sequence[AveragePrecision]) -> AveragePrecision | None:
    """Each figure counts as much; None of none."""
    if not figures:
        return None
    ap, ap50, ap75 = np.mean([(one.ap, one.ap50, one.ap75) for one in figures], axis=0).tolist()
    return AveragePrecision(ap, ap50, ap75)


def _where_looked_for(
    images: Mapping[int, ImageRecord],
    category_id: int,
    truths: Sequence[LocatedObject],
    detections: Sequence[LocatedObject],
) -> list[LocatedObject]:
    positive = {one.image_id for one in truths}
    return [
        one for one in detections if one.image_id in positive or category_id in images[one.image_id].neg_category_ids
    ]


def _to_coco(
    images: Mapping[int, ImageRecord],
    category_id: int,
    truths: Sequence[LocatedObject],
    detections: Sequence[LocatedObject],
) -> COCO:
    shown = sorted({one.image_id for one in (*truths, *detections)})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": key, "height": images[key].height, "width": images[key].width} for key in shown],
        "categories": [{"id": category_id}],
        "annotations": _to_entries(images, category_id, truths),
    }
    coco.createIndex()
    return coco


def _to_entries(
    images: Mapping[int, ImageRecord], category_id: int, objects: Sequence[LocatedObject]
) -> list[dict[str, object]]:
    """COCO's entries, numbered from 1: pycocotools takes a match with id 0 for none."""
    entries = []
    for number, one in enumerate(objects, start=1):
        frame, (_, _, width, height) = images[one.image_id], one.bbox_xywh
        entries.append(
            {
                "id": number,
                "image_id": one.image_id,
                "category_id": category_id,
                "bbox": list(one.bbox_xywh),
                "area": width * height,
                "iscrowd": int(one.is_crowd),
                "score": one.score,
                "segmentation": {"size": [frame.height, frame.width], "counts": one.counts},
            }
        )
    return entries
