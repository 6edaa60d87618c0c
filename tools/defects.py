"""What the anomaly agent's backends exchange: a plan of one defect, the edit made of it, what a judge says of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..configs.anomaly_agent import Outline
from ..data.records import ImageRGB, MaskHW

Family = Literal[
    "scratch", "crack", "hole", "chip", "stain", "dent", "contamination", "missing_part", "thread", "discolouration"
]
"""What defects of any name look like."""
Relief = Literal["flat", "removed", "added"]
"""How a defect meets the surface: level with it, material gone, or material on top."""
Tone = Literal["darker", "lighter"]
"""How bright a defect is against its surroundings."""
PASSING_SUM = 5.0
"""Location and quality must exceed it together (AnomalyAgent, arXiv 2604.07900)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectPlan:
    """One defect to be made, in units of the object that gets it."""

    defect: str
    """As the data set calls it."""
    family: Family
    centre_xy: tuple[float, float]
    """In [0, 1] of the box around the object's foreground, (0, 0) its upper left corner."""
    size_ratio: float
    """In (0, 1]: square root of the defect's area over that of the foreground."""
    elongation: float = 1.0
    """Length over width, at least 1."""
    orientation_deg: float = 0.0
    """Of the long axis, in [0, 180), counter-clockwise from rightward."""
    irregularity: float = 0.5
    """In [0, 1]: how ragged outline and texture are."""
    severity: float = 0.5
    """In [0, 1]: from hardly to plainly visible."""
    relief: Relief = "flat"
    colour_rgb: tuple[int, int, int] | None = None
    """sRGB; None: as physics and surface have it."""
    contrast: float | None = None
    """In [-1, 1]: mean grey less that of its surroundings; None: as physics and severity have it."""

    @property
    def tone(self) -> Tone | None:
        """Against its surroundings; None: as physics has it."""
        if self.contrast is None:
            return None
        return "darker" if self.contrast < 0 else "lighter"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """One normal image and the defect that it shall get. Equal requests give equal pixels (within 1/255)."""

    item_id: str
    seed: int
    plan: DefectPlan
    image_rgb: ImageRGB
    """(H, W, 3) uint8, sRGB; always the original, never an earlier edit."""
    foreground_hw: MaskHW
    """(H, W) bool: the object; all True where it fills the image."""
    prompt: str = ""
    """What to do, for painters that read it."""
    outline: Outline = "changed"
    """Of what the plan's size and contrast are; the edit's mask is of all that changed."""


@dataclass(frozen=True, slots=True)
class Edited:
    """An edited image."""

    rgb: ImageRGB
    """(H, W, 3) uint8, the frame of the request's image."""
    mask_hw: MaskHW | None
    """(H, W) bool, exact, where the painter knows what it changed."""
    parameters: Mapping[str, float | str]
    """What the painter drew from the seed or was set to, for the provenance."""
    usd: float = 0.0
    flaw: str = ""
    """Why this is no edit at all; empty: it is one."""


class DefectPainter(Protocol):
    """Makes defects on normal images, in batches."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """Version of the code or weights, for the provenance."""
        ...

    def paint(self, requests: Sequence[EditRequest]) -> list[Edited]:
        """One edit a request, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Quality:
    """A judge's rubric on one edit."""

    location: float
    """In [0, 5]: whether the defect is where such a one can be."""
    quality: float
    """In [0, 5]: whether it looks like a real one."""
    review: str
    """What is wrong and what to do about it, in words that a planner can act on; empty: nothing."""
    measures: Mapping[str, float]
    """What the scores were made of, where they were measured."""

    @property
    def total(self) -> float:
        return self.location + self.quality

    @property
    def passes(self) -> bool:
        return self.total > PASSING_SUM


class QualityJudge(Protocol):
    """Compares an edit with its original; it fails closed."""

    @property
    def name(self) -> str: ...

    def judge(self, request: EditRequest, edited: Edited, mask_hw: MaskHW) -> Quality:
        """Scores of one edit.

        Args:
            mask_hw: (H, W) bool, what was changed; may be empty.

        Raises:
            ModelOutageError, ModelAccessError, UnparseableAnswerError: of judges that ask a model.
        """
        ...
