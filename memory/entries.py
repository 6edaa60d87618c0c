"""What lands in the ledger: JSON values and artifact keys, one entry an item or a scene."""

from __future__ import annotations

from typing import Literal, TypedDict

Ending = Literal["accepted", "exhausted", "failed", "held"]
FINISHED: frozenset[Ending] = frozenset({"accepted", "exhausted"})
"""Endings that a resumed run never tries again."""


class WorkItem(TypedDict):
    """One thing to make; its id is stable, so a resumed run knows it again."""

    item_id: str
    agent: str
    category_id: int
    category: str
    source_row: int
    slot: int


class CriterionResult(TypedDict):
    """One criterion of a verdict."""

    name: str
    outcome: str
    score: float
    reason: str


class Attempt(TypedDict):
    """One painted image of an item, with everything that was found out about it."""

    round: int
    seed: int
    strength: float
    artifact: str
    parameters: dict[str, float]
    truncated_sides: list[str]
    measures: dict[str, float]
    criteria: list[CriterionResult]
    accepted: bool


class Instance(TypedDict):
    """An accepted image: what the pool, the composer and the provenance need of it."""

    instance_id: str
    artifact: str
    phash: str
    truncated_sides: list[str]
    round: int


class Source(TypedDict):
    """The user's instance that an item starts from."""

    artifact: str
    file_name: str
    annotation_id: int
    licence: str
    truncation: float
    truncated_sides: list[str]
    side_ratio: float


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
