"""How well objects are found: average precision of boxes and masks, per class and by frequency group.

One class is measured at a time, so that pycocotools' tables never hold more than one; masks stay run-length encoded.
The mean over classes is the figure that COCOeval gives for all of them at once.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import get_args

from ..data.masks import segmentation_to_rle
from ..data.quotas import frequency_group
from ..data.records import Annotation, Category, Findings, Frequency, ImageRecord, Polygons, SampleSource
from ..errors import DatasetError
from .average_precision import AveragePrecision, LocatedObject, average_precision, mean_precision
from .detectors import CocoResult, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """Of one class; None where the split has no instance of it, and for masks where only boxes are measured."""

    category_id: int
    name: str
    frequency: Frequency
    """Rare, common or frequent by its real training images; rare without any."""
    num_train_images: int
    num_instances: int
    """In the measured split, without crowds."""
    box: AveragePrecision | None
    mask: AveragePrecision | None


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Means over the classes that have a figure; None where none has."""

    num_classes: int
    """That have a figure."""
    box: AveragePrecision | None
    mask: AveragePrecision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionFigures:
    """What was measured on one split."""

    split: str
    num_images: int
    num_instances: int
    num_detections: int
    overall: GroupFigures
    groups: Mapping[Frequency, GroupFigures]
    classes: Sequence[ClassFigures]
    """In the data set's order."""
    findings: Findings

    def as_json(self) -> dict[str, object]:
        """Numbers and nulls, never NaN."""
        return asdict(self) | {"findings": self.findings.as_json()}


def measure_detections(
    truth: SampleSource,
    results: Iterable[CocoResult],
    *,
    task: Task,
    train_images: Mapping[int, int],
    split: str = "val",
) -> DetectionFigures:
    """Compare detections with the true instances of a split.

    Crowds neither count as instances nor against a detection on them; of a class's detections in an image the best 100
    count. Where images say which classes were looked for in them, LVIS's rules hold, as `average_precision` has them.

    Args:
        results: of any images of the split, in any order; read once.
        train_images: real training images with the class, by category id.

    Raises:
        DatasetError: the split has no image or no instance, an instance has no mask where masks are measured, or a
            detection is of another data set: its image, its class or its mask's size is not this one's.
        ValueError: a detection's score or box is no number in its range.
    """
    val = _Split.read(truth, split, with_masks=task == "segment")
    found, num_detections = _by_class(results, val, {one.category_id for one in truth.categories}, task)
    classes = [_measure_class(val, found, one, task, train_images) for one in truth.categories]
    return DetectionFigures(
        split=split,
        num_images=len(val.images),
        num_instances=val.num_instances.total(),
        num_detections=num_detections,
        overall=_mean_of(classes),
        groups={name: _mean_of([one for one in classes if one.frequency == name]) for name in get_args(Frequency)},
        classes=classes,
        findings=_find_gaps(classes, found),
    )


@dataclass(slots=True)
class _Split:
    """A split's images by id, and its true objects by category id."""

    images: dict[int, ImageRecord] = field(default_factory=dict)
    objects: defaultdict[int, list[LocatedObject]] = field(default_factory=lambda: defaultdict(list))
    num_instances: Counter[int] = field(default_factory=Counter)
    """By category id, without crowds."""
    federated: bool = False

    @classmethod
    def read(cls, truth: SampleSource, split: str, *, with_masks: bool) -> _Split:
        val = cls()
        for sample in truth.samples(split):
            image = sample.image
            val.images[image.image_id] = image
            val.federated |= bool(image.neg_category_ids or image.not_exhaustive_category_ids)
            for one in sample.annotations:
                counts = _counts(one, image) if with_masks else b""
                true = LocatedObject(image.image_id, one.bbox_xywh, counts, is_crowd=one.is_crowd)
                val.objects[one.category_id].append(true)
                val.num_instances[one.category_id] += not one.is_crowd
        if not val.num_instances.total():
            raise DatasetError(
                f"split {split!r} has no {'instance' if val.images else 'image'}; expected one at least to measure on. "
                f"There is {', '.join(map(repr, truth.splits)) or 'no split'}: label some images, or set a share aside."
            )
        return val


