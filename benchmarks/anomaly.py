"""What are made-up defects worth? One network for all defects of an item, trained on seven sources, on real test ones.

a  DRAEM's Perlin recipe on the normal images      e  the reference third alone
b  CutPaste on the normal images                   f  reference and (d)
c  the anomaly agent without its loop              g  reference and (a)
d  the anomaly agent

(a) to (d) see no real defect anywhere. (f) and (g) mix from the start, or see made-up defects alone at first, for the
share of the steps that `--first` says. All arms have the same network, steps, normal images and augmentation; the last
checkpoint counts. The split is AnomalyDiffusion's, the same for all seeds, and no test image gets past the guard.
A stopped benchmark goes on: pools, checkpoints and results lie below `--out`.
Run: maskwright models fetch minilm && python benchmarks/anomaly.py --data PATH [--item NAME] [--defects NAME ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import get_args

import torch
from anomaly_pool import PoolReport, PoolSettings, make_pool, pool_name
from rich.console import Console
from rich.table import Table

from maskwright.configs.anomaly_agent import AnomalySplitSettings
from maskwright.data.anomaly_groups import count_known
from maskwright.data.anomaly_records import AnomalyRecord
from maskwright.data.anomaly_splits import (
    AnomalySplit,
    LeakGuard,
    SplitShares,
    drop_test_copies,
    split_anomalies,
)
from maskwright.data.files import write_atomically
from maskwright.data.mvtec import load_anomalies
from maskwright.data.records import Findings
from maskwright.evaluation.anomaly_baselines import CutPasteSampler, PerlinSampler
from maskwright.evaluation.anomaly_samplers import Curriculum, DefectSampler, FolderSampler, MixedSampler
from maskwright.evaluation.anomaly_training import Precision, UNetTraining, measure_unet, train_unet
from maskwright.memory.knowledge import KnowledgeBase, open_knowledge
from maskwright.models.device import resolve_device

ARMS = {
    "a": "Perlin (DRAEM)",
    "b": "CutPaste",
    "c": "agent, no loop",
    "d": "agent",
    "e": "reference",
    "f": "reference + agent",
    "g": "reference + Perlin",
}
SHARES = SplitShares(validation=0.0, normal_validation=0.0, normal_test=AnomalySplitSettings().normal_test)
"""The last checkpoint counts in every arm, so that nothing is to be chosen on validation."""
SPLIT_SEED = 0
FIGURES = ("pixel ap", "image ap", "pixel auroc", "image auroc", "pro")
"""In the table; the files have F1-max too."""


@dataclass(frozen=True, slots=True)
class Result:
    """One network."""

    arm: str
    seed: int
    figures: Mapping[str, float]
    training_s: float


@dataclass
class Bench:
    """An item's split and the sources of pictures, each made when it is first needed."""

    split: AnomalySplit
    defects: tuple[str, ...]
    guard: LeakGuard
    samples: int
    size_px: int
    workers: int
    out: Path
    reference_share: float = 0.5
    """Of the defects in (f) and (g)."""
    first_share: float = 0.0
    """Of the steps of (f) and (g), those at the start without a real defect."""
    develops: bool = False
    """Measure on the reference third in place of the test side, for whoever changes a recipe."""
    reports: dict[str, list[PoolReport]] = field(default_factory=dict)
    _pools: dict[str, DefectSampler] = field(default_factory=dict)

    @cached_property
    def measured(self) -> list[AnomalyRecord]:
        good = [one for one in self.split.of("test") if one.is_good]
        side = self.split.of("reference" if self.develops else "test")
        return good + [one for one in side if one.defect in self.defects]

    @cached_property
    def normal_records(self) -> list[AnomalyRecord]:
        return self.guard.admit(self.split.of("normal"), consumer="normal images")

    @cached_property
    def reference_records(self) -> list[AnomalyRecord]:
        wanted = [one for one in self.split.of("reference") if one.defect in self.defects]
        return self.guard.admit(wanted, consumer="training on references")

    @cached_property
    def normals(self) -> DefectSampler:
        return FolderSampler(self.normal_records, self.size_px)

    @cached_property
    def knowledge(self) -> KnowledgeBase:
        return open_knowledge(self.out / "knowledge", is_test=self.guard.knows_digest)

    def pool_settings(self, *, loop: bool) -> PoolSettings:
        item, defects = self.split.item, self.defects
        return PoolSettings(item=item, defects=defects, samples=self.samples, loop=loop, workers=self.workers)

    def agent(self, arm: str) -> DefectSampler:
        """The pool of (c) or (d); made once, then shared."""
        if arm not in self._pools:
            settings = self.pool_settings(loop=arm == "d")
            records, self.reports[arm] = make_pool(settings, self.normal_records, self.knowledge, self.out / "pools")
            admitted = self.guard.admit(records, consumer=f"training on pool ({arm})")
            self._pools[arm] = FolderSampler(admitted, self.size_px)
        return self._pools[arm]

    def reference(self) -> DefectSampler:
        return FolderSampler(self.reference_records, self.size_px)

    def beside_reference(self, other: DefectSampler) -> Curriculum:
        mixture = MixedSampler([(self.reference_share, self.reference()), (1 - self.reference_share, other)])
        return Curriculum(other, mixture, self.first_share)

    def source(self, arm: str) -> DefectSampler | Curriculum:
        """Where an arm's defects come from."""
        sources: dict[str, Callable[[], DefectSampler | Curriculum]] = {
            "a": lambda: PerlinSampler(self.normals),
            "b": lambda: CutPasteSampler(self.normals),
            "c": lambda: self.agent("c"),
            "d": lambda: self.agent("d"),
            "e": self.reference,
            "f": lambda: self.beside_reference(self.agent("d")),
            "g": lambda: self.beside_reference(PerlinSampler(self.normals)),
        }
        return sources[arm]()

    def training_key(self, arm: str, training: UNetTraining) -> str:
        """16 characters of what decides a network; the code of network, recipes and training is not in it."""
        learned = [*self.normal_records, *(self.reference_records if arm in "efg" else ())]
        pool = self.pool_settings(loop=arm != "c")
        made = pool_name(pool, self.normal_records, self.knowledge) if arm in "cdf" else ""
        shares = (self.reference_share, self.first_share) if arm in "fg" else ()
        return _digest([arm, asdict(training), self.defects, [one.key for one in learned], made, shares])

    def result_key(self, arm: str, training: UNetTraining) -> str:
        """16 characters of what decides a result."""
        return _digest([self.training_key(arm, training), [one.key for one in self.measured]])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def run_arm(bench: Bench, arm: str, training: UNetTraining, device: torch.device) -> Result:
    """Train and measure one network, or read what an earlier run measured."""
    path = bench.out / "results" / f"{arm}-{training.seed}-{bench.result_key(arm, training)}.json"
    if path.is_file():
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    source = bench.source(arm)
    started = time.perf_counter()
    folder = bench.out / "checkpoints" / bench.training_key(arm, training)
    network = train_unet(source, bench.normals, training, folder, device=device)
    training_s = time.perf_counter() - started
    metrics = measure_unet(network, bench.measured, size_px=training.size_px)
    if metrics.image is None or metrics.pixel is None or metrics.pro is None:
        raise SystemExit("the test side has no defect, or no good image; add some, or name other `--defects`")
    figures = {
        **{f"image {name}": value for name, value in asdict(metrics.image).items()},
        **{f"pixel {name}": value for name, value in asdict(metrics.pixel).items()},
        "pro": metrics.pro,
    }
    result = Result(arm, training.seed, figures, training_s)
    write_atomically(path, json.dumps(asdict(result), indent=1).encode())
    return result


