"""Quotas: how many new instances each class needs, from the training split alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import RecipeError
from .records import Category, Dataset, Frequency

QuotaRule = Literal["instances", "images", "repeat_factor", "frequency"]
RARE_IMAGES, COMMON_IMAGES = 10, 100
"""Most training images of a rare and of a common class (Gupta et al., LVIS, arXiv 1908.03195, section 3)."""


@dataclass(frozen=True, slots=True)
class ClassQuota:
    """What a class has in training, and how many new instances it shall get."""

    category: Category
    num_instances: int
    num_images: int
    repeat_factor: float
    frequency: Frequency
    """As the data set declares it, else from the training images."""
    num_new: int


def frequency_group(num_images: int) -> Frequency:
    """LVIS's group of a class in so many training images: r (rare), c (common) or f (frequent)."""
    if num_images <= RARE_IMAGES:
        return "r"
    return "c" if num_images <= COMMON_IMAGES else "f"


def repeat_factor(image_share: float, threshold: float) -> float:
    """r(c) = max(1, sqrt(t / f(c))) (LVIS, arXiv 1908.03195, section 5); 1 for a class without images."""
    return max(1.0, math.sqrt(threshold / image_share)) if image_share > 0 else 1.0


def plan_quotas(
    dataset: Dataset,
    *,
    by: QuotaRule,
    at_least: int,
    repeat_threshold: float,
    at_least_by_frequency: Mapping[Frequency, int],
    extra: Mapping[str, int] | None = None,
    max_per_class: int | None = None,
    classes: Sequence[str] | None = None,
) -> list[ClassQuota]:
    """One quota a category, in the data set's order.

    Top-up to `at_least` is Gen-n-Val's balancing; `frequency` tops up to what `at_least_by_frequency` gives a
    class's group; `repeat_factor` asks for (r - 1) times the class's
    instances, so that a class is seen as often as LVIS's resampling would show it.

    Args:
        extra: instances above that, by class name; `max_per_class` bounds them too.

    Raises:
        RecipeError: a name in `classes` or `extra` is no category of the data set.
    """
    _refuse_unknown_classes(dataset, "plan.classes", classes or ())
    _refuse_unknown_classes(dataset, "plan.extra", extra or ())
    num_train_images = sum(image.split == "train" for image in dataset.images)
    quotas = []
    for category, (num_instances, num_images) in zip(dataset.categories, count_train(dataset), strict=True):
        factor = repeat_factor(num_images / max(1, num_train_images), repeat_threshold)
        group = category.frequency or frequency_group(num_images)
        missing = {
            "instances": at_least - num_instances,
            "images": at_least - num_images,
            "repeat_factor": round((factor - 1) * num_instances),
            "frequency": at_least_by_frequency[group] - num_instances,
        }[by]
        wanted = classes is None or category.name in classes
        asked = max(0, missing) + (extra or {}).get(category.name, 0)
        num_new = min(asked, math.inf if max_per_class is None else max_per_class) if wanted else 0
        quotas.append(ClassQuota(category, num_instances, num_images, factor, group, int(num_new)))
    return quotas


def count_train(dataset: Dataset) -> list[tuple[int, int]]:
    """(instances, images) of each category in the training split; crowds do not count."""
    table = dataset.annotations
    is_train = np.array([image.split == "train" for image in dataset.images], dtype=np.bool_)
    rows = is_train[table.image_index] & ~table.is_crowd
    images, categories = table.image_index[rows], table.category_id[rows]
    ids, instances = np.unique(categories, return_counts=True)
    pairs = np.unique(np.stack([images, categories], axis=1), axis=0)
    ids_of_pairs, with_images = np.unique(pairs[:, 1], return_counts=True)
    by_instances = dict(zip(ids.tolist(), instances.tolist(), strict=True))
    by_images = dict(zip(ids_of_pairs.tolist(), with_images.tolist(), strict=True))
    return [(by_instances.get(c.category_id, 0), by_images.get(c.category_id, 0)) for c in dataset.categories]


def _refuse_unknown_classes(dataset: Dataset, setting: str, classes: Iterable[str]) -> None:
    known = {category.name for category in dataset.categories}
    unknown = sorted(set(classes) - known)
    if unknown:
        raise RecipeError(
            f"{setting} names {', '.join(map(repr, unknown))}, which the data set does not have; "
            f"it has {', '.join(sorted(known))}"
        )
