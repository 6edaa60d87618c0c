"""EfficientNet-lite0 as the backbone of a YOLO model, with its ImageNet weights. Only the YOLO worker imports this.

A YAML names it by `Lite0Backbone`, as `yolo11n-lite0-seg.yaml` does; ultralytics' `Index` takes its stages apart.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn
from ultralytics.nn import tasks

from ..models.image_features import load_network
from .yolo_layers import Depthwise, fuse_batch_norms


class Lite0Backbone(nn.Module):
    """The network's seven stages, strides 2, 4, 8, 16, 16, 32, 32, of 16, 24, 40, 80, 112, 192, 320 channels.

    Its batch statistics stay ImageNet's, since a batch of a detector is too small for better ones.
    """

    def __init__(self, frozen: int) -> None:
        """
        Args:
            frozen: first stages that do not learn, 0 to 7; the stem learns only where none is frozen.

        Raises:
            ModelNotFetchedError: lite0 is not in the cache, or damaged there.
        """
        super().__init__()
        network = copy.deepcopy(load_network(torch.device("cpu")))
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.stages = network.blocks
        self.frozen = frozen
        for part in [self.stem, *self.stages[:frozen]] if frozen else []:
            fuse_batch_norms(part)
        for stage in self.stages[frozen:]:
            for block in stage.children():
                block.conv_dw = Depthwise(cast("nn.Conv2d", block.conv_dw))

    def train(self, mode: bool = True) -> Lite0Backbone:  # noqa: ARG002  # torch's signature
        super().train(mode=False)
        return self

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Each stage's output.

        Args:
            images: (n, 3, height, width) in [0, 1], sides multiples of 32.
        """
        found = [self._run(self.stem, images * 2 - 1, learns=self.frozen == 0)]
        for index, stage in enumerate(self.stages):
            found.append(self._run(stage, found[-1], learns=index >= self.frozen))
        return found[1:]

    def _run(self, part: nn.Module, x: torch.Tensor, *, learns: bool) -> torch.Tensor:
        with torch.set_grad_enabled(learns and torch.is_grad_enabled()):
            return part(x)  # type: ignore[no-any-return]


def register() -> None:
    """Let ultralytics find it by its name in a YAML."""
    tasks.Lite0Backbone = Lite0Backbone