def open_bench(arguments: argparse.Namespace) -> Bench:
    dataset = load_anomalies(arguments.data, arguments.item)
    if len(dataset.items) > 1:
        raise SystemExit(f"{len(dataset.items)} items; name one by --item: {', '.join(dataset.items)}")
    [item] = dataset.items
    defects = tuple(arguments.defects or dataset.defects(item))
    if unknown := sorted(set(defects) - set(dataset.defects(item))):
        raise SystemExit(f"{item!r} has no defect {unknown[0]!r}; known: {', '.join(dataset.defects(item))}")
    split = split_anomalies(dataset, item, shares=SHARES, seed=SPLIT_SEED, apart=arguments.apart)
    guard = LeakGuard.of(split.of("test"))
    split = drop_test_copies(split, guard, Findings())
    return Bench(
        split,
        defects,
        guard,
        samples=arguments.samples,
        size_px=arguments.size,
        workers=arguments.workers,
        out=arguments.out,
        reference_share=arguments.share,
        first_share=arguments.first,
        develops=arguments.develop,
    )


def results_to_table(results: Sequence[Result], title: str) -> Table:
    """Mean and deviation over the seeds."""
    table = Table("", "trained on", *FIGURES, "seeds", title=title)
    for arm, name in ARMS.items():
        own = [one for one in results if one.arm == arm]
        if own:
            cells = [_mean_and_deviation([one.figures[figure] for one in own]) for figure in FIGURES]
            table.add_row(arm, name, *cells, str(len(own)))
    return table


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


