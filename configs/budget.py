"""The `budget` section of a recipe: what a run may use. It never changes a result, only how much of it is made."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict, Field


def _usable_cores() -> int:
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


class BudgetSettings(BaseModel):
    """Limits of one call; none is part of a run's fingerprint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int | None = Field(None, ge=1, description="most work items; `--limit` is its shorthand")
    workers: int = Field(default_factory=_usable_cores, ge=1, le=256, description="items worked on at once")
