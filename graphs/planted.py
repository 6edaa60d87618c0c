"""Bad samples made on purpose of real cut-outs: a judge that accepts them cannot be trusted.

A kind is only planted where one of the criteria asks for what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..configs.validation import CriterionSettings
from ..data.records import ImageRGBA
from ..errors import EmptyMaskError
from ..tools.cutouts import crop_to_mask
from ..tools.judging.shown import GREY
from ..tools.naming import noun_phrase

MIN_SIDE_PX = 12
"""Of a cut-out; smaller ones show nothing that could be spoilt."""
MARGIN_RATIO = 0.125
"""Around an object, of its longer side."""
CELLS = 3
"""A side, of what fragments are cut into."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A bad picture, and what is wrong with it."""

    kind: str
    picture: ImageRGBA
    """(h, w, 4) uint8, straight alpha."""
    category: str
    """What it is shown as."""


@dataclass(frozen=True, slots=True)
class _Kind:
    spoil: Callable[[ImageRGBA, np.random.Generator], ImageRGBA]
    seen_by: frozenset[str]
    """Criteria that ask for what is wrong."""


def plant(
    sources: Iterable[tuple[ImageRGBA, str]], count: int, criteria: Sequence[CriterionSettings], seed: int
) -> list[Planted]:
    """Spoil real cut-outs, one kind after the other; equal arguments give equal pictures.

    Args:
        sources: (h, w, 4) uint8 cut-outs and their classes' names; all are read, some are used.
        criteria: what will be asked. Only the built-in names (`CRITERIA`) are known to see a kind.

    Returns:
        `count` pictures; none where no criterion sees any kind, or no source is large enough. Wrong categories take
        sources of two classes.
    """
    usable = [(cutout, category) for rgba, category in sources if (cutout := _usable(rgba)) is not None]
    asked = {criterion.name for criterion in criteria}
    kinds = [name for name, kind in KINDS.items() if kind.seen_by & asked]
    if len({_spoken(category) for _, category in usable}) < 2:
        kinds = [name for name in kinds if name != WRONG_CATEGORY]
    if not usable or not kinds:
        return []
    order = np.random.default_rng([seed, 0]).permutation(len(usable))
    return [
        _plant_one(
            kinds[place % len(kinds)], usable, order[place % len(order)], np.random.default_rng([seed, 1, place])
        )
        for place in range(count)
    ]


def _plant_one(name: str, usable: Sequence[tuple[ImageRGBA, str]], chosen: int, rng: np.random.Generator) -> Planted:
    cutout, category = usable[chosen]
    picture = KINDS[name].spoil(cutout, rng)
    if name == WRONG_CATEGORY:
        others = {_spoken(other): other for _, other in usable if _spoken(other) != _spoken(category)}
        category = others[str(rng.choice(sorted(others)))]
    return Planted(name, picture, category)


def _usable(rgba: ImageRGBA) -> ImageRGBA | None:
    try:
        cutout = crop_to_mask(rgba)
    except EmptyMaskError:
        return None
    return cutout if min(cutout.shape[:2]) >= MIN_SIDE_PX else None


def _spoken(category: str) -> str:
    return noun_phrase(category).lower()


def _whole(cutout: ImageRGBA, _: np.random.Generator) -> ImageRGBA:
    return _frame(cutout)


def _two_objects(cutout: ImageRGBA, _: np.random.Generator) -> ImageRGBA:
    gap = np.zeros((cutout.shape[0], _margin(cutout), 4), np.uint8)
    return _frame(np.concatenate([cutout, gap, cutout[:, ::-1]], axis=1))


def _cut_in_half(cutout: ImageRGBA, rng: np.random.Generator) -> ImageRGBA:
    """The cut lies on one side of the frame; the half that is left has a margin on the other sides."""
    turns = int(rng.integers(4))
    turned = _frame(np.rot90(cutout, turns))
    return np.ascontiguousarray(np.rot90(turned[: turned.shape[0] // 2], -turns))


def _nothing(cutout: ImageRGBA, _: np.random.Generator) -> ImageRGBA:
    picture = np.full_like(_frame(cutout), GREY)
    picture[..., 3] = 255
    return picture


def _fragments(cutout: ImageRGBA, rng: np.random.Generator) -> ImageRGBA:
    """Cells of a grid, in another order and apart; none stays where it was."""
    rows, columns = (np.linspace(0, side, CELLS + 1).astype(int) for side in cutout.shape[:2])
    cells = [cutout[top:bottom, left:right] for top, bottom in pairwise(rows) for left, right in pairwise(columns)]
    height, width = (-(-side // CELLS) + _margin(cutout) for side in cutout.shape[:2])
    picture = np.zeros((CELLS * height, CELLS * width, 4), np.uint8)
    shift = int(rng.integers(1, len(cells)))
    for place in range(len(cells)):
        cell = cells[(place + shift) % len(cells)]
        y, x = place // CELLS * height, place % CELLS * width
        picture[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return _frame(picture)


def _frame(rgba: ImageRGBA) -> ImageRGBA:
    margin = _margin(rgba)
    return np.pad(rgba, ((margin, margin), (margin, margin), (0, 0)))


def _margin(rgba: ImageRGBA) -> int:
    longer_px: int = max(rgba.shape[:2])
    return max(1, round(MARGIN_RATIO * longer_px))


WRONG_CATEGORY = "wrong category"
KINDS = {
    WRONG_CATEGORY: _Kind(_whole, frozenset({"right_category"})),
    "two objects": _Kind(_two_objects, frozenset({"single_object"})),
    "cut in half": _Kind(_cut_in_half, frozenset({"intact"})),
    "nothing at all": _Kind(_nothing, frozenset({"right_category"})),
    "fragments": _Kind(_fragments, frozenset({"intact", "undamaged"})),
}