def _counts(annotation: Annotation, image: ImageRecord) -> bytes:
    """Of the annotation's RLE. Of two frames pycocotools would make an IoU of -1: a miss without a word."""
    segmentation = annotation.segmentation
    if not (isinstance(segmentation, Polygons) and not segmentation.rings):
        rle = segmentation_to_rle(segmentation, image.height, image.width)
        if (rle.height, rle.width) == (image.height, image.width):
            return rle.counts
    raise DatasetError(
        f"{image.file_name!r}, annotation {annotation.annotation_id!r} has no mask of {image.width}x{image.height}, "
        "the image's size; expected one. Correct the annotation, or measure boxes alone with task 'detect'."
    )


def _by_class(
    results: Iterable[CocoResult], val: _Split, category_ids: set[int], task: Task
) -> tuple[Mapping[int, list[LocatedObject]], int]:
    """Detections by category id, and how many there are."""
    found: defaultdict[int, list[LocatedObject]] = defaultdict(list)
    for result in results:
        image = val.images.get(result["image_id"])
        if image is None or result["category_id"] not in category_ids:
            raise DatasetError(
                f"a detection of class {result['category_id']!r} in image {result['image_id']!r}; expected one of "
                f"{len(category_ids)} classes and {len(val.images)} images. Detect in the split that is measured."
            )
        found[result["category_id"]].append(_to_object(result, image, task))
    return found, sum(map(len, found.values()))


def _to_object(result: CocoResult, image: ImageRecord, task: Task) -> LocatedObject:
    x, y, width, height = result["bbox"]
    in_range = 0 <= result["score"] <= 1 and 0 <= width < math.inf and 0 <= height < math.inf
    if not (in_range and math.isfinite(x) and math.isfinite(y)):
        raise ValueError(
            f"{image.file_name!r}: a detection with score {result['score']!r} and box {result['bbox']!r}; expected a "
            "score in [0, 1] and a finite box. Has the training diverged?"
        )
    if task == "detect":
        return LocatedObject(image.image_id, (x, y, width, height), score=result["score"])
    rle, size = result.get("segmentation"), [image.height, image.width]
    if rle is None or list(rle["size"]) != size:
        raise DatasetError(
            f"{image.file_name!r}: a detection with mask {rle!r}; expected an RLE of size {size!r}. "
            "Measure boxes alone with task 'detect'."
        )
    return LocatedObject(image.image_id, (x, y, width, height), rle["counts"], result["score"])


def _measure_class(
    val: _Split,
    found: Mapping[int, list[LocatedObject]],
    category: Category,
    task: Task,
    train_images: Mapping[int, int],
) -> ClassFigures:
    key = category.category_id
    num_train, num_instances = train_images.get(key, 0), val.num_instances[key]
    arguments = (val.images, key, val.objects[key], found.get(key, []))
    box = mask = None
    if num_instances:
        box = average_precision(*arguments, "bbox", federated=val.federated)
        if task == "segment":
            mask = average_precision(*arguments, "segm", federated=val.federated)
    return ClassFigures(
        category_id=key,
        name=category.name,
        frequency=frequency_group(num_train),
        num_train_images=num_train,
        num_instances=num_instances,
        box=box,
        mask=mask,
    )


def _find_gaps(classes: Iterable[ClassFigures], found: Mapping[int, list[LocatedObject]]) -> Findings:
    findings = Findings()
    for one in classes:
        if not one.num_train_images and (one.num_instances or found.get(one.category_id)):
            findings.add("class_without_training_images", one.name)
        if not one.num_instances:
            findings.add("class_without_instances_to_find", one.name)
    return findings


def _mean_of(classes: Sequence[ClassFigures]) -> GroupFigures:
    boxes, masks = [one.box for one in classes if one.box], [one.mask for one in classes if one.mask]
    return GroupFigures(len(boxes), mean_precision(boxes), mean_precision(masks))
