"""The `export` section of a recipe: in which formats the bigger data set is written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ExportFormat = Literal["coco", "yolo", "lvis", "voc"]


class ExportSettings(BaseModel):
    """What lands in RUN/dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    formats: Annotated[tuple[ExportFormat, ...], Field(min_length=1)] = Field(
        ("coco", "yolo"), description="one folder of RUN/dataset each"
    )
    originals: bool = Field(True, description="put the user's own images beside the scenes")
