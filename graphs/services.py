"""What the graphs' nodes are given: frozen bundles of Protocols, by `Runtime.context`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..configs.agents import TextAgentSettings
from ..configs.image_agent import ImageAgentSettings
from ..data.records import ImageRGBA
from ..memory.entries import WorkItem
from ..tools.composing.surroundings import MeanRGB
from ..tools.protocols import Masked, MaskRequest, Painted, PaintRequest, SourceView, Verdict
from .lockstep import Meter
from .state import Recollection
from .validating import Validator
from .writing import Captioner, DiversityElements, PromptWriter, Usage

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Artifacts(Protocol):
    """Durable bytes by content."""

    def put(self, content: bytes, suffix: str) -> str: ...

    def put_image(self, image: npt.NDArray[np.uint8]) -> str: ...

    def get_image(self, key: str) -> npt.NDArray[np.uint8]: ...

    def path(self, key: str) -> Path: ...


@dataclass(frozen=True, slots=True)
class SourceCutOut:
    """One of the user's instances, cut out of its photograph: (h, w, 4) uint8, tight, binary alpha."""

    rgba: ImageRGBA
    file_name: str
    annotation_id: int
    licence: str
    truncation: float
    truncated_sides: tuple[str, ...]
    side_ratio: float
    surround_rgb: MeanRGB | None = None
    """Mean colour around it in its photograph; None where nothing is around it."""


class Sources(Protocol):
    """Cuts instances out of the user's photographs."""

    def file_name(self, row: int) -> str:
        """Name of the photograph of one annotation row."""
        ...

    def cut_out(self, row: int) -> SourceCutOut:
        """Instance of one annotation row.

        Raises:
            SampleError: the photograph cannot be decoded, or the mask is empty.
        """
        ...

    def view(self, row: int, padding_ratio: float) -> SourceView:
        """The same in its surroundings, padded by a share of its box's longer side; raises as `cut_out`."""
        ...


class PromptMemory(Protocol):
    """The prompt history as an item may see it: as it stood when its wave began."""

    def recall(self, category: str) -> Recollection: ...

    def nearest_cosine(self, category: str, prompt: str) -> float:
        """Likeness to the nearest remembered prompt of the class, in [-1, 1]; 0 where none is remembered."""
        ...

    def is_novel(self, cosine: float) -> bool: ...


class ElementsStore(Protocol):
    """A class's diversity elements, asked for once."""

    def plan_ahead(self, category_id: int, category: str, planner: PromptWriter) -> None: ...

    def of(self, category_id: int, category: str, usage: Usage) -> DiversityElements: ...


class PictureJudge(Protocol):
    """Judges measures of pictures of one class; `earlier` ones set the class's thresholds with them."""

    def judge(
        self, measures: Sequence[Mapping[str, float]], earlier: Sequence[Mapping[str, float]] = ()
    ) -> list[Verdict]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationServices:
    """What the validation agent needs, alone or inside a painter's graph."""

    judge: PictureJudge
    class_scores: Mapping[int, Sequence[Mapping[str, float]]]
    """Likenesses of all pictures of each class, as they stood when the wave began."""
    validator: Validator
    usage: Usage
    """Of the item; whoever asks a language model adds to it."""
    artifacts: Artifacts


Pair = tuple[ImageRGBA, str]
"""A cut-out and the name of its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextAgentServices(ValidationServices):
    """What the T-Agent needs for one item. `pool_hashes` is the pool as it stood when the wave began.

    The batch functions answer this item's requests together with those of its companions (see `lockstep.py`).
    """

    settings: TextAgentSettings
    run_seed: int
    memory: PromptMemory
    elements: ElementsStore
    writer: PromptWriter
    captioner: Captioner | None
    meter: Meter
    """Of the item; the batch functions add to it."""
    paint: Callable[[Sequence[PaintRequest]], Sequence[Painted]]
    mask: Callable[[Sequence[MaskRequest]], Sequence[Masked]]
    score: Callable[[Sequence[Pair]], Sequence[Mapping[str, float]]]
    """Dual similarity of each cut-out: `image_text`; `image_image` where the class has real crops; `wholeness`."""
    pool_hashes: Mapping[int, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Variant:
    """An image of the I-Agent beside what it came from."""

    rgba: ImageRGBA
    source_rgba: ImageRGBA
    source_key: str
    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAgentServices(ValidationServices):
    """What the I-Agent needs for one item; the batch functions as the T-Agent's.

    `pool_hashes` is as it stood when the wave began.
    """

    settings: ImageAgentSettings
    run_seed: int
    sources: Sources
    choose_source: Callable[[WorkItem], int | None]
    """Row of the source to start from: the item's own, or another where that was retired; None: none is left."""
    needs_view: bool
    """Whether the painter starts from the source in its surroundings."""
    writer: PromptWriter | None
    """None where the painter reads no prompt."""
    captioner: Captioner | None
    meter: Meter
    paint: Callable[[Sequence[PaintRequest]], Sequence[Painted]]
    mask: Callable[[Sequence[MaskRequest]], Sequence[Masked]]
    score: Callable[[Sequence[Variant]], Sequence[Mapping[str, float]]] | None
    """Likenesses of each variant: `source_likeness`, and `image_text` where the class is known. None: not asked."""
    pool_hashes: Mapping[int, Sequence[int]]


class Executor(Protocol):
    """Hands out independent work; results come as they are ready."""

    def map(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Iterator[ResultT]: ...


class Progress(Protocol):
    """Where a run says how far it is."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None: ...
