"""What flows through the label agent's graph: JSON values and artifact keys, nothing else."""

from __future__ import annotations

import operator
from typing import Annotated, NotRequired, TypedDict

from ..memory.entries import Cost, Ending, WorkItem
from .anomaly_state import PlanJson


class LabelItem(WorkItem):
    """One scene to make; `category` is its labels joined with " + ", `source_row` the background's row."""

    labels: list[str]
    """Sorted, at least one."""


class PromptScore(TypedDict):
    """What the writer says of its own prompt, each from 0 to 10."""

    presence: float
    """Every prompted class is named so that it must be seen, and no other class is."""
    coherence: float
    """The parts make one picture."""
    plausibility: float
    """It could be photographed: sizes, places and looks are physically possible."""
    reasons: list[str]
    template: NotRequired[str]
    """Version of the question that a model was asked."""


class PromptEntry(TypedDict):
    """One version of an item's prompt."""

    draft: int
    """Which prompt of the item, from 1; a new one is drafted when pictures of the last were refused."""
    round: int
    """0 as it was drafted, then counted by rewrites."""
    text: str
    plans: list[PlanJson]
    """What it says of each label, for painters that edit."""
    score: NotRequired[PromptScore]
    """Absent where prompts are not refined."""
    by: str
    """Model that wrote it, or the embedded writer."""
    rung: str
    """What of the ladder of structured answers served; `planned` where no model was asked."""
    template: NotRequired[str]
    """Version of the question that a model was asked."""


class SceneEntry(TypedDict):
    """One painted scene, with what the filter found."""

    number: int
    """Of the item's pictures, from 1."""
    seed: int
    prompt: int
    """Row in the item's prompts."""
    artifact: str
    background: str
    """Key of the real image whose pixels it holds; empty: none."""
    parameters: dict[str, float | str]
    probabilities: dict[str, float]
    """Of every class, by the classifier; empty where nothing was asked."""
    text_score: NotRequired[float]
    refused: list[str]
    """Why it is not admitted: `missing NAME`, `extra NAME`, `text score`, `flaw: …`, or `unseen` until the filter has
    looked; empty: it is."""


class LabelState(TypedDict):
    """State of the label agent for one item. Fields without a reducer are replaced by their writer.

    The caller brings prompts, scores and scenes of a failed try that goes on.
    """

    item: LabelItem
    """Written by the caller."""
    prompts: Annotated[list[PromptEntry], operator.add]
    """Written by `draft_prompt` and `rewrite_prompt`; appended. Their scores stand in `scores`."""
    scores: Annotated[list[PromptScore], operator.add]
    """Of the prompts in their order, empty where prompts are not refined. Written by `score_prompt`; appended."""
    scenes: list[SceneEntry]
    """Written by the caller as empty; replaced by `paint` and `look`."""
    images_usd: Annotated[float, operator.add]
    """Written by the caller as 0; `paint` adds what a picture costs."""
    ending: NotRequired[Ending]
    """Written by the finish nodes."""
    reason: NotRequired[str]
    """Written by whoever ends the item early; `quota` where admission was not drawn."""


class LabelResult(TypedDict):
    """An item's entry in the ledger; the admitted scene is the last one."""

    item: LabelItem
    ending: Ending
    reason: str
    prompts: list[PromptEntry]
    scenes: list[SceneEntry]
    painter: dict[str, str]
    classifier: str
    """Revision of the filter's classifier; empty without the filter."""
    cost: Cost
    seconds: float
