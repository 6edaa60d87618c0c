"""Settings of the anomaly agent's parts."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ProceduralSettings(BaseModel):
    """How the embedded painter draws defects."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    just_noticeable_levels: float = Field(
        4.0, ge=0, le=64, description="least change, of 255, that counts as part of a defect and of its mask"
    )
    edge_blur_ratio: float = Field(
        1.0, ge=0, le=4, description="softness of a defect's edges over that of the image's own sharp ones"
    )
    grain_ratio: float = Field(
        1.0, ge=0, le=4, description="noise where a defect hides the surface, over that of the image"
    )
