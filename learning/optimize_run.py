"""`maskwright optimize`: an agent's prompt made better on examples, and written to a file that recipes can name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from ..configs.recipe import Recipe
from ..errors import InputError
from ..graphs.choosing import choose_backends
from ..graphs.writers import build_chat
from ..memory.ledger import Ledger
from .optimize import build_optimize_graph
from .optimize_engine import BudgetSpentError, Calls, Engine, Trials
from .optimize_examples import Agent, Example, examples_digest, load_examples, split_examples
from .optimize_gepa import evolve
from .optimize_judge import build_judge_task
from .optimize_state import Candidate, OptimizeEnding, OptimizeServices, OptimizeSettings, OptimizeState, Step
from .optimize_tasks import Task, mean_score
from .optimize_writer import build_writer_task
from .optimized_prompt import Method, OptimizedPrompt, save_optimized

WORK = Path(".maskwright/optimize")
OUT = Path("prompts")


def optimize_prompt(
    recipe: Recipe,
    agent: Agent,
    examples: Path,
    settings: OptimizeSettings,
    *,
    method: Method = "textgrad",
    out: Path | None = None,
    work: Path = WORK,
) -> tuple[Path, OptimizedPrompt]:
    """Optimize the prompt of one agent and write it beside its history.

    A command that was killed goes on where it was: what was asked is not asked again.

    Args:
        examples: folder, as of `load_examples`.
        out: folder and NAME of the file; a number is added. None: `prompts/AGENT.md`.
        work: folder of what was asked and answered, for all optimizations that name it.

    Raises:
        InputError: the recipe, the examples or the budget will not do.
        ModelOutageError: a model cannot be reached; the same command goes on later.
        BrokenRunError: the disk is full or not writable, or a package is missing.
    """
    recipe = choose_backends(recipe).recipe
    found = load_examples(examples, agent)
    learned, held_out = split_examples(found, settings.held_out_share, settings.seed)
    fingerprint = recipe.fingerprint("")
    search = _digest(fingerprint, agent, method, examples_digest(found), repr(settings))
    task = _build_task(recipe, agent, found, work / f"{agent}-{fingerprint[:16]}")
    services = _build_services(recipe, task, learned, held_out, settings, work, f"{fingerprint}-{method}")
    rated, history, ending = (_descend if method == "textgrad" else evolve)(services)
    if not rated:
        raise InputError(
            f"a budget of {settings.budget_calls} calls does not suffice to try the present prompt on "
            f"{len(held_out)} held-out examples; the same command with a higher budget goes on from here"
        )
    best = max(rated, key=lambda candidate: candidate["score"])
    optimized = OptimizedPrompt(
        search=_digest(search, task.base.text),
        agent=agent,
        method=method,
        setting=task.setting,
        base=task.base,
        before=rated[0],
        after=best,
        learned_before=_rate_learned(services, rated[0]),
        learned_after=_rate_learned(services, best),
        ending=ending,
        history=history,
        models=_models(recipe, agent),
        examples_digest=examples_digest(found),
        num_learned=len(learned),
        num_held_out=len(held_out),
        calls=services.trials.calls.spent,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return save_optimized(optimized, out or OUT / f"{agent}.md"), optimized


def describe_optimized(optimized: OptimizedPrompt, path: Path) -> str:
    """What came of it and how to use it, in a few lines."""
    before, after = optimized.before["score"], optimized.after["score"]
    lines = [
        f"held-out score {before:.3f} -> {after:.3f} ({optimized.num_held_out} examples, {len(optimized.history)} "
        f"rounds, {optimized.calls} calls, ended: {optimized.ending})"
    ]
    if optimized.improved:
        lines.append(f"wrote {path}; a recipe names it by --set {optimized.setting}={path}")
    else:
        lines.append(
            f"no prompt did better than the present one, which stands in {path} with the history of the search"
        )
    return "\n".join(lines)


def _descend(services: OptimizeServices) -> tuple[Sequence[Candidate], list[Step], OptimizeEnding]:
    """TextGrad: the base and the best prompt, the history, and why it ended."""
    first: OptimizeState = {"round": 1, "history": []}
    limit = 10 * (services.settings.rounds + 2)  # of supersteps; a round has at most six
    state = cast(
        "OptimizeState", build_optimize_graph().invoke(first, context=services, config={"recursion_limit": limit})
    )
    if "best" not in state:
        return [], [], state["ending"]
    return [services.rate(services.task.base.text), state["best"]], state["history"], state["ending"]


def _build_task(recipe: Recipe, agent: Agent, examples: Sequence[Example], folder: Path) -> Task:
    if agent == "judge":
        return build_judge_task(recipe)
    return build_writer_task(recipe, [example.category for example in examples], folder)


def _build_services(
    recipe: Recipe,
    task: Task,
    learned: Sequence[Example],
    held_out: Sequence[Example],
    settings: OptimizeSettings,
    work: Path,
    scope: str,
) -> OptimizeServices:
    calls, engine = Calls(settings.budget_calls), recipe.llm.of("planner")
    return OptimizeServices(
        settings=settings,
        task=task,
        trials=Trials(task=task, ledger=Ledger(work / "trials"), calls=calls, scope=recipe.fingerprint("")),
        engine=Engine(
            model=build_chat(engine, recipe.plan.seed),
            name=engine.model,
            max_repairs=recipe.llm.max_repairs,
            ledger=Ledger(work / "answers"),
            calls=calls,
            scope=f"{scope}-{settings.seed}",
        ),
        learned=learned,
        held_out=held_out,
    )


def _rate_learned(services: OptimizeServices, candidate: Candidate) -> float | None:
    try:
        return mean_score(services.trials.of(candidate["prompt"], services.learned))
    except BudgetSpentError:
        return None


def _models(recipe: Recipe, agent: Agent) -> dict[str, str]:
    llm = recipe.llm
    models = {"engine": llm.of("planner").model}
    if agent == "writer":
        models["writer"] = llm.of("writer").model
    if llm.judge is not None:
        models["judge"] = llm.judge.model
    return models


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
