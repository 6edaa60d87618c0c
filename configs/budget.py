"""The `budget` section of a recipe: what a run may use. It never changes a result, only how much of it is made."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field


def _usable_cores() -> int:
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


class TokenPrice(BaseModel):
    """What a language model costs, in USD per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)


class BudgetSettings(BaseModel):
    """Limits of one call; none is part of a run's fingerprint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int | None = Field(None, ge=1, description="most work items; `--limit` is its shorthand")
    workers: int = Field(default_factory=_usable_cores, ge=1, le=256, description="items worked on at once")
    batch_items: int = Field(
        8, ge=1, le=256, description="T-Agent items worked on at once; what they paint forms common batches"
    )
    usd: float | None = Field(None, gt=0, description="money that the run may cost; it stops cleanly before more")
    gpu_minutes: float | None = Field(
        None, gt=0, description="minutes that painters, maskers and scorers may take; it stops cleanly before more"
    )
    max_rejections_in_a_row: int | None = Field(
        40, ge=1, description="pictures that vision judges reject one after another before the run stops; null: any"
    )
    prices: dict[str, TokenPrice] = Field(
        default_factory=dict, description="USD per million tokens by model, as `llm` names it; others count as free"
    )
