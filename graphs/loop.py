"""The closed loop: make instances, measure what they brought, and make more of what helped.

        ┌──────────────────────────────────────────────┐
        v                                              │
    make round ─> measure ─┬─ gain beyond noise ─> decide quotas, retire
                           └─ within noise, rounds done ─> end

Each round is an ordinary run, RUN/round-N, that extends the one before: its product holds the instances of all rounds
so far. The loop is steered by the split that its meter measures on, so the figure to publish is of another one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Literal

from ..configs.recipe import Recipe
from ..errors import RecipeError
from ..evaluation.gains import GainMeter, RoundFigures, class_gains, judge_gain, overall_gain
from ..evaluation.paired import PairedDifference, spread
from ..memory.prompt_history import open_prompt_history
from .loop_quotas import first_shares, retired_sources, room_after, settings_of, share_by_gains
from .loop_state import LoopRound, LoopState, default_loop_folder, open_loop, write_loop
from .pipeline import plan_recipe, run_recipe
from .record import read_run_json
from .retirement import prompts_to_retire, sources_to_retire
from .run_folder import EXIT_CODES, Resume, RunOutcome
from .services import Progress

FORMAT_VERSION = 1
LoopEnd = Literal["rounds done", "within noise", "nothing to add", "nothing accepted", "budget spent", "interrupted"]
PARTIAL_ENDS: frozenset[LoopEnd] = frozenset({"nothing accepted", "budget spent"})


@dataclass(frozen=True, slots=True)
class LoopOutcome:
    """How a loop ended."""

    folder: Path
    rounds: tuple[LoopRound, ...]
    ended: LoopEnd

    @property
    def exit_code(self) -> int:
        if self.ended == "interrupted":
            return EXIT_CODES["interrupted"]
        return EXIT_CODES["partial" if self.ended in PARTIAL_ENDS else "done"]

    @property
    def gains(self) -> tuple[PairedDifference, ...]:
        """Of each measured round over the one before, or over the real data alone; over all classes."""
        return tuple(starmap(overall_gain, self._steps))

    @property
    def gains_by_class(self) -> tuple[dict[str, PairedDifference], ...]:
        """The same of each class; one that was not measured is left out."""
        return tuple(starmap(class_gains, self._steps))

    @property
    def _steps(self) -> list[tuple[RoundFigures, RoundFigures | None]]:
        """Each measured round's figures, and those of the one before."""
        figures = [one.figures for one in self.rounds if one.figures]
        return list(zip(figures, [None, *figures], strict=False))

    @property
    def best(self) -> Path | None:
        """Run folder of the round with the highest mean figure; it was chosen on the split that steered the loop."""
        means = {
            one.number: spread(one.figures.overall.with_synthetic.values()).mean for one in self.rounds if one.figures
        }
        known = {number: mean for number, mean in means.items() if mean is not None}
        return round_folder(self.folder, max(known, key=lambda number: known[number])) if known else None


def round_folder(folder: Path, number: int) -> Path:
    """Run folder of a round, from 1."""
    return folder / f"round-{number}"


