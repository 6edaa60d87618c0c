"""The report of a run: one page that needs nothing but itself. Pictures first, then numbers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..data.run_summary import ClassSummary, RunSummary, read_run_summary
from ..errors import RunFolderError
from ..memory.artifacts import write_or_stop
from .charts import classes_to_chart, classes_to_yield_bars, counts_to_bars, seconds_to_bars, seconds_to_text
from .gallery import collect_gallery
from .validation_sheet import Validation, ValidationSummary, collect_validation, read_summary

TEMPLATE = "report.html.jinja"
NAMED_CLASSES = 3
UNFINISHED = frozenset({"running", "interrupted"})


def build_report(run_folder: Path) -> Path:
    """Write RUN/report.html, whole or not at all; its size is bounded however large the run.

    Returns:
        Its path.

    Raises:
        RunFolderError: the folder is no run of ours.
        BrokenRunError: an entry of a ledger is damaged, or the file cannot be written.
    """
    summary = read_run_summary(run_folder)
    template = make_environment().get_template(TEMPLATE)
    gallery = collect_gallery(run_folder)
    page = template.render(
        headline=run_to_headline(summary),
        run=summary,
        source=Path(summary.dataset.path).name,
        facts=run_to_facts(summary),
        gallery=gallery,
        classes=gallery.classes,
        validation=_validation(summary, run_folder),
        chart=classes_to_chart(summary.classes),
        yields=classes_to_yield_bars(summary.classes),
        rejections=counts_to_bars(summary.rejections, summary.images.get("rejected", 0)),
        timings=seconds_to_bars(summary.seconds),
        recipe=_read_recipe(run_folder),
        commands=run_to_commands(summary, run_folder),
    )
    path = run_folder / "report.html"
    write_or_stop(path, page.encode())
    return path


def run_to_headline(summary: RunSummary) -> str:
    """The outcome in one sentence, without a full stop."""
    outcome = _success(summary) if summary.accepted else _nothing(summary)
    prefix = {"interrupted": "Interrupted: ", "running": "Unfinished: "}.get(summary.status)
    return prefix + outcome if prefix else outcome[0].upper() + outcome[1:]


def _nothing(summary: RunSummary) -> str:
    if summary.status in UNFINISHED:
        return "no new instance yet"
    painted = summary.images.get("painted", 0)
    if painted:
        return f"no new instance; {_count(painted, 'painted image')}, none accepted"
    if summary.items.get("planned", 0):
        return f"no new instance; {_count(summary.items['planned'], 'work item')} planned, no image painted"
    return "no new instance was needed; every class has its quota"


def _success(summary: RunSummary) -> str:
    made = _count(summary.accepted, "new instance")
    made += f" in {_count(summary.scenes, 'scene')}" if summary.scenes else ", not yet composed"
    behind = sorted((one for one in summary.classes if one.shortfall), key=lambda one: (-one.shortfall, one.name))
    short = [one for one in behind if one.sources]
    num_empty = len(behind) - len(short)
    empty = f"; {_count(num_empty, 'class has', 'classes have')} no instance to start from" if num_empty else ""
    if not short:
        return f"{made}; every {'other ' if empty else ''}class reached its quota{empty}"
    verb = "are still" if summary.status in UNFINISHED else "fell"
    num_wanted = sum(one.quota > 0 for one in summary.classes)
    wanted = _count(num_wanted, "class", "classes")
    return f"{made}; {len(short):,} of {wanted} {verb} short: {_name_short(short)}{empty}"


def _name_short(short: Sequence[ClassSummary]) -> str:
    named = [f"{one.name} by {one.shortfall:,}" for one in short[:NAMED_CLASSES]]
    if len(short) > NAMED_CLASSES:
        named.append(f"{len(short) - NAMED_CLASSES:,} more")
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def run_to_facts(summary: RunSummary) -> list[tuple[str, str, str]]:
    """(value, label, note) of the run's main numbers."""
    painted, rejected = summary.images.get("painted", 0), summary.images.get("rejected", 0)
    real = sum(one.real for one in summary.classes)
    costs = _cost_facts(summary.costs)
    is_priced = any(label == "API cost" for _, label, _ in costs)
    return [
        (f"{summary.accepted:,}", "new instances", f"beside {real:,} real ones"),
        (f"{summary.scenes:,}", "scenes", f"{len(summary.unplaced):,} not placed" if summary.unplaced else ""),
        (f"{100 * summary.accepted_share:.0f} %", "yield", f"{rejected:,} of {painted:,} images rejected"),
        (f"{summary.items.get('planned', 0):,}", "work items", _endings(summary.items)),
        (seconds_to_text(sum(summary.seconds.values())), "time", "" if is_priced else "no API cost"),
        *costs,
    ]


