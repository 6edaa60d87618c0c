"""What a backend must be: one-method Protocols and the frozen records that they exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..data.records import ImageRGBA


@dataclass(frozen=True, slots=True, kw_only=True)
class PaintRequest:
    """One image to make. Equal requests give equal pixels, alone or in any batch (within 1/255)."""

    item_id: str
    seed: int
    category: str
    source_rgba: ImageRGBA | None
    """(h, w, 4) uint8 cut-out that the image starts from; None for text to image."""
    strength: float
    """0 keeps the source, 1 departs as far as the painter's settings allow."""
    truncated_sides: tuple[str, ...] = ()
    """Sides on which the source was cut by its image's border; the cuts must stay straight and level."""


@dataclass(frozen=True, slots=True)
class Painted:
    """One image made. `parameters` are what the painter drew from the seed, for the provenance."""

    rgba: ImageRGBA
    parameters: Mapping[str, float]
    truncated_sides: tuple[str, ...] = ()


class Painter(Protocol):
    """Makes pixels, in batches."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """Version of the code or weights, for the provenance."""
        ...

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """One image a request, in order."""
        ...


Outcome = Literal["meet", "fail", "abstain"]


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question that a judge answered."""

    name: str
    outcome: Outcome
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer; it accepts only when every criterion is met."""

    criteria: tuple[Criterion, ...]

    @property
    def accepted(self) -> bool:
        return bool(self.criteria) and all(criterion.outcome == "meet" for criterion in self.criteria)

    @property
    def rejections(self) -> tuple[Criterion, ...]:
        return tuple(criterion for criterion in self.criteria if criterion.outcome != "meet")


class MeasureJudge(Protocol):
    """Judges a sample by its measures."""

    def judge(self, measures: Mapping[str, float]) -> Verdict: ...
