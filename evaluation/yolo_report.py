"""RUN/evaluation/yolo.html: the verdict, then figures by arm and class, learning curves and mixing ratios."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..data.records import Frequency
from ..memory.artifacts import write_or_stop
from .arm_plans import EQUAL_EPOCHS, EQUAL_STEPS
from .arms import COPY_PASTE, OURS
from .charts import MAX_BARS, seconds_to_text
from .detection_metrics import ClassFigures
from .line_charts import LineChart, series_to_chart
from .paired import Spread, tell
from .report import make_environment
from .yolo_summary import ArmSummary, Difference, FigureKey, YoloSummary

TEMPLATE = "yolo.html.jinja"
GROUPS: Final[Mapping[Frequency, str]] = {"r": "rare", "c": "common", "f": "frequent"}
LOSS: Final = "train/"
"""Beginning of the names of the trainer's losses."""
ARM_COLOURS: Final = (EQUAL_EPOCHS, EQUAL_STEPS, COPY_PASTE, OURS)
NUM_CURVES: Final = 4
"""Arms with learning curves: those of the first ratio."""


@dataclass(frozen=True, slots=True)
class GainBar:
    """What ours adds to a class, from the middle of a row on; lengths are percent of the row."""

    name: str
    note: str
    label: str
    left_percent: float
    width_percent: float
    is_gain: bool


@dataclass(frozen=True, slots=True)
class GainChart:
    """The classes that changed most against a control."""

    minus: str
    bars: tuple[GainBar, ...]
    axis_end: float
    """AP at either end of a row."""


def build_yolo_report(summary: YoloSummary) -> Path:
    """Write the page, whole or not at all.

    Raises:
        BrokenRunError: it cannot be written.
    """
    comparison, columns = summary.comparison, _columns(summary)
    settings = comparison.settings.model_dump(mode="json")
    mixing = {f"mixing.{name}": value for name, value in settings.pop("mixing").items()}
    findings = summary.findings
    page = make_environment().get_template(TEMPLATE)
    content = page.render(
        headline=summary.verdict[0].rstrip("."),
        run=comparison.run_folder.resolve().name,
        summary=summary,
        settings=settings | mixing,
        columns=list(columns),
        rows=[(arm.plan, [str(arm.spread_of(key)) for key in columns.values()]) for arm in summary.arms],
        gains=[_to_gain_chart(one, summary) for one in summary.differences[:2]],
        curves=list(_curves(summary.arms[:NUM_CURVES])),
        ratios=_ratios(summary),
        seconds=seconds_to_text(sum(one.seconds for arm in summary.arms for one in arm.results)),
        findings=[(kind, count, findings.examples[kind]) for kind, count in sorted(findings.counts.items())],
    )
    path = comparison.run_folder / "evaluation" / "yolo.html"
    write_or_stop(path, content.encode())
    return path


def _columns(summary: YoloSummary) -> dict[str, FigureKey]:
    kinds = ("mask", "box") if summary.main.kind == "mask" else ("box",)
    columns = {}
    for kind in kinds:
        for figure, name in (("ap", "AP"), ("ap50", "AP50")):
            columns[f"{kind} {name}"] = FigureKey("overall", "", kind, figure)  # type: ignore[arg-type]  # of two literals
    groups = {name: summary.main._replace(scope="groups", name=group) for group, name in GROUPS.items()}
    measured = {name: key for name, key in groups.items() if any(arm.spread_of(key).n for arm in summary.arms)}
    return columns | {f"{name} {summary.main.kind} AP": key for name, key in measured.items()}


def _to_gain_chart(difference: Difference, summary: YoloSummary) -> GainChart:
    """The `MAX_BARS` classes that changed most, in both directions, the most helped first."""
    gains = []
    for one in difference.arm.results[0].figures.classes:
        gain = difference.of(summary.main._replace(scope="classes", name=one.name))
        if gain.mean is not None:
            gains.append((one, Spread(gain.n, gain.mean, gain.deviation)))
    gains.sort(key=lambda pair: -abs(pair[1].mean or 0.0))
    shown = sorted(gains[:MAX_BARS], key=lambda pair: -(pair[1].mean or 0.0))
    axis_end = max((abs(gain.mean or 0.0) for _, gain in shown), default=0.0)
    return GainChart(difference.minus.plan.label, tuple(_to_bar(one, gain, axis_end) for one, gain in shown), axis_end)


def _to_bar(one: ClassFigures, gain: Spread, axis_end: float) -> GainBar:
    mean = gain.mean or 0.0
    width = 50 * abs(mean) / axis_end if axis_end else 0.0
    spread = tell(mean, gain.deviation, sign="+")
    note = f"{GROUPS[one.frequency]}, {one.num_train_images:,} real images, {one.num_instances:,} to find"
    return GainBar(one.name, note, spread, round(50 - (mean < 0) * width, 3), round(width, 3), mean > 0)


def _curves(arms: Sequence[ArmSummary]) -> Iterator[LineChart]:
    """A chart a loss of the trainer's that is ever above 0; a line an arm, the mean over its seeds."""
    labels = [arm.plan.label for arm in arms]
    rows = [row for arm in arms for one in arm.results for row in one.curve]
    names = dict.fromkeys(name for row in rows for name, value in row.items() if name.startswith(LOSS) and value)
    for name in names:
        series = {arm.plan.label: _mean_curve(arm, name) for arm in arms}
        if chart := series_to_chart(name.removeprefix(LOSS).replace("_", " "), series, labels):
            yield chart


def _mean_curve(arm: ArmSummary, name: str) -> list[tuple[float, float]]:
    values: defaultdict[float, list[float]] = defaultdict(list)
    for result in arm.results:
        for row in result.curve:
            if name in row:
                values[row["step"]].append(row[name])
    return [(step, statistics.fmean(values[step])) for step in sorted(values)]


def _ratios(summary: YoloSummary) -> LineChart | None:
    """AP over synthetic images for each real one, where several ratios were measured."""
    series: dict[str, list[tuple[float, float]]] = {OURS: [], COPY_PASTE: []}
    for arm in summary.arms:
        mean = arm.spread_of(summary.main).mean
        if arm.plan.name in series and mean is not None:
            series[arm.plan.name].append((arm.plan.num_synthetic / summary.comparison.num_real, mean))
    if len(series[OURS]) < 2:
        return None
    ascending = {name: sorted(points) for name, points in series.items()}
    return series_to_chart(f"{summary.main.kind} AP over synthetic images for each real one", ascending, ARM_COLOURS)
