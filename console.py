"""What the command line shows: progress bars, and tables of models, prompts and findings."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
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
    from .memory.browse import ClassSummary
    from .memory.prompt_records import PromptRecord
    from .models.catalogue import Model

console = Console()
errors = Console(stderr=True)
STAGES = {
    "make": "instances",
    "compose": "scenes",
    "judge": "verdicts",
    "validate": "pictures",
    "learn": "classifier",
    "check": "labels",
}
"""Stages that the bar names otherwise."""
FREQUENCY_GROUPS = {"r": "rare", "c": "common", "f": "frequent"}
AGENTS = {"text_agent": "T-Agent", "image_agent": "I-Agent"}
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
        self._outcomes[stage] = Counter()
        if stage in self._tasks:
            self._progress.update(self._tasks[stage], total=total, completed=0, outcomes="", rate="")
            return
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


def show_choices(why: Mapping[str, str]) -> None:
    """Why painter and masker are what they are, by agent that left it open."""
    for agent, reason in why.items():
        console.print(f"[yellow]{AGENTS[agent]}:[/] {escape(reason)}", soft_wrap=True, highlight=False)


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


def show_remembered_classes(summaries: Sequence[ClassSummary]) -> None:
    """One row a class."""
    table = Table(title="Prompt memory", title_justify="left")
    for name in ("class", "prompts", "painted", "kept", "retired", "best prompt"):
        table.add_column(name, justify="left" if name in ("class", "best prompt") else "right")
    for summary in summaries:
        counts = (summary.num_prompts, summary.num_painted, summary.num_kept, summary.num_retired)
        table.add_row(*map(escape, (summary.category, *map(str, counts), summary.best.prompt)))
    console.print(table)


def show_prompts(records: Sequence[PromptRecord], limit: int) -> None:
    """One row a prompt, in the order given, and how many were left out."""
    from .memory.prompt_records import LIKENESS

    table = Table(title="Prompts", title_justify="left")
    for name in ("class", "kept", "image-text", "prompt", "rejected for", "id"):
        table.add_column(name, justify="right" if name in ("kept", "image-text") else "left", overflow="fold")
    for record in records[:limit]:
        likeness = record.scores.get(LIKENESS)
        table.add_row(
            escape(record.category),
            f"{record.num_kept}/{record.num_painted}",
            "" if likeness is None else f"{likeness:.2f}",
            escape(record.prompt),
            escape("; ".join(record.reasons)),
            escape(record.record_id),
        )
    console.print(table)
    if len(records) > limit:
        console.print(f"{len(records) - limit} more; see --limit, or `maskwright memory export`", highlight=False)
