"""What the graphs' nodes are given: frozen bundles of Protocols, by `Runtime.context`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..configs.agents import ImageAgentSettings
from ..data.records import ImageRGBA
from ..tools.protocols import MeasureJudge, Painter

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAgentServices:
    """What the I-Agent needs. `pool_hashes` is the pool as it stood when the wave began."""

    settings: ImageAgentSettings
    run_seed: int
    painter: Painter
    judge: MeasureJudge
    artifacts: Artifacts
    sources: Sources
    pool_hashes: Mapping[int, Sequence[int]]


class Executor(Protocol):
    """Hands out independent work; results come as they are ready."""

    def map(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Iterator[ResultT]: ...


class Progress(Protocol):
    """Where a run says how far it is."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None: ...
