"""What an anomaly run starts from: one item's images, shared out, and a guard around those that measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from ..configs.anomaly_agent import AnomalyAgentSettings
from ..configs.recipe import Recipe
from ..data.anomaly_groups import count_known
from ..data.anomaly_records import AnomalyDataset, AnomalyRecord, read_defect_mask
from ..data.anomaly_splits import AnomalySplit, LeakGuard, Side, SplitShares, split_anomalies
from ..data.images import read_image
from ..data.mvtec import load_anomalies
from ..data.records import Findings, ImageRGB
from ..errors import DatasetError, EmptyMaskError, ImageDecodeError, RecipeError
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
    def findings(self) -> Findings:
        """What is odd in the data and stops nothing."""
        return self.dataset.findings

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
            references.append(DefectReference(rgb=rgb, mask_hw=mask, foreground_hw=find_foreground(rgb)))
        return references


def open_anomalies(recipe: Recipe) -> AnomalySource:
    """Index the data set, choose the item and the defects, share the images out; all are decoded, test images hashed.

    Raises:
        RecipeError: no data set is given, no item is named where there are several, or no defect is.
        DatasetError: the data set is wrong, or none of the normal images can be decoded.
    """
    settings = recipe.agents.anomaly_agent
    assert settings is not None
    if recipe.data.path is None:
        raise RecipeError("no data set is given; add --data PATH, a folder of items or one item that has train/good")
    dataset = load_anomalies(Path(recipe.data.path), settings.item)
    if len(dataset.items) > 1:
        raise RecipeError(f"{recipe.data.path}: has the items {', '.join(dataset.items)}; name one with --item")
    [item] = dataset.items
    shares = SplitShares(**settings.splits.model_dump(exclude={"apart"}))
    whole = split_anomalies(dataset, item, shares=shares, seed=recipe.plan.seed, apart=settings.splits.apart)
    split = keep_usable(whole, dataset.findings)
    if num_shared := count_known([*split.of("reference"), *split.of("validation")], split.of("test")):
        dataset.findings.add(
            "object_on_two_sides",
            f"{num_shared} test images show an object that a reference shows too, so whoever learns from references "
            "knows them; with agents.anomaly_agent.splits.apart=true they stay together",
            num_shared,
        )
    defects = choose_defects(settings, dataset.defects(item))
    return AnomalySource(dataset, split, LeakGuard.of(split.of("test")), defects)


def keep_usable(split: AnomalySplit, findings: Findings) -> AnomalySplit:
    """A split without what cannot be decoded; a defect whose mask is empty or damaged stays, without its mask.

    Args:
        findings: gets `unreadable_image`, `unreadable_mask`, `empty_mask`, `stray_mask_values`, and
            `colour_among_grey` or `grey_among_colour` for what is not as most normal images are.

    Raises:
        DatasetError: no normal image is left.
    """
    is_grey: dict[str, bool] = {}
    sides = {
        side: tuple(one for record in records if (one := _checked(record, is_grey, findings)))
        for side, records in split.sides.items()
    }
    if not sides["normal"]:
        raise DatasetError(
            f"{split.item!r}: none of its {len(split.of('normal'))} normal images is left; the first finding: "
            f"{findings.examples['unreadable_image'][0]}"
        )
    _find_odd_colours(sides, is_grey, findings)
    return replace(split, sides=sides)


def _checked(record: AnomalyRecord, is_grey: dict[str, bool], findings: Findings) -> AnomalyRecord | None:
    """A record as far as it can be used; None: not at all."""
    try:
        image = read_image(record.image)
    except ImageDecodeError as exc:
        findings.add("unreadable_image", f"{exc}; it is left out, save it anew")
        return None
    is_grey[record.key] = bool(np.array_equal(image.min(axis=2), image.max(axis=2)))
    if record.mask_path is None:
        return record
    try:
        read_defect_mask(record, findings)
    except EmptyMaskError as exc:
        findings.add("empty_mask", str(exc))
    except ImageDecodeError as exc:
        findings.add("unreadable_mask", f"{exc}; its image counts as one without mask, save it anew")
    else:
        return record
    return replace(record, mask_path=None)


def _find_odd_colours(
    sides: Mapping[Side, tuple[AnomalyRecord, ...]], is_grey: Mapping[str, bool], findings: Findings
) -> None:
    num = Counter(is_grey[record.key] for record in sides["normal"])
    own, usual = ("colour", "grey") if num[True] > num[False] else ("grey", "colour")
    for record in chain.from_iterable(sides.values()):
        if is_grey[record.key] == (own == "grey"):
            findings.add(
                f"{own}_among_{usual}",
                f"{str(record.image_path)!r} is {own}, most normal images of {record.item!r} are {usual}; convert it, "
                "or take it out",
            )


def choose_defects(settings: AnomalyAgentSettings, known: Iterable[str]) -> tuple[str, ...]:
    """The defects that are asked for; names without any reference are fine.

    Raises:
        RecipeError: none is named, and the data set has none.
    """
    wanted = tuple(dict.fromkeys(settings.defects)) or tuple(known)
    if not wanted:
        raise RecipeError("the data set has no defects; name those to make with --defect NAME, which may be repeated")
    return wanted
