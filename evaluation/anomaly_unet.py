"""DRAEM's discriminative network (Zavrtanik et al., ICCV 2021), on an image alone: which of its pixels are a defect.

width  parameters  multiplications of a pass at 256x256 pixels
   16       2.3 M      4.0 G
   24       5.2 M      8.9 G
   32       9.2 M     15.9 G
   64      36.9 M     63.3 G  (DRAEM's own)
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ..data.records import ImageRGB

POOLED_SHARE = 21 / 256
"""Side of the window whose highest mean is an image's score, over the image's: DRAEM's 21 pixels of 256."""
FOCAL_GAMMA = 2.0
"""How much a pixel that is told well already counts less (Lin et al., ICCV 2017)."""
DEFECT_WEIGHT = 20.0
"""What a defect's pixel counts over a normal one, of which there are some hundred times as many (ibid.)."""
CONTRAST_SHARE = 1 / 4
"""Side of the window by whose mean and deviation light is taken from a pixel, over the image's side."""
LEAST_DEVIATION = 0.02
"""Of levels in [0, 1]: flatter windows are not stretched to noise."""
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
            pixels: (n, in_channels, H, W) float32, as `image_to_contrast` gives them; H and W are multiples of 32.

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
    """Mean over all pixels, weighted, () float32.

    Args:
        logits: (n, 2, H, W).
        masks: (n, H, W) int64, 1 on the defect.
    """
    entropy = functional.cross_entropy(logits, masks, reduction="none")
    weights = torch.where(masks > 0, DEFECT_WEIGHT, 1.0)
    focal = (1 - torch.exp(-entropy)) ** FOCAL_GAMMA * entropy
    return torch.as_tensor((weights * focal).sum() / weights.sum())


def logits_to_scores(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is to be measured.

    Returns:
        (n, H, W) float32 in [0, 1], the defect's probability; (n,), its mean in the window where it is highest, the
        frame continued by zeros (DRAEM).
    """
    maps = logits.softmax(dim=1)[:, 1]
    reach = round(POOLED_SHARE * min(maps.shape[1:]) / 2)
    pooled = functional.avg_pool2d(maps[:, None], 2 * reach + 1, stride=1, padding=reach)
    return maps, pooled.amax(dim=(1, 2, 3))


def image_to_input(image_rgb: ImageRGB, in_channels: int) -> torch.Tensor:
    """(in_channels, H, W) float32 in [0, 1] from (H, W, 3) uint8; one channel is Rec. 601's luminance."""
    pixels = torch.from_numpy(image_rgb).permute(2, 0, 1).float().div_(255)
    if in_channels == 1:
        return torch.as_tensor(torch.tensordot(torch.tensor([[0.299, 0.587, 0.114]]), pixels, dims=1))
    return pixels


def image_to_contrast(image_rgb: ImageRGB, in_channels: int) -> torch.Tensor:
    """(in_channels, H, W) float32: each channel less its local mean, over its local deviation (Jarrett et al., ICCV
    2009), so that a defect in the light looks as one in the shade; from (H, W, 3) uint8.
    """
    levels = image_to_input(image_rgb, in_channels).permute(1, 2, 0).contiguous().numpy()
    sides = [2 * max(1, round(CONTRAST_SHARE * side / 2)) + 1 for side in reversed(levels.shape[:2])]

    def mean(field: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        averaged = cv2.blur(field, sides, borderType=cv2.BORDER_REFLECT)
        return np.asarray(averaged, np.float32).reshape(levels.shape)

    centre = mean(levels)
    variance = np.maximum(mean(levels * levels) - centre * centre, 0)
    contrast = (levels - centre) / np.sqrt(variance + np.float32(LEAST_DEVIATION**2))
    return torch.from_numpy(contrast).permute(2, 0, 1)


def _layer(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _stage(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(_layer(before, after), _layer(after, after))
