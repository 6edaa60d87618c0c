"""What a backend must be: one-method Protocols and the frozen records that they exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from ..data.masks import mask_to_bbox
from ..data.records import ImageRGB, ImageRGBA, MaskHW


@dataclass(frozen=True, slots=True)
class SourceView:
    """An instance in its surroundings: a padded crop of its photograph, clipped at the photograph's border."""

    rgb: ImageRGB
    """(H, W, 3) uint8, sRGB."""
    mask_hw: MaskHW
    """(H, W) bool, at least one pixel."""

    @property
    def box_xyxy(self) -> tuple[float, float, float, float]:
        x, y, width, height = mask_to_bbox(self.mask_hw)
        return (x, y, x + width, y + height)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaintRequest:
    """One image to make. Equal requests give equal pixels, alone or in any batch (within 1/255)."""

    item_id: str
    seed: int
    category: str
    prompt: str = ""
    """What to paint, for text to image; painters that only vary a source leave it alone."""
    source_rgba: ImageRGBA | None = None
    """(h, w, 4) uint8 cut-out that the image starts from; None for text to image."""
    strength: float
    """0 keeps the source, 1 departs as far as the painter's settings allow. Without any start it means nothing."""
    truncated_sides: tuple[str, ...] = ()
    """Sides on which the source was cut by its image's border; the cuts must stay straight and level."""
    view: SourceView | None = None
    """The source in its surroundings, for painters that need them."""
    control_scale: float = 0.0
    """How strongly the source's edges hold, for painters that follow them; 0 not at all."""


@dataclass(frozen=True, slots=True)
class Painted:
    """One image made."""

    rgba: ImageRGBA
    """(h, w, 4) uint8, straight alpha; 255 everywhere from a painter of opaque pictures."""
    parameters: Mapping[str, float | str]
    """What the painter drew from the seed or was set to, for the provenance."""
    truncated_sides: tuple[str, ...] = ()
    usd: float = 0.0
    """What the image cost in money."""
    covers_view: bool = False
    """Whether it shows the same frame as the request's view, at whatever size, so that the source's mask and box lie
    where the object should be."""
    condition: ImageRGB | None = None
    """(h, w, 3) uint8: the edges that guided it."""
    flaw: str = ""
    """Why this is no picture at all (not finite, black, blanked by a safety checker); empty: it is one."""


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


class PromptReader(Protocol):
    """Reads a prompt with a text encoder."""

    @property
    def max_tokens(self) -> int | None:
        """Most tokens that the text encoder reads of a prompt; None where it cannot be known."""
        ...

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt as the text encoder counts them."""
        ...


class SourcePainter(Painter, Protocol):
    """Makes pixels from an instance of the user's."""

    @property
    def prompt_reader(self) -> PromptReader | None:
        """Who reads the requests' prompts; None where nobody does."""
        ...

    @property
    def needs_view(self) -> bool:
        """Whether it starts from the source in its surroundings, not from the cut-out."""
        ...


class TextPainter(Painter, PromptReader, Protocol):
    """Makes pixels from words."""

    def knows(self, category: str) -> bool:
        """Whether it can draw a class; a painter of an open vocabulary says yes to all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRequest:
    """One picture whose object is to be found."""

    rgba: ImageRGBA
    """(h, w, 4) uint8, as it was painted."""
    category: str
    box_xyxy: tuple[float, float, float, float] | None = None
    """Where the object is known to be, pixels; None: find it."""
    mask_hw: MaskHW | None = None
    """(h, w) bool: where an object of the same place and kind was; maskers that can start from it do."""


@dataclass(frozen=True, slots=True)
class Masked:
    """One object found."""

    alpha: npt.NDArray[np.uint8]
    """(h, w) uint8, 255 inside; soft where the masker makes soft edges; all 0 where nothing was found."""
    score: float
    """The masker's own confidence in [0, 1]; 1 where it has none."""
    num_instances: int | None = None
    """How many objects of the class it counted in the picture; None where it does not count."""


class Masker(Protocol):
    """Finds the mask of one object, in batches."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """Version of the code or weights, for the provenance."""
        ...

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        """One mask a request, in order."""
        ...


class TextScorer(Protocol):
    """Says how well a text names what an image shows."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def score(self, images: Sequence[ImageRGB | ImageRGBA], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(images, texts) float32, more is better; in [0, 1] or a cosine, as the scorer's own docstring says."""
        ...

    def knows(self, category: str) -> bool:
        """Whether its opinion on a class is worth anything; one of an open vocabulary says yes to all."""
        ...


class CutOutScorer(Protocol):
    """Says how good a cut-out is, whatever it shows."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def score(self, images: Sequence[ImageRGBA]) -> npt.NDArray[np.float32]:
        """(n,) float32 in [0, 1], more is better; each image (H, W, 4) uint8, some pixel of its mask visible."""
        ...


class ImageEmbedder(Protocol):
    """Turns images into features to compare by their dot product."""

    @property
    def name(self) -> str: ...

    def embed(self, images: Sequence[ImageRGB | ImageRGBA]) -> npt.NDArray[np.float32]:
        """(n, d) float32, each row of length 1."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What one vision judge said of one picture, and what that took."""

    judge: str
    """As the recipe names its model."""
    version: str
    """Of what it was asked: question, criteria and how the picture is shown."""
    description: str
    """What it saw, in a sentence; empty where it would not look."""
    criteria: tuple[Criterion, ...]
    rung: str
    """What of the ladder of structured answers served; `refused` where the provider would not take the picture."""
    raw_text: str
    """Its last answer as it came."""
    calls: int
    input_tokens: int
    output_tokens: int

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.criteria)


class VisionJudge(Protocol):
    """Looks at a picture and answers criteria about it; it fails closed."""

    @property
    def name(self) -> str:
        """As the recipe names its model."""
        ...

    @property
    def version(self) -> str:
        """Of what it asks; opinions of equal name and version need not be asked for again."""
        ...

    def judge(self, picture: ImageRGB | ImageRGBA, category: str) -> Opinion:
        """One opinion on one picture. A picture that the provider refuses gets abstentions with the reason.

        Args:
            picture: (h, w, 3) or (h, w, 4) uint8; a cut-out is shown on plain grey.

        Raises:
            ModelOutageError, ModelAccessError: the model cannot be asked.
            UnparseableAnswerError: it answered, and nothing of it fits, after bounded repairs.
        """
        ...


class MeasureJudge(Protocol):
    """Judges a sample by its measures."""

    def judge(self, measures: Mapping[str, float]) -> Verdict: ...
