"""The arguments of the anomaly agent's tools, as chat models are shown them and as calls are checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .anomaly_state import Call

Share = Annotated[float, Field(ge=0, le=1)]


class NoArguments(BaseModel):
    """Nothing that a schema does not name."""

    model_config = ConfigDict(extra="forbid")


class prompt_generation(NoArguments):  # noqa: N801  # a tool's name is its schema's
    """Plan the defect: type, place, size, shape, severity, how it meets the surface. Once, first."""


class image_generation(NoArguments):  # noqa: N801
    """Edit the original photograph by the plan, changed where a parameter is given."""

    centre_xy: list[Share] | None = Field(None, min_length=2, max_length=2, description="in [0, 1] of the object's box")
    size_ratio: float | None = Field(None, gt=0, le=1, description="side of the defect over the object's")
    elongation: float | None = Field(None, ge=1, le=500, description="length over width")
    orientation_deg: float | None = Field(None, ge=0, lt=180, description="counter-clockwise from rightward")
    irregularity: float | None = Field(None, ge=0, le=1, description="how ragged")
    severity: float | None = Field(None, ge=0, le=1, description="from hardly to plainly visible")
    relief: Literal["flat", "removed", "added"] | None = Field(None, description="level, material gone, or on top")


class quality_evaluation(NoArguments):  # noqa: N801
    """Score the last edit, with a review."""


class knowledge_retrieval(NoArguments):  # noqa: N801
    """Look up what such a defect looks like; only after a low score."""


class mask_generation(NoArguments):  # noqa: N801
    """Make the final mask of the edit that passed; it ends the task."""


SCHEMAS: tuple[type[BaseModel], ...] = (
    prompt_generation,
    image_generation,
    quality_evaluation,
    knowledge_retrieval,
    mask_generation,
)


def find_argument_fault(call: Call) -> str:
    """What is wrong with a call's arguments, as the caller is told it; empty: nothing."""
    schema = next((schema for schema in SCHEMAS if schema.__name__ == call["name"]), NoArguments)
    try:
        schema.model_validate(call["arguments"])
    except ValidationError as exc:
        problems = exc.errors(include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
    return ""