def run_loop(
    recipe: str,
    *,
    rounds: int,
    measure: GainMeter,
    reweight: bool = True,
    retire: bool = True,
    stop_within_noise: bool = True,
    data: Path | None = None,
    out: Path | None = None,
    data_format: str | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
    resume: Resume = "if_possible",
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> LoopOutcome:
    """Make rounds of instances, each with the recipe's budget dealt out by what the one before brought; or go on.

    The first round is the recipe's own run. The loop ends when a round's gain is within the noise of its seeds, which
    is always so of one seed; a control does not.

    Args:
        rounds: most of them; a higher number goes on with a loop that made all of its own.
        reweight: False: a control, which makes all its rounds by the first one's quotas and retires nothing.
        retire: whether the worse half of the prompts and sources of a class that lost is left behind.
        stop_within_noise: False: all rounds are made, as for a comparison with a control.
        out: loop folder; default runs/RECIPE-loop-N.
        stop: set it, and the loop finishes what is in flight and returns.

    Raises:
        InputError: recipe, data set or folder is wrong, or a product cannot be measured.
        BrokenRunError: the loop cannot go on; the same call resumes it.
    """
    overrides = list(overrides)
    prepared = plan_recipe(recipe, data=data, data_format=data_format, overrides=overrides, seed=seed)
    _check(prepared.recipe, rounds)
    fresh = LoopState(
        loop=FORMAT_VERSION,
        fingerprint=prepared.recipe.fingerprint(prepared.digest),
        reweight=reweight,
        retire=retire and reweight,
        rounds=[LoopRound(1, first_shares(prepared.work))],
    )
    folder = out or default_loop_folder(Path("runs"), Path(recipe).stem, fresh)
    state = open_loop(folder, fresh, resume)
    stop = stop or threading.Event()

    def make(one: LoopRound) -> RunOutcome:
        return run_recipe(
            recipe,
            data=data,
            out=round_folder(folder, one.number),
            data_format=data_format,
            overrides=[*overrides, *settings_of(state.rounds[: one.number], prepared.recipe)],
            seed=seed,
            earlier=round_folder(folder, one.number - 1) if one.number > 1 else None,
            progress=progress,
            stop=stop,
        )

    ends_in_noise = reweight and stop_within_noise
    return _Loop(folder, state, prepared.recipe, rounds, ends_in_noise, make, measure, stop).run()


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop under way; each step is durable before the next."""

    folder: Path
    state: LoopState
    recipe: Recipe
    max_rounds: int
    ends_in_noise: bool
    make: Callable[[LoopRound], RunOutcome]
    meter: GainMeter
    stop: threading.Event

    def run(self) -> LoopOutcome:
        write_loop(self.folder, self.state)
        while not (ended := self._advance()):
            pass
        return LoopOutcome(self.folder, tuple(self.state.rounds[: self.max_rounds]), ended)

    def _advance(self) -> LoopEnd | None:
        """Bring the last round to its end and decide the next; why the loop ends here, if it does."""
        rounds = self.state.rounds
        one = rounds[-1]
        if one.number > self.max_rounds:
            return "rounds done"
        if not one.is_made:
            _retire_prompts(one, self.folder, self.recipe)
            if ended := _take(self.make(one), one):
                return ended
            write_loop(self.folder, self.state)
        if one.figures is None:
            one.figures = self.meter.measure(round_folder(self.folder, one.number), one.number)
            write_loop(self.folder, self.state)
        if ended := self._end_after(one):
            return ended
        following = _plan_next(self.state, self.folder, self.recipe)
        if not any(following.quotas.values()):
            return "nothing to add"
        rounds.append(following)
        write_loop(self.folder, self.state)
        return None

    def _end_after(self, one: LoopRound) -> LoopEnd | None:
        if one.number >= self.max_rounds:
            return "rounds done"
        if self.stop.is_set():
            return "interrupted"
        if self.ends_in_noise and judge_gain(overall_gain(*_last_figures(self.state.rounds))) == "unknown":
            return "within noise"
        return None


def _check(recipe: Recipe, rounds: int) -> None:
    if rounds < 1:
        raise RecipeError(f"a loop of {rounds!r} rounds; expected at least 1")
    if recipe.budget.items is not None and rounds > 1:
        raise RecipeError(
            f"budget.items is {recipe.budget.items!r}, and a loop's later rounds add to the items of the first; "
            "leave it out, and bound a round with plan.at_least or plan.max_per_class"
        )


def _retire_prompts(one: LoopRound, folder: Path, recipe: Recipe) -> None:
    """Enter into the prompt memory what was decided; after a kill it is entered again, and nothing changes."""
    if one.retired_prompts:
        reason = f"round {one.number - 1} of {folder.name} lost on its class"
        run_id = _run_id(round_folder(folder, one.number - 1))
        open_prompt_history(recipe.memory).retire(one.retired_prompts, reason, run_id)


def _run_id(run_folder: Path) -> str:
    return str((read_run_json(run_folder) or {}).get("run_id", ""))


def _take(outcome: RunOutcome, one: LoopRound) -> LoopEnd | None:
    """Note what a round's run came to; why the loop must end here, if it must."""
    if outcome.exit_code == EXIT_CODES["interrupted"]:
        return "interrupted"
    items = outcome.content["items"]
    if isinstance(items, dict) and items["planned"] > sum(count for name, count in items.items() if name != "planned"):
        return "budget spent"
    accepted = outcome.content["accepted"]
    if not isinstance(accepted, int) or not accepted:
        return "nothing accepted"
    one.is_made, one.accepted = True, accepted
    return None


def _plan_next(state: LoopState, folder: Path, recipe: Recipe) -> LoopRound:
    last = state.rounds[-1]
    shares = state.rounds[0].quotas
    gains = class_gains(*_last_figures(state.rounds)) if state.reweight else {}
    following = LoopRound(last.number + 1, share_by_gains(shares, gains, room_after(state.rounds, recipe)))
    lost = [name for name in shares if name in gains and judge_gain(gains[name]) == "lost"]
    if state.retire and lost:
        run_folder = round_folder(folder, last.number)
        if recipe.agents.text_agent is not None:
            history = open_prompt_history(recipe.memory)
            following.retired_prompts = prompts_to_retire(history, _run_id(run_folder), lost)
        following.retired_sources = sources_to_retire(run_folder, lost, retired_sources(state.rounds, recipe))
    return following


def _last_figures(rounds: Sequence[LoopRound]) -> tuple[RoundFigures, RoundFigures | None]:
    """Of the last round, which is measured, and of the one before it, if there was one."""
    figures = [one.figures for one in rounds if one.figures is not None]
    return figures[-1], figures[-2] if len(figures) > 1 else None
