"""Tools over whole data sets: what is in one, and one format into another."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from pydantic import Field

from ...data.convert import convert_dataset
from ...data.load import load_dataset
from ...data.quotas import count_train, frequency_group, repeat_factor
from ...data.records import Dataset, Frequency
from ...errors import InputError
from .base import ToolInput, ToolResult
from .workspace import Workspace

FormatName = Literal["coco", "lvis", "voc", "yolo"]
ReadAs = Annotated[Literal["auto", "mvtec"] | FormatName, Field(description="what it is; auto finds out")]
MAX_CLASSES = 50
"""Most classes that an answer lists; LVIS has 1203."""


class InspectDataset(ToolInput):
    """Describe a data set: splits, findings, and of each class its counts, LVIS frequency group and repeat factor.

    The rarest classes come first; counts are of the training split.
    """

    path: str = Field(min_length=1, max_length=1000, description="its folder or annotation file, below the root")
    format: ReadAs = "auto"
    max_classes: int = Field(MAX_CLASSES, ge=1, le=2000, description="most classes to list")


class ExportDataset(ToolInput):
    """Convert a data set of segmentation masks into another format, its images included."""

    path: str = Field(min_length=1, max_length=1000, description="its folder or annotation file, below the root")
    to: FormatName = Field(description="what it shall be")
    format: ReadAs = "auto"


@dataclass(frozen=True, slots=True)
class ClassCount:
    """What the training split has of a class."""

    name: str
    instances: int
    images: int
    frequency: Frequency
    repeat_factor: float


@dataclass(frozen=True, slots=True)
class Datasets:
    """Reads and converts data sets below the root."""

    workspace: Workspace
    repeat_threshold: float

    def inspect_dataset(self, arguments: InspectDataset) -> ToolResult:
        dataset = load_dataset(self.workspace.dataset_path(arguments.path), arguments.format)
        classes = _count_classes(dataset, self.repeat_threshold)
        summary = {
            "format": dataset.format,
            "images_by_split": dict(Counter(image.split for image in dataset.images)),
            "annotations": len(dataset.annotations),
            "num_classes": len(classes),
            "frequency_groups": dict(Counter(one.frequency for one in classes)),
            "classes": [asdict(one) for one in classes[: arguments.max_classes]],
            "findings": dict(dataset.findings.counts),
        }
        return ToolResult(summary)

    def export_dataset(self, arguments: ExportDataset) -> ToolResult:
        source = self.workspace.dataset_path(arguments.path)
        if (source.parent if source.is_file() else source) == self.workspace.root:
            raise InputError(f"{arguments.path!r} lies in the root itself; move the data set into a folder of the root")
        target = self.workspace.make_folder(f"dataset-{arguments.to}")
        try:
            report = convert_dataset(source, target, to=arguments.to, format=arguments.format)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)  # ours alone, made a moment ago
            raise
        summary = {
            "path": self.workspace.relative(target),
            "images": report.images,
            "annotations": report.annotations,
            "splits": list(report.splits),
            "findings": dict(report.findings.counts),
        }
        return ToolResult(summary, [target])


def _count_classes(dataset: Dataset, repeat_threshold: float) -> list[ClassCount]:
    """The rarest first."""
    num_train = max(1, sum(image.split == "train" for image in dataset.images))
    counts = [
        ClassCount(
            category.name,
            num_instances,
            num_images,
            category.frequency or frequency_group(num_images),
            round(repeat_factor(num_images / num_train, repeat_threshold), 3),
        )
        for category, (num_instances, num_images) in zip(dataset.categories, count_train(dataset), strict=True)
    ]
    return sorted(counts, key=lambda one: (one.images, one.instances))
