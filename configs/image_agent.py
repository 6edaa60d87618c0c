"""Settings of the I-Agent: new instances conditioned on the user's own (InstaDA, arXiv 2509.02973)."""

from __future__ import annotations

import string
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .conditioning import EdgeGuidedSettings, InpaintingSettings
from .judging import InstanceLimits, VariantSimilaritySettings
from .masking import MaskerSettings
from .validation import ValidationSettings

Share = Annotated[float, Field(ge=0, le=1)]
OPAQUE_PAINTERS = frozenset({"edge_guided", "inpainting"})
"""Painters whose pictures show the instance in its surroundings, so that its mask must be found."""


class VariationSettings(BaseModel):
    """How far the variation painter may go at strength 1; every range is scaled by the strength."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_side_px: int = Field(512, ge=16, le=4096, description="longest side of an instance; larger ones are reduced")
    rotation_deg: float = Field(25, ge=0, le=180, description="rotation, either way")
    shear_deg: float = Field(8, ge=0, le=45, description="shear, either way")
    aspect_ratio: float = Field(0.2, ge=0, lt=1, description="stretch of width over height, either way")
    perspective_ratio: float = Field(0.08, ge=0, le=0.3, description="shift of each corner over the side")
    truncation_ratio: float = Field(0.25, ge=0, le=0.5, description="further cut along each side that is cut already")
    flip_probability: Share = Field(0.5, description="chance of a horizontal flip")
    brightness_ratio: float = Field(0.35, ge=0, lt=1, description="light falling on the object, either way")
    shading_ratio: float = Field(0.3, ge=0, lt=1, description="light gradient across the object")
    contrast_ratio: float = Field(0.3, ge=0, lt=1, description="contrast, either way")
    saturation_ratio: float = Field(0.4, ge=0, le=1, description="saturation, either way")
    hue_deg: float = Field(12, ge=0, le=180, description="hue, either way")
    blur_px: float = Field(1.0, ge=0, le=20, description="most standard deviation of the blur")
    noise_ratio: float = Field(0.02, ge=0, le=0.5, description="most standard deviation of the noise over full scale")


class SourceSettings(BaseModel):
    """Which of the user's instances the I-Agent starts from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_area_px: int = Field(1024, ge=1, description="sources smaller than this are used only when a class has few")
    min_per_class: int = Field(3, ge=1, description="worse sources join until a class has this many")
    retire_after: int = Field(
        3, ge=1, description="items in a row without an accepted image after which a source is left for another"
    )
    retired: tuple[int, ...] = Field(
        (), description="ids of training annotations that no new item starts from; `--loop` sets it"
    )


class ImageAgentSettings(MaskerSettings):
    """The I-Agent: painter, masker, filter and budget.

    The masker is asked where the painter's pictures show the instance in its surroundings; else the painter's own
    alpha is the mask. As `auto` it is sam where its weights are here, else grabcut.
    """

    painter: str = Field("variation", description="name of the painter; auto: the best whose weights are here")
    strength: Share = Field(0.6, description="how far the first round departs from the source")
    strength_step: float = Field(0.2, gt=0, le=1, description="change of strength when a round is rejected")
    control_scale: float = Field(0.65, ge=0, le=2, description="how strongly the source's edges hold in round one")
    control_step: float = Field(0.15, ge=0, le=1, description="change of control_scale when a round is rejected")
    max_rounds: int = Field(5, ge=1, le=50, description="paints an item may cost")
    prompt: str = Field("a photo of a {name}", description="first prompt, for painters that read one")
    rewrite_prompts: bool = Field(True, description="the writer rethinks the prompt too, for painters that read one")
    padding_ratio: float = Field(
        0.25, ge=0, le=2, description="surroundings that a painter is shown, of the instance's longer side, each side"
    )
    variation: VariationSettings = VariationSettings()
    edge_guided: EdgeGuidedSettings | None = Field(None, description="settings of the painter `edge_guided`")
    inpainting: InpaintingSettings | None = Field(None, description="settings of the painter `inpainting`")
    limits: InstanceLimits = InstanceLimits()
    similarity: VariantSimilaritySettings | None = Field(
        None, description="likenesses to class and source; null: only measures judge"
    )
    validation: ValidationSettings = ValidationSettings(kind="edit")
    sources: SourceSettings = SourceSettings()

    @field_validator("prompt")
    @classmethod
    def _prompt_names_the_class(cls, prompt: str) -> str:
        fields = [field for _, field, _, _ in string.Formatter().parse(prompt) if field is not None]
        if fields != ["name"]:
            raise ValueError(f"prompt {prompt!r} has the fields {fields}; expected {{name}} once and no other")
        return prompt

    @model_validator(mode="after")
    def _masker_finds_the_instance(self) -> ImageAgentSettings:
        keeps = self.painter == "inpainting" and self.inpainting and self.inpainting.change == "surroundings"
        if self.painter in OPAQUE_PAINTERS and self.masker == "alpha" and not keeps:
            raise ValueError(f"painter {self.painter!r} makes opaque pictures; set masker to sam or grabcut")
        return self
