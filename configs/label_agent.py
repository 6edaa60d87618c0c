"""Settings of the label agent: what it makes, how it refines its prompts, and what its filter lets in."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .anomaly import DefectPainterSettings
from .diffusion import DiffusionSettings
from .hosted import HostedSettings
from .sprites import SpritesSettings

Share = Annotated[float, Field(ge=0, lt=1)]
Ratio = Annotated[float, Field(ge=0, le=1)]


class LabelSplitSettings(BaseModel):
    """Which images train, which calibrate the classifier, which measure; decided once per data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    held_out: Share = Field(0.25, description="of the training images, to calibrate the classifier on")
    test: Share = Field(0.3, description="of the images, where the data set sets none aside for val or test")
    apart: bool = Field(
        False, description="of an item of an anomaly data set: keep photographs of one object, found by look, together"
    )


class LabelClassifierSettings(BaseModel):
    """The classifier that looks for the prompted classes, trained on the real images once per data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(
        "embedded:lite0", min_length=1, description="frozen network under the head: embedded:lite0, or one of timm's"
    )
    image_px: int = Field(384, ge=64, le=2048, description="longer side of a picture as the classifier sees it")
    steps: int = Field(200, ge=1, le=100_000, description="training steps of the head")
    prior: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.5, description="share of painted pictures that show a class, as probabilities assume; null: as of real ones"
    )
    min_auc: Ratio = Field(
        0.6, description="least area under the ROC curve of a class on images that were not learned from, or noise"
    )


class LabelFilterSettings(BaseModel):
    """What a painted scene must show to be admitted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    present: Ratio = Field(0.5, description="least probability of each prompted class")
    absent: Ratio = Field(0.5, description="probability that every other class must stay below")
    min_text_score: float | None = Field(
        None, ge=-1, le=1, description="least image-text score of picture and prompt; null: not asked"
    )
    max_repaints: int = Field(5, ge=0, le=50, description="pictures of an item after its first")
    seeds_per_prompt: int = Field(3, ge=1, le=50, description="pictures of one prompt before it is written anew")
    stop_after: int = Field(
        40, ge=1, le=100_000, description="items without one admitted picture after which the run stops, and says why"
    )


class LabelAgentSettings(BaseModel):
    """The label agent: scenes with image-level labels, prompts refined, pictures filtered (IAA, arXiv 2412.20439)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    painter: Literal["auto", "defects", "sprites", "diffusion", "hosted"] = Field(
        "auto",
        description="defects edits good images, sprites composes; auto: defects for an anomaly item, else sprites",
    )
    item: str | None = Field(None, min_length=1, description="which item, where the data set is an anomaly data set")
    count: int = Field(50, ge=1, le=1_000_000, description="admitted images that shall show each class")
    labels_from: Literal["images", "histogram"] = Field(
        "images", description="label sets: those of training images, or drawn from class counts and co-occurrence"
    )
    max_labels: int = Field(3, ge=1, le=20, description="most classes of one picture")
    max_tries_ratio: float = Field(4.0, ge=1, le=100, description="most items, over the pictures that are wanted")
    refine: bool = Field(True, description="score each prompt before it is painted, and rewrite it; false: take it")
    refine_threshold: float = Field(8.0, ge=0, le=10, description="least score of each criterion, 0 to 10")
    max_refinements: int = Field(3, ge=0, le=20, description="rewrites of one prompt")
    filter: bool = Field(True, description="look at each picture; false: admit what is painted")
    admission: LabelFilterSettings = LabelFilterSettings()
    classifier: LabelClassifierSettings = LabelClassifierSettings()
    splits: LabelSplitSettings = LabelSplitSettings()
    severity: tuple[Ratio, Ratio] = Field((0.3, 0.8), description="of planned defects, least and most")
    material: str = Field("", description="what the item is made of, if its name does not say")
    defects: DefectPainterSettings = DefectPainterSettings()
    sprites: SpritesSettings = SpritesSettings()
    diffusion: DiffusionSettings | None = Field(None, description="settings of the painter `diffusion`")
    hosted: HostedSettings | None = Field(None, description="settings of the painter `hosted`")
