"""Settings of the T-Agent's judges: who compares a picture with words and with real crops, and what is good enough."""

from __future__ import annotations

import string
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
EMBEDDED_PREFIX = "embedded:"


class EncoderSettings(BaseModel):
    """A network that turns pictures into features. A bare text stands for its `name`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model: str | None = Field(None, min_length=1, description="folder, or Hub id OWNER/NAME that was fetched earlier")
    revision: str | None = Field(None, min_length=1, description="branch, tag or commit of the Hub id; null for main")
    device: str = Field("auto", min_length=1, description="auto, cpu, cuda, cuda:N or mps")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="of the weights; half precision is faster on a GPU and moves scores a little"
    )
    batch_size: int = Field(32, ge=1, le=4096, description="pictures at once; halved when the GPU's memory is full")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _model_where_needed(self) -> EncoderSettings:
        if self.name.startswith(EMBEDDED_PREFIX):
            if self.model or self.revision:
                raise ValueError(f"{self.name!r} brings its own weights; leave out `model` and `revision`")
        elif not self.model:
            raise ValueError(f"{self.name!r} needs a `model`: a folder, or OWNER/NAME of the Hugging Face Hub")
        return self


class TextScorerSettings(EncoderSettings):
    """Who says how well a class's name fits a picture."""

    name: str = Field("embedded:lit", min_length=1, description="embedded:lit, clip or siglip")
    template: str = Field("a photo of a single {name}", description="what a class's name is put into")
    min_likeness: Cosine = Field(
        0.78,
        description="embedded:lit only: least cosine (MiniLM) of a class's name with a name that it was trained on; "
        "it has no opinion on other classes",
    )

    @model_validator(mode="after")
    def _template_takes_a_name(self) -> TextScorerSettings:
        try:
            fields = [field for _, field, _, _ in string.Formatter().parse(self.template) if field is not None]
        except ValueError as exc:
            raise ValueError(f"template {self.template!r} is malformed ({exc}); write 'a photo of a {{name}}'") from exc
        if set(fields) != {"name"}:
            raise ValueError(f"template {self.template!r} has the fields {fields}; expected {{name}} and no other")
        return self


class ImageEmbedderSettings(EncoderSettings):
    """Who compares a picture with the class's real crops."""

    name: str = Field("embedded:lite0", min_length=1, description="embedded:lite0, dino or clip")


class ThresholdSettings(BaseModel):
    """The least score, of one kind, that a picture of a class needs; in the units of that score.

    X-Paste's rule, min(21, class maximum - 1) in CLIP's logits, is a cosine's `class_max_minus_margin` with
    `ceiling: 0.21` and `margin: 0.01`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["fixed", "class_max_minus_margin", "best_share"] = Field(
        "fixed", description="the same for all classes, or from the scores that the class has had so far"
    )
    value: float = Field(0.5, allow_inf_nan=False, description="fixed: the threshold")
    margin: float = Field(
        0.01, ge=0, allow_inf_nan=False, description="class_max_minus_margin: how far below its best a class may go"
    )
    share: float = Field(0.5, gt=0, le=1, description="best_share: kept of a class, best first; at least one")
    floor: float | None = Field(
        None, allow_inf_nan=False, description="no adaptive threshold is below it; it can leave a class with nothing"
    )
    ceiling: float | None = Field(None, allow_inf_nan=False, description="no adaptive threshold is above it")

    @model_validator(mode="after")
    def _floor_below_ceiling(self) -> ThresholdSettings:
        if self.floor is not None and self.ceiling is not None and self.floor > self.ceiling:
            raise ValueError(f"floor {self.floor!r} is above ceiling {self.ceiling!r}")
        return self


class WholenessSettings(BaseModel):
    """Who says whether a cut-out is one whole object with nothing clinging to it, and how sure it must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["embedded:wholeness"] = "embedded:wholeness"
    threshold: Share = Field(
        0.25, description="least probability that a cut-out is one whole object; whole and spoilt ones equally many"
    )
    device: str = Field("auto", min_length=1, description="auto, cpu, cuda, cuda:N or mps")
    batch_size: int = Field(32, ge=1, le=4096, description="pictures at once; halved when the GPU's memory is full")


