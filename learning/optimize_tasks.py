"""What a prompt is optimized for: an agent that works by it, and how well it does on examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol, TypedDict

from ..graphs.templates import Template
from .optimize_examples import Agent, Example


class Trial(TypedDict):
    """One example answered with one prompt, as the ledger keeps it."""

    example_id: str
    group: str
    """Groups count alike in a prompt's score, however many examples each has."""
    score: float
    """In [0, 1]."""
    metrics: dict[str, float]
    """Told, not optimized."""
    evidence: str
    """What was wrong with it, in words; empty where nothing was."""
    calls: int


class Task(Protocol):
    """An agent that works by a prompt, and examples that tell how well."""

    @property
    def agent(self) -> Agent: ...

    @property
    def setting(self) -> str:
        """Where a recipe names a file with the prompt."""
        ...

    @property
    def base(self) -> Template:
        """The prompt that the recipe names now."""
        ...

    @property
    def placeholders(self) -> Sequence[str]:
        """What a prompt must leave open, each of these and no other."""
        ...

    @property
    def purpose(self) -> str:
        """What the prompt is for, as the engine is told."""
        ...

    @property
    def batch_size(self) -> int:
        """Examples that are best answered together."""
        ...

    def run(self, prompt: str, examples: Sequence[Example]) -> Iterator[Trial]:
        """Answer examples with a prompt; trials as they are ready, in no order.

        Raises:
            ModelOutageError, ModelAccessError: a model cannot be asked; that says nothing about the prompt.
        """
        ...


def mean_score(trials: Sequence[Trial]) -> float:
    """Mean over the groups of their mean scores, in [0, 1]: of two labels, the balanced accuracy."""
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for trial in trials:
        groups[trial["group"]].append(trial["score"])
    return round(sum(sum(scores) / len(scores) for scores in groups.values()) / max(1, len(groups)), 6)


def mean_metrics(trials: Sequence[Trial]) -> dict[str, float]:
    """Means of the metrics, each over the trials that have it."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for trial in trials:
        for name, value in trial["metrics"].items():
            found[name].append(value)
    return {name: round(sum(values) / len(values), 4) for name, values in found.items()}
