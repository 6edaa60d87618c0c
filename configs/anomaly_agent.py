"""Settings of the anomaly agent: its painter, its judge, its loop and what it may spend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .anomaly import ProceduralSettings

Share = Annotated[float, Field(ge=0, le=1)]


class AnomalyAgentSettings(BaseModel):
    """The anomaly agent: defects made on normal images, judged and made better in a loop (arXiv 2604.07900)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    painter: str = Field("procedural", min_length=1, description="name of the painter")
    decider: Literal["policy", "model"] = Field(
        "policy", description="who calls the tools: a fixed policy, or `llm.planner`, which must know tool calling"
    )
    max_turns: int = Field(4, ge=1, le=20, description="edits that an item may cost")
    max_illegal_calls: int = Field(3, ge=0, le=50, description="calls out of order that a model may make")
    loop: bool = Field(True, description="judge, look things up and edit again; false: the first edit is taken")
    severity: tuple[Share, Share] = Field((0.3, 0.8), description="least and most severity of a first plan")
    procedural: ProceduralSettings = ProceduralSettings()
