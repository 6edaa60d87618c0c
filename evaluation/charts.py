"""Numbers of a run as bars: lengths in percent of a row, for a template to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data.run_summary import ClassSummary

MAX_BARS = 60


@dataclass(frozen=True, slots=True)
class ClassBar:
    """One class before and after; lengths are percent of the axis, end to end from its start."""

    name: str
    real: int
    accepted: int
    shortfall: int
    real_percent: float
    accepted_percent: float
    shortfall_percent: float
    quota_percent: float | None
    """Where the quota would have brought the class; None for a class without one."""
    is_cut: bool
    """The class is longer than the axis."""


@dataclass(frozen=True, slots=True)
class ClassChart:
    """The classes that changed most, and where their axis ends."""

    bars: tuple[ClassBar, ...]
    axis_end: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar with its value in words."""

    name: str
    percent: float
    label: str
    note: str = ""


def classes_to_chart(classes: Sequence[ClassSummary]) -> ClassChart:
    """Bars of the `MAX_BARS` classes that changed most, then of the largest that did not.

    The axis ends where the largest changed class does: one of 10,000 untouched instances would squeeze
    every rare class to nothing. Its bar is cut.
    """
    order = sorted(classes, key=lambda one: (-one.accepted, -one.quota, -one.real, one.name))[:MAX_BARS]
    changed = [one for one in order if one.accepted or one.quota]
    axis_end = max((one.real + max(one.quota, one.accepted) for one in changed or order), default=0)
    return ClassChart(tuple(_to_class_bar(one, max(1, axis_end)) for one in order), axis_end)


def _to_class_bar(one: ClassSummary, axis_end: int) -> ClassBar:
    end = min(one.real, axis_end)
    return ClassBar(
        name=one.name,
        real=one.real,
        accepted=one.accepted,
        shortfall=one.shortfall,
        real_percent=_percent(end, axis_end),
        accepted_percent=_percent(one.accepted, axis_end),
        shortfall_percent=_percent(one.shortfall, axis_end),
        quota_percent=_percent(one.real + one.quota, axis_end) if one.quota else None,
        is_cut=one.real > axis_end,
    )


def classes_to_yield_bars(classes: Sequence[ClassSummary]) -> list[Bar]:
    """Accepted over painted images, the lowest first; at most `MAX_BARS` classes."""
    painted = [one for one in classes if one.painted]
    painted.sort(key=lambda one: (one.accepted / one.painted, -one.painted, one.name))
    return [
        Bar(
            one.name,
            _percent(one.accepted, one.painted),
            f"{100 * one.accepted / one.painted:.0f} %",
            f"{one.accepted:,} of {one.painted:,}",
        )
        for one in painted[:MAX_BARS]
    ]


def counts_to_bars(counts: Mapping[str, int], total: int) -> list[Bar]:
    """Counts as shares of `total`, the largest first; the longest bar fills its row."""
    longest = max(counts.values(), default=0)
    return [
        Bar(name, _percent(count, longest), f"{count:,}", f"{100 * count / total:.0f} %" if total else "")
        for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def seconds_to_bars(seconds: Mapping[str, float]) -> list[Bar]:
    """Stages in the order in which they ran."""
    longest = max(seconds.values(), default=0.0)
    return [Bar(stage, _percent(spent, longest), seconds_to_text(spent)) for stage, spent in seconds.items()]


def seconds_to_text(seconds: float) -> str:
    """'0.4 s', '12 s', '3 min 5 s', '2 h 10 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 3) if whole else 0.0
