"""A note of what was measured on references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .knowledge_notes import Interval, Note, Ranges, Tone

CLEAR_SHARE = 0.65
"""Share of the references from which on a tone is the rule."""


class Measured(Protocol):
    """What was measured on reference defects; `tools.judging.reference_statistics` makes it."""

    @property
    def darker_share(self) -> float: ...

    @property
    def place_weights(self) -> tuple[float, ...]: ...

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
        text=measured.describe(),
    )
