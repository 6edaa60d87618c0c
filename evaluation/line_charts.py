"""Lines over a number, as points of an SVG polyline for a template to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 320, 120
"""Of the drawing, in the units of its viewBox."""
MAX_POINTS = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `points` are x,y pairs, y downwards."""

    name: str
    points: str
    number: int
    """Of its colour, equal for equal names on a page."""


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines on common axes."""

    title: str
    lines: tuple[Line, ...]
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]


def series_to_chart(
    title: str, series: Mapping[str, Sequence[tuple[float, float]]], colours: Sequence[str]
) -> LineChart | None:
    """A chart of named series of finite (x, y), each ascending in x; None where there is no point.

    Args:
        colours: every name that the page knows, in the order of the colours.
    """
    everything = [point for points in series.values() for point in points]
    if not everything:
        return None
    xs, ys = [x for x, _ in everything], [y for _, y in everything]
    x_ends, y_ends = (min(xs), max(xs)), (min(0.0, *ys), max(0.0, *ys))
    lines = tuple(
        Line(name, _to_points(points, x_ends, y_ends), colours.index(name)) for name, points in series.items() if points
    )
    return LineChart(title, lines, x_ends, y_ends)


def _to_points(points: Sequence[tuple[float, float]], x_ends: tuple[float, float], y_ends: tuple[float, float]) -> str:
    shown = points[:: -(-len(points) // MAX_POINTS)]
    width, height = (end - start or 1.0 for start, end in (x_ends, y_ends))
    return " ".join(
        f"{(x - x_ends[0]) / width * WIDTH:.1f},{HEIGHT - (y - y_ends[0]) / height * HEIGHT:.1f}" for x, y in shown
    )
