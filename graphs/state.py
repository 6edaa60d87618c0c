"""What flows through the graphs: JSON values and artifact keys, nothing else."""

from __future__ import annotations

import operator
from typing import Annotated, NotRequired, TypedDict

from ..memory.entries import Attempt, Ending, Round, Source, WorkItem, Writing


class ImageAgentState(TypedDict):
    """State of the I-Agent for one item. Every field but `attempts` and `rounds` is replaced by its writer."""

    item: WorkItem
    """Written by the caller."""
    round: int
    """Written by the caller as 1; `revise` adds one."""
    strength: float
    """Written by the caller; `revise` changes it."""
    control_scale: float
    """Written by the caller; `revise` changes it."""
    writing: NotRequired[Writing]
    """Written by `describe` and `revise`, where the painter reads a prompt."""
    source: NotRequired[Source]
    """Written by `cut_out`."""
    candidates: NotRequired[list[Attempt]]
    """Written by `paint`, one; completed by `mask`, `measure` and `validate`."""
    attempts: Annotated[list[Attempt], operator.add]
    """Written by `conclude`, one a round; appended."""
    rounds: Annotated[list[Round], operator.add]
    """Written by `conclude`, one a round, where there is a prompt; appended."""
    images_usd: Annotated[float, operator.add]
    """Written by the caller as 0; `paint` adds what a picture costs."""
    unreadable_image: NotRequired[str]
    """Written by `cut_out`: the source's photograph, where it does not decode."""
    ending: NotRequired[Ending]
    """Written by the finish nodes."""
    reason: NotRequired[str]
    """Written by whoever ends the item early: what was wrong with the source, or what broke."""


class Recollection(TypedDict):
    """What the prompt memory told of a class."""

    good: list[str]
    bad: list[tuple[str, str]]
    """Prompts with what was wrong."""
    strength: float | None
    """The one that promises the best yield; None where nothing is remembered."""


class TextAgentState(TypedDict):
    """State of the T-Agent for one item. Every field but `attempts` and `rounds` is replaced by its writer."""

    item: WorkItem
    """Written by the caller."""
    round: int
    """Written by the caller as 1; `revise_prompt` adds one."""
    strength: float
    """Written by the caller; `recall` and `revise_prompt` change it."""
    recalled: NotRequired[Recollection]
    """Written by `recall`."""
    writing: NotRequired[Writing]
    """Written by `write_prompts` and `revise_prompt`."""
    candidates: NotRequired[list[Attempt]]
    """Written by `paint`, one an image; completed by `mask`, `measure` and `validate`."""
    attempts: Annotated[list[Attempt], operator.add]
    """Written by `conclude`, one an image; appended."""
    rounds: Annotated[list[Round], operator.add]
    """Written by `conclude`, one a round; appended."""
    images_usd: Annotated[float, operator.add]
    """Written by the caller as 0; `paint` adds what a round's pictures cost."""
    ending: NotRequired[Ending]
    """Written by the finish nodes."""
    reason: NotRequired[str]
    """Written by whoever ends the item early: what broke."""


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
    spent: str
    """Which limit of the budget is reached, in words; empty while there is some left. Written by `make_wave`."""
