"""The work plan: quotas become work items, items become waves, in an order that nothing can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..configs.recipe import Recipe
from ..data.quotas import ClassQuota, plan_quotas
from ..data.records import Dataset
from ..memory.entries import WorkItem
from .sources import rank_sources


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """Quotas and the items that fill them."""

    quotas: tuple[ClassQuota, ...]
    items: tuple[WorkItem, ...]
    without_source: tuple[str, ...]
    """Classes that have a quota but no instance to start from."""
    num_sources: dict[str, int]
    wave_size: int

    @property
    def num_waves(self) -> int:
        return -(-len(self.items) // self.wave_size)

    def wave(self, number: int) -> Sequence[WorkItem]:
        return self.items[number * self.wave_size : (number + 1) * self.wave_size]


def plan_work(dataset: Dataset, recipe: Recipe) -> WorkPlan:
    """Quotas of every class, and one I-Agent item for each instance that is missing.

    Items go round the classes and, inside a class, round its sources: neighbours in the plan differ,
    so an early stop leaves a balanced set and near-duplicates meet across waves.
    """
    settings = recipe.plan
    quotas = plan_quotas(
        dataset,
        by=settings.by,
        at_least=settings.at_least,
        repeat_threshold=settings.repeat_threshold,
        max_per_class=settings.max_per_class,
        classes=settings.classes,
    )
    agent = recipe.agents.image_agent
    wanted = [quota for quota in quotas if quota.num_new]
    sources = {
        q.category.category_id: rank_sources(dataset, q.category.category_id, agent.sources, agent.limits.min_area_px)
        for q in wanted
    }
    by_class = [_items_of(dataset, quota, sources[quota.category.category_id]) for quota in wanted]
    longest = max((len(items) for items in by_class), default=0)
    items = [items[turn] for turn in range(longest) for items in by_class if turn < len(items)]
    return WorkPlan(
        quotas=tuple(quotas),
        items=tuple(items[: recipe.budget.items]),
        without_source=tuple(q.category.name for q in wanted if not sources[q.category.category_id]),
        num_sources={q.category.name: len(sources[q.category.category_id]) for q in wanted},
        wave_size=settings.wave_size,
    )


def _items_of(dataset: Dataset, quota: ClassQuota, sources: Sequence[int]) -> list[WorkItem]:
    table = dataset.annotations
    items: list[WorkItem] = []
    for number in range(quota.num_new if sources else 0):
        row, slot = sources[number % len(sources)], number // len(sources)
        image = dataset.images[int(table.image_index[row])]
        items.append(
            {
                "item_id": f"image-{image.split}-{int(table.annotation_id[row])}-{slot:03d}",
                "agent": "image_agent",
                "category_id": quota.category.category_id,
                "category": quota.category.name,
                "source_row": row,
                "slot": slot,
            }
        )
    return items
