"""Settings of the painters that start from an instance in its surroundings: edges, inpainting, a picture as prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .diffusion import PipelineSettings


class EdgesSettings(BaseModel):
    """Soft edges of a picture, fused by weights: HED (arXiv 1504.06375), PiDiNet (arXiv 2108.07009) and Canny."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hed: float = Field(0.0, ge=0, le=1, description="weight of HED")
    pidinet: float = Field(0.0, ge=0, le=1, description="weight of PiDiNet")
    canny: float = Field(1.0, ge=0, le=1, description="weight of Canny; it needs no weights of a network")
    annotators: str | None = Field(
        None, min_length=1, description="folder or Hub id of the weights of HED and PiDiNet, as lllyasviel/Annotators"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")

    @model_validator(mode="after")
    def _something_draws(self) -> EdgesSettings:
        if not self.hed + self.pidinet + self.canny:
            raise ValueError("hed, pidinet and canny are all 0; give one of them a weight")
        if self.hed + self.pidinet and self.annotators is None:
            raise ValueError("hed and pidinet need their weights; set annotators to a folder or Hub id")
        return self


class ControlNetSettings(BaseModel):
    """A ControlNet (arXiv 2302.05543) that fits the pipeline's base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="folder, or Hub id, OWNER/NAME")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id; null: its main branch")
    variant: str | None = Field(None, description="which of the weights' variants, such as fp16; null: the plain ones")
    mode: int | None = Field(None, ge=0, description="of a union ControlNet: number of the condition that edges are")


class IpAdapterSettings(BaseModel):
    """IP-Adapter (arXiv 2308.06721): the source itself as a prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="folder, or Hub id, OWNER/NAME")
    revision: str | None = Field(None, description="branch, tag or commit of a Hub id; null: its main branch")
    subfolder: str = Field("", description="where in it the weights lie, such as sdxl_models")
    weight_name: str = Field(pattern=r"\.safetensors$", description="its safetensors file")
    image_encoder: str = Field("image_encoder", min_length=1, description="folder in it of the image encoder")
    scale: float = Field(0.5, ge=0, le=1, description="how strongly the source counts beside the prompt")


class ConditionedSettings(PipelineSettings):
    """A pipeline that starts from a padded crop of the photograph, and what each call asks of it."""

    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="denoising steps; null: the pipeline's")
    guidance_scale: float | None = Field(None, ge=0, le=100, description="classifier-free guidance")
    negative_prompt: str = Field("", description="what not to paint; empty: nothing in particular")
    side_px: int = Field(1024, ge=16, le=4096, description="longer side that the crop is brought to")
    batch_size: int = Field(4, ge=1, le=256, description="images at once; halved when the GPU's memory is too small")
    edges: EdgesSettings = EdgesSettings()
    controlnet: ControlNetSettings | None = Field(None, description="null: no edges hold")
    ip_adapter: IpAdapterSettings | None = Field(None, description="the source as a further condition")


class EdgeGuidedSettings(ConditionedSettings):
    """ControlNet in image-to-image mode: the source's edges hold, the rest may change (InstaDA)."""

    controlnet: ControlNetSettings = Field(description="what holds the edges")


class InpaintingSettings(ConditionedSettings):
    """Only a part of the crop changes; with a ControlNet, the source's edges hold there too."""

    change: Literal["instance", "surroundings"] = Field(
        "instance",
        description="instance: a new one in the same place; surroundings: the instance stays as it is, so that "
        "`limits` that refuse copies must allow it",
    )
    grow_ratio: float = Field(
        0.05, ge=0, le=0.5, description="instance: how far the changed part reaches beyond the mask, of its longer side"
    )
