"""The `agents` section of a recipe: which agents work, and each one's painter, judge limits and budget."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .anomaly_agent import AnomalyAgentSettings
from .diffusion import DiffusionSettings, LayeredSettings
from .hosted import HostedSettings
from .image_agent import ImageAgentSettings
from .judging import PaintedLimits, SimilaritySettings
from .label_agent import LabelAgentSettings
from .layer_diffusion import LayerDiffusionSettings
from .masking import MaskerSettings
from .sprites import SpritesSettings
from .validation import ValidationSettings

Share = Annotated[float, Field(ge=0, le=1)]
PromptStyle = Literal["caption", "structured"]


class TextAgentSettings(MaskerSettings):
    """The T-Agent: new instances from words (InstaDA, arXiv 2509.02973)."""

    painter: str = Field("embedded:sprites", description="name of the painter; auto: the best whose weights are here")
    prompt_style: PromptStyle = Field(
        "caption", description="one sentence, or Gen-n-Val's fields from subject to time period in at most 75 tokens"
    )
    images_per_prompt: int = Field(4, ge=1, le=64, description="images painted for one prompt")
    min_yield: Share = Field(0.5, description="share of a prompt's images to be kept; below it the prompt is rethought")
    max_rounds: int = Field(3, ge=1, le=50, description="prompts that an item may cost")
    quota_share: Share = Field(0.5, description="share of a class's quota, where the I-Agent can fill the rest")
    items_per_wave: int = Field(
        1, ge=1, le=256, description="items of one class that start from the same memory; more fill bigger batches"
    )
    strength: Share = Field(0.8, description="how far the first round departs from the painter's start, if it has one")
    strength_step: Share = Field(0.2, description="change of strength when a prompt is rethought")
    min_strength: Share = Field(0.4, description="least strength that rethinking may come to")
    max_strength: Share = Field(0.95, description="most strength that rethinking may come to")
    max_rewrites: int = Field(
        1, ge=0, le=10, description="how often a prompt is written anew that is too like a remembered one"
    )
    max_crops: int = Field(16, ge=0, le=1000, description="real instances of a class that images are compared with")
    limits: PaintedLimits = PaintedLimits()
    similarity: SimilaritySettings = SimilaritySettings()
    validation: ValidationSettings = ValidationSettings()
    sprites: SpritesSettings = SpritesSettings()
    diffusion: DiffusionSettings | None = Field(None, description="settings of the painter `diffusion`")
    layer_diffusion: LayerDiffusionSettings | None = Field(None, description="of the painter `layer_diffusion`")
    layered: LayeredSettings | None = Field(None, description="of the painter `layered`")
    hosted: HostedSettings | None = Field(None, description="of the painter `hosted`")


class AgentsSettings(BaseModel):
    """Which agents work; an agent that is not named does not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_agent: TextAgentSettings | None = Field(None, description="the T-Agent")
    image_agent: ImageAgentSettings | None = Field(None, description="the I-Agent")
    anomaly_agent: AnomalyAgentSettings | None = Field(None, description="the anomaly agent, which works alone")
    label_agent: LabelAgentSettings | None = Field(None, description="the label agent, which works alone")

    @model_validator(mode="after")
    def _someone_works(self) -> AgentsSettings:
        working = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if not working:
            raise ValueError(
                "no agent is named; expected text_agent, image_agent, or both, or anomaly_agent, or label_agent"
            )
        for loner in ("anomaly_agent", "label_agent"):
            if loner in working and len(working) > 1:
                others = " and ".join(name for name in working if name != loner)
                raise ValueError(f"{loner} works alone; take out {others}")
        return self
