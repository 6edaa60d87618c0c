"""Which notes speak of a defect, and what they say together."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from .knowledge_notes import (
    BOUNDS,
    ORIGINS,
    Family,
    Interval,
    Note,
    Place,
    Ranges,
    Relief,
    Shape,
    StoredNote,
    Tendencies,
    Tone,
)

T = TypeVar("T")
Why = Literal["name", "material", "near"]

TUPLES = tuple(name for name in Tendencies.model_fields if name != "ranges")
"""Tendencies that are lists of values."""
CELLS_OF_PLACE: Mapping[Place, tuple[int, ...]] = {
    "anywhere": (1, 1, 1, 1, 1, 1, 1, 1, 1),
    "edge": (1, 1, 1, 1, 0, 1, 1, 1, 1),
    "corner": (1, 0, 1, 0, 0, 0, 1, 0, 1),
    "centre": (0, 0, 0, 0, 1, 0, 0, 0, 0),
}
EVEN_WEIGHTS = (1 / 9,) * 9


@dataclass(frozen=True, slots=True)
class FoundNote:
    """A note that was found."""

    stored: StoredNote
    score: float
    """Cosine of its digest to what was asked, in [-1, 1]."""
    why: Why
    """It names the defect, it is about the item's material, or it only comes near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectKnowledge:
    """What is known of one defect on one item; what is empty is not known."""

    item: str
    defect: str
    material: str
    """Name of the note on what the item is made of; empty: none fits."""
    is_guess: bool
    """No note says what a defect of this name looks like: this is what the nearest notes say."""
    families: tuple[Family, ...]
    """Likeliest first."""
    ranges: Mapping[str, Interval]
    """Least and most of parameters of a `DefectPlan`, by their names there."""
    relief: tuple[Relief, ...]
    tone: tuple[Tone, ...]
    colours_rgb: tuple[tuple[int, int, int], ...]
    place_weights: tuple[float, ...]
    """9 numbers that sum to 1: how likely the defect is in each cell of the 3x3 of the object's box, row by row."""
    text: str
    """The notes' texts, for a model to read."""
    notes: tuple[FoundNote, ...]
    """Those that name the defect first, then the material's, then near ones."""
    shapes: tuple[Shape, ...] = ()
    """Of defects that were seen."""


def tokens_of(text: str) -> tuple[str, ...]:
    """Words of a name, folded: `Deep_Scratches 2` is (deep, scratch)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return tuple(_singular(word) for word in re.findall(r"[^\W\d_]+", folded))


def name_length(note: Note, asked: Sequence[str]) -> int:
    """How many words the longest of a note's names has that stands in what was asked; 0: none does."""
    names = [tokens_of(name) for name in (note.name, *note.words)]
    return max((len(name) for name in names if name and _stands_in(name, asked)), default=0)


def best_named(notes: Iterable[StoredNote], asked: str) -> list[StoredNote]:
    """Those of which the longest name stands in what was asked: `weld crack` goes before `crack`."""
    tokens = tokens_of(asked)
    lengths = [(name_length(stored.note, tokens), stored) for stored in notes]
    longest = max((length for length, _ in lengths), default=0)
    return [stored for length, stored in lengths if length == longest and longest]


def holds_for(note: Note, item: str) -> bool:
    """Whether a note may speak of an item."""
    return not note.items or tokens_of(item) in {tokens_of(one) for one in note.items}


def merge(notes: Sequence[StoredNote], material: str) -> Tendencies:
    """What notes say together, tendency by tendency: the most trusted that know one decide.

    Measured goes before own, own before shipped, an item's note before a general one. Equally trusted ones are joined:
    ranges to the span of both. In a note, what it says of the material goes before what it says at large.
    """
    tiers: dict[tuple[int, bool], list[Tendencies]] = defaultdict(list)
    for stored in notes:
        rank = (ORIGINS.index(stored.provenance.origin), not stored.note.items)
        tiers[rank].append(_said_of(material, stored.note))
    ordered = [tiers[key] for key in sorted(tiers)]
    return Tendencies(
        families=_first_known([said.families for said in tier] for tier in ordered),
        ranges=Ranges(**{name: span for name in BOUNDS if (span := _span(name, ordered))}),
        relief=_first_known([said.relief for said in tier] for tier in ordered),
        tone=_first_known([said.tone for said in tier] for tier in ordered),
        colours_rgb=_first_known([said.colours_rgb for said in tier] for tier in ordered),
        shapes=_first_known([said.shapes for said in tier] for tier in ordered),
        place_weights=next((weights for tier in ordered if (weights := _mean_weights(tier))), ()),
    )


def place_weights_of(said: Tendencies) -> tuple[float, ...]:
    """9 weights that sum to 1, from cells or from words; () where neither is said."""
    cells: Iterable[float] = said.place_weights or map(sum, zip(*(CELLS_OF_PLACE[p] for p in said.places), strict=True))
    weights = tuple(cells)
    return tuple(weight / sum(weights) for weight in weights)


def _said_of(material: str, note: Note) -> Tendencies:
    """What a note says of a material, else at large."""
    special = note.by_material.get(material, Tendencies())
    changes = {name: getattr(special, name) or getattr(note, name) for name in TUPLES}
    if special.places or special.place_weights:
        changes |= {"places": special.places, "place_weights": special.place_weights}
    return Tendencies(ranges=Ranges(**{**note.ranges.given(), **special.ranges.given()}), **changes)


def _first_known(tiers: Iterable[Sequence[tuple[T, ...]]]) -> tuple[T, ...]:
    for tier in tiers:
        if joined := dict.fromkeys(value for values in tier for value in values):
            return tuple(joined)
    return ()


def _span(name: str, tiers: Iterable[Sequence[Tendencies]]) -> Interval | None:
    for tier in tiers:
        if known := [given[name] for said in tier if name in (given := said.ranges.given())]:
            return min(low for low, _ in known), max(high for _, high in known)
    return None


def _mean_weights(tier: Sequence[Tendencies]) -> tuple[float, ...]:
    known = [weights for said in tier if (weights := place_weights_of(said))]
    return tuple(sum(cell) / len(known) for cell in zip(*known, strict=True))


def _stands_in(name: Sequence[str], asked: Sequence[str]) -> bool:
    return any(tuple(asked[at : at + len(name)]) == tuple(name) for at in range(len(asked) - len(name) + 1))


def _singular(word: str) -> str:
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