@dataclass(frozen=True, slots=True)
class Aim:
    """What an arm's mean pixel AP shall reach: that of the best of others, times a factor."""

    arm: str
    factor: float
    others: str
    is_strict: bool = False

    def judge(self, means: Mapping[str, float]) -> str | None:
        """In words; None where an arm is missing."""
        if not means.keys() >= {self.arm, *self.others}:
            return None
        bar = self.factor * max(means[other] for other in self.others)
        met = means[self.arm] > bar if self.is_strict else means[self.arm] >= bar
        sign, verdict = ">" if self.is_strict else ">=", "met" if met else "missed"
        others = "|".join(self.others)
        return f"({self.arm}) {means[self.arm]:.3f} {sign} {self.factor:g} x ({others}), {bar:.3f}: {verdict}"


AIMS = (Aim("d", 2, "ab"), Aim("d", 1, "e"), Aim("d", 1, "c", is_strict=True), Aim("f", 1.3, "g"))


def judge_aims(results: Sequence[Result]) -> list[str]:
    """Of mean pixel APs."""
    by_arm = {arm: [one.figures["pixel ap"] for one in results if one.arm == arm] for arm in ARMS}
    means = {arm: statistics.fmean(values) for arm, values in by_arm.items() if values}
    return [verdict for aim in AIMS if (verdict := aim.judge(means))]


def pools_to_table(reports: Mapping[str, Sequence[PoolReport]]) -> Table:
    """What an accepted sample cost."""
    table = Table("pool", "defect", "items", "accepted", "share", "failed", "mean turns", "s/accepted", "USD/accepted")
    for arm, parts in sorted(reports.items()):
        for one in parts:
            share, turns = one.accepted / one.items, one.edits / one.items
            cost = (f"{one.seconds / one.accepted:.2f}", f"{one.usd / one.accepted:.4f}")
            counts = (str(one.items), str(one.accepted), f"{share:.2f}", str(one.failed), f"{turns:.2f}")
            table.add_row(arm, one.defect, *counts, *cost)
    return table


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="an item, or a folder of items; MVTec AD's layout")
    parser.add_argument("--item", help="which item, where there are several")
    parser.add_argument("--defects", nargs="+", help="which defects; all by default")
    parser.add_argument("--arms", default=",".join(ARMS), help="which arms, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="side of the pictures in pixels")
    parser.add_argument("--width", type=int, default=16, help="channels of the network's first stage")
    parser.add_argument("--channels", type=int, default=3, choices=(1, 3), help="1: luminance alone")
    parser.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--precision", default="float32", choices=get_args(Precision))
    parser.add_argument("--samples", type=int, default=200, help="accepted samples of each defect in (c) and (d)")
    parser.add_argument("--workers", type=int, default=2, help="items of the agent side by side")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--share", type=float, default=0.5, help="of real defects in (f) and (g)")
    parser.add_argument("--first", type=float, default=0.0, help="of the steps of (f) and (g), without real ones")
    parser.add_argument("--apart", action="store_true", help="keep photographs of one object on one side of the split")
    parser.add_argument("--develop", action="store_true", help="measure on the reference third; arms a to d only")
    parser.add_argument("--out", type=Path, default=Path("runs/anomaly_benchmark"))
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    arms = arguments.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise SystemExit(f"unknown arm {unknown[0]!r}; known: {', '.join(ARMS)}")
    if arguments.develop and (seen := sorted(set(arms) & set("efg"))):
        raise SystemExit(f"arm {seen[0]!r} has seen the reference third; leave it out of `--arms` with `--develop`")
    console, device, bench = Console(width=120), resolve_device(arguments.device), open_bench(arguments)
    results = []
    for seed in range(arguments.seeds):
        for arm in arms:
            training = UNetTraining(
                steps=arguments.steps,
                batch=arguments.batch,
                size_px=arguments.size,
                seed=seed,
                in_channels=arguments.channels,
                width=arguments.width,
                rate=arguments.rate,
                precision=arguments.precision,
            )
            results.append(run_arm(bench, arm, training, device))
            console.print(f"({arm}) seed {seed}: pixel AP {results[-1].figures['pixel ap']:.3f}")
    size = f"width {arguments.width}, {arguments.size} px, {arguments.steps} steps of {arguments.batch}"
    console.print(results_to_table(results, f"{bench.split.item}: {', '.join(bench.defects)}; {size}"))
    for verdict in judge_aims(results):
        console.print(verdict)
    for arm in {"d" if arm == "f" else arm for arm in arms} & {"c", "d"}:
        bench.agent(arm)  # read for its report, where only results were read before
    console.print(pools_to_table(bench.reports))
    num_defects = sum(not one.is_good for one in bench.measured)
    num_good = len(bench.measured) - num_defects
    num_known = count_known(bench.split.of("reference"), bench.split.of("test"))
    console.print(f"measured on {num_defects} with a defect, {num_good} without; {bench.guard.checked}")
    console.print(f"of all test images with a defect, {num_known} show an object that a reference shows too")
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, {device}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
