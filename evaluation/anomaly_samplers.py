"""Where training pictures come from: folders, mixtures, recipes; one interface for all.

Whoever samples does it by one generator and in one frame, so that networks trained on different sources differ in
nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np

from ..data.anomaly_records import AnomalyRecord, read_defect_mask
from ..data.images import read_image
from ..data.records import ImageRGB, MaskHW

CACHED_PICTURES = 2048
"""Of a folder, at the size that is trained on: 0.4 GB at 256 pixels."""


class DefectSampler(Protocol):
    """Gives pictures to learn from."""

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        """One picture, (S, S, 3) uint8, sRGB, and its mask, (S, S) bool, all False where it is normal; both read-only.

        Equal states of the generator give equal pictures.
        """
        ...


class FolderSampler:
    """Pictures of a data set: reference defects, an exported folder's, or normal ones. Each defect comes as often.

    Args:
        records: at least one, see `load_anomalies`; pass them through `LeakGuard.admit` first.
        size_px: side of the square that pictures are scaled to.
    """

    def __init__(self, records: Sequence[AnomalyRecord], size_px: int) -> None:
        if not records:
            raise ValueError("no picture to sample from; expected at least one record. Look at the split's sides.")
        self.size_px = size_px
        by_defect: dict[str, list[AnomalyRecord]] = {}
        for record in records:
            by_defect.setdefault(record.defect, []).append(record)
        self._groups = list(by_defect.values())
        self._read = lru_cache(CACHED_PICTURES)(lambda group, place: read_square(self._groups[group][place], size_px))

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        """A picture of the data set.

        Raises:
            ImageDecodeError, EmptyMaskError: it, or its mask, cannot be used.
        """
        group = int(rng.integers(len(self._groups)))
        return self._read(group, int(rng.integers(len(self._groups[group]))))


@dataclass(frozen=True, slots=True)
class MixedSampler:
    """Several sources, each with its share."""

    parts: Sequence[tuple[float, DefectSampler]]
    """Shares need not sum to 1."""

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        shares = np.array([share for share, _ in self.parts])
        chosen = int(rng.choice(len(self.parts), p=shares / shares.sum()))
        return self.parts[chosen][1].sample(rng)


@dataclass(frozen=True, slots=True)
class Curriculum:
    """One source at first, another one after it."""

    first: DefectSampler
    then: DefectSampler
    first_share: float
    """Of a training's steps, in [0, 1]."""

    def at(self, done_share: float) -> DefectSampler:
        """The source after a share of the steps, in [0, 1)."""
        return self.first if done_share < self.first_share else self.then


def read_square(record: AnomalyRecord, size_px: int) -> tuple[ImageRGB, MaskHW]:
    """A picture and its mask scaled to a square, (S, S, 3) uint8 and (S, S) bool; a mask never vanishes by it.

    Raises:
        ImageDecodeError, EmptyMaskError: of image and mask.
    """
    image_rgb = cv2.resize(read_image(record.image), (size_px, size_px), interpolation=cv2.INTER_AREA)
    levels = read_defect_mask(record).astype(np.float32)
    share_hw = cv2.resize(levels, (size_px, size_px), interpolation=cv2.INTER_AREA)
    mask_hw = share_hw >= min(0.5, float(share_hw.max())) if levels.any() else np.zeros_like(share_hw, np.bool_)
    for array in (image_rgb, mask_hw):
        array.flags.writeable = False
    return image_rgb, mask_hw
