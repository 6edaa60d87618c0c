"""A share of labelled images, drawn by name so that each class is on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from .label_records import LabelledImage

_Drawn = tuple[list[LabelledImage], list[LabelledImage]]
_NO_CLASS = frozenset({""})
"""Images without a label are a class of their own here; no class is called so."""


def draw_stratified(images: Sequence[LabelledImage], share: float, salt: str) -> _Drawn:
    """Draw a share of images by the hash of their names.

    Then images change sides until each class with two images or more is on both, as far as images with several
    classes allow it; that a class is left comes before that it is drawn.

    Args:
        share: in [0, 1); at 0 nothing is drawn.
        salt: decides with the names what is drawn.

    Returns:
        Images drawn and images left, both in their order.
    """
    if share <= 0:
        return [], list(images)
    place = {one.key: _unit_hash(salt, one.key) for one in images}
    ranked = sorted(images, key=lambda one: place[one.key])
    drawn = {one.key: place[one.key] < share for one in images}
    _give_each_class(ranked, drawn, True)
    _give_each_class(ranked[::-1], drawn, False)
    return [one for one in images if drawn[one.key]], [one for one in images if not drawn[one.key]]


def _give_each_class(ranked: Sequence[LabelledImage], drawn: dict[str, bool], side: bool) -> None:
    """Move an image of each class that a side lacks to it: the one that robs the fewest classes, then the first."""
    total = Counter(label for one in ranked for label in _classes(one))
    num_other = Counter(label for one in ranked if drawn[one.key] != side for label in _classes(one))
    for label in sorted(total, key=lambda name: (total[name], name)):
        if total[label] < 2 or num_other[label] < total[label]:
            continue
        candidates = [one for one in ranked if label in _classes(one)]
        moved = min(candidates, key=lambda one: sum(num_other[name] == 1 < total[name] for name in _classes(one)))
        drawn[moved.key] = side
        num_other.subtract(_classes(moved))


def _classes(image: LabelledImage) -> frozenset[str]:
    return image.labels or _NO_CLASS


def _unit_hash(salt: str, name: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{salt}\0{name}".encode()).digest()[:8], "big") / 2**64
