"""A note of what was measured on references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .knowledge_notes import Interval, Note, Ranges, Shape, Tone

CLEAR_SHARE = 0.65
"""Share of the references from which on a tone is the rule."""


class MeasuredShape(Protocol):
    """One part of a reference, as a plan has it."""

    @property
    def size_ratio(self) -> float: ...

    @property
    def elongation(self) -> float: ...

    @property
    def orientation_deg(self) -> float: ...

    @property
    def centre_xy(self) -> tuple[float, float]: ...

    @property
    def contrast(self) -> float: ...


class Measured(Protocol):
    """What was measured on reference defects; `tools.judging.reference_statistics` makes it."""

    @property
    def darker_share(self) -> float: ...

    @property
    def place_weights(self) -> tuple[float, ...]: ...

    @property
    def shapes(self) -> Sequence[MeasuredShape]: ...

    def plan_ranges(self) -> Mapping[str, Interval]: ...

    def describe(self) -> str: ...


def measured_note(item: str, defect: str, measured: Measured) -> Note:
    """A note for this item alone; it says nothing of what the defect looks like, so other notes still do."""
    darker = measured.darker_share
    tone: tuple[Tone, ...] = ("darker", "lighter") if darker >= 0.5 else ("lighter", "darker")
    return Note(
        name=defect,
        items=(item,),
        ranges=Ranges.model_validate(dict(measured.plan_ranges())),
        tone=tone[:1] if max(darker, 1 - darker) >= CLEAR_SHARE else tone,
        place_weights=measured.place_weights,
        shapes=tuple(map(_rounded, measured.shapes)),
        text=measured.describe(),
    )


def _rounded(shape: MeasuredShape) -> Shape:
    """To what a person reads, and one text on every machine."""
    x, y = shape.centre_xy
    return Shape(
        size_ratio=max(0.001, round(shape.size_ratio, 4)),
        elongation=min(500.0, round(shape.elongation, 2)),
        orientation_deg=round(shape.orientation_deg, 1),
        centre_xy=(round(x, 3), round(y, 3)),
        contrast=round(shape.contrast, 3),
    )
