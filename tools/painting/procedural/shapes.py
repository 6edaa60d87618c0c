"""Outlines: blobs of an exact area, and ribbons along cracks, scratches and threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ....data.records import MaskHW
from .fields import FieldHW, fractal_noise, noise_along, slopes

Points = npt.NDArray[np.float32]
"""(N, 2) float32 (x, y) in pixels of the window."""
SUBPIXEL_BITS = 4
MAX_SUPERSAMPLED_PX = 1600


@dataclass(frozen=True, slots=True)
class Ribbon:
    """A line of varying width."""

    points_xy: Points
    widths_px: npt.NDArray[np.float32]
    """(N,) float32."""

    @property
    def area_px(self) -> float:
        steps = np.hypot(*np.diff(self.points_xy, axis=0).T)
        return float((steps * (self.widths_px[1:] + self.widths_px[:-1]) / 2).sum())


@dataclass(frozen=True, slots=True)
class Axes:
    """A window's pixels in the defect's own axes."""

    along_hw: FieldHW
    """Pixels from the centre along the long axis."""
    across_hw: FieldHW
    length_px: float
    width_px: float

    @classmethod
    def at(
        cls, shape_hw: tuple[int, int], centre_xy: tuple[float, float], angle_rad: float, sides_px: tuple[float, float]
    ) -> Axes:
        """Axes turned counter-clockwise by the angle; sides are length and width."""
        y, x = np.mgrid[: shape_hw[0], : shape_hw[1]].astype(np.float32)
        x, y = x - np.float32(centre_xy[0]), y - np.float32(centre_xy[1])
        cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
        return cls(x * cos - y * sin, -x * sin - y * cos, *sides_px)


def blob(axes: Axes, allowed_hw: MaskHW, area_px: float, raggedness: float, generator: np.random.Generator) -> FieldHW:
    """(H, W) float32 signed distance in pixels, positive inside: an ellipse, more or less ragged, of that area.

    Args:
        allowed_hw: (H, W) bool where it may lie; the area counts only there.
        raggedness: in [0, 1]; 0 is a plain ellipse.

    The level that gives the area is found by rank, so whatever noise bends the outline, the size is the plan's.
    """
    radius = np.sqrt((axes.along_hw / (axes.length_px / 2)) ** 2 + (axes.across_hw / (axes.width_px / 2)) ** 2)
    cell = max(0.55 * np.sqrt(axes.length_px * axes.width_px), 2.0)
    noise = fractal_noise(generator, radius.shape, cell, octaves=4, gain=0.35 + 0.3 * raggedness)
    level = radius + (0.03 + 0.34 * raggedness) * noise * np.minimum(radius, 1)
    inside = level[allowed_hw]
    rank = int(np.clip(round(area_px), 1, inside.size)) - 1
    limit = np.float32(np.partition(inside, rank)[rank])
    slope_y, slope_x = slopes(level)
    distance = (limit - level) / np.maximum(np.hypot(slope_x, slope_y), 0.25 / axes.length_px)
    return np.asarray(_without_islands(distance), dtype=np.float32)


def coverage(distance_hw: FieldHW, softness_px: float = 0.5) -> FieldHW:
    """Share of each pixel inside, from a signed distance: a ramp of that half width about the outline."""
    return np.asarray(np.clip(0.5 + distance_hw / (2 * softness_px), 0, 1), dtype=np.float32)


def inner_distance(distance_hw: FieldHW) -> FieldHW:
    """Distance to the outline in pixels, 0 outside."""
    inside = np.pad((distance_hw > 0).astype(np.uint8), 1, mode="edge")
    whole = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.asarray(np.minimum(whole, 1e4), dtype=np.float32)


def draw_ribbons(ribbons: Sequence[Ribbon], shape_hw: tuple[int, int]) -> FieldHW:
    """(H, W) float32 in [0, 1]: the share of each pixel that ribbons cover."""
    scale = 4 if max(shape_hw) * 4 <= MAX_SUPERSAMPLED_PX else 2
    fine = np.zeros((shape_hw[0] * scale, shape_hw[1] * scale), np.uint8)
    for ribbon in ribbons:
        points = (ribbon.points_xy + 0.5) * scale - 0.5
        for start, end, width in zip(points[:-1], points[1:], ribbon.widths_px[1:] * scale - 1, strict=True):
            _draw_segment(fine, start, end, float(width))
    drawn = cv2.resize(fine, (shape_hw[1], shape_hw[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(drawn / 255, dtype=np.float32)


def fit_area(ribbons: Sequence[Ribbon], area_px: float) -> list[Ribbon]:
    """The ribbons with their widths scaled, so that they cover that area."""
    factor = area_px / max(sum(ribbon.area_px for ribbon in ribbons), 1e-3)
    return [Ribbon(ribbon.points_xy, (ribbon.widths_px * factor).astype(np.float32)) for ribbon in ribbons]


def jagged_line(start_xy: Points, end_xy: Points, roughness: float, generator: np.random.Generator) -> Points:
    """A line bent by midpoint displacement (Fournier, Fussell and Carpenter, 1982), as a crack goes round grains."""
    length = float(np.hypot(*(end_xy - start_xy)))
    normal = np.array([start_xy[1] - end_xy[1], end_xy[0] - start_xy[0]]) / max(length, 1e-6)
    offsets = np.zeros(2)
    scale = (0.012 + 0.13 * roughness) * length
    for _ in range(int(np.clip(np.log2(max(length, 4) / 3), 3, 7))):
        finer = np.empty(2 * len(offsets) - 1)
        finer[::2] = offsets
        finer[1::2] = (offsets[1:] + offsets[:-1]) / 2 + scale * generator.standard_normal(len(offsets) - 1)
        offsets, scale = finer, scale * (0.46 + 0.12 * roughness)
    share = np.linspace(0, 1, len(offsets))[:, None]
    return np.asarray(start_xy * (1 - share) + end_xy * share + normal * offsets[:, None], dtype=np.float32)


def bow(length_px: float, bend: float, wobble_px: float, generator: np.random.Generator) -> Points:
    """A long arc along x about (0, 0), as a tool or a grain of sand leaves it."""
    count = int(np.clip(length_px / 2, 12, 160))
    x = np.linspace(-0.5, 0.5, count)
    y = bend * length_px * (0.25 - x**2 * 3) + wobble_px * noise_along(generator, count, 5)
    return np.stack([x * length_px, y - y.mean()], axis=1).astype(np.float32)


def wander(length_px: float, curl: float, generator: np.random.Generator) -> Points:
    """A line whose heading drifts, about (0, 0) and on the whole along x: a loose fibre."""
    count = int(np.clip(length_px / 1.5, 16, 240))
    heading = curl * 1.5 * noise_along(generator, count, 2 + 4 * curl) + 0.25 * noise_along(generator, count, 1.5)
    heading -= heading.mean()
    steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * (length_px / (count - 1))
    points = np.cumsum(steps, axis=0)
    return np.asarray(points - points.mean(axis=0), dtype=np.float32)


def placed(points_xy: Points, axes_angle_rad: float, centre_xy: tuple[float, float]) -> Points:
    """Points of the defect's own axes (x along, y to its right) in the window."""
    cos, sin = np.cos(axes_angle_rad), np.sin(axes_angle_rad)
    turned = points_xy @ np.array([[cos, -sin], [sin, cos]], np.float32)
    return np.asarray(turned + np.array(centre_xy, np.float32), dtype=np.float32)


