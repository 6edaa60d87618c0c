"""A training step of the YOLO backbone on EfficientNet-lite0, forward and backward, beside timm's own layers.

The alternatives, in turns in the same run: the same network as timm has it, with the same stages frozen, by autocast in
bfloat16 and in float32.
Run: make install && .venv/bin/maskwright models fetch lite0 && .venv/bin/python benchmarks/backbone.py
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import platform
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from maskwright.evaluation.yolo_backbone import Lite0Backbone
from maskwright.models.image_features import load_network


class PlainBackbone(Lite0Backbone):
    """With timm's layers as they are."""

    def __init__(self, frozen: int) -> None:
        nn.Module.__init__(self)
        network = copy.deepcopy(load_network(torch.device("cpu")))
        self.stem, self.stages = nn.Sequential(network.conv_stem, network.bn1), network.blocks
        self.frozen = frozen


def time_step(backbone: Lite0Backbone, images: torch.Tensor, *, bfloat16: bool) -> float:
    """Seconds."""
    began = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16) if bfloat16 else contextlib.nullcontext():
        outputs = backbone(images)
    sum(one.float().mean() for one in outputs if one.requires_grad).backward()
    return time.perf_counter() - began


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="of the pictures in pixels")
    parser.add_argument("--frozen", type=int, default=3, help="first stages of seven that do not learn")
    parser.add_argument("--turns", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(arguments.batch, 3, arguments.size, arguments.size)
    images = images.contiguous(memory_format=torch.channels_last)
    runs = {
        "ours, bfloat16": (Lite0Backbone(arguments.frozen), True),
        "timm's layers, bfloat16": (PlainBackbone(arguments.frozen), True),
        "timm's layers, float32": (PlainBackbone(arguments.frozen), False),
    }
    for backbone, _ in runs.values():
        backbone.requires_grad_(True)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(arguments.turns + 1):
        for name, (backbone, bfloat16) in runs.items():
            taken = time_step(backbone, images, bfloat16=bfloat16)
            if turn:  # the first one warms up
                seconds[name].append(taken)
    table = Table("backbone", "ms a step, median", "times ours")
    ours = statistics.median(next(iter(seconds.values())))
    for name, each in seconds.items():
        table.add_row(name, f"{1000 * statistics.median(each):.0f}", f"{statistics.median(each) / ours:.2f}")
    console = Console(width=120)
    console.print(table)
    console.print(f"{platform.machine()}, one thread of {os.cpu_count()} cores, torch {torch.__version__}")


if __name__ == "__main__":
    main()