def _endings(items: Mapping[str, int]) -> str:
    told = [
        f"{number:,} {ending}" for ending, number in items.items() if number and ending not in ("planned", "spared")
    ]
    if spared := items.get("spared", 0):
        told.append(f"{spared:,} not needed, as their class was full by then")
    return ", ".join(told)


def _cost_facts(costs: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Money, language model and device, as far as the run used any."""
    usd, calls, seconds = (costs.get(name, 0.0) for name in ("usd", "llm_calls", "device_seconds"))
    facts = []
    if usd or calls:
        each = costs.get("usd_per_accepted")
        note = "no model with a price was used" if not usd else f"{usd_to_text(each)} a new instance" if each else ""
        facts.append((usd_to_text(usd), "API cost", note))
    if calls:
        tokens = f"{costs.get('input_tokens', 0):,.0f} tokens in, {costs.get('output_tokens', 0):,.0f} out"
        facts.append((f"{calls:,.0f}", "language model calls", tokens))
    if seconds:
        each = costs.get("device_seconds_per_accepted")
        short = "" if each is None else f"{each:.2g} s" if each < 1 else seconds_to_text(each)
        facts.append((seconds_to_text(seconds), "device time", f"{short} a new instance" if short else ""))
    return facts


def usd_to_text(usd: float) -> str:
    """'1,234.50 USD', '0.042 USD': cents, or two digits of what is less than ten cents."""
    return f"{usd:,.2f} USD" if usd == 0 or usd >= 0.1 else f"{Decimal(f'{usd:.1e}'):f} USD"


def run_to_commands(summary: RunSummary, run_folder: Path) -> list[tuple[str, str]]:
    """(what for, command) for what the run has left on disk; a command that a hint gives already is left out."""
    data_yaml, recipe = run_folder / "dataset" / "yolo" / "data.yaml", run_folder / "recipe.yaml"
    commands = []
    if data_yaml.is_file():
        commands.append(("Train", f"yolo segment train data={shlex.quote(str(data_yaml))} model=yolo11n-seg.pt"))
    if recipe.is_file():
        commands.append(("Same settings again", f"maskwright run {shlex.quote(str(recipe))} --out NEW_FOLDER"))
    return [pair for pair in commands if not any(pair[1] in hint for hint in summary.hints)]


def _validation(summary: RunSummary, run_folder: Path) -> Validation | None:
    """None for a run without agents: there was nothing to judge."""
    if not summary.painters:
        return None
    return collect_validation(
        run_folder,
        read_summary(run_folder, ValidationSummary),
        summary.images.get("painted", 0),
        review_command=f"maskwright review {shlex.quote(str(run_folder))}",
    )


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _read_recipe(run_folder: Path) -> str:
    path = run_folder / "recipe.yaml"
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as exc:
        raise RunFolderError(f"{path}: not UTF-8 text; restore it, or run again into another folder") from exc


def make_environment() -> Environment:
    """Of every page: what is put into a template is text, never markup."""
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = "{:,}".format
    environment.filters["words"] = lambda name: str(name).replace("_", " ")
    return environment
