"""The two networks of weakly supervised segmentation, both on EfficientNet-lite0: one tells what, one tells where.

Features are taken at strides 4, 8 and 16 of the pixels; the deeper stages are left out, because the objects that matter
here are often no wider than one of their cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from timm.models import efficientnet
from torch import nn
from torch.nn import functional

from ..data.records import ImageRGB
from ..models.image_features import load_network

STRIDES = (4, 8, 16)
"""Of the features, in pixels."""
SIDE_MULTIPLE = 16
_LAST_STAGES = (1, 2, 4)
"""Stages of lite0 whose output has these strides."""
_WIDTHS = (24, 40, 112)
LSE_SHARPNESS = 2.0
"""Between a mean over the frame, near 0, and its highest cell (Pinheiro and Collobert, CVPR 2015, eq. 6)."""


class Encoder(nn.Module):
    """EfficientNet-lite0 with ImageNet weights up to stride 16.

    Args:
        pretrained: False leaves the weights as the global generator draws them.

    Raises:
        ModelNotFetchedError: `pretrained`, and lite0 is not in the cache.
    """

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        network: efficientnet.EfficientNet = efficientnet.tf_efficientnet_lite0(pretrained=False)
        if pretrained:
            network.load_state_dict(load_network(torch.device("cpu")).state_dict())
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.stages = nn.ModuleList(network.blocks[: _LAST_STAGES[-1] + 1])

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Features at `STRIDES`, from (n, 3, H, W) float32 as `image_to_pixels` gives them."""
        field, seen = self.stem(pixels), []
        for place, stage in enumerate(self.stages):
            field = stage(field)
            if place in _LAST_STAGES:
                seen.append(field)
        return seen

    def freeze_shallow(self) -> None:
        """Learn no more up to stride 4: edges are as ImageNet has them, and they cost most of the work."""
        for module in (self.stem, *self.stages[: _LAST_STAGES[0] + 1]):
            module.requires_grad_(False)


class LabelNetwork(nn.Module):
    """Which classes an image shows; `layers` are where its class activation maps are read.

    A cell of the last stage says yes or no to each class, and the frame's answer is the cells' smooth maximum, so that
    a class that fills one cell of 256 counts.
    """

    def __init__(self, num_classes: int, *, pretrained: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.head = nn.Conv2d(_WIDTHS[-1], num_classes, kernel_size=1)

    @property
    def layers(self) -> Sequence[nn.Module]:
        """From fine to coarse, at strides 8 and 16."""
        return [self.encoder.stages[place] for place in _LAST_STAGES[1:]]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits, (n, classes) float32."""
        cells = self.cells(pixels)
        highest = torch.logsumexp(LSE_SHARPNESS * cells, dim=2) - math.log(cells.shape[2])
        return torch.as_tensor(highest / LSE_SHARPNESS)

    def cells(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of each cell, (n, classes, cells) float32."""
        return torch.as_tensor(self.head(self.encoder(pixels)[-1]).flatten(2))


class CellEvidence(nn.Module):
    """A label network's answer as the sum of all cells that say yes, for class activation maps.

    The gradient of the smooth maximum is that of one cell; this one's is that of every cell, by its probability.
    """

    def __init__(self, network: LabelNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, classes) float32, at least 0."""
        return functional.softplus(self.network.cells(pixels)).sum(dim=2)


class SegmentationNetwork(nn.Module):
    """Which class each pixel shows, by a light decoder that joins the three strides (FPN, Lin et al., CVPR 2017)."""

    def __init__(self, num_levels: int, *, width: int = 48, pretrained: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(pretrained=pretrained)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, width, kernel_size=1) for channels in _WIDTHS)
        self.joiners = nn.ModuleList(_layer(width) for _ in _WIDTHS[1:])
        self.head = nn.Sequential(_layer(width), nn.Conv2d(width, num_levels, kernel_size=1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits, (n, levels, H, W) float32; level 0 is background."""
        fine_first = [lateral(field) for lateral, field in zip(self.laterals, self.encoder(pixels), strict=True)]
        field = fine_first.pop()
        for joiner in self.joiners:
            finer = fine_first.pop()
            field = joiner(finer + functional.interpolate(field, size=finer.shape[2:], mode="bilinear"))
        logits = self.head(field)
        return functional.interpolate(logits, size=pixels.shape[2:], mode="bilinear")


def image_to_pixels(image_rgb: ImageRGB) -> torch.Tensor:
    """(3, H, W) float32 in [-1, 1], as lite0 was trained, from (H, W, 3) uint8."""
    return torch.from_numpy(image_rgb).permute(2, 0, 1).float().div_(127.5).sub_(1)


def _layer(width: int) -> nn.Sequential:
    """Each channel over its neighbours, then each pixel over its channels: a ninth of the work of both at once."""
    return nn.Sequential(
        nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, kernel_size=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
