"""Settings of the painters that run a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SchedulerOption = bool | int | float | str | None


class LoraSettings(BaseModel):
    """A low-rank adaptation laid over a pipeline's weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="safetensors file, folder, or Hub id, OWNER/NAME")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id; null: its main branch")
    weight_name: str | None = Field(None, description="file in the folder or repository; null: the only one there")
    scale: float = Field(1.0, ge=-10, le=10, description="how strongly it applies; 0 not at all")


class PipelineSettings(BaseModel):
    """What is loaded and how it lies in memory; painters that agree on it share one loaded pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="folder with a model_index.json, or Hub id, OWNER/NAME")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id; null: its main branch")
    variant: str | None = Field(None, description="which of the weights' variants, such as fp16; null: the plain ones")
    pipeline: str | None = Field(None, description="class of diffusers; null: as the model's index says")
    scheduler: str | None = Field(None, description="class of diffusers; null: as the model's index says")
    scheduler_options: Mapping[str, SchedulerOption] = Field(
        default_factory=dict, description="settings of the scheduler that differ, such as timestep_spacing: trailing"
    )
    loras: tuple[LoraSettings, ...] = Field((), description="laid over the weights, all at once")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a CUDA GPU (float16 on one without it), else float32"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    cpu_offload: Literal["none", "model", "sequential"] = Field(
        "none", description="what waits in the CPU's memory: nothing, whole models, single layers; on a CPU no matter"
    )
    attention_slicing: bool = Field(False, description="attention in slices: less memory, slower")
    vae_tiling: bool = Field(False, description="decode in tiles: less memory, may show at seams")
    compile: bool = Field(False, description="torch.compile the denoiser: slow first image, then faster")
    safety: Literal["reject", "off"] = Field(
        "reject", description="images that the model's safety checker blanks are rejected; off: it is not loaded"
    )


class DiffusionSettings(PipelineSettings):
    """A text-to-image pipeline, and what each call asks of it. What is null is left to the pipeline."""

    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="denoising steps")
    guidance_scale: float | None = Field(
        None, ge=0, le=100, description="classifier-free guidance; 0 or 1 for most distilled models"
    )
    negative_prompt: str = Field("", description="what not to paint; empty: nothing in particular")
    width: int | None = Field(None, ge=16, le=4096, description="pixels")
    height: int | None = Field(None, ge=16, le=4096, description="pixels")
    batch_size: int = Field(4, ge=1, le=256, description="images at once; halved when the GPU's memory is too small")

    @model_validator(mode="after")
    def _negative_prompt_has_an_effect(self) -> DiffusionSettings:
        if self.negative_prompt and self.guidance_scale is not None and self.guidance_scale <= 1:
            raise ValueError(
                f"negative_prompt has no effect at guidance_scale {self.guidance_scale:g}; "
                "set guidance_scale above 1, or leave negative_prompt out"
            )
        return self


class LayeredSettings(PipelineSettings):
    """A picture by another painter, decomposed into layers by QwenImageLayeredPipeline; one layer is the object."""

    painter: str = Field("diffusion", description="name of the painter of the opaque picture")
    diffusion: DiffusionSettings | None = Field(None, description="settings of the painter `diffusion`")
    layers: int = Field(4, ge=1, le=16, description="layers to make")
    num_inference_steps: int = Field(50, ge=1, le=1000, description="denoising steps")
    true_cfg_scale: float = Field(4.0, ge=1, le=100, description="classifier-free guidance; 1: none, at half the time")
    negative_prompt: str = Field(" ", min_length=1, description="what not to make; a space: nothing in particular")
    resolution: Literal[640, 1024] = Field(640, description="layers cover about this many pixels squared")

    @model_validator(mode="after")
    def _painter_has_settings(self) -> LayeredSettings:
        if self.painter == "diffusion" and self.diffusion is None:
            raise ValueError("painter 'diffusion' needs its settings under `diffusion`; expected at least its `model`")
        return self
