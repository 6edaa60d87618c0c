"""What is compared: real images alone, as often by class as with ours, with ours, with ours less one mechanism."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np

from ..data.label_records import LabelledImage
from .wsss_data import WsssRun

REAL: Final = "real"
OVERSAMPLED: Final = "oversampled"
OURS: Final = "ours"
NO_REFINEMENT: Final = "ours_no_refinement"
NO_FILTER: Final = "ours_no_filter"


def arms_of(run: WsssRun, seed: int) -> dict[str, tuple[LabelledImage, ...]]:
    """Training images by arm, in the table's order; arms of ablations that were not run are left out."""
    real = tuple(run.train)
    arms = {REAL: real, OVERSAMPLED: (*real, *oversample(real, run.synthetic, seed)), OURS: (*real, *run.synthetic)}
    return arms | {name: (*real, *images) for name, images in run.ablations.items()}


def oversample(real: Sequence[LabelledImage], like: Sequence[LabelledImage], seed: int) -> list[LabelledImage]:
    """Real images again, one for each image of `like`: with its very labels, or with the most of them.

    Every real image of a set of labels comes as often as every other one, but for one time.
    """
    by_labels: dict[frozenset[str], list[LabelledImage]] = defaultdict(list)
    for image in real:
        by_labels[image.labels].append(image)
    rng = np.random.default_rng(seed)
    orders = {labels: rng.permutation(len(images)) for labels, images in sorted(by_labels.items(), key=_by_name)}
    taken: dict[frozenset[str], int] = defaultdict(int)
    again = []
    for image in like:
        labels = _nearest(image.labels, list(orders))
        place = orders[labels][taken[labels] % len(orders[labels])]
        again.append(by_labels[labels][place])
        taken[labels] += 1
    return again


def _by_name(entry: tuple[frozenset[str], list[LabelledImage]]) -> list[str]:
    return sorted(entry[0])


def _nearest(labels: frozenset[str], known: Sequence[frozenset[str]]) -> frozenset[str]:
    """Most labels in common, fewest others, first by name."""
    return min(known, key=lambda own: (-len(own & labels), len(own - labels), sorted(own)))
