"""Does optimizing the writer's prompt help? Share of accepted pictures before and after, by TextGrad and by GEPA.

Writer and engine are the embedded language model, pictures come of the embedded painter and are judged by measures and
the embedded scorer. Both methods get the same examples, rounds and budget. Half of the classes is learned from, half is
held out and chooses the prompt; `unseen` are as many other classes that neither method ever saw.
Run: maskwright models fetch smollm2 && python benchmarks/optimize.py [--classes 8] [--rounds 12] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table
from text_crew import CLASSES

from maskwright.configs.recipe import Recipe, load_recipe
from maskwright.learning.optimize_examples import load_examples
from maskwright.learning.optimize_run import optimize_prompt
from maskwright.learning.optimize_state import OptimizeSettings
from maskwright.learning.optimize_tasks import mean_score
from maskwright.learning.optimize_writer import build_writer_task
from maskwright.learning.optimized_prompt import Method

METHODS: tuple[Method, ...] = ("textgrad", "gepa")


@dataclass(frozen=True, slots=True)
class Measured:
    """One method and seed; scores are mean shares of accepted pictures."""

    method: Method
    seed: int
    held_out_before: float
    held_out_after: float
    unseen_before: float
    unseen_after: float
    outcomes: dict[str, int]
    calls: int
    ending: str
    prompt: str
    seconds: float


def measure(method: Method, seed: int, names: Sequence[str], settings: OptimizeSettings, folder: Path) -> Measured:
    started = perf_counter()
    learned, unseen = names[::2], names[1::2]
    recipe = load_recipe("text_agent", [f"plan.seed={seed}", "agents.text_agent.max_crops=0"])
    examples = folder / "classes"
    for name in learned:
        (examples / name).mkdir(parents=True, exist_ok=True)
    work = folder / "work"
    _, optimized = optimize_prompt(
        recipe, "writer", examples, settings, method=method, out=folder / method / "writer.md", work=work / method
    )
    before, after = (
        rate_unseen(prompt["prompt"], recipe, unseen, folder) for prompt in (optimized.before, optimized.after)
    )
    outcomes = [step["outcome"] for step in optimized.history]
    return Measured(
        method=method,
        seed=seed,
        held_out_before=optimized.before["score"],
        held_out_after=optimized.after["score"],
        unseen_before=before,
        unseen_after=after,
        outcomes={outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        calls=optimized.calls,
        ending=optimized.ending,
        prompt=optimized.after["prompt"],
        seconds=round(perf_counter() - started, 1),
    )


def rate_unseen(prompt: str, recipe: Recipe, names: Sequence[str], folder: Path) -> float:
    examples = folder / "unseen"
    for name in names:
        (examples / name).mkdir(parents=True, exist_ok=True)
    task = build_writer_task(recipe, names, folder / "unseen-work")
    return mean_score(list(task.run(prompt, load_examples(examples, "writer"))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=8, help="in the examples; as many more are unseen")
    parser.add_argument("--rounds", type=int, default=OptimizeSettings().rounds)
    parser.add_argument("--budget-calls", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--out", type=Path, help="all figures, as JSON")
    arguments = parser.parse_args()
    console, names, found = Console(), CLASSES[: 2 * arguments.classes], list[Measured]()
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            for method in arguments.methods:
                settings = OptimizeSettings(rounds=arguments.rounds, budget_calls=arguments.budget_calls, seed=seed)
                one = measure(method, seed, names, settings, Path(folder))
                found.append(one)
                console.print(asdict(one))
                if arguments.out:
                    arguments.out.write_text(json.dumps([asdict(each) for each in found], indent=1))
    table = Table(
        "method", "held-out before", "after", "unseen before", "after", "calls", title=f"{arguments.seeds} seeds"
    )
    for method in arguments.methods:
        own = [one for one in found if one.method == method]
        columns = ("held_out_before", "held_out_after", "unseen_before", "unseen_after", "calls")
        table.add_row(method, *(f"{statistics.mean(getattr(one, column) for one in own):.3f}" for column in columns))
    console.print(table)


if __name__ == "__main__":
    main()
