"""Does memory keep prompts and pictures diverse? Five runs in a row, with one memory for all and with none.

Diversity is the mean pairwise distance, 1 - cosine, inside each class, averaged over the classes: of accepted pictures
(EfficientNet-lite0 features) and of the prompts that were painted (MiniLM). Run k counts all that runs 1 to k made.
Run: maskwright models fetch smollm2 minilm lite0 && python benchmarks/diversity.py [--runs 5] [--seeds 3] [--classes 8]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from text_crew import CLASSES, build_bench, to_item

from maskwright.graphs.elements import ElementsLedger
from maskwright.memory.ledger import Ledger
from maskwright.models.embeddings import MiniLM
from maskwright.models.image_features import Lite0
from maskwright.tools.cutouts import crop_to_mask

Rows = dict[str, list[npt.NDArray[np.float32]]]


def spread(rows: Rows) -> float:
    """Mean over classes of the mean of 1 - cosine over all pairs of a class; classes with one row are left out."""
    means = []
    for vectors in rows.values():
        if len(vectors) > 1:
            cosines = np.stack(vectors) @ np.stack(vectors).T
            means.append(1 - float(cosines[np.triu_indices(len(vectors), 1)].mean()))
    return statistics.mean(means) if means else float("nan")


def run_series(
    folder: Path, num_classes: int, num_runs: int, seed: int, *, remembers: bool
) -> list[tuple[float, float]]:
    """Diversity of pictures and of prompts after each run."""
    pictures: Rows = defaultdict(list)
    prompts: Rows = defaultdict(list)
    memory = f"memory.path={folder / 'memory'}" if remembers else "memory.enabled=false"
    found = []
    for run in range(num_runs):
        overrides = [memory, "agents.text_agent.images_per_prompt=2", f"plan.seed={100 * seed + run}"]
        bench = build_bench(folder / f"run-{run}", CLASSES[:num_classes], overrides)
        elements = ElementsLedger(Ledger(folder / "elements"), bench.crew.writer)  # listed once, for all runs
        bench = replace(bench, crew=replace(bench.crew, elements=elements))
        items = [to_item(number, name, 0) for number, name in enumerate(CLASSES[:num_classes], start=1)]
        for result in bench.make(items):
            name = result["item"]["category"]
            kept = [bench.crew.artifacts.get_image(instance["artifact"]) for instance in result["instances"]]
            pictures[name] += list(Lite0().embed([crop_to_mask(picture) for picture in kept]))
            prompts[name] += list(MiniLM().embed([one["prompt"] for one in result["rounds"]]))
        found.append((spread(pictures), spread(prompts)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=8)
    arguments = parser.parse_args()
    table = Table("memory", "of", *(f"after run {run + 1}" for run in range(arguments.runs)))
    for remembers in (True, False):
        series = []
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                series.append(run_series(Path(folder), arguments.classes, arguments.runs, seed, remembers=remembers))
        for index, what in enumerate(("pictures", "prompts")):
            by_run = [[one[run][index] for one in series] for run in range(arguments.runs)]
            cells = [
                f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"
                for values in by_run
            ]
            table.add_row("with" if remembers else "without", what, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
