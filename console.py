"""What the command line shows: progress bars, and tables of plans and outcomes."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from rich.box import SIMPLE_HEAD
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
    from .data.quotas import ClassQuota
    from .data.records import Findings
    from .evaluation.audit import Rate
    from .graphs.calibrate import Calibration
    from .graphs.pipeline import Prepared
    from .graphs.run_folder import RunOutcome
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
LISTED_CLASSES = 8
"""Classes that a line names."""
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
    """The class histogram with quotas, the frequency groups, and what the work would cost."""
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
    console.print(table)
    _show_groups(work.quotas)
    items = prepared.work.items
    low, high = _estimate(prepared)
    console.print(
        f"{len(items)} work items in {prepared.work.num_waves} waves; {low.images} to {high.images} paints; roughly "
        f"{_duration(low.seconds)} to {_duration(high.seconds)} with the embedded models on two cores; "
        "hosted models cost what their prices say."
        if prepared.recipe.agents.text_agent
        else f"{len(items)} work items in {prepared.work.num_waves} waves; {low.images} to {high.images} paints; "
        f"roughly {_duration(low.seconds)} to {_duration(high.seconds)} with {prepared.recipe.budget.workers} workers; "
        "no paid calls, 0.00 USD."
    )
    _show_choices(prepared.why)
    if prepared.work.unpainted:
        names = ", ".join(prepared.work.unpainted)
        console.print(f"[yellow]The T-Agent cannot paint or judge these; left to the I-Agent:[/] {names}")
    if prepared.work.without_source:
        console.print(f"[yellow]Nothing to start from:[/] {', '.join(prepared.work.without_source)}")
    show_findings(prepared.dataset.findings)


def _show_groups(quotas: Sequence[ClassQuota]) -> None:
    for frequency, name in FREQUENCY_GROUPS.items():
        group = [quota for quota in quotas if quota.frequency == frequency]
        if group:
            real, new = sum(quota.num_instances for quota in group), sum(quota.num_new for quota in group)
            classes = "1 class" if len(group) == 1 else f"{len(group)} classes"
            console.print(f"{name}: {classes}; instances: {real} real, {new} new", highlight=False)


SECONDS_PER_VARIATION = 0.08
"""Of the variation painter with measures at about 300 px, on one core of a server."""
SECONDS_PER_SPRITE = 1.0
"""Of the embedded painter and scorer, on two cores of a server."""
SECONDS_PER_PROMPT = 2.0
"""Of the embedded language model."""


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


def show_outcome(outcome: RunOutcome) -> None:
    """How the run ended, and what to do next."""
    content = outcome.content
    items, images = _counts(content, "items"), _counts(content, "images")
    colour = {"done": "green", "partial": "yellow"}.get(str(content["status"]), "red")
    console.print(
        f"[{colour}]{content['status']}[/]: {content['accepted']} new instances in {content['scenes']} scenes "
        f"({items['accepted']} items accepted, {items['exhausted']} exhausted, {items['failed']} failed, "
        f"{items['held']} held, {items['spared']} not needed; {images['painted']} painted, "
        f"{images['rejected']} rejected)",
        highlight=False,
    )
    if content["scenes"] and content["status"] != "interrupted":
        console.print(f"data set  {outcome.folder / 'dataset'}", soft_wrap=True)
    console.print(f"report    {outcome.folder / 'report.html'}", soft_wrap=True)
    _show_choices(_reasons_of_choice(content["painters"]))
    findings = content["findings"]
    if isinstance(findings, dict) and findings:
        console.print("[yellow]odd in the data:[/] " + ", ".join(f"{e['count']} {k}" for k, e in findings.items()))
    for hint in _strings(content["hints"]):
        console.print(f"next: {hint}", soft_wrap=True, highlight=False)


def show_anomalies(outcome: RunOutcome) -> None:
    """How many samples of each defect there are, and what to do next."""
    content = outcome.content
    items, defects = _counts(content, "items"), _counts(content, "defects")
    colour = {"done": "green", "partial": "yellow"}.get(str(content["status"]), "red")
    told = ", ".join(f"{escape(name)} {count}" for name, count in defects.items())
    console.print(
        f"[{colour}]{content['status']}[/]: {content['accepted']} samples on {content['item']} ({told}) of "
        f"{items['planned']} items, {content['mean_turns']} edits each",
        highlight=False,
    )
    console.print(f"report    {outcome.folder / 'report.html'}", soft_wrap=True)
    for hint in _strings(content["hints"]):
        console.print(f"next: {hint}", soft_wrap=True, highlight=False)


def show_labels(outcome: RunOutcome) -> None:
    """How many scenes of each class were admitted, how right their labels seem, and what to do next."""
    content = outcome.content
    items, images = _counts(content, "items"), _counts(content, "images")
    colour = {"done": "green", "partial": "yellow"}.get(str(content["status"]), "red")
    classes = content["classes"]
    made = [one for one in classes if one["quota"]] if isinstance(classes, list) else []
    told = ", ".join(f"{escape(one['name'])} {one['accepted']}" for one in made[:LISTED_CLASSES])
    told += f", {len(made) - LISTED_CLASSES} more classes" if len(made) > LISTED_CLASSES else ""
    console.print(
        f"[{colour}]{content['status']}[/]: {content['accepted']} scenes admitted ({told}) of {images['painted']} "
        f"painted in {items['planned']} items",
        soft_wrap=True,
        highlight=False,
    )
    if refusals := _counts(content, "refusals"):
        told = ", ".join(f"{escape(name)} {count}" for name, count in list(refusals.items())[:6])
        console.print(f"refused   {told}", soft_wrap=True, highlight=False)
    precision = content["label_precision"]
    if isinstance(precision, dict) and "admitted" in precision:
        shares = {kind: f"{100 * precision[kind]['share']:.0f} %" for kind in ("admitted", "refused", "real")}
        console.print(
            f"labels    all right in {shares['admitted']} of the admitted scenes, as a second classifier sees them "
            f"({shares['refused']} of the refused, {shares['real']} of real images)",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"report    {outcome.folder / 'report.html'}", soft_wrap=True)
    for hint in _strings(content["hints"]):
        console.print(f"next: {hint}", soft_wrap=True, highlight=False)


OUTCOMES: dict[str, Callable[[RunOutcome], None]] = {
    "instances": show_outcome,
    "anomalies": show_anomalies,
    "labels": show_labels,
}
"""By what a run's items are, as `run_folder.kind_of` says."""


