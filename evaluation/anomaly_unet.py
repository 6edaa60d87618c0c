"""DRAEM's discriminative network (Zavrtanik et al., ICCV 2021), on an image alone: which of its pixels are a defect.

width  parameters  multiplications of a pass at 256x256 pixels
   16       2.3 M      4.0 G
   24       5.2 M      8.9 G
   32       9.2 M     15.9 G
   64      36.9 M     63.3 G  (DRAEM's own)
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from ..data.records import ImageRGB

POOLED_PX = 21
"""Side of the window whose highest mean is an image's score."""
FOCAL_GAMMA = 2.0
"""How much a pixel that is told well already counts less (Lin et al., ICCV 2017)."""
_WIDTHS = (1, 2, 4, 8, 8, 8)
"""Channels of the stages, over those of the first; each stage halves the frame of the one before."""
LEAST_SIDE_PX = 2 ** (len(_WIDTHS) - 1)


class AnomalyUNet(nn.Module):
    """An encoder of six stages and a decoder that sees what each of them saw.

    Args:
        in_channels: 3 for colours, 1 for luminance.
        width: channels of the first stage.
    """

    def __init__(self, in_channels: int = 3, width: int = 32) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels is {in_channels!r}; expected 3 for colours or 1 for luminance")
        self.in_channels = in_channels
        widths = [width * factor for factor in _WIDTHS]
        self.stages = nn.ModuleList(_stage(before, after) for before, after in pairwise([in_channels, *widths]))
        deep_first = widths[::-1]
        self.risers = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), _layer(before, after))
            for before, after in pairwise(deep_first)
        )
        self.joiners = nn.ModuleList(_stage(2 * after, after) for after in deep_first[1:])
        self.head = nn.Conv2d(width, 2, kernel_size=3, padding=1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of normal and defect.

        Args:
            pixels: (n, in_channels, H, W) float32 in [0, 1]; H and W are multiples of 32.

        Returns:
            (n, 2, H, W) float32.
        """
        seen: list[torch.Tensor] = []
        field = pixels
        for stage in self.stages:
            field = stage(functional.max_pool2d(field, 2) if seen else field)
            seen.append(field)
        for rise, join, level in zip(self.risers, self.joiners, seen[-2::-1], strict=True):
            field = join(torch.cat([rise(field), level], dim=1))
        return torch.as_tensor(self.head(field))


def focal_loss(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean over all pixels, () float32.

    Args:
        logits: (n, 2, H, W).
        masks: (n, H, W) int64, 1 on the defect.
    """
    entropy = functional.cross_entropy(logits, masks, reduction="none")
    return torch.as_tensor(((1 - torch.exp(-entropy)) ** FOCAL_GAMMA * entropy).mean())


def logits_to_scores(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is to be measured.

    Returns:
        (n, H, W) float32 in [0, 1], the defect's probability; (n,), its mean in the 21x21 window where it is highest,
        the frame continued by zeros (DRAEM).
    """
    maps = logits.softmax(dim=1)[:, 1]
    pooled = functional.avg_pool2d(maps[:, None], POOLED_PX, stride=1, padding=POOLED_PX // 2)
    return maps, pooled.amax(dim=(1, 2, 3))


def image_to_input(image_rgb: ImageRGB, in_channels: int) -> torch.Tensor:
    """(in_channels, H, W) float32 in [0, 1] from (H, W, 3) uint8; one channel is Rec. 601's luminance."""
    pixels = torch.from_numpy(image_rgb).permute(2, 0, 1).float().div_(255)
    if in_channels == 1:
        return torch.as_tensor(torch.tensordot(torch.tensor([[0.299, 0.587, 0.114]]), pixels, dims=1))
    return pixels


def _layer(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _stage(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_layer(before, after), _layer(after, after))
