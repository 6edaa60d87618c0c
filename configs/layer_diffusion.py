"""Settings of LayerDiffuse on SDXL, which paints objects with an alpha of their own."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .diffusion import DiffusionSettings

SIDE_MULTIPLE = 64
"""The sides of a picture are multiples of this, in pixels: the decoder halves them six times."""
PUBLISHED_MODEL = "lllyasviel/LayerDiffuse_Diffusers"


class WeightsFile(BaseModel):
    """One safetensors file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(PUBLISHED_MODEL, min_length=1, description="folder, or Hub id, OWNER/NAME")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id; null: its main branch")
    file: str = Field(min_length=1, description="name in the folder or repository")


class LayerDiffusionSettings(BaseModel):
    """An SDXL pipeline, the published weights that make it transparent, and what is done with its alpha.

    The authors paint 896×1152 pixels in 25 steps of DPMSolverMultistepScheduler with use_karras_sigmas, guidance 7.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    diffusion: DiffusionSettings = Field(description="the SDXL pipeline; sides are multiples of 64 pixels")
    attention: WeightsFile | None = Field(
        WeightsFile(file="ld_diffusers_sdxl_attn.safetensors"),
        description="offsets for the UNet's attention; null: they are among `diffusion.loras`",
    )
    attention_scale: float = Field(1.0, gt=0, le=2, description="how strongly the offsets apply; 1 as trained")
    decoder: WeightsFile = Field(
        WeightsFile(file="ld_diffusers_sdxl_vae_transparent_decoder.safetensors"), description="transparent decoder"
    )
    num_flips: int = Field(
        8, ge=1, le=8, description="flips and rotations whose median is taken; all 8 as published, fewer are faster"
    )
    median_filter_px: int = Field(5, ge=1, le=31, description="side of the median filter on the alpha, odd; 1: none")
    max_opaque_share: float = Field(
        0.95, gt=0, le=1, description="most of the picture that may be opaque; above, it is painted again"
    )
    min_visible_share: float = Field(
        0.01, gt=0, lt=1, description="least of the picture that must be visible; below, it is painted again"
    )
    max_retries: int = Field(2, ge=0, le=20, description="how often a flawed picture is painted again")

    @field_validator("median_filter_px")
    @classmethod
    def _is_odd(cls, side_px: int) -> int:
        if side_px % 2 == 0:
            raise ValueError(f"median_filter_px {side_px} is even; expected an odd number of pixels, or 1 for none")
        return side_px

    @field_validator("diffusion")
    @classmethod
    def _fits_the_weights(cls, diffusion: DiffusionSettings) -> DiffusionSettings:
        for name, side_px in (("width", diffusion.width), ("height", diffusion.height)):
            if side_px is not None and side_px % SIDE_MULTIPLE:
                raise ValueError(f"{name} {side_px} is no multiple of {SIDE_MULTIPLE} pixels, as the decoder needs it")
        if diffusion.cpu_offload == "sequential":
            raise ValueError("cpu_offload 'sequential' hides the weights that LayerDiffuse changes; use 'model'")
        return diffusion

    @model_validator(mode="after")
    def _something_makes_it_transparent(self) -> LayerDiffusionSettings:
        if self.attention is None and not self.diffusion.loras:
            raise ValueError(
                "attention is null and `diffusion.loras` is empty, so that the pictures would be opaque; "
                "name the attention weights in one of them"
            )
        return self

    @model_validator(mode="after")
    def _shares_leave_room(self) -> LayerDiffusionSettings:
        if self.min_visible_share >= self.max_opaque_share:
            raise ValueError(
                f"min_visible_share {self.min_visible_share:g} is not below max_opaque_share "
                f"{self.max_opaque_share:g}, so that no picture would pass"
            )
        return self
