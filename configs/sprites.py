"""Settings of `embedded:sprites`, the painter that ships with us."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SpritesSettings(BaseModel):
    """How the embedded layer-diffusion model paints."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_inference_steps: int = Field(12, ge=1, le=200, description="Euler steps")
    guidance_scale: float = Field(2.0, ge=0, le=20, description="1 follows the prompt as trained, more insists")
    max_tokens: int = Field(
        256,
        ge=4,
        le=256,
        description="most tokens of a prompt; more words draw it away from the banked picture it needs",
    )
    batch_size: int = Field(16, ge=1, le=1024, description="pictures denoised at once")
    min_likeness: float = Field(
        0.78, ge=-1, le=1, description="least cosine of a class's name with a name in the picture bank, to be painted"
    )
