"""Does rethinking earn its keep? Accepted instances of the same number of painted images, by four ways of prompting.

fixed    "a photo of a single NAME", again and again
blind    every prompt written, without memory and without feedback
rethink  the T-Agent: written, remembered, and rethought unless both images of a prompt are kept
safe     a control: the fixed prompt at the least strength that rethinking may come to, near to the painter's start

All use the embedded models, the same seeds and the same judge; all but `safe` start from the same strength; `blind` and
`rethink` share the planner's elements. Spread is the mean pairwise distance (1 - cosine, EfficientNet-lite0) of a
class's accepted pictures.
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

from diversity import Rows, spread
from rich.console import Console
from rich.table import Table
from text_crew import CLASSES, Bench, build_bench, to_item

from maskwright.configs.agents import TextAgentSettings
from maskwright.graphs.elements import ElementsLedger
from maskwright.graphs.writing import DiversityElements, Memory, PromptWriter, Usage, Written
from maskwright.memory.ledger import Ledger
from maskwright.models.image_features import Lite0

Counts = dict[str, tuple[int, int]]

ARMS = ("fixed", "blind", "rethink", "safe")
IMAGES_PER_PROMPT = 2
MIN_YIELD = 0.75


class FixedWriter(PromptWriter):
    """Says the same of every class."""

    def plan(self, category: str, usage: Usage) -> DiversityElements:
        return DiversityElements(kinds=(category,), looks=("",), views=("",))

    def write(self, category: str, elements: Sequence[str], memory: Memory, usage: Usage) -> Written:
        return Written(f"a photo of a single {category}", "template", "fixed")


def build_arm(arm: str, folder: Path, names: Sequence[str], seed: int, elements: Path | None = None) -> Bench:
    """The crew of an arm; the planner's elements are kept in a folder, where there is one, for all arms and seeds."""
    memory = [f"memory.path={folder / 'memory'}"] if arm == "rethink" else ["memory.enabled=false"]
    settings = [f"images_per_prompt={IMAGES_PER_PROMPT}", f"min_yield={MIN_YIELD}"]
    settings += [f"strength={TextAgentSettings().min_strength}"] if arm == "safe" else []
    settings = [f"agents.text_agent.{setting}" for setting in settings] + [f"plan.seed={seed}"]
    bench = build_bench(folder / "run", names, [*memory, *settings])
    if arm not in ("fixed", "safe"):
        planned = ElementsLedger(Ledger(elements or folder / "elements"), bench.crew.writer)
        return replace(bench, crew=replace(bench.crew, elements=planned))
    writer = bench.crew.writer
    fixed = FixedWriter(**{name: getattr(writer, name) for name in PromptWriter.__dataclass_fields__})
    planned = ElementsLedger(Ledger(folder / "elements"), fixed)
    return replace(bench, crew=replace(bench.crew, writer=fixed, elements=planned))


def run_arm(arm: str, names: Sequence[str], num_images: int, seed: int, elements: Path) -> tuple[Counts, float]:
    """Images painted and accepted, by class, and the spread of the accepted ones."""
    with tempfile.TemporaryDirectory() as folder:
        bench = build_arm(arm, Path(folder), names, seed, elements)
        painted, accepted, slot = defaultdict[str, int](int), defaultdict[str, int](int), 0
        pictures: Rows = defaultdict(list)
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
                    kept = [bench.crew.artifacts.get_image(one["artifact"]) for one in result["instances"]]
                    pictures[name] += list(Lite0().embed(kept))
                    if result["ending"] == "failed":
                        raise RuntimeError(result["reason"])
            slot += 1
        return {name: (painted[name], accepted[name]) for name in names}, spread(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=30)
    parser.add_argument("--images", type=int, default=6, help="painted of each class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--out", type=Path, help="counts by arm, seed and class, as JSON")
    arguments = parser.parse_args()
    names, console = CLASSES[: arguments.classes], Console()
    arms = [arm for arm in ARMS if arm in arguments.arms]
    yields: dict[str, list[float]] = {arm: [] for arm in arms}
    spreads: dict[str, list[float]] = {arm: [] for arm in arms}
    counts: dict[str, list[Counts]] = {arm: [] for arm in arms}
    elements = Path(tempfile.mkdtemp())
    for seed in range(arguments.seeds):
        for arm in arms:
            started = perf_counter()
            made, spread_of_accepted = run_arm(arm, names, arguments.images, seed, elements)
            counts[arm].append(made)
            painted, accepted = (sum(count[i] for count in made.values()) for i in (0, 1))
            yields[arm].append(accepted / painted)
            spreads[arm].append(spread_of_accepted)
            seconds = perf_counter() - started
            console.print(
                f"seed {seed} {arm}: {accepted} of {painted}, spread {spreads[arm][-1]:.3f}, in {seconds:.0f} s"
            )
            if arguments.out:
                arguments.out.write_text(json.dumps(counts))
    table = Table("prompts", "yield", "deviation", f"against {arms[0]}", "spread", title=f"{arguments.seeds} seeds")
    for arm, values in yields.items():
        ratio = statistics.mean(values) / statistics.mean(yields[arms[0]])
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        table.add_row(
            arm,
            f"{statistics.mean(values):.3f}",
            f"{deviation:.3f}",
            f"{ratio:.2f}",
            f"{statistics.mean(spreads[arm]):.3f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
