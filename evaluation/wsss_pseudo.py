"""Masks of an arm's images from its label network, and the thresholds that held-out images choose."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..data.label_records import UNKNOWN_LEVEL, ClassMapHW, LabelledImage
from .wsss_cams import CamsCHW, cams_to_mask, find_cams
from .wsss_data import PictureCache, map_to_frame
from .wsss_networks import LabelNetwork

THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)
PICTURES_AT_ONCE = 32
_UNTOLD = 0.3
"""Threshold of every class where no held-out image has a truth."""
Cams = tuple[LabelledImage, Sequence[int], CamsCHW]
"""An image, the places of its labels among the classes, and a map for each."""


def find_all_cams(
    network: LabelNetwork, images: Sequence[LabelledImage], classes: Sequence[str], pictures: PictureCache
) -> Iterator[Cams]:
    """Maps of images with a label, a few in memory at a time; raises what `find_cams` does, and ImageDecodeError."""
    for start in range(0, len(images), PICTURES_AT_ONCE):
        chunk = images[start : start + PICTURES_AT_ONCE]
        levels = [[place for place, name in enumerate(classes) if name in one.labels] for one in chunk]
        found = find_cams(network, [pictures[one] for one in chunk], levels)
        yield from zip(chunk, levels, found, strict=True)


def choose_thresholds(
    held_out: Sequence[tuple[Cams, ClassMapHW]], classes: Sequence[str], pictures: PictureCache
) -> dict[str, float]:
    """For each class what its map must exceed: the threshold with the highest IoU on held-out images that show it.

    The only use of masks before the score. A class without such an image takes the median of the others.
    """
    chosen: dict[str, float] = {}
    for level, name in enumerate(classes):
        cases = [
            (cams[list(levels).index(level)], true_hw == level + 1, true_hw != UNKNOWN_LEVEL, pictures[image])
            for (image, levels, cams), true_hw in held_out
            if level in levels and (true_hw == level + 1).any()
        ]
        if cases:
            overlaps = {threshold: _overlap(cases, threshold) for threshold in THRESHOLDS}
            chosen[name] = max(THRESHOLDS, key=overlaps.__getitem__)
    usual = statistics.median_low(chosen.values()) if chosen else _UNTOLD
    return {name: chosen.get(name, usual) for name in classes}


def make_masks(
    found: Iterator[Cams], thresholds: Mapping[str, float], classes: Sequence[str], pictures: PictureCache
) -> dict[LabelledImage, ClassMapHW]:
    """(S, S) uint8 by image, refined; an image whose label was found nowhere is all background."""
    return {
        image: cams_to_mask(cams, levels, [thresholds[classes[level]] for level in levels], pictures[image])
        for image, levels, cams in found
    }


def _overlap(cases: Sequence[tuple[CamsCHW, np.ndarray, np.ndarray, np.ndarray]], threshold: float) -> float:
    """IoU over all pixels of some images with one class."""
    both = either = 0
    for cam_hw, true_hw, known_hw, picture in cases:
        found_hw = map_to_frame(cams_to_mask(cam_hw[None], [0], [threshold], picture), *true_hw.shape) > 0
        both += int((found_hw & true_hw & known_hw).sum())
        either += int(((found_hw | true_hw) & known_hw).sum())
    return both / max(either, 1)
