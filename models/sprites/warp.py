"""Random placement of pictures: mirrored, turned, zoomed, shifted."""

from __future__ import annotations

import torch
from torch.nn.functional import affine_grid, grid_sample


def warp(pictures: torch.Tensor, generator: torch.Generator, *, turn: float, zoom: float, shift: float) -> torch.Tensor:
    """Mirror, turn, zoom and shift each picture at random; what comes in from outside is transparent.

    Args:
        pictures: (n, 4, h, w) float32 in [-1, 1], premultiplied.
        turn: widest angle in radians, to both sides together.
        zoom: widest change of scale, to both sides together.
        shift: widest shift in units of half a side, to both sides together.
    """
    n = len(pictures)

    def spread(width: float) -> torch.Tensor:
        return (torch.rand(n, generator=generator) - 0.5) * width

    angle, scale = spread(turn), 1 + spread(zoom)
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    first = torch.stack([cosine * mirror, -sine, spread(shift)], 1)
    second = torch.stack([sine * mirror, cosine, spread(shift)], 1)
    grid = affine_grid(torch.stack([first, second], 1), list(pictures.shape), align_corners=False)
    return grid_sample(pictures + 1, grid, padding_mode="zeros", align_corners=False) - 1
