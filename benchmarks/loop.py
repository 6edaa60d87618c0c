"""Does the closed loop help? Rounds whose quotas follow the gains on val, beside the same rounds without reweighting.

Both begin with the same first round, which is trained on once, make as many instances a round, and train as long.
Neither stops at a gain within the noise, as `maskwright run --loop` does. Val steers the loop; the table shows test
too, which neither has seen.
A stopped benchmark goes on.
Run: make install && .venv/bin/python benchmarks/loop.py --data PATH [--rounds 3] [--seeds 2] [--set evaluation.batch=8]
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Sequence
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
from maskwright.evaluation.yolo_gains import YoloGainMeter
from maskwright.evaluation.yolo_summary import main_figure, summarize_arms
from maskwright.graphs.loop import LoopOutcome, round_folder, run_loop
from maskwright.models.image_features import Lite0

ARMS = {"reweighted": True, "control": False}
RESULTS = "evaluation"
BySeed = dict[int, float | None]


def run_arm(name: str, arguments: argparse.Namespace, overrides: Sequence[str], bars: Bars) -> LoopOutcome:
    """All rounds of the loop or of its control; they share the trainings that they have in common."""
    meter = YoloGainMeter(YoloDetector(), Lite0(), data=arguments.data, results=arguments.out / RESULTS, progress=bars)
    return run_loop(
        "surface",
        rounds=arguments.rounds,
        measure=meter,
        reweight=ARMS[name],
        stop_within_noise=False,
        data=arguments.data,
        out=arguments.out / name,
        overrides=overrides,
        progress=bars,
    )


def measure_test(run_folder: Path, arguments: argparse.Namespace, bars: Bars) -> tuple[BySeed, BySeed]:
    """Mask AP on test by seed: of real images alone, and beside the run's; by the detectors that val judged."""
    settings = read_recipe(run_folder).evaluation.model_copy(update={"split": "test"})
    comparison = open_comparison(run_folder, arguments.data, settings, Lite0(), results=arguments.out / RESULTS)
    planned = plan_pair(comparison)
    arms = summarize_arms(planned, measure_arms(comparison, planned, YoloDetector(), progress=bars), settings.task)
    real, ours = (dict(arm.by_seed[main_figure(settings.task)]) for arm in arms)
    return real, ours


def rows(outcome: LoopOutcome, arguments: argparse.Namespace, bars: Bars) -> Iterator[tuple[str, ...]]:
    """Number, quotas and figures of each round."""
    for one, gain in zip(outcome.rounds, outcome.gains, strict=False):
        real, ours = measure_test(round_folder(outcome.folder, one.number), arguments, bars)
        quotas = ", ".join(f"{label} {number}" for label, number in one.quotas.items())
        yield str(one.number), quotas, str(gain), str(spread(ours.values())), str(paired_difference(ours, real))


def read_arguments() -> argparse.Namespace:
    defaults = EvaluationSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="an item of an anomaly data set, which has a test side"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=defaults.seeds)
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--size", type=int, default=256, help="longer side of the pictures in pixels")
    parser.add_argument("--at-least", type=int, default=60, help="instances that the first round tops each class up to")
    parser.add_argument("--out", type=Path, default=Path("runs/loop_benchmark"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the recipe; repeatable")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    evaluation = {"seeds": arguments.seeds, "steps": arguments.steps, "image_px": arguments.size}
    overrides = [f"evaluation.{name}={value}" for name, value in evaluation.items()]
    overrides += ["data.apart=true", f"plan.at_least={arguments.at_least}", *arguments.set]
    table = Table("", "round", "new instances", "val, paired gain", "test, mask AP", "test, minus real", "seeds")
    with Bars().shown() as bars:
        for name in ARMS:
            outcome = run_arm(name, arguments, overrides, bars)
            for row in rows(outcome, arguments, bars):
                table.add_row(name, *row, str(arguments.seeds))
            table.add_row(name, "", f"ended: {outcome.ended}")
    console = Console(width=140)
    console.print(table)
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
