"""What painters of whole labelled pictures are asked for and answer: a scene that shows the prompted classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..data.records import ImageRGB
from .defects import DefectPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRequest:
    """One scene to make. Equal requests give equal pixels (within 1/255)."""

    item_id: str
    seed: int
    prompt: str
    """What to paint, in words."""
    labels: tuple[str, ...]
    """Classes that the scene must show, and no other of the data set's; sorted, at least one."""
    plans: tuple[DefectPlan, ...] = ()
    """What the prompt says of each label, in their order, for painters that edit a background; else none."""
    background: int
    """Row of the real image, without what is to be painted, that an editing painter starts from; -1: of none."""


@dataclass(frozen=True, slots=True)
class PaintedScene:
    """A scene made."""

    rgb: ImageRGB
    """(H, W, 3) uint8, sRGB."""
    background: str
    """Key of the real image whose pixels it holds; empty: it holds none."""
    parameters: Mapping[str, float | str]
    """What the painter drew from the seed or was set to, for the provenance."""
    usd: float = 0.0
    flaw: str = ""
    """Why this is no picture at all; empty: it is one."""


class ScenePainter(Protocol):
    """Makes whole pictures of one class or several."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """Version of the code or weights, for the provenance."""
        ...

    @property
    def max_words(self) -> int | None:
        """Most words of a prompt that it reads; None: it reads all."""
        ...

    def knows(self, label: str) -> bool:
        """Whether it can draw a class; a painter of an open vocabulary says yes to all."""
        ...

    def paint(self, requests: Sequence[SceneRequest]) -> list[PaintedScene]:
        """One scene a request, in order."""
        ...
