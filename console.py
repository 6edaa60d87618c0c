"""What the command line shows: progress bars, and tables of plans and outcomes."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from .data.records import Findings
    from .graphs.pipeline import Prepared, RunOutcome
    from .models.catalogue import Model

console = Console()
errors = Console(stderr=True)
STAGES = {"make": "instances", "compose": "scenes", "export": "export", "report": "report", "convert": "convert"}
OUTCOME_STYLES = {"accepted": "green", "exhausted": "yellow", "failed": "red", "held": "blue"}


class Bars:
    """One bar a stage: accepted, rejected and failed so far, speed, time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[outcomes]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=errors,
        )
        self._tasks: dict[str, TaskID] = {}
        self._outcomes: dict[str, Counter[str]] = {}

    @contextmanager
    def shown(self) -> Iterator[Bars]:
        with self._progress:
            yield self

    def start(self, stage: str, total: int) -> None:
        if stage in self._tasks:
            self._progress.update(self._tasks[stage], total=total, completed=0)
            return
        self._outcomes[stage] = Counter()
        self._tasks[stage] = self._progress.add_task(STAGES.get(stage, stage), total=total, outcomes="", rate="")

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None:
        task_id = self._tasks[stage]
        self._outcomes[stage][outcome] += count
        shown = [f"[{OUTCOME_STYLES[o]}]{n} {o}[/]" for o, n in self._outcomes[stage].items() if o in OUTCOME_STYLES]
        speed = self._progress.tasks[task_id].speed
        rate = f"{speed:.1f}/s" if speed else ""
        self._progress.update(task_id, advance=count, outcomes=" ".join(shown), rate=rate)


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes, from the first that it hears of."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=errors)
    task_id = progress.add_task(name)

    def show(num_bytes: int, total: int) -> None:
        progress.start()
        progress.update(task_id, completed=num_bytes, total=total)

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()


@contextmanager
def draining() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second Ctrl-C stops at once."""
    stop = threading.Event()

    def drain(_signal: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        errors.print("\n[yellow]Finishing what is in flight; Ctrl-C again stops at once.[/]")

    earlier = {number: signal.signal(number, drain) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def show_plan(prepared: Prepared) -> None:
    """The class histogram with quotas, and what the work would cost."""
    table = Table(title="Plan", title_justify="left")
    for name in ("class", "instances", "images", "repeat factor", "new", "sources"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for quota in sorted(prepared.work.quotas, key=lambda quota: -quota.num_new):
        sources = prepared.work.num_sources.get(quota.category.name)
        table.add_row(
            quota.category.name,
            str(quota.num_instances),
            str(quota.num_images),
            f"{quota.repeat_factor:.2f}",
            str(quota.num_new),
            "" if sources is None else str(sources) if sources else "[red]none[/]",
        )
    console.print(table)
    items = len(prepared.work.items)
    agent, workers = prepared.recipe.agents.image_agent, prepared.recipe.budget.workers
    low, high = (items * rounds * SECONDS_PER_PAINT / workers for rounds in (1, agent.max_rounds))
    console.print(
        f"{items} work items in {prepared.work.num_waves} waves; {items} to {items * agent.max_rounds} paints; "
        f"roughly {_duration(low)} to {_duration(high)} with {workers} workers; no paid calls, 0.00 USD."
    )
    if prepared.work.without_source:
        console.print(f"[yellow]No instance to start from:[/] {', '.join(prepared.work.without_source)}")
    show_findings(prepared.dataset.findings)


SECONDS_PER_PAINT = 0.08
"""Of the variation painter with measures at about 300 px, on one core of a server."""


def show_outcome(outcome: RunOutcome) -> None:
    """How the run ended, and what to do next."""
    content = outcome.content
    items, images = _counts(content, "items"), _counts(content, "images")
    colour = {"done": "green", "partial": "yellow"}.get(str(content["status"]), "red")
    console.print(
        f"[{colour}]{content['status']}[/]: {content['accepted']} new instances in {content['scenes']} scenes "
        f"({items['accepted']} items accepted, {items['exhausted']} exhausted, {items['failed']} failed, "
        f"{items['held']} held; {images['painted']} painted, {images['rejected']} rejected)",
        highlight=False,
    )
    if content["scenes"] and content["status"] != "interrupted":
        console.print(f"data set  {outcome.folder / 'dataset'}", soft_wrap=True)
    console.print(f"report    {outcome.folder / 'report.html'}", soft_wrap=True)
    findings = content["findings"]
    if isinstance(findings, dict) and findings:
        console.print("[yellow]odd in the data:[/] " + ", ".join(f"{e['count']} {k}" for k, e in findings.items()))
    for hint in _strings(content["hints"]):
        console.print(f"next: {hint}", soft_wrap=True, highlight=False)


def show_findings(findings: Findings) -> None:
    """Oddities of the data, one line a kind with its first example."""
    for kind, count in sorted(findings.counts.items()):
        console.print(f"[yellow]{count} {kind}[/]: {findings.examples[kind][0]}", soft_wrap=True, highlight=False)


def show_checks(checks: Sequence[tuple[str, str, bool]]) -> None:
    """Rows of (what, what was found, whether it will do)."""
    for what, found, is_fine in checks:
        console.print(f"{'[green]ok[/]     ' if is_fine else '[yellow]missing[/]'} {what:<28} {found}", soft_wrap=True)


def show_models(models: Iterable[Model]) -> None:
    """The catalogue, with what stands on this machine."""
    from .models.fetch import cache_folder, check_model

    table = Table(title="Models", title_justify="left")
    for name in ("name", "state", "size", "licence", "what"):
        table.add_column(name, justify="right" if name == "size" else "left")
    for model in models:
        state = check_model(model).state
        colour = {"ready": "green", "not fetched": "yellow"}.get(state, "red")
        size = "" if model.num_bytes is None else f"{model.num_bytes / 1e6:.0f} MB"
        table.add_row(model.name, f"[{colour}]{state}[/]", size, model.licence, model.description)
    console.print(table)
    console.print(f"cache  {cache_folder()}", soft_wrap=True, highlight=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _counts(content: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = content[key]
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else []
