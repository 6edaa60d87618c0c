"""What flows through the optimization of a prompt: JSON values; and what its nodes are given."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NotRequired, TypedDict

from .optimize_engine import Engine, Trials
from .optimize_examples import Example
from .optimize_tasks import Task, Trial, mean_metrics, mean_score

StepOutcome = Literal["kept", "reverted", "dropped", "all right"]
OptimizeEnding = Literal["accepted", "exhausted", "budget"]


class Candidate(TypedDict):
    """A prompt and what it achieves on the held-out examples."""

    prompt: str
    score: float
    """In [0, 1]."""
    metrics: dict[str, float]


class Step(TypedDict):
    """One round, as the history keeps it."""

    round: int
    batch_score: float
    loss: str
    gradient: str
    prompt: str
    """The one that was proposed; empty where none was."""
    score: float | None
    """On the held-out examples; None where it was not tried."""
    metrics: dict[str, float]
    outcome: StepOutcome
    reason: str


class OptimizeState(TypedDict):
    """State of one optimization. Every field but `history` is replaced by its writer."""

    round: int
    """Written by the caller as 1; `keep`, `revert` and `skip` add one."""
    current: NotRequired[Candidate]
    """Written by `verify_base` and `keep`: where the next step starts."""
    best: NotRequired[Candidate]
    """Written by `verify_base` and `keep`."""
    trials: NotRequired[list[Trial]]
    """Written by `run_batch`."""
    loss: NotRequired[str]
    """Written by `run_batch` as "", and by `criticize`."""
    gradient: NotRequired[str]
    """Written by `run_batch` as "", and by `differentiate`."""
    proposal: NotRequired[str]
    """Written by `update`; empty: none."""
    fault: NotRequired[str]
    """Written by `update`: why there is none."""
    proposed: NotRequired[Candidate]
    """Written by `verify`."""
    history: Annotated[list[Step], operator.add]
    """Written by `keep`, `revert` and `skip`, one a round; appended."""
    ending: NotRequired[OptimizeEnding]
    """Written by the finish nodes."""


class BaseUpdate(TypedDict):
    current: Candidate
    best: Candidate


class BatchUpdate(TypedDict):
    trials: list[Trial]
    loss: str
    gradient: str


class LossUpdate(TypedDict):
    loss: str


class GradientUpdate(TypedDict):
    gradient: str


class ProposalUpdate(TypedDict):
    proposal: str
    fault: str


class ProposedUpdate(TypedDict):
    proposed: Candidate


class KeepUpdate(TypedDict):
    round: int
    current: Candidate
    best: Candidate
    history: list[Step]


class NextUpdate(TypedDict):
    round: int
    history: list[Step]


class EndUpdate(TypedDict):
    ending: OptimizeEnding


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeSettings:
    """How far an optimization goes. Batches and steps as TextGrad's own prompt optimization has them."""

    rounds: int = 12
    """Three epochs of four steps."""
    steps_per_epoch: int = 4
    batch_size: int = 3
    target_score: float = 1.0
    """On the held-out examples; the first prompt that reaches it ends the search."""
    held_out_share: float = 0.5
    budget_calls: int | None = None
    """Requests to language models, the agent's and the engine's."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeServices:
    """What the optimizers are given."""

    settings: OptimizeSettings
    task: Task
    trials: Trials
    engine: Engine
    learned: Sequence[Example]
    """What losses and gradients come from."""
    held_out: Sequence[Example]
    """What decides."""

    def rate(self, prompt: str) -> Candidate:
        """A prompt on the held-out examples; raises as `Trials.of`."""
        trials = self.trials.of(prompt, self.held_out)
        return {"prompt": prompt, "score": mean_score(trials), "metrics": mean_metrics(trials)}
