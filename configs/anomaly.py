"""Settings of the anomaly agent's parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .conditioning import ConditionedSettings
from .hosted import HostedSettings

Share = Annotated[float, Field(ge=0, le=1)]


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


class InpaintingEditSettings(ConditionedSettings):
    """A pipeline that paints the defect into a crop of the image; only the plan's region takes it over."""

    task: Literal["inpainting", "image_to_image"] = Field(
        "inpainting",
        description="inpainting: the model is told the region; image_to_image: it is not, as with editors that follow "
        "an instruction (FLUX.1 Kontext)",
    )
    strength: tuple[Share, Share] = Field(
        (0.7, 1.0), description="departure from the surface at severity 0 and 1, for pipelines that know it"
    )
    control_scale: float = Field(0.5, ge=0, le=2, description="how strongly the surface's edges hold, with controlnet")
    grow_ratio: float = Field(
        0.25,
        ge=0,
        le=2,
        description="how far the region reaches beyond the planned defect and fades out, of its mean side",
    )
    context_ratio: float = Field(
        1.0, ge=0, le=10, description="surroundings in the crop, of the region's longer side, each side"
    )
    min_crop_px: int = Field(
        256, ge=16, le=4096, description="least side of the crop; a smaller one is magnified more, and comes back soft"
    )

    @model_validator(mode="after")
    def _strengths_rise(self) -> InpaintingEditSettings:
        if self.strength[0] > self.strength[1]:
            raise ValueError(f"strength {self.strength!r} falls with severity; expected the smaller value first")
        return self


class HostedEditSettings(HostedSettings):
    """An image edit API that speaks OpenAI's protocol, and what it is told of the region."""

    background: Literal["transparent", "opaque"] | None = Field(None, description="null: left to the model")
    send_mask: bool = Field(True, description="send the region too; a model that takes no mask is asked without")
    grow_ratio: float = Field(
        0.5, ge=0, le=2, description="how far the region reaches beyond the planned defect, of its mean side"
    )


class DefectPainterSettings(BaseModel):
    """Which painter makes the defects, and its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    painter: str = Field("procedural", min_length=1, description="name of the painter")
    procedural: ProceduralSettings = ProceduralSettings()
    inpainting: InpaintingEditSettings | None = Field(None, description="settings of the painter `inpainting`")
    hosted: HostedEditSettings | None = Field(None, description="settings of the painter `hosted`")
