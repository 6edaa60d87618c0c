"""What a label run starts from: labelled images, shared out, and a guard around those that measure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from ..configs.label_agent import LabelAgentSettings
from ..configs.recipe import Recipe
from ..data.anomaly_splits import LeakGuard
from ..data.label_draw import draw_stratified
from ..data.label_records import LabelDataset, LabelledImage, LabelSplit, count_labels
from ..data.label_sources import load_labels
from ..data.label_splits import drop_label_copies, keep_decodable, split_labels
from ..data.records import Findings
from ..errors import RecipeError
from ..tools.scenes import ScenePainter

LEAST_TAUGHT = 4
"""Images of a class, those to train and those to calibrate on, below which nobody can tell whether it was learned."""
NAMED = 12
"""Classes that a message names."""


@dataclass(frozen=True, slots=True)
class LabelSource:
    """A data set's images by side."""

    dataset: LabelDataset
    split: LabelSplit
    guard: LeakGuard

    @property
    def findings(self) -> Findings:
        """What is odd in the data and stops nothing."""
        return self.dataset.findings

    @property
    def train(self) -> tuple[LabelledImage, ...]:
        """In the order of the backgrounds' rows."""
        return self.split.of("train")

    def digest(self) -> str:
        """Of the files' names, sizes and labels, by side."""
        sides = {
            side: [[one.key, one.path.stat().st_size, sorted(one.labels)] for one in images]
            for side, images in self.split.sides.items()
        }
        content = {"classes": self.dataset.classes, "sides": sides}
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class ClassChoice:
    """Which of the data set's classes can be made, and why the others cannot."""

    drawable: tuple[str, ...]
    """By the painter."""
    teachable: tuple[str, ...]
    """Classes with enough images to learn them from; all, where there is no filter."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why, by class."""


def open_labels(recipe: Recipe) -> LabelSource:
    """Index the data set and share the images out; all are decoded, and copies of test images are left out.

    Raises:
        RecipeError: no data set is given.
        DatasetError: the data set is wrong, or its labels contradict each other.
    """
    settings, data = recipe.agents.label_agent, recipe.data
    assert settings is not None
    if data.path is None:
        raise RecipeError("no data set is given; add --data PATH: VOC, COCO, YOLO, class folders, a CSV or an item")
    images = Path(data.images) if data.images else None
    dataset = load_labels(Path(data.path), format=data.format, item=settings.item, images=images)
    own = settings.splits
    split = split_labels(dataset, held_out=own.held_out, test=own.test, seed=recipe.plan.seed, apart=own.apart)
    usable = keep_decodable(split, dataset.findings)
    guard = LeakGuard.of(usable.of("test"))
    return LabelSource(dataset, drop_label_copies(usable, guard, dataset.findings), guard)


def choose_classes(source: LabelSource, painter: ScenePainter, settings: LabelAgentSettings) -> ClassChoice:
    """What can be made, told before anything is spent; classes that are left out become findings.

    Raises:
        RecipeError: nothing can be made.
    """
    left_out: dict[str, str] = {}
    drawable = tuple(name for name in source.dataset.classes if painter.knows(name))
    for name in source.dataset.classes:
        if name not in drawable:
            left_out[name] = f"the painter {painter.name!r} cannot draw it"
    if not drawable:
        raise RecipeError(
            f"the painter {painter.name!r} can draw none of the classes {name_some(source.dataset.classes)}; set "
            "agents.label_agent.painter to diffusion or hosted, or to defects for defects on good images"
        )
    teachable = source.dataset.classes
    if settings.filter:
        num = count_labels((*source.train, *source.split.of("held_out")), source.dataset.classes)
        taught = count_labels(source.train, source.dataset.classes)
        teachable = tuple(name for name in teachable if num[name] >= LEAST_TAUGHT and taught[name])
        for name in drawable:
            if name not in teachable:
                left_out[name] = f"{num[name]} images to learn it from, expected {LEAST_TAUGHT} at least"
    if not set(drawable) & set(teachable):
        raise RecipeError(
            f"of the classes that the painter can draw, {name_some(drawable)}, none has {LEAST_TAUGHT} images to learn "
            "it from, so that no filter could look for it; label more images, or set agents.label_agent.filter=false"
        )
    choice = ClassChoice(drawable, teachable)
    leave_out(source, choice, left_out)
    return choice


def leave_out(source: LabelSource, choice: ClassChoice, reasons: Mapping[str, str]) -> None:
    """Note classes that are not made, and why, also among the findings."""
    for name, why in reasons.items():
        if name not in choice.left_out:
            choice.left_out[name] = why
            source.findings.add("class_not_made", f"{name!r}: {why}")


def name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def deal_anew(source: LabelSource, held_out: float, seed: int) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Train and held-out images of another deal; what the split holds out trains here."""
    share = min(0.5, held_out / (1 - held_out))
    drawn, left = draw_stratified(source.train, share, f"{seed}\0second")
    return sorted([*left, *source.split.of("held_out")], key=lambda one: one.key), drawn
