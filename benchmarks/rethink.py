"""Does rethinking earn its keep? Accepted instances of the same number of painted images, three ways of prompting.

`fixed` paints "a photo of a single NAME" again and again; `blind` has every prompt written, without memory and without
feedback; `rethink` is the T-Agent as it ships: written, remembered, and rethought when too few images are kept.
All use the embedded models, the same seeds and judge, and start from the same strength; `blind` and `rethink` share
the planner's elements.
Run: maskwright models fetch smollm2 minilm lite0 && python benchmarks/rethink.py [--images 6] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table
from text_crew import CLASSES, Bench, build_bench, to_item

from maskwright.graphs.elements import ElementsLedger
from maskwright.graphs.writing import DiversityElements, Memory, PromptWriter, Usage, Written
from maskwright.memory.ledger import Ledger

ARMS = ("fixed", "blind", "rethink")
IMAGES_PER_PROMPT = 2


class FixedWriter(PromptWriter):
    """Says the same of every class."""

    def plan(self, category: str, usage: Usage) -> DiversityElements:
        return DiversityElements(kinds=(category,), looks=("",), views=("",))

    def write(self, category: str, elements: Sequence[str], memory: Memory, usage: Usage) -> Written:
        return Written(f"a photo of a single {category}", "template", "fixed")


def build_arm(arm: str, folder: Path, names: Sequence[str], seed: int, elements: Path | None = None) -> Bench:
    """The crew of an arm; the planner's elements are kept in a folder, where there is one, for all arms and seeds."""
    memory = [f"memory.path={folder / 'memory'}"] if arm == "rethink" else ["memory.enabled=false"]
    settings = [f"agents.text_agent.images_per_prompt={IMAGES_PER_PROMPT}", f"plan.seed={seed}"]
    bench = build_bench(folder / "run", names, [*memory, *settings])
    if arm != "fixed":
        planned = ElementsLedger(Ledger(elements or folder / "elements"), bench.crew.writer)
        return replace(bench, crew=replace(bench.crew, elements=planned))
    writer = bench.crew.writer
    fixed = FixedWriter(**{name: getattr(writer, name) for name in PromptWriter.__dataclass_fields__})
    planned = ElementsLedger(Ledger(folder / "elements"), fixed)
    return replace(bench, crew=replace(bench.crew, writer=fixed, elements=planned))


def run_arm(arm: str, names: Sequence[str], num_images: int, seed: int, elements: Path) -> dict[str, tuple[int, int]]:
    """Images painted and accepted, by class."""
    with tempfile.TemporaryDirectory() as folder:
        bench = build_arm(arm, Path(folder), names, seed, elements)
        painted, accepted, slot = defaultdict[str, int](int), defaultdict[str, int](int), 0
        while open_classes := [name for name in names if painted[name] < num_images]:
            by_rounds = defaultdict[int, list[str]](list)
            for name in open_classes:
                left = (num_images - painted[name]) // IMAGES_PER_PROMPT
                by_rounds[min(left, bench.crew.settings.max_rounds if arm == "rethink" else 1)].append(name)
            for rounds, group in sorted(by_rounds.items()):
                items = [to_item(names.index(name) + 1, name, slot) for name in group]
                for result in bench.make(items, max_rounds=rounds):
                    name = result["item"]["category"]
                    painted[name] += len(result["attempts"])
                    accepted[name] += len(result["instances"])
                    if result["ending"] == "failed":
                        raise RuntimeError(result["reason"])
            slot += 1
        return {name: (painted[name], accepted[name]) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("--images", type=int, default=6, help="painted of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="counts by arm, seed and class, as JSON")
    arguments = parser.parse_args()
    names, console = CLASSES[: arguments.classes], Console()
    yields: dict[str, list[float]] = {arm: [] for arm in ARMS}
    counts: dict[str, list[dict[str, tuple[int, int]]]] = {arm: [] for arm in ARMS}
    elements = Path(tempfile.mkdtemp())
    for seed in range(arguments.seeds):
        for arm in ARMS:
            started = perf_counter()
            made = run_arm(arm, names, arguments.images, seed, elements)
            counts[arm].append(made)
            painted, accepted = (sum(count[i] for count in made.values()) for i in (0, 1))
            yields[arm].append(accepted / painted)
            console.print(f"seed {seed} {arm}: {accepted} of {painted} in {perf_counter() - started:.0f} s")
            if arguments.out:
                arguments.out.write_text(json.dumps(counts))
    table = Table("prompts", "yield", "deviation", "against fixed", title=f"{arguments.seeds} seeds")
    for arm, values in yields.items():
        ratio = statistics.mean(values) / statistics.mean(yields["fixed"])
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        table.add_row(arm, f"{statistics.mean(values):.3f}", f"{deviation:.3f}", f"{ratio:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
