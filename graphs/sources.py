"""The user's instances as sources: which are worth starting from, and how one is cut out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from math import sqrt

import numpy as np
import numpy.typing as npt

from ..configs.image_agent import SourceSettings
from ..data.images import read_image
from ..data.masks import mask_to_bbox, segmentation_to_mask
from ..data.records import Dataset, ImageRGB
from ..tools.judging.measures import border_share
from .services import SourceCutOut

CACHED_IMAGES = 8
BORDER_PX = 1.5
HOPELESS = 1.3
"""A source hardly above the least area falls under it as soon as it is varied."""


def rank_sources(dataset: Dataset, category_id: int, settings: SourceSettings, min_area_px: int) -> list[int]:
    """Annotation rows of one class to start from, best first, from the training split alone.

    Whole and large instances come first; truncated ones, then small ones, join only while the class
    has fewer than `min_per_class`. Those under `HOPELESS` times the judge's `min_area_px` are left out
    while there is any other. Neither a pixel is read nor a mask decoded.
    """
    table = dataset.annotations
    rows = np.flatnonzero((table.category_id == category_id) & ~table.is_crowd & (table.area > 0))
    rows = rows[[dataset.images[i].split == "train" for i in table.image_index[rows].tolist()]]
    if not len(rows):
        return []
    hopeful = rows[table.area[rows] >= HOPELESS * min_area_px]
    rows = hopeful if len(hopeful) else rows
    is_small = table.area[rows] < settings.min_area_px
    tier = np.where(is_small, 2, np.where(_touches_border(dataset, rows), 1, 0))
    order = np.lexsort((-table.area[rows], tier))
    rows, tier = rows[order], tier[order]
    enough = max(settings.min_per_class, int((tier == 0).sum()))
    return [int(row) for row in rows[:enough]]


def _touches_border(dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    table = dataset.annotations
    frames = [(dataset.images[i].width, dataset.images[i].height) for i in table.image_index[rows].tolist()]
    width_height = np.array(frames, dtype=np.float32)
    x, y, w, h = table.bbox_xywh[rows].T
    far = np.stack([width_height[:, 0] - x - w, width_height[:, 1] - y - h])
    return np.asarray(np.minimum(np.minimum(x, y), far.min(axis=0)) < BORDER_PX)


class DatasetSources:
    """Cuts instances out of the photographs of a data set; the last few photographs stay decoded."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._images: OrderedDict[int, ImageRGB] = OrderedDict()
        self._lock = threading.Lock()

    def file_name(self, row: int) -> str:
        return self._dataset.images[int(self._dataset.annotations.image_index[row])].file_name

    def cut_out(self, row: int) -> SourceCutOut:
        """The instance of one annotation row, with a binary alpha.

        Raises:
            ImageDecodeError: the photograph cannot be decoded.
            EmptyMaskError: the mask has no pixel.
        """
        annotation = self._dataset.annotations[row]
        image_index = int(self._dataset.annotations.image_index[row])
        record = self._dataset.images[image_index]
        mask = segmentation_to_mask(annotation.segmentation, record.height, record.width)
        x, y, w, h = mask_to_bbox(mask)
        crop = self._read(image_index)[y : y + h, x : x + w]
        alpha = mask[y : y + h, x : x + w].astype(np.uint8)[..., None] * 255
        truncation, sides = border_share((x, y, w, h), mask)
        return SourceCutOut(
            rgba=np.concatenate([crop, alpha], axis=2),
            file_name=record.file_name,
            annotation_id=annotation.annotation_id,
            licence=record.licence,
            truncation=round(truncation, 4),
            truncated_sides=sides,
            side_ratio=round(sqrt(int(mask.sum()) / mask.size), 5),
        )

    def _read(self, image_index: int) -> ImageRGB:
        with self._lock:
            if image_index in self._images:
                self._images.move_to_end(image_index)
                return self._images[image_index]
        image = read_image(self._dataset.images[image_index])
        with self._lock:
            self._images[image_index] = image
            while len(self._images) > CACHED_IMAGES:
                self._images.popitem(last=False)
        return image
