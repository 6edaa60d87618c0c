"""The `plan` section of a recipe: how many instances each class gets, and from what."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PlanSettings(BaseModel):
    """Quotas: top every class up to `at_least`, or by LVIS's repeat factor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["instances", "images", "repeat_factor"] = Field(
        "instances", description="what `at_least` counts; repeat_factor ignores it and uses repeat_threshold"
    )
    at_least: int = Field(50, ge=0, description="real plus accepted instances, or images, that a class gets")
    repeat_threshold: float = Field(
        0.001, gt=0, le=1, description="t of the repeat factor max(1, sqrt(t / image share)); LVIS uses 0.001"
    )
    max_per_class: int | None = Field(None, ge=0, description="most new instances of one class")
    classes: tuple[str, ...] | None = Field(None, description="only these classes; null means all")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of everything random in the run")
    wave_size: int = Field(32, ge=1, le=4096, description="items that start from the same shared memory")