def show_validation(outcome: RunOutcome) -> None:
    """What of a folder was kept, why the rest was not, and what to do next."""
    content = outcome.content
    items = _counts(content, "items")
    colour = {"done": "green", "partial": "yellow"}.get(str(content["status"]), "red")
    console.print(
        f"[{colour}]{content['status']}[/]: {content['accepted']} of {items['planned']} pictures kept "
        f"({items['exhausted']} rejected, {items['held']} held, {items['failed']} without a verdict)",
        highlight=False,
    )
    rejections = _counts(content, "rejections")
    if rejections:
        told = ", ".join(f"{escape(name)} {count}" for name, count in list(rejections.items())[:6])
        console.print(f"not met   {told}", soft_wrap=True, highlight=False)
    console.print(f"report    {outcome.folder / 'report.html'}", soft_wrap=True)
    for hint in _strings(content["hints"]):
        console.print(f"next: {hint}", soft_wrap=True, highlight=False)


def show_audit(folder: Path) -> None:
    """How far a person and the judges agree, where an audit was decided on."""
    from .graphs.held import audit_run

    found = audit_run(folder)
    if found is not None:
        console.print(
            f"audit: of what the judges keep a person keeps {_rate(found.overall.precision)}; of what a person keeps "
            f"the judges keep {_rate(found.overall.recall)} (95 % intervals, {found.overall.n} images)",
            soft_wrap=True,
            highlight=False,
        )


def show_calibration(calibration: Calibration, folder: Path, *, applied: bool) -> None:
    """The thresholds that an audit gives each agent, or why there is none."""
    for agent in calibration.agents:
        if agent.chosen is None:
            console.print(f"[yellow]{agent.agent}[/]: {escape(agent.problem)}", soft_wrap=True, highlight=False)
            continue
        chosen = agent.chosen
        console.print(
            f"{agent.agent}: {chosen.score} of at least {chosen.value:.4g} keeps at precision "
            f"{_rate(chosen.precision)} and recall {_rate(chosen.recall)} ({chosen.num_samples} images)",
            soft_wrap=True,
            highlight=False,
        )
    if calibration.overrides and not applied:
        settings = " ".join(f"--set {one}" for one in calibration.overrides)
        console.print(f"next: --apply, or maskwright rejudge {folder} {settings}", soft_wrap=True, highlight=False)


def _rate(rate: Rate) -> str:
    if rate.n == 0:
        return "no opinion (nothing to count)"
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]".replace("[", "\\[")


def _show_choices(why: Mapping[str, str]) -> None:
    """Why painter and masker are what they are, by agent that left it open."""
    for agent, reason in why.items():
        console.print(f"[yellow]{AGENTS[agent]}:[/] {escape(reason)}", soft_wrap=True, highlight=False)


def _reasons_of_choice(painters: object) -> dict[str, str]:
    described = painters.items() if isinstance(painters, dict) else ()
    return {agent: str(one["why"]) for agent, one in described if "why" in one}


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


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _counts(content: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = content[key]
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else []
