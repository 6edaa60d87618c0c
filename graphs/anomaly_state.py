"""What flows through the anomaly agent's graph: JSON values and artifact keys, nothing else."""

from __future__ import annotations

import operator
from typing import Annotated, Literal, NotRequired, TypedDict

from ..memory.entries import Cost, Ending, WorkItem

ToolName = Literal[
    "prompt_generation", "image_generation", "quality_evaluation", "knowledge_retrieval", "mask_generation"
]


class PlanJson(TypedDict):
    """A `tools.defects.DefectPlan`."""

    defect: str
    family: str
    centre_xy: list[float]
    size_ratio: float
    elongation: float
    orientation_deg: float
    irregularity: float
    severity: float
    relief: str
    colour_rgb: list[int] | None
    contrast: NotRequired[float | None]


class Call(TypedDict):
    """A tool call, as a chat model makes it."""

    id: str
    name: str
    arguments: dict[str, object]


class Message(TypedDict):
    """A message of the trajectory, in the form that trl trains on; images are artifact keys."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: NotRequired[list[dict[str, object]]]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]


class EditEntry(TypedDict):
    """One edit of the normal image, with what was found out about it."""

    turn: int
    """From 1."""
    seed: int
    plan: PlanJson
    prompt: str
    artifact: str
    mask: str
    """Artifact of (H, W, 3) uint8, 255 where the image was changed; empty where nothing was found."""
    parameters: dict[str, float | str]
    flaw: str
    location: NotRequired[float]
    """In [0, 5]; absent: not judged yet."""
    quality: NotRequired[float]
    """In [0, 5]."""
    review: NotRequired[str]
    measures: NotRequired[dict[str, float]]


class Flag(TypedDict):
    """A call out of order, and why it was refused."""

    call: str
    reason: str


class AnomalyState(TypedDict):
    """State of the anomaly agent for one item. Fields without a reducer are replaced by their writer.

    The caller brings source, messages, flags, plan, edits and knowledge of a failed try that goes on.
    """

    item: WorkItem
    """Written by the caller; its category is the defect, its source row the normal image."""
    source: NotRequired[str]
    """Artifact of the normal image. Written by `open_image`."""
    messages: Annotated[list[Message], operator.add]
    """The trajectory. Written by `open_image`, `decide` and `act`; appended."""
    call: NotRequired[Call | None]
    """What to do next. Written by `decide`; None: nothing is left to do."""
    plan: NotRequired[PlanJson]
    """Written by `act`: the first by prompt_generation, changed by image_generation."""
    edits: list[EditEntry]
    """Written by the caller as empty; replaced by `act`."""
    knowledge: NotRequired[str]
    """What was looked up. Written by `act`."""
    flags: Annotated[list[Flag], operator.add]
    """Calls out of order. Written by `act`; appended."""
    images_usd: Annotated[float, operator.add]
    """Written by the caller as 0; `act` adds what an edit costs."""
    is_masked: bool
    """Written by the caller as False; by `act` as True once the mask of a passing edit is final."""
    ending: NotRequired[Ending]
    """Written by the finish nodes."""
    reason: NotRequired[str]
    """Written by whoever ends the item early."""


class AnomalyResult(TypedDict):
    """An item's entry in the ledger."""

    item: WorkItem
    ending: Ending
    reason: str
    normal: str
    """File name of the normal image."""
    source: str
    """Its artifact; empty where it does not decode."""
    painter: dict[str, str]
    knowledge: str
    """Fingerprint of what was known when the run began."""
    edits: list[EditEntry]
    messages: list[Message]
    flags: list[Flag]
    cost: Cost
    seconds: float


class AnomalyRunState(TypedDict):
    """State of an anomaly run's own graph: counters; the files on disk hold the rest."""

    wave: int
    """Written by `read` as 0; `make_wave` adds one."""
    num_accepted: int
    """Accepted samples so far. Written by `make_wave`."""
    num_open: int
    """Samples that are still to be made and can be. Written by `read` and `make_wave`."""
    stopped: bool
    """True after Ctrl-C. Written by `make_wave`."""
    spent: str
    """Which limit of the budget is reached, in words. Written by `make_wave`."""
