"""The `plan` section of a recipe: how many instances each class gets, and from what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class FrequencySettings(BaseModel):
    """What a class of each of LVIS's frequency groups is topped up to, real plus accepted instances."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rare: int = Field(50, ge=0, description="of a class in at most 10 training images")
    common: int = Field(20, ge=0, description="of a class in at most 100 training images")
    frequent: int = Field(0, ge=0, description="of a class in more; 0 leaves it as it is")


class PlanSettings(BaseModel):
    """Quotas: top every class up to `at_least`, by its frequency group, or by LVIS's repeat factor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["instances", "images", "repeat_factor", "frequency"] = Field(
        "instances",
        description="what `at_least` counts; repeat_factor and frequency ignore it and use repeat_threshold, frequency",
    )
    at_least: int = Field(50, ge=0, description="real plus accepted instances, or images, that a class gets")
    repeat_threshold: float = Field(
        0.001, gt=0, le=1, description="t of the repeat factor max(1, sqrt(t / image share)); LVIS uses 0.001"
    )
    frequency: FrequencySettings = FrequencySettings()
    extra: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="new instances of a class above its quota, by name; `--loop` sets it by gains"
    )
    max_per_class: int | None = Field(None, ge=0, description="most new instances of one class")
    classes: tuple[str, ...] | None = Field(None, description="only these classes; null means all")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of everything random in the run")
    wave_size: int = Field(32, ge=1, le=4096, description="items that start from the same shared memory")
