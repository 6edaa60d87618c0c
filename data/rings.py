"""Rings of polygons, many at once: extents, areas, and clipping to the frame.

Rings lie one after another in one (P, 2) float32 array; `ring_start` has (R + 1,) offsets into it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .masks import Ring

Offsets = npt.NDArray[np.int64]


def rings_to_extents(coords_xy: Ring, ring_start: Offsets) -> npt.NDArray[np.float32]:
    """(R, 4) x_min, y_min, x_max, y_max of each ring; a NaN coordinate makes its extent NaN."""
    first = ring_start[:-1]
    columns = (coords_xy[:, 0], coords_xy[:, 1])
    lows = [np.minimum.reduceat(column, first) for column in columns]
    return np.stack([*lows, *(np.maximum.reduceat(column, first) for column in columns)], axis=1)


def rings_to_areas(coords_xy: Ring, ring_start: Offsets) -> npt.NDArray[np.float64]:
    """(R,) areas by the shoelace formula.

    Each ring is seen from its first point, which keeps the digits and makes the closing term zero.
    """
    first, last = ring_start[:-1], ring_start[1:] - 1
    local = coords_xy - np.repeat(coords_xy[first], np.diff(ring_start), axis=0)
    x, y = local[:, 0], local[:, 1]
    cross = np.zeros(len(local), dtype=np.float32)
    cross[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    cross[last] = 0
    areas: npt.NDArray[np.float64] = np.abs(np.add.reduceat(cross, first, dtype=np.float64)) / 2
    return areas


def clip_ring(ring: Ring, width: int, height: int) -> Ring:
    """Cut a ring to the frame, side by side (Sutherland and Hodgman, 1974).

    Returns:
        (n, 2) float32; empty where nothing of the ring lies inside.
    """
    points: npt.NDArray[np.float64] = ring.astype(np.float64)
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        depth = sign * (points[:, axis] - limit)
        inside, next_depth = depth >= 0, np.roll(depth, -1)
        leaves = inside != np.roll(inside, -1)
        share = np.divide(depth, depth - next_depth, out=np.zeros_like(depth), where=leaves)
        cut = points + share[:, None] * (np.roll(points, -1, axis=0) - points)
        cut[:, axis] = limit
        both = np.stack([points, cut], axis=1).reshape(-1, 2)
        points = both[np.stack([inside, leaves], axis=1).ravel()]
        if len(points) < 3:
            return np.empty((0, 2), dtype=np.float32)
    return points.astype(np.float32)
