"""How a run, a loop, a validation, an audit and a calibration ended, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .console import console, show_choices

if TYPE_CHECKING:
    from .evaluation.audit import Rate
    from .evaluation.paired import PairedDifference
    from .graphs.calibrate import Calibration
    from .graphs.loop import LoopEnd, LoopOutcome
    from .graphs.loop_state import LoopRound
    from .graphs.run_folder import RunOutcome

LISTED_CLASSES = 8
"""Classes that a line names."""
LOOP_TITLE = "Rounds; gains over the round before, the first one's over real images alone"
LOOP_ENDS: dict[LoopEnd, str] = {
    "rounds done": "all rounds are made; the same command with a higher --loop goes on",
    "within noise": "the last round's gain is within the noise of its seeds; more seeds can tell smaller gains",
    "nothing to add": "no class is left that may take more",
    "nothing accepted": "nothing of the last round was accepted; its report.html says why",
    "budget spent": "the budget of the last round is spent; the same command with a higher one goes on",
    "interrupted": "interrupted; the same command goes on",
}


def show_outcome(outcome: RunOutcome) -> None:
    """How the run ended, and what to do next."""
    content = outcome.content
    items, images = _counts(content, "items"), _counts(content, "images")
    console.print(
        f"{_status(content)}: {content['accepted']} new instances in {content['scenes']} scenes "
        f"({items['accepted']} items accepted, {items['exhausted']} exhausted, {items['failed']} failed, "
        f"{items['held']} held, {items['spared']} not needed; {images['painted']} painted, "
        f"{images['rejected']} rejected)",
        highlight=False,
    )
    if content["scenes"] and content["status"] != "interrupted":
        console.print(f"data set  {outcome.folder / 'dataset'}", soft_wrap=True)
    _show_report(outcome)
    show_choices(_reasons_of_choice(content["painters"]))
    findings = content["findings"]
    if isinstance(findings, dict) and findings:
        console.print("[yellow]odd in the data:[/] " + ", ".join(f"{e['count']} {k}" for k, e in findings.items()))
    _show_next(content)


def show_anomalies(outcome: RunOutcome) -> None:
    """How many samples of each defect there are, and what to do next."""
    content = outcome.content
    items, defects = _counts(content, "items"), _counts(content, "defects")
    told = ", ".join(f"{escape(name)} {count}" for name, count in defects.items())
    console.print(
        f"{_status(content)}: {content['accepted']} samples on {content['item']} ({told}) of "
        f"{items['planned']} items, {content['mean_turns']} edits each",
        highlight=False,
    )
    _show_report(outcome)
    _show_next(content)


def show_labels(outcome: RunOutcome) -> None:
    """How many scenes of each class were admitted, how right their labels seem, and what to do next."""
    content = outcome.content
    items, images = _counts(content, "items"), _counts(content, "images")
    classes = content["classes"]
    made = [one for one in classes if one["quota"]] if isinstance(classes, list) else []
    told = _tell_classes([(one["name"], str(one["accepted"])) for one in made])
    console.print(
        f"{_status(content)}: {content['accepted']} scenes admitted ({told}) of {images['painted']} "
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
    _show_report(outcome)
    _show_next(content)


OUTCOMES: dict[str, Callable[[RunOutcome], None]] = {
    "instances": show_outcome,
    "anomalies": show_anomalies,
    "labels": show_labels,
}
"""By what a run's items are, as `run_folder.kind_of` says."""


def show_loop(outcome: LoopOutcome) -> None:
    """What each round made and brought, why the loop ended, and what to do next."""
    columns = ("round", "new instances", "paired gain", "of classes, beyond the noise", "left behind")
    table = Table(*columns, title=LOOP_TITLE, title_justify="left", box=SIMPLE_HEAD)
    for one, gain, gains in zip_longest(outcome.rounds, outcome.gains, outcome.gains_by_class):
        told = f"{gain}, {gain.wins} of {gain.n} seeds" if gain else "not measured"
        table.add_row(str(one.number), _tell_quotas(one), told, _tell_gains(gains or {}), _tell_retired(one))
    console.print(table)
    console.print(f"ended: {LOOP_ENDS[outcome.ended]}", soft_wrap=True, highlight=False)
    console.print(f"rounds    {escape(str(outcome.folder))}", soft_wrap=True, highlight=False)
    if outcome.best:
        best = escape(shlex.quote(str(outcome.best)))
        console.print(f"next: maskwright train {best}", soft_wrap=True, highlight=False)
        told = "(val steered the loop, so its figures flatter)"
        console.print(f"next: maskwright evaluate yolo {best} --split test   {told}", soft_wrap=True, highlight=False)


def _tell_quotas(one: LoopRound) -> str:
    quotas = sorted(one.quotas.items(), key=lambda entry: -entry[1])
    return _tell_classes([(name, str(number)) for name, number in quotas if number])


def _tell_gains(gains: Mapping[str, PairedDifference]) -> str:
    from .evaluation.gains import judge_gain

    return _tell_classes([(name, f"{gain.mean:+.3f}") for name, gain in gains.items() if judge_gain(gain) != "unknown"])


def _tell_retired(one: LoopRound) -> str:
    counts = {"prompts": len(one.retired_prompts), "sources": len(one.retired_sources)}
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)


def _tell_classes(told: Sequence[tuple[str, str]]) -> str:
    """'bolt 3, nut 2, 4 more classes'."""
    listed = [f"{escape(name)} {value}" for name, value in told[:LISTED_CLASSES]]
    more = len(told) - LISTED_CLASSES
    return ", ".join([*listed, *([f"{more} more classes"] if more > 0 else [])])


def show_validation(outcome: RunOutcome) -> None:
    """What of a folder was kept, why the rest was not, and what to do next."""
    content = outcome.content
    items = _counts(content, "items")
    console.print(
        f"{_status(content)}: {content['accepted']} of {items['planned']} pictures kept "
        f"({items['exhausted']} rejected, {items['held']} held, {items['failed']} without a verdict)",
        highlight=False,
    )
    rejections = _counts(content, "rejections")
    if rejections:
        told = ", ".join(f"{escape(name)} {count}" for name, count in list(rejections.items())[:6])
        console.print(f"not met   {told}", soft_wrap=True, highlight=False)
    _show_report(outcome)
    _show_next(content)


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


def _reasons_of_choice(painters: object) -> dict[str, str]:
    described = painters.items() if isinstance(painters, dict) else ()
    return {agent: str(one["why"]) for agent, one in described if "why" in one}


def _status(content: Mapping[str, object]) -> str:
    colour = {"done": "green", "partial": "yellow"}.get(str(content["status"]), "red")
    return f"[{colour}]{content['status']}[/]"


def _show_report(outcome: RunOutcome) -> None:
    console.print(f"report    {outcome.folder / 'report.html'}", soft_wrap=True)


def _show_next(content: Mapping[str, object]) -> None:
    for hint in _strings(content["hints"]):
        console.print(f"next: {hint}", soft_wrap=True, highlight=False)


def _counts(content: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = content[key]
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else []
