"""The `data` section of a recipe: what is read, and which part of it may be learned from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DataFormat = Literal["auto", "coco", "yolo", "lvis", "voc", "mvtec", "folders", "csv"]


class DataSettings(BaseModel):
    """The user's data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(None, description="data set folder or annotation file; 'quickstart' is the one that ships")
    format: DataFormat = Field(
        "auto",
        description="format of the data set; auto looks at the files; folders and csv hold labels alone, for iaa",
    )
    images: str | None = Field(None, description="image folder, where it is not beside the annotations")
    apart: bool = Field(
        False,
        description="of an item of an anomaly data set: keep photographs of one object, found by look, on one side",
    )
    val_share: float = Field(
        0.0, ge=0, lt=1, description="share of training images set aside as val, where the data set has no val"
    )
