"""Settings of the anomaly agent: what it makes, its painter, its judge, its loop and what it may spend."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .anomaly import DefectPainterSettings
from .masking import SamSettings

Share = Annotated[float, Field(ge=0, lt=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]

Outline = Literal["changed", "half_height"]
"""Where a defect ends: where its last trace fades, or at half the height of the step at its outline."""


class AnomalySplitSettings(BaseModel):
    """How an item's images are shared out, by the AnomalyDiffusion protocol; test images are never learned from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation: Share = Field(0.25, description="of each defect's reference third")
    normal_validation: Share = Field(0.1, description="of the good images that are left for training")
    normal_test: Share = Field(0.3, description="of the good images, where the data set sets none aside for test")
    apart: bool = Field(
        False,
        description="keep photographs of one object on one side, as their look tells; the protocol does not, so that "
        "what learned from references may know test objects",
    )


class AnomalyAgentSettings(DefectPainterSettings):
    """The anomaly agent: defects made on normal images, judged and made better in a loop (arXiv 2604.07900)."""

    item: str | None = Field(None, min_length=1, description="which item of the data set; null: the only one")
    defects: tuple[str, ...] = Field((), description="names of the defects to make; none: those of the data set")
    count: int = Field(50, ge=1, le=1_000_000, description="accepted samples of each defect")
    max_tries_ratio: float = Field(3.0, ge=1, le=100, description="most items of a defect, over `count`")
    decider: Literal["policy", "model"] = Field(
        "policy", description="who calls the tools: a fixed policy, or `llm.planner`, which must know tool calling"
    )
    max_turns: int = Field(4, ge=1, le=20, description="edits that an item may cost")
    max_illegal_calls: int = Field(3, ge=0, le=50, description="calls out of order that a model may make")
    loop: bool = Field(True, description="judge, look things up and edit again; false: the first edit is taken")
    severity: tuple[Ratio, Ratio] = Field((0.3, 0.8), description="least and most severity of a first plan")
    plan_by: Literal["name", "knowledge"] = Field(
        "name",
        description="a first plan: by the defect's name alone, as published; or within what is known of it on this "
        "item, measured on the references first",
    )
    references: bool = Field(
        True, description="learn sizes, places and looks from the reference third; false: as if there were no defect"
    )
    material: str = Field("", description="what the item is made of, if its name does not say")
    masks: Literal["known", "difference", "sam"] = Field(
        "known",
        description="where an edit's mask comes from: the painter where it knows it, else the difference from the "
        "original; always the difference; or `sam` in the box of the difference",
    )
    sam: SamSettings | None = Field(None, description="settings of `masks: sam`")
    outline: Outline = Field(
        "changed",
        description="where a passing edit's mask ends: where its last trace fades, as published; or at half the height "
        "of its step, as annotators draw",
    )
    max_changed_outside: Ratio = Field(0.001, description="most share of the pixels outside the mask that may change")
    tolerance_levels: int = Field(0, ge=0, le=64, description="change, of 255, that does not count there")
    instances: bool = Field(
        True, description="write RUN/dataset/FORMAT for each of export.formats too: your images, the samples in train"
    )
    anomaly_diffusion: Literal["PNG", "JPEG"] | None = Field(
        None,
        description="write RUN/dataset/anomaly_diffusion/ITEM/DEFECT/{ori,image,mask}/ too, in this format; PNG is "
        "exact, AnomalyDiffusion's own training reads only JPEG",
    )
    splits: AnomalySplitSettings = AnomalySplitSettings()
    max_side_px: int = Field(768, ge=64, le=8192, description="longer side of a picture as a model is sent it")
    max_image_bytes: int = Field(4_000_000, ge=10_000, description="most bytes of it, encoded; more is made smaller")
