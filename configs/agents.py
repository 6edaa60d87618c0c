"""The `agents` section of a recipe: which agents work, and each one's painter, judge limits and budget."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .diffusion import DiffusionSettings, LayeredSettings
from .hosted import HostedSettings
from .judging import PaintedLimits, SimilaritySettings
from .layer_diffusion import LayerDiffusionSettings
from .masking import BestOfSettings, BirefnetSettings, ConceptSettings, GrabCutSettings, SamSettings
from .sprites import SpritesSettings

Share = Annotated[float, Field(ge=0, le=1)]


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


class InstanceLimits(BaseModel):
    """Hard limits on measures; a sample must meet all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_area_px: int = Field(64, ge=1, description="least mask area")
    min_largest_component: Share = Field(0.3, description="least share of the mask that its largest part holds")
    max_components: int = Field(12, ge=1, description="most parts of at least 1 % of the mask")
    max_truncation: Share = Field(0.7, description="most share of the source's box outline cut by its image's border")
    min_sharpness: float = Field(2.0, ge=0, description="least variance of the Laplacian over the mask, 8-bit grey")
    min_contrast: Share = Field(0.01, description="least standard deviation of grey over the mask, of full scale")
    min_source_difference: Share = Field(0.01, description="least mean colour difference from the source")
    max_source_difference: Share = Field(0.45, description="most mean colour difference from the source")
    min_pool_distance_bits: int = Field(
        2, ge=0, le=64, description="least perceptual-hash distance to the accepted instances of the class"
    )


class SourceSettings(BaseModel):
    """Which of the user's instances the I-Agent starts from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_area_px: int = Field(1024, ge=1, description="sources smaller than this are used only when a class has few")
    min_per_class: int = Field(3, ge=1, description="worse sources join until a class has this many")


class ImageAgentSettings(BaseModel):
    """The I-Agent: new instances conditioned on the user's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    painter: str = Field("variation", description="name of the painter")
    strength: Share = Field(0.6, description="how far the first round departs from the source")
    strength_step: float = Field(0.2, gt=0, le=1, description="change of strength when a round is rejected")
    max_rounds: int = Field(5, ge=1, le=50, description="paints an item may cost")
    variation: VariationSettings = VariationSettings()
    limits: InstanceLimits = InstanceLimits()
    sources: SourceSettings = SourceSettings()


class TextAgentSettings(BaseModel):
    """The T-Agent: new instances from words (InstaDA, arXiv 2509.02973)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    painter: str = Field("embedded:sprites", description="name of the painter")
    masker: str = Field("alpha", description="name of the masker")
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
    sprites: SpritesSettings = SpritesSettings()
    diffusion: DiffusionSettings | None = Field(None, description="settings of the painter `diffusion`")
    layer_diffusion: LayerDiffusionSettings | None = Field(None, description="of the painter `layer_diffusion`")
    layered: LayeredSettings | None = Field(None, description="of the painter `layered`")
    hosted: HostedSettings | None = Field(None, description="of the painter `hosted`")
    grabcut: GrabCutSettings = GrabCutSettings()
    sam: SamSettings | None = Field(None, description="settings of the masker `sam`")
    concept: ConceptSettings | None = Field(None, description="of the masker `concept`")
    birefnet: BirefnetSettings | None = Field(None, description="of the masker `birefnet`")
    best_of: BestOfSettings | None = Field(None, description="of the masker `best_of`")


class AgentsSettings(BaseModel):
    """Which agents work; an agent that is not named does not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text_agent: TextAgentSettings | None = Field(None, description="the T-Agent")
    image_agent: ImageAgentSettings | None = Field(None, description="the I-Agent")

    @model_validator(mode="after")
    def _someone_works(self) -> AgentsSettings:
        if self.text_agent is None and self.image_agent is None:
            raise ValueError("no agent is named; expected text_agent, image_agent, or both")
        return self