class SimilaritySettings(BaseModel):
    """A picture against its class's name and the class's real crops (InstaDA), and against whole and spoilt ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: TextScorerSettings = TextScorerSettings()
    image: ImageEmbedderSettings = ImageEmbedderSettings()
    image_text: ThresholdSettings = ThresholdSettings(value=0.4)
    image_image: ThresholdSettings = ThresholdSettings(value=0.05)
    rival_margin: float | None = Field(
        0.3,
        ge=0,
        allow_inf_nan=False,
        description="most by which another class of the data set may fit a picture better than its own, in the text "
        "scorer's units; null: not asked",
    )
    wholeness: WholenessSettings | None = Field(WholenessSettings(), description="null to do without")


class PaintedLimits(BaseModel):
    """Hard limits on the measures of a painted picture; it must meet all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_area_share: Share = Field(0.05, description="least share of the frame that the mask covers (X-Paste)")
    max_area_share: Share = Field(0.95, description="most share of the frame that the mask covers (X-Paste)")
    max_components: int = Field(3, ge=1, description="most parts of at least 1 % of the mask")
    min_largest_component: Share = Field(0.7, description="least share of the mask that its largest part holds")
    max_twin_share: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.5,
        description="most share of a second part behind a thin bridge; 0.5 is off, 0.3 finds two objects that touch, "
        "and refuses glasses, bicycles and whatever else has two like parts",
    )
    max_rim_difference: Share = Field(
        1.0,
        description="most difference between the colours near the outline and far inside; 1 is off, 0.55 finds "
        "a background that clings to the object, and refuses what is framed, such as clocks",
    )
    max_border_contact: Share = Field(0.1, description="most share of the outline that lies on the frame")
    max_hole_share: Share = Field(0.35, description="most share of the filled mask that holes take")
    min_edge_sharpness: Share = Field(0.25, description="least mean step of alpha across the outline; 1 is a hard mask")
    max_alpha_softness: Share = Field(0.55, description="most share of visible pixels that are partly transparent")
    min_sharpness: float = Field(2.0, ge=0, description="least variance of the Laplacian over the mask, 8-bit grey")
    min_focus: Share = Field(
        0.3, description="least share of the detail that another blur of 2 px takes; what is out of focus has none"
    )
    min_contrast: Share = Field(0.01, description="least standard deviation of grey over the mask, of full scale")
    min_image_image: Cosine = Field(-1.0, description="least mean cosine to the class's real crops, if any")
    max_image_image: Cosine = Field(1.0, description="most mean cosine to the class's real crops, if any")
    min_pool_distance_bits: int = Field(
        2, ge=0, le=64, description="least perceptual-hash distance to the accepted instances of the class"
    )
    max_num_instances: int = Field(1, ge=1, description="most objects of the class, where the masker counts them")

    @model_validator(mode="after")
    def _least_below_most(self) -> PaintedLimits:
        for least, most in (("min_area_share", "max_area_share"), ("min_image_image", "max_image_image")):
            if getattr(self, least) > getattr(self, most):
                raise ValueError(f"{least} {getattr(self, least)!r} is above {most} {getattr(self, most)!r}")
        return self


class InstanceLimits(BaseModel):
    """Hard limits on the measures of a variant of an instance; it must meet all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_area_px: int = Field(64, ge=1, description="least mask area")
    min_largest_component: Share = Field(0.3, description="least share of the mask that its largest part holds")
    max_components: int = Field(12, ge=1, description="most parts of at least 1 % of the mask")
    max_truncation: Share = Field(0.7, description="most share of the source's box outline cut by its image's border")
    min_sharpness: float = Field(2.0, ge=0, description="least variance of the Laplacian over the mask, 8-bit grey")
    min_contrast: Share = Field(0.01, description="least standard deviation of grey over the mask, of full scale")
    min_source_difference: Share = Field(0.01, description="least mean colour difference from the source")
    max_source_difference: Share = Field(0.45, description="most mean colour difference from the source")
    min_source_iou: Share = Field(
        0.5, description="least IoU of the mask that was found with the source's, where the picture shows its place"
    )
    max_source_iou: Share = Field(0.98, description="most IoU with the source's mask; above it the mask is a copy")
    min_source_likeness: Cosine = Field(
        0.5, description="least cosine to the source, where `similarity` is on; below it the image is a stranger"
    )
    max_source_likeness: Cosine = Field(
        0.97, description="most cosine to the source, where `similarity` is on; above it the image is a copy"
    )
    min_pool_distance_bits: int = Field(
        2, ge=0, le=64, description="least perceptual-hash distance to the accepted instances of the class"
    )

    @model_validator(mode="after")
    def _least_below_most(self) -> InstanceLimits:
        for name in ("source_difference", "source_iou", "source_likeness"):
            least, most = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if least > most:
                raise ValueError(f"min_{name} {least!r} is above max_{name} {most!r}")
        return self


class VariantSimilaritySettings(BaseModel):
    """A variant of an instance against its class's name and against the instance that it came from (InstaDA)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: TextScorerSettings = TextScorerSettings()
    image: ImageEmbedderSettings = ImageEmbedderSettings()
    image_text: ThresholdSettings = Field(
        ThresholdSettings(mode="best_share", share=0.9),
        description="the proportional filter; not asked of classes that the scorer does not know",
    )
