"""What flows through the graphs: JSON values and artifact keys, nothing else."""

from __future__ import annotations

import operator
from typing import Annotated, NotRequired, TypedDict

from ..memory.entries import Attempt, Ending, Source, WorkItem


class ImageAgentState(TypedDict):
    """State of the I-Agent for one item. Every field but `attempts` is replaced by its writer."""

    item: WorkItem
    """Written by the caller."""
    round: int
    """Written by the caller as 1; `revise` adds one."""
    strength: float
    """Written by the caller; `revise` changes it."""
    source: NotRequired[Source]
    """Written by `cut_out`."""
    candidate: NotRequired[Attempt]
    """Written by `vary`; `measure` and `judge` complete it."""
    attempts: Annotated[list[Attempt], operator.add]
    """Written by `judge`, one a round; appended."""
    unreadable_image: NotRequired[str]
    """Written by `cut_out`: the source's photograph, where it does not decode."""
    ending: NotRequired[Ending]
    """Written by the finish nodes."""
    reason: NotRequired[str]
    """Written by whoever ends the item early: what was wrong with the source, or what broke."""


class RunState(TypedDict):
    """State of the run's own graph: counters; the files on disk hold the rest."""

    num_items: int
    """Written by `plan`."""
    num_waves: int
    """Written by `plan`."""
    wave: int
    """Written by `plan` as 0; `make_wave` adds one."""
    num_accepted: int
    """Accepted instances so far; written by `make_wave`."""
    num_scenes: int
    """Written by `compose`."""
    stopped: bool
    """True after Ctrl-C; written by `make_wave` and `compose`."""
