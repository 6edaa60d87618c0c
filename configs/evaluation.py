"""The `evaluation` section of a recipe: how a detector is trained with and without the run's product, and measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class MixingSettings(BaseModel):
    """How synthetic images go into training beside the real ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ratio: float | None = Field(None, gt=0, le=1000, description="most synthetic images for each real one; null: all")
    max_per_class: int | None = Field(
        None, ge=1, description="most synthetic instances of a class; images that bring more stay out; null: any number"
    )
    backgrounds: float | None = Field(
        None,
        ge=0,
        description="most images without an instance for each real or synthetic one with some; null: all of them",
    )
    real_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="least share of real ones among the images with an instance that a step draws, reached by drawing "
        "them more often beside synthetic ones; null: each image as often as any other",
    )
    curriculum: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the steps with synthetic images, the rest on real ones alone; null: mixed to the end",
    )


class EvaluationSettings(BaseModel):
    """What `evaluate yolo` trains and measures; nothing of it changes what a run makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mixing: MixingSettings = MixingSettings()
    seeds: int = Field(3, ge=1, le=100, description="trainings of each arm, seeded 0, 1, 2, …; a deviation needs two")
    steps: int = Field(600, ge=1, le=10_000_000, description="optimizer steps of each training, equal in all arms")
    model: str = Field(
        "yolo11n-seg.yaml",
        min_length=1,
        description="a YAML of ultralytics: from nothing; a .pt file: from its weights",
    )
    task: Literal["segment", "detect"] = Field(
        "segment", description="masks and boxes, or boxes alone; a model that ends in -seg is for masks"
    )
    image_px: Annotated[int, Field(multiple_of=32)] = Field(
        640, ge=32, le=8192, description="longer side of a picture in training, a multiple of 32"
    )
    batch: int = Field(16, ge=1, le=4096, description="pictures a step")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of activations in training; bfloat16 halves a step on CPUs with AMX; auto: on GPUs that have it",
    )
    optimizer: Literal["AdamW", "SGD", "MuSGD"] = Field(
        "AdamW", description="equal in all arms; MuSGD learns in fewer steps where the model starts from nothing"
    )
    hyperparameters: dict[str, float] = Field(
        default_factory=dict, description="of ultralytics, by its names, equal in all arms: mosaic, lr0, fliplr, …"
    )
    at_once: int | None = Field(
        None, ge=1, le=64, description="trainings at a time; null: as many as fill a CPU, one where there is a GPU"
    )
    split: Literal["val", "test"] = Field(
        "val", description="the side that is measured, never trained on; test only where you ask for it"
    )
    hold_out: Literal["all", "measured"] = Field(
        "all",
        description="sides whose near-duplicates no detector learns from; measured: of `split` alone, where the other "
        "one plays no part",
    )
    max_bits: int = Field(
        10, ge=0, le=64, description="most differing bits of 64 in the perceptual hashes of near-duplicates"
    )
    min_similarity: float = Field(
        0.9, ge=-1, le=1, description="least cosine of the features of near-duplicates, which never stand on two sides"
    )
