"""The work plan: quotas become work items, items become waves, in an order that nothing can change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import ceil

from ..configs.agents import TextAgentSettings
from ..configs.recipe import Recipe
from ..data.quotas import ClassQuota, plan_quotas
from ..data.records import Category, Dataset
from ..memory.entries import WorkItem
from .sources import rank_sources

Wave = tuple[WorkItem, ...]
"""Items of one agent that start from the same shared memory."""


@dataclass(frozen=True, slots=True)
class WorkPlan:
    """Quotas and the items that fill them."""

    quotas: tuple[ClassQuota, ...]
    waves: tuple[Wave, ...]
    without_source: tuple[str, ...]
    """Classes that have a quota and no agent that could fill it."""
    unpainted: tuple[str, ...]
    """Classes that the T-Agent's painter cannot draw, or its scorer does not know; they are left to the I-Agent."""
    sources: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """By category id: the annotation rows that the I-Agent starts from, best first."""
    text_quota: dict[int, int] = field(default_factory=dict)
    """New instances of a class that the T-Agent makes; its items beyond them are spared."""

    @property
    def items(self) -> list[WorkItem]:
        return [item for wave in self.waves for item in wave]

    @property
    def num_waves(self) -> int:
        return len(self.waves)

    def num_starts(self, category: Category) -> int:
        """Instances that a class can start from; words count as one where the T-Agent can paint it."""
        return len(self.sources.get(category.category_id, ())) or int(category.category_id in self.text_quota)


def plan_work(dataset: Dataset, recipe: Recipe, knows: Callable[[str], bool]) -> WorkPlan:
    """Quotas of every class, shared between the agents, and the items of each.

    Items go round the classes, rare ones first, and, inside a class, round its sources: neighbours in the plan
    differ, so an early stop leaves a balanced set that has served the rare, and near-duplicates meet across waves.

    Args:
        knows: whether the T-Agent can make a class of this name.
    """
    settings, agents = recipe.plan, recipe.agents
    frequency = settings.frequency
    quotas = plan_quotas(
        dataset,
        by=settings.by,
        at_least=settings.at_least,
        repeat_threshold=settings.repeat_threshold,
        at_least_by_frequency={"r": frequency.rare, "c": frequency.common, "f": frequency.frequent},
        extra=settings.extra,
        max_per_class=settings.max_per_class,
        classes=settings.classes,
    )
    wanted = sorted((quota for quota in quotas if quota.num_new), key=lambda quota: quota.num_images)
    sources: dict[int, list[int]] = {quota.category.category_id: [] for quota in wanted}
    if (image_agent := agents.image_agent) is not None:
        sources = {
            class_id: rank_sources(dataset, class_id, image_agent.sources, image_agent.limits.min_area_px)
            for class_id in sources
        }
    painted = {q.category.category_id for q in wanted if agents.text_agent and knows(q.category.name)}
    shares = [_share(quota, recipe, sources[quota.category.category_id], painted) for quota in wanted]
    text_turns = _text_turns(wanted, [share[0] for share in shares], agents.text_agent)
    image_items = _in_turns(
        [
            _image_items(dataset, q, share[1], sources[q.category.category_id])
            for q, share in zip(wanted, shares, strict=True)
        ]
    )
    waves = _interleave(
        [wave for turn in text_turns for wave in _to_waves(turn, settings.wave_size)],
        _to_waves(image_items, settings.wave_size),
    )
    return WorkPlan(
        quotas=tuple(quotas),
        waves=tuple(_limited(waves, recipe.budget.items)),
        without_source=tuple(q.category.name for q, share in zip(wanted, shares, strict=True) if not sum(share)),
        unpainted=tuple(q.category.name for q in wanted if agents.text_agent and q.category.category_id not in painted),
        sources={class_id: tuple(rows) for class_id, rows in sources.items()},
        text_quota={q.category.category_id: share[0] for q, share in zip(wanted, shares, strict=True) if share[0]},
    )


def _share(quota: ClassQuota, recipe: Recipe, sources: Sequence[int], painted: set[int]) -> tuple[int, int]:
    """New instances of a class for the T-Agent and for the I-Agent; whoever is alone takes all."""
    text_agent = recipe.agents.text_agent
    if text_agent is None or quota.category.category_id not in painted:
        return 0, quota.num_new if sources else 0
    if not sources:
        return quota.num_new, 0
    for_text = round(quota.num_new * text_agent.quota_share)
    return for_text, quota.num_new - for_text


def _text_turns(
    wanted: Sequence[ClassQuota], shares: Sequence[int], settings: TextAgentSettings | None
) -> Iterator[list[WorkItem]]:
    """Items of the T-Agent, turn by turn: in each turn a class has at most `items_per_wave`.

    There are as many as are needed where every prompt keeps just `min_yield` of its images.
    """
    if settings is None:
        return
    kept = max(1.0, settings.images_per_prompt * settings.min_yield)
    by_class = [_text_items(quota, ceil(share / kept)) for quota, share in zip(wanted, shares, strict=True)]
    for first in range(0, max(map(len, by_class), default=0), settings.items_per_wave):
        turn = [items[first : first + settings.items_per_wave] for items in by_class]
        yield _in_turns(turn)


def _text_items(quota: ClassQuota, count: int) -> list[WorkItem]:
    return [
        {
            "item_id": f"text-{quota.category.category_id}-{slot:04d}",
            "agent": "text_agent",
            "category_id": quota.category.category_id,
            "category": quota.category.name,
            "source_row": -1,
            "slot": slot,
        }
        for slot in range(count)
    ]


def _image_items(dataset: Dataset, quota: ClassQuota, count: int, sources: Sequence[int]) -> list[WorkItem]:
    table = dataset.annotations
    items: list[WorkItem] = []
    for number in range(count):
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


def _in_turns(by_class: Sequence[Sequence[WorkItem]]) -> list[WorkItem]:
    longest = max(map(len, by_class), default=0)
    return [items[turn] for turn in range(longest) for items in by_class if turn < len(items)]


def _to_waves(items: Sequence[WorkItem], size: int) -> list[Wave]:
    return [tuple(items[first : first + size]) for first in range(0, len(items), size)]


def _interleave(first: Sequence[Wave], second: Sequence[Wave]) -> list[Wave]:
    """The agents' waves by turns, so that a limit leaves something of both."""
    return [wave for pair in zip_longest(first, second) for wave in pair if wave is not None]


def _limited(waves: Sequence[Wave], num_items: int | None) -> Iterator[Wave]:
    left = num_items if num_items is not None else sum(map(len, waves))
    for wave in waves:
        if left > 0:
            yield wave[:left]
        left -= len(wave)
