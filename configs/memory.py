"""The `memory` section of a recipe: the prompts that runs remember, and what a run is told of them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class MemorySettings(BaseModel):
    """One memory serves all runs that name its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="whether prompts are remembered and recalled")
    path: Path = Field(
        Path(".maskwright/memory"), description="folder, made when missing; relative to where a run starts"
    )
    embeddings: str = Field("embedded:minilm", description="text embeddings by which prompts are compared")
    novelty: float = Field(
        0.95,
        gt=0,
        le=1,
        description="a prompt counts as new up to this cosine to its class's nearest; by MiniLM a rewording of the "
        "same scene lies above 0.98, one changed colour at 0.89",
    )
    knowledge_path: Path = Field(
        Path(".maskwright/knowledge"), description="folder of the knowledge base on defects and materials"
    )
    num_best: int = Field(3, ge=0, le=50, description="best prompts of a class that a run is told")
    num_worst: int = Field(3, ge=0, le=50, description="worst prompts of a class, with the reasons of their rejections")
    num_nearest: int = Field(5, ge=1, le=50, description="nearest prompts to a new one that are looked up")
