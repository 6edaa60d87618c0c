"""The plan of a run: classes, quotas, and what the work would cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .console import FREQUENCY_GROUPS, console, show_choices, show_findings

if TYPE_CHECKING:
    from .data.quotas import ClassQuota
    from .graphs.pipeline import Prepared

SECONDS_PER_VARIATION = 0.08
"""Of the variation painter with measures at about 300 px, on one core of a server."""
SECONDS_PER_SPRITE = 1.0
"""Of the embedded painter and scorer, on two cores of a server."""
SECONDS_PER_PROMPT = 2.0
"""Of the embedded language model."""


def show_plan(prepared: Prepared) -> None:
    """The class histogram with quotas, the frequency groups, and what the work would cost."""
    work = prepared.work
    console.print(_class_table(prepared))
    _show_groups(work.quotas)
    console.print(_cost_line(prepared))
    show_choices(prepared.why)
    if work.unpainted:
        names = ", ".join(work.unpainted)
        console.print(f"[yellow]The T-Agent cannot paint or judge these; left to the I-Agent:[/] {names}")
    if work.without_source:
        console.print(f"[yellow]Nothing to start from:[/] {', '.join(work.without_source)}")
    show_findings(prepared.dataset.findings)


def _class_table(prepared: Prepared) -> Table:
    work, has_writer = prepared.work, prepared.recipe.agents.text_agent is not None
    table = Table(title="Plan", title_justify="left", box=SIMPLE_HEAD)
    columns = ["class", "group", "instances", "images", "repeat\nfactor", "new", "from\nwords", "sources"]
    for name in columns if has_writer else [name for name in columns if name != "from\nwords"]:
        table.add_column(name, justify="left" if name in ("class", "group") else "right")
    for quota in sorted(work.quotas, key=lambda quota: -quota.num_new):
        from_words = work.text_quota.get(quota.category.category_id, 0)
        sources = len(work.sources.get(quota.category.category_id, ()))
        missing = "[red]none[/]" if quota.num_new and not from_words else ""
        table.add_row(
            escape(quota.category.name),
            FREQUENCY_GROUPS[quota.frequency],
            str(quota.num_instances),
            str(quota.num_images),
            f"{quota.repeat_factor:.2f}",
            str(quota.num_new),
            *([str(from_words or "")] if has_writer else []),
            str(sources or missing),
        )
    return table


def _cost_line(prepared: Prepared) -> str:
    low, high = _estimate(prepared)
    pace, price = (
        ("the embedded models on two cores", "hosted models cost what their prices say.")
        if prepared.recipe.agents.text_agent
        else (f"{prepared.recipe.budget.workers} workers", "no paid calls, 0.00 USD.")
    )
    return (
        f"{len(prepared.work.items)} work items in {prepared.work.num_waves} waves; {low.images} to {high.images} "
        f"paints; roughly {_duration(low.seconds)} to {_duration(high.seconds)} with {pace}; {price}"
    )


def _show_groups(quotas: Sequence[ClassQuota]) -> None:
    for frequency, name in FREQUENCY_GROUPS.items():
        group = [quota for quota in quotas if quota.frequency == frequency]
        if group:
            real, new = sum(quota.num_instances for quota in group), sum(quota.num_new for quota in group)
            classes = "1 class" if len(group) == 1 else f"{len(group)} classes"
            console.print(f"{name}: {classes}; instances: {real} real, {new} new", highlight=False)


class Estimate(NamedTuple):
    images: int
    seconds: float


def _estimate(prepared: Prepared) -> tuple[Estimate, Estimate]:
    """Least and most that a plan may cost: every item accepted at once, every item at its last round."""
    agents, work = prepared.recipe.agents, prepared.work
    num_text = sum(item["agent"] == "text_agent" for item in work.items)
    num_image = len(work.items) - num_text
    text, image = agents.text_agent, agents.image_agent
    found = []
    for text_rounds, image_rounds in ((1, 1), (text.max_rounds if text else 0, image.max_rounds if image else 0)):
        prompts = num_text * text_rounds
        sprites = prompts * text.images_per_prompt if text else 0
        variations = num_image * image_rounds
        seconds = prompts * SECONDS_PER_PROMPT + sprites * SECONDS_PER_SPRITE
        seconds += variations * SECONDS_PER_VARIATION / prepared.recipe.budget.workers
        found.append(Estimate(sprites + variations, seconds))
    return found[0], found[1]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