def branches(trunk: Ribbon, roughness: float, generator: np.random.Generator) -> list[Ribbon]:
    """Side cracks: they leave the trunk at acute angles, shorter and thinner, the more the rougher."""
    count = int(generator.binomial(7, 0.6 * roughness))
    points = trunk.points_xy
    length = float(np.hypot(*(points[-1] - points[0])))
    grown = []
    for _ in range(count):
        root = int(generator.integers(len(points) // 6, max(len(points) - 2, len(points) // 6 + 1)))
        ahead = points[min(root + 2, len(points) - 1)] - points[root]
        heading = np.arctan2(ahead[1], ahead[0]) + generator.choice([-1, 1]) * generator.uniform(0.35, 1.0)
        reach = length * generator.uniform(0.06, 0.28)
        tip = points[root] + reach * np.array([np.cos(heading), np.sin(heading)], np.float32)
        line = jagged_line(points[root], tip.astype(np.float32), roughness, generator)
        widths = 0.7 * trunk.widths_px[root] * np.linspace(1, 0.25, len(line))
        grown.append(Ribbon(line, widths.astype(np.float32)))
    return grown


def _draw_segment(canvas: npt.NDArray[np.uint8], start: Points, end: Points, width_px: float) -> None:
    """A line of any width, to a sixteenth of a pixel; cv2.line takes whole widths alone. Its outline adds one pixel."""
    along = (end - start) / max(float(np.hypot(*(end - start))), 1e-6)
    side = np.array([-along[1], along[0]]) * max(width_px, 0) / 2
    corners = np.array([start + side, end + side, end - side, start - side])
    unit = 1 << SUBPIXEL_BITS
    cv2.fillConvexPoly(canvas, np.round(corners * unit).astype(np.int32), 255, cv2.LINE_8, SUBPIXEL_BITS)
    centre, radius = np.round(end * unit).astype(int), round(max(width_px, 0) / 2 * unit)
    cv2.circle(canvas, (int(centre[0]), int(centre[1])), radius, 255, -1, cv2.LINE_8, SUBPIXEL_BITS)


def _without_islands(distance_hw: FieldHW) -> FieldHW:
    """The largest part alone; what else lay inside is put just outside."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((distance_hw > 0).astype(np.uint8), connectivity=4)
    if count <= 2:
        return distance_hw
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return np.asarray(np.where((labels > 0) & (labels != largest), -1e3, distance_hw), dtype=np.float32)
