"""The user's instances as sources: which are worth starting from, and how one is cut out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence, Set
from math import sqrt

import numpy as np
import numpy.typing as npt

from ..configs.image_agent import SourceSettings
from ..data.images import read_image
from ..data.masks import mask_to_bbox, segmentation_to_mask
from ..data.records import AnnotationTable, Dataset, ImageRecord, ImageRGB, MaskHW
from ..errors import RecipeError
from ..tools.composing.surroundings import mean_around
from ..tools.judging.measures import border_share
from ..tools.protocols import SourceView
from .services import SourceCutOut

CACHED_IMAGES = 8
BORDER_PX = 1.5
HOPELESS = 1.3
"""A source hardly above the least area falls under it as soon as it is varied."""


def rank_sources(dataset: Dataset, category_id: int, settings: SourceSettings, min_area_px: int) -> list[int]:
    """Annotation rows of one class to start from, best first, from the training split alone.

    Among equally good ones neighbours come from different photographs and are of different sizes, see `_spread`.

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
    ranked = np.concatenate([_spread(table, rows[tier == level]) for level in range(3)])
    enough = max(settings.min_per_class, int((tier == 0).sum()))
    return [int(row) for row in ranked[:enough]]


def _spread(table: AnnotationTable, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows in turns over their photographs; size bands, an octave of the mask's side each, alternate.

    A photograph gives its rows band by band, the largest of each first, and photographs follow each other
    in turns over the bands of their first rows.
    """
    rows = rows[np.argsort(-table.area[rows], kind="stable")]
    photograph = table.image_index[rows].astype(np.int64)
    band = np.floor(np.log2(table.area[rows]) / 2).astype(np.int64)
    _, photograph_band = np.unique(np.stack([photograph, band]), axis=1, return_inverse=True)
    order = np.lexsort((-band, _count_earlier(photograph_band.ravel())))
    rows, photograph, band = rows[order], photograph[order], band[order]
    turn = _count_earlier(photograph)
    first = np.flatnonzero(turn == 0)
    in_turns = first[np.lexsort((-band[first], _count_earlier(band[first])))]
    place = np.zeros(int(photograph.max(initial=0)) + 1, dtype=np.int64)
    place[photograph[in_turns]] = np.arange(len(in_turns))
    return np.asarray(rows[np.lexsort((place[photograph], turn))])


def _count_earlier(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) int64: how often each key occurs before its own position."""
    order = np.argsort(keys, kind="stable")
    counts = np.empty(len(keys), dtype=np.int64)
    counts[order] = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order])
    return counts


def rows_of(dataset: Dataset, annotation_ids: Iterable[int]) -> frozenset[int]:
    """Rows of training annotations, by their ids.

    Raises:
        RecipeError: the training split has no annotation of such an id.
    """
    table, wanted = dataset.annotations, set(annotation_ids)
    rows = np.flatnonzero(np.isin(table.annotation_id, list(wanted)))
    rows = rows[[dataset.images[i].split == "train" for i in table.image_index[rows].tolist()]]
    if unknown := wanted - set(table.annotation_id[rows].tolist()):
        raise RecipeError(
            f"agents.image_agent.sources.retired names {min(unknown)!r}, which is no training annotation's id; "
            "leave it out, or give the data set that it is from"
        )
    return frozenset(rows.tolist())


def choose_source(planned_row: int, rows: Sequence[int], retired: Set[int], slot: int) -> int | None:
    """The source that an item starts from: the planned one, unless it is retired; None where all are.

    Args:
        rows: the class's sources, best first.
        slot: of the item; those that share a planned row go to different substitutes.
    """
    if planned_row not in retired:
        return planned_row
    start = rows.index(planned_row) + 1 if planned_row in rows else 0
    living = [row for row in (*rows[start:], *rows[:start]) if row not in retired]
    return living[slot % len(living)] if living else None


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
        record, image, mask = self._open(row)
        x, y, w, h = mask_to_bbox(mask)
        crop = image[y : y + h, x : x + w]
        alpha = mask[y : y + h, x : x + w].astype(np.uint8)[..., None] * 255
        truncation, sides = border_share((x, y, w, h), mask)
        return SourceCutOut(
            rgba=np.concatenate([crop, alpha], axis=2),
            file_name=record.file_name,
            annotation_id=int(self._dataset.annotations.annotation_id[row]),
            licence=record.licence,
            truncation=round(truncation, 4),
            truncated_sides=sides,
            side_ratio=round(sqrt(int(mask.sum()) / mask.size), 5),
            surround_rgb=mean_around(image, mask),
        )

    def view(self, row: int, padding_ratio: float) -> SourceView:
        """The instance of one annotation row in its surroundings.

        Args:
            padding_ratio: surroundings on each side over the longer side of the mask's box; clipped at the border.

        Raises:
            ImageDecodeError: the photograph cannot be decoded.
            EmptyMaskError: the mask has no pixel.
        """
        _, image, mask = self._open(row)
        x, y, w, h = mask_to_bbox(mask)
        padding = round(padding_ratio * max(w, h))
        frame = np.s_[max(0, y - padding) : y + h + padding, max(0, x - padding) : x + w + padding]
        return SourceView(rgb=image[frame].copy(), mask_hw=mask[frame].copy())

    def _open(self, row: int) -> tuple[ImageRecord, ImageRGB, MaskHW]:
        image_index = int(self._dataset.annotations.image_index[row])
        record = self._dataset.images[image_index]
        mask = segmentation_to_mask(self._dataset.annotations.segmentation(row), record.height, record.width)
        return record, self._read(image_index), mask

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
