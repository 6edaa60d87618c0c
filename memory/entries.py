"""What lands in the ledger: JSON values and artifact keys, one entry an item or a scene."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Ending = Literal["accepted", "exhausted", "failed", "held"]
FINISHED: frozenset[Ending] = frozenset({"accepted", "exhausted"})
"""Endings that nothing changes any more."""
MADE: frozenset[Ending] = FINISHED | {"held"}
"""Endings of items that are never made again: a held one only waits for a person."""


class WorkItem(TypedDict):
    """One thing to make; its id is stable, so a resumed run knows it again."""

    item_id: str
    agent: str
    category_id: int
    category: str
    source_row: int
    """Row of the annotation that it starts from; -1 where it starts from words."""
    slot: int


class CriterionResult(TypedDict):
    """One criterion of a verdict."""

    name: str
    outcome: str
    score: float
    reason: str


class OpinionEntry(TypedDict):
    """What a vision judge said of an image."""

    judge: str
    """As the recipe names its model."""
    version: str
    """Of what it was asked."""
    description: str
    criteria: list[CriterionResult]
    rung: str
    raw_text: str
    """Its last answer as it came."""


HeldBecause = Literal["disagreement", "audit"]


class Review(TypedDict):
    """A person's verdict on an image that waited for one: an entry of the ledger RUN/reviews, named by `review_id`."""

    item_id: str
    round: int
    index: int
    artifact: str
    keep: bool
    reviewer: str
    """As they called themselves; may be empty."""
    decided: str
    """When, ISO 8601, UTC."""


def review_id(item_id: str, image: Attempt | Review) -> str:
    """Id of the review of one image; an item that is made anew has other images, with ids of their own."""
    return f"{item_id}-r{image['round']}-{image['index']}-{image['artifact'][:12]}"


class Attempt(TypedDict):
    """One painted image of an item, with everything that was found out about it."""

    round: int
    index: int
    """Among the images of its round, from 0."""
    seed: int
    strength: float
    artifact: str
    painted: NotRequired[str]
    """The picture as it was painted, where its mask was found afterwards."""
    condition: NotRequired[str]
    """The edges that guided it, where there were any."""
    control_scale: NotRequired[float]
    """How strongly they held."""
    parameters: dict[str, float | str]
    truncated_sides: list[str]
    measures: dict[str, float]
    criteria: list[CriterionResult]
    accepted: bool
    """Whether it goes into the data set; never before a person has decided, where one is asked."""
    opinions: NotRequired[list[OpinionEntry]]
    """Of vision judges, where any looked."""
    held: NotRequired[HeldBecause]
    """Why a person is asked. It stays when they have decided."""
    review: NotRequired[Review]
    """What the person decided; absent: it still waits."""


class Instance(TypedDict):
    """An accepted image: what the pool, the composer and the provenance need of it."""

    instance_id: str
    artifact: str
    phash: str
    truncated_sides: list[str]
    round: int
    index: int


class Writing(TypedDict):
    """A prompt of the T-Agent and how it came about."""

    prompt: str
    elements: list[str]
    rung: str
    """What of the ladder of structured answers served."""
    template: str
    """Version of the question that the writer was asked."""
    shortened: str
    """How it was made to fit the text encoder; empty: it fitted."""
    novelty: float
    """1 minus the cosine to the nearest remembered prompt of the class; 1 where none is remembered."""
    captions: list[str]
    """What a vision model saw in the pictures of the round before."""
    fields: NotRequired[dict[str, str]]
    """What the prompt is made of, by name, where it was written in fields."""


class Round(Writing):
    """One prompt of an item and what came of it."""

    round: int
    strength: float
    num_painted: int
    num_kept: int
    scores: dict[str, float]
    """Means over the round's images."""
    reasons: list[str]


class Cost(TypedDict):
    """What an item cost."""

    calls: int
    """Requests to language models."""
    input_tokens: dict[str, int]
    """By model, as the recipe names it."""
    output_tokens: dict[str, int]
    images_usd: float
    """What hosted painters asked for the pictures."""
    device_seconds: float
    """Of painters, maskers and scorers; a batch's time is shared by its requests."""


class Source(TypedDict):
    """The user's instance that an item starts from."""

    artifact: str
    file_name: str
    annotation_id: int
    licence: str
    truncation: float
    truncated_sides: list[str]
    side_ratio: float
    surround_rgb: NotRequired[tuple[float, float, float] | None]
    """Mean colour around it in its photograph."""
    row: NotRequired[int]
    """Of its annotation; another than the item's where that source was retired."""


def no_cost() -> Cost:
    return {"calls": 0, "input_tokens": {}, "output_tokens": {}, "images_usd": 0.0, "device_seconds": 0.0}


class ItemResult(TypedDict):
    """An item's entry in the ledger."""

    item: WorkItem
    ending: Ending
    reason: str
    source: Source | None
    unreadable_image: str
    """File name of the source's photograph where it does not decode, else empty."""
    painter: dict[str, str]
    attempts: list[Attempt]
    instances: list[Instance]
    rounds: list[Round]
    """Where a prompt was painted from; else empty."""
    cost: Cost
    seconds: float


JsonSegmentation = list[list[float]] | dict[str, object]
"""COCO polygons, or RLE with text counts."""


class SceneInstance(TypedDict):
    """One annotation of a scene."""

    origin: Literal["real", "synthetic"]
    source_id: str
    category_id: int
    segmentation: JsonSegmentation
    bbox_xywh: list[float]
    area: float
    is_crowd: bool
    seam: dict[str, float] | None


class SceneResult(TypedDict):
    """A scene's entry in the ledger."""

    scene_id: str
    artifact: str
    background: str
    width: int
    height: int
    instances: list[SceneInstance]
    dropped_originals: list[int]
    unplaced: list[str]
    unreadable_backgrounds: list[str]
    rejected: NotRequired[bool]
    """By vision judges, where any looked; it is no part of the data set then."""
    opinions: NotRequired[list[OpinionEntry]]
    cost: NotRequired[Cost]
    """Of the judges' looks."""
    harmonization: NotRequired[str]
    """By which harmonizer; `none` also in the control scenes of `compose.unharmonized_share`."""


class PlantedEntry(TypedDict):
    """A picture that is bad on purpose, and what a vision judge said of it."""

    kind: str
    """What is wrong with it."""
    category: str
    """What it was shown as."""
    opinion: OpinionEntry | None
    """None: no answer fitted."""


class JudgeEntry(TypedDict):
    """How a vision judge did on pictures that are bad on purpose."""

    judge: str
    version: str
    planted: list[PlantedEntry]
    calls: int
    input_tokens: int
    output_tokens: int
