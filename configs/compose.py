"""The `compose` section of a recipe: where accepted instances are pasted, at what size, how blended."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .backgrounds import GeneratedSettings
from .diffusion import PipelineSettings
from .validation import ValidationSettings

Ratio = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class SeamDiffusionSettings(PipelineSettings):
    """The harmonizer `diffusion`: image to image at low strength, of which only a ring around the seam is kept."""

    prompt: str = Field(
        "a photograph, natural light, sharp focus", min_length=1, description="what the model takes the window for"
    )
    negative_prompt: str = Field("", description="what it must not show; empty: nothing in particular")
    strength: float = Field(0.3, gt=0, le=1, description="how far the ring may depart from the alpha blend")
    num_inference_steps: int | None = Field(
        None, ge=1, le=1000, description="denoising steps, of which the strength's share is taken; null: the pipeline's"
    )
    guidance_scale: float | None = Field(None, ge=0, le=100, description="classifier-free guidance")
    ring_px: int = Field(
        12, ge=2, le=256, description="how far the ring reaches, fading, to either side; inside at most half way in"
    )
    context_px: int = Field(64, ge=0, le=1024, description="how much of the scene around the ring the model sees")
    min_side_px: int = Field(512, ge=16, le=4096, description="longer side that smaller windows are enlarged to")
    max_side_px: int = Field(1024, ge=16, le=4096, description="longer side that larger windows are reduced to")

    @model_validator(mode="after")
    def _least_below_most(self) -> SeamDiffusionSettings:
        if self.min_side_px > self.max_side_px:
            raise ValueError(f"min_side_px {self.min_side_px} is above max_side_px {self.max_side_px}")
        return self


class ComposeSettings(BaseModel):
    """How scenes are composed; the paste rules are those of X-Paste (arXiv 2212.03863) and Simple Copy-Paste."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backgrounds: str = Field(
        default="train",
        min_length=1,
        description="train: the data set's own images; generated: painted, as `generated` says; else a folder",
    )
    generated: GeneratedSettings | None = Field(None, description="of the backgrounds `generated`")
    harmonization: str = Field(
        default="alpha",
        description="none, alpha, color_transfer, poisson, diffusion, or a registered harmonizer",
    )
    diffusion: SeamDiffusionSettings | None = Field(None, description="settings of the harmonizer `diffusion`")
    light: Literal["own", "surroundings"] = Field(
        default="own",
        description="own: of its photograph; surroundings: as much brighter as the new ones are than the old ones, "
        "which keeps the contrast of a mark on a surface",
    )
    unharmonized_share: Ratio = Field(
        default=0.0, description="random share of the scenes that is pasted hard all the same, as a control"
    )
    validation: ValidationSettings | None = Field(
        default=None,
        description="vision judges (`llm.judge`) look at every scene too; what one rejects is composed anew elsewhere",
    )
    instances_per_scene: tuple[Count, Count] = Field(
        default=(1, 5), description="fewest and most instances pasted in a scene"
    )
    placements: int = Field(default=1, ge=1, le=1000, description="scenes in which each accepted instance is placed")

    size: Literal["class", "source"] = Field(
        default="class",
        description="class: drawn from the class's sizes in training; source: as large as in its source image",
    )
    min_side_px: int = Field(default=10, ge=1, description="least square root of a pasted mask's area")
    max_side_ratio: float = Field(default=0.5, gt=0, le=1, description="most square root of mask area over image area")
    max_upscale: float = Field(
        default=2.0, ge=1, description="most enlargement of a cut-out; above it pastes look blurred"
    )
    aspect_jitter: float = Field(
        default=0.2, ge=0, lt=1, description="width over height is scaled by 1 ± this; area is kept"
    )
    flip_probability: Ratio = Field(default=0.5, description="chance of a horizontal flip")

    truncation: float = Field(
        default=0.3, ge=0, lt=1, description="most share of a pasted mask outside the scene; 0: none"
    )
    min_visible: Ratio = Field(default=0.5, description="least share of a pasted mask that later pastes leave visible")
    min_visible_side_px: int = Field(
        default=5, ge=1, description="least width and height of a pasted instance's visible box"
    )
    max_hidden_originals: float = Field(
        default=0.3, ge=0, description="originals that one paste may hide, in boxes, as long as a place allows it"
    )
    max_tries: int = Field(default=30, ge=1, le=10_000, description="places tried before a cut-out is shrunk")

    max_box_shift_px: float = Field(
        default=10, ge=0, description="an occluded original stays if its box moved at most this"
    )
    min_mask_area_px: int = Field(default=300, ge=0, description="… or if its mask keeps more than this")
    min_original_area_px: int = Field(
        default=16, ge=1, description="an occluded original with fewer pixels always vanishes"
    )

    image_format: Literal["jpg", "png"] = Field(default="jpg", description="file format of the scenes")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="quality of jpg scenes")

    @model_validator(mode="after")
    def _fewest_before_most(self) -> ComposeSettings:
        fewest, most = self.instances_per_scene
        if fewest > most:
            raise ValueError(f"instances_per_scene is [fewest, most], got [{fewest}, {most}]; swap them")
        return self
