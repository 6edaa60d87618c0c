"""What mixing is worth: a detector on real images and a run's, at several settings of `evaluation.mixing`, equal steps.

What an earlier `evaluate yolo` of the run trained at equal settings is not trained again; a stopped benchmark goes on.
Run: make install && .venv/bin/python benchmarks/mixing.py RUN --data PATH [--also RUN] [--set evaluation.steps=800] \
    --mixing ratio=1 --mixing curriculum=0.6
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from maskwright.configs.evaluation import EvaluationSettings
from maskwright.console import Bars
from maskwright.evaluation.arm_plans import plan_pair
from maskwright.evaluation.comparison import open_comparison, read_recipe
from maskwright.evaluation.paired import paired_difference, spread
from maskwright.evaluation.yolo_detector import YoloDetector
from maskwright.evaluation.yolo_evaluation import measure_arms
from maskwright.evaluation.yolo_summary import main_figure, summarize_arms
from maskwright.models.image_features import Lite0

BySeed = dict[int, float | None]


def measure(arguments: argparse.Namespace, mixing: str, bars: Bars) -> tuple[EvaluationSettings, int, BySeed]:
    """Settings, synthetic images, and mask AP by seed beside real images; `mixing` is one setting, or empty."""
    overrides = [*arguments.set, *([f"evaluation.mixing.{mixing}"] if mixing else [])]
    settings = read_recipe(arguments.run, overrides).evaluation
    comparison = open_comparison(arguments.run, arguments.data, settings, Lite0(), also=arguments.also)
    ours = plan_pair(comparison)[1]
    [arm] = summarize_arms([ours], measure_arms(comparison, [ours], YoloDetector(), progress=bars), settings.task)
    return settings, ours.num_synthetic, dict(arm.by_seed[main_figure(settings.task)])


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--also", type=Path, action="append", default=[])
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="equal in all rows; repeatable"
    )
    parser.add_argument("--mixing", action="append", default=[], metavar="NAME=VALUE", help="a row each; repeatable")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    table = Table("mixing", "synthetic images", "mask AP", "minus the first row, paired", "seeds")
    first: BySeed = {}
    with Bars().shown() as bars:
        for mixing in ("", *arguments.mixing):
            settings, num_synthetic, by_seed = measure(arguments, mixing, bars)
            first = first or by_seed
            row = mixing or "all of them, to the end", str(num_synthetic), str(spread(by_seed.values()))
            table.add_row(*row, str(paired_difference(by_seed, first)) if mixing else "", str(settings.seeds))
    console = Console(width=140)
    console.print(table)
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
