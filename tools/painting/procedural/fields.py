"""Random fields: the grain, clouds and raggedness that shapes and surfaces are made of."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FieldHW = npt.NDArray[np.float32]
"""(H, W) float32."""
FieldHWC = npt.NDArray[np.float32]
"""(H, W, C) float32, one channel for grey images, else three."""
MIN_CELL_PX = 1.3


def value_noise(generator: np.random.Generator, shape_hw: tuple[int, int], cell_px: float) -> FieldHW:
    """Smooth noise of one scale: normal values on a grid, joined by cubic splines; mean 0, deviation about 0.8.

    Args:
        shape_hw: rows and columns, at least 1 each.
        cell_px: distance of the grid's nodes; at least `MIN_CELL_PX`.
    """
    cell = max(cell_px, MIN_CELL_PX)
    grid_hw = [int(np.ceil(side / cell)) + 3 for side in shape_hw]
    nodes = generator.standard_normal(grid_hw, dtype=np.float32)
    shift_x, shift_y = generator.random(2) * cell
    to_grid = np.array([[1 / cell, 0, shift_x / cell + 0.5], [0, 1 / cell, shift_y / cell + 0.5]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size_wh = (shape_hw[1], shape_hw[0])
    return np.asarray(cv2.warpAffine(nodes, to_grid, size_wh, flags=flags, borderMode=cv2.BORDER_REFLECT))


def fractal_noise(
    generator: np.random.Generator, shape_hw: tuple[int, int], cell_px: float, octaves: int = 4, gain: float = 0.55
) -> FieldHW:
    """Sum of value noises, each of half the cell and `gain` times the height of the one before; mean 0, deviation 1.

    It stops above the size of a pixel, where the grid itself would show.
    """
    total = np.zeros(shape_hw, np.float32)
    power = 0.0
    for octave in range(min(octaves, 1 + int(np.log2(max(cell_px / MIN_CELL_PX, 1))))):
        weight = gain**octave
        total += weight * value_noise(generator, shape_hw, cell_px / 2**octave)
        power += (0.8 * weight) ** 2
    return total / np.float32(np.sqrt(power))


def noise_along(generator: np.random.Generator, count: int, cells: float) -> npt.NDArray[np.float32]:
    """(count,) float32 smooth noise along a line of so many cells; mean 0, deviation about 0.8."""
    row = value_noise(generator, (1, count), count / max(cells, 1e-3))
    return np.asarray(row[0])


def blur(field: npt.NDArray[np.float32], sigma_px: float) -> npt.NDArray[np.float32]:
    """Gaussian blur of (H, W) or (H, W, C), reflected at the border; at large sigmas on a coarser grid."""
    if sigma_px < 0.15:
        return field
    height, width = field.shape[:2]
    step = int(sigma_px // 3)
    if step < 2 or min(height, width) < 4 * step:
        blurred = cv2.GaussianBlur(field, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    else:
        coarse = cv2.resize(field, (-(-width // step), -(-height // step)), interpolation=cv2.INTER_AREA)
        coarse = cv2.GaussianBlur(coarse, (0, 0), sigma_px / step, borderType=cv2.BORDER_REFLECT)
        blurred = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(blurred, dtype=np.float32).reshape(field.shape)


def shifted(field: FieldHW, by_xy: tuple[float, float]) -> FieldHW:
    """The field moved by so many pixels; its border values go on outside."""
    matrix = np.array([[1, 0, by_xy[0]], [0, 1, by_xy[1]]], dtype=np.float64)
    size_wh = (field.shape[1], field.shape[0])
    return np.asarray(cv2.warpAffine(field, matrix, size_wh, borderMode=cv2.BORDER_REPLICATE))


def slopes(field: FieldHW) -> tuple[FieldHW, FieldHW]:
    """Change a pixel downwards and rightwards, each (H, W); 0 along a side of one pixel."""
    down, right = (np.gradient(field, axis=axis) if field.shape[axis] > 1 else np.zeros_like(field) for axis in (0, 1))
    return np.asarray(down), np.asarray(right)


def smoothstep(field: FieldHW, low: float, high: float) -> FieldHW:
    """Rises from 0 at `low` to 1 at `high` with level ends."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def unit_range(field: FieldHW) -> FieldHW:
    """Noise of deviation 1 brought into [0, 1], its mean at one half."""
    return np.asarray(np.clip(0.5 + field / 5, 0, 1), dtype=np.float32)
