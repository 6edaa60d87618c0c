"""What an anomaly run starts from: one item's images, shared out, and a guard around those that measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..configs.anomaly_agent import AnomalyAgentSettings
from ..configs.recipe import Recipe
from ..data.anomaly_records import AnomalyDataset, AnomalyRecord, read_defect_mask
from ..data.anomaly_splits import AnomalySplit, LeakGuard, SplitShares, split_anomalies
from ..data.images import read_image
from ..data.mvtec import load_anomalies
from ..data.records import ImageRGB
from ..errors import RecipeError
from ..tools.judging.defect_measures import DefectReference
from ..tools.masking.foreground import find_foreground


@dataclass(frozen=True, slots=True)
class AnomalySource:
    """One item's images by side, and the defects to make."""

    dataset: AnomalyDataset
    split: AnomalySplit
    guard: LeakGuard
    defects: tuple[str, ...]

    @property
    def item(self) -> str:
        return self.split.item

    @property
    def normals(self) -> Sequence[AnomalyRecord]:
        """Normal images that defects are put on."""
        return self.split.of("normal")

    def read_normal(self, row: int) -> ImageRGB:
        """A normal image; raises ImageDecodeError."""
        return read_image(self.normals[row].image)

    def references(self, defect: str) -> list[DefectReference]:
        """The real defects of a name that may be learned from, those with a mask."""
        found = self.guard.admit(self.split.of("reference", defect), consumer="references")
        references = []
        for record in found:
            if record.mask_path is None:
                continue
            rgb, mask = read_image(record.image), read_defect_mask(record)
            if mask.any():
                references.append(DefectReference(rgb=rgb, mask_hw=mask, foreground_hw=find_foreground(rgb)))
        return references


def open_anomalies(recipe: Recipe) -> AnomalySource:
    """Index the data set, choose the item and the defects, share the images out; test images are hashed.

    Raises:
        RecipeError: no data set is given, no item is named where there are several, or no defect is.
        DatasetError: the data set is wrong.
    """
    settings = recipe.agents.anomaly_agent
    assert settings is not None
    if recipe.data.path is None:
        raise RecipeError("no data set is given; add --data PATH, a folder of items or one item that has train/good")
    dataset = load_anomalies(Path(recipe.data.path), settings.item)
    if len(dataset.items) > 1:
        raise RecipeError(f"{recipe.data.path}: has the items {', '.join(dataset.items)}; name one with --item")
    [item] = dataset.items
    shares = SplitShares(**settings.splits.model_dump())
    split = split_anomalies(dataset, item, shares=shares, seed=recipe.plan.seed)
    defects = choose_defects(settings, dataset.defects(item))
    return AnomalySource(dataset, split, LeakGuard.of(split.of("test")), defects)


def choose_defects(settings: AnomalyAgentSettings, known: Iterable[str]) -> tuple[str, ...]:
    """The defects that are asked for; names without any reference are fine.

    Raises:
        RecipeError: none is named, and the data set has none.
    """
    wanted = tuple(dict.fromkeys(settings.defects)) or tuple(known)
    if not wanted:
        raise RecipeError("the data set has no defects; name those to make with --defect NAME, which may be repeated")
    return wanted
