"""What every optimizer of prompts works with: trials and answers that are asked for once, within a budget of calls.

All of it lands in a ledger under names that follow from the question. A command that was killed is started again: it
walks the same way through what it was told before, and asks only what is new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from ..errors import MaskwrightError, ModelRequestError, UnparseableAnswerError
from ..graphs.templates import load_template
from ..memory.ledger import Ledger
from ..models.structured import ask
from .optimize_examples import Example
from .optimize_tasks import Task, Trial

T = TypeVar("T", bound=BaseModel)


class BudgetSpentError(MaskwrightError):
    """No call is left; the optimizers end on it, and nobody else sees it."""


@dataclass(slots=True)
class Calls:
    """Requests to language models: the agent's and the engine's, those of an earlier start of the command too."""

    limit: int | None = None
    spent: int = 0

    def require_one(self) -> None:
        """Raises BudgetSpentError where none is left."""
        if self.limit is not None and self.spent >= self.limit:
            raise BudgetSpentError(f"all {self.limit} calls are spent")


@dataclass(slots=True, kw_only=True)
class Trials:
    """Examples answered with prompts, each once."""

    task: Task
    ledger: Ledger[Trial]
    calls: Calls
    scope: str
    """What else decides a trial: the recipe's fingerprint."""
    _known: dict[str, Trial] = field(default_factory=dict)

    def of(self, prompt: str, examples: Sequence[Example]) -> list[Trial]:
        """The trials of a prompt, in order.

        Raises:
            BudgetSpentError: the calls do not suffice; what was made stays.
            ModelOutageError, ModelAccessError: a model cannot be asked.
        """
        ids = [self._trial_id(prompt, example) for example in examples]
        new = [pair for pair in zip(ids, examples, strict=True) if pair[0] not in self._known]
        for start in range(0, len(new), self.task.batch_size):
            self.calls.require_one()
            self._make(prompt, dict(new[start : start + self.task.batch_size]))
        return [self._known[entry_id] for entry_id in ids]

    def _make(self, prompt: str, wanted: dict[str, Example]) -> None:
        found = {entry_id: trial for entry_id in wanted if (trial := self.ledger.read(entry_id)) is not None}
        missing = {example.example_id: entry_id for entry_id, example in wanted.items() if entry_id not in found}
        for trial in self.task.run(prompt, [wanted[entry_id] for entry_id in missing.values()]) if missing else ():
            entry_id = missing[trial["example_id"]]
            self.ledger.write(entry_id, trial)
            found[entry_id] = trial
        self._known.update(found)
        self.calls.spent += sum(trial["calls"] for trial in found.values())

    def _trial_id(self, prompt: str, example: Example) -> str:
        return f"trial-{_digest(self.scope, self.task.agent, prompt, example.example_id)}"


class Answer(TypedDict):
    """What the engine answered."""

    value: dict[str, object] | None
    """By the schema; None where no answer fitted."""
    fault: str
    calls: int


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """An answer of the engine, or why there is none."""

    value: T | None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The language model that criticizes and rewrites; each question of a round is asked once."""

    model: BaseChatModel
    name: str
    """As the recipe names it."""
    max_repairs: int
    ledger: Ledger[Answer]
    calls: Calls
    scope: str
    """What else decides an answer: the recipe's fingerprint, the method and the seed."""

    def ask(
        self,
        question: str,
        schema: type[T],
        turn: str,
        values: Mapping[str, str],
        check: Callable[[T], str] | None = None,
    ) -> Reply[T]:
        """Ask a built-in question.

        Args:
            turn: what tells this asking from another of the same words.
            values: what fills the question.
            check: what is wrong with an answer that fits the schema; the engine is told once more.

        Raises:
            BudgetSpentError: no call is left.
            ModelOutageError, ModelAccessError: the model cannot be asked.
        """
        messages = load_template(question).fill(**values)
        entry_id = f"answer-{_digest(self.scope, self.name, turn, *(message.text for message in messages))}"
        self.calls.require_one()
        answer = self.ledger.read(entry_id)
        if answer is None:
            answer = self._ask(messages, schema, check)
            self.ledger.write(entry_id, answer)
        self.calls.spent += answer["calls"]
        value = None if answer["value"] is None else schema.model_validate(answer["value"])
        return Reply(value, answer["fault"])

    def _ask(self, messages: list[BaseMessage], schema: type[T], check: Callable[[T], str] | None) -> Answer:
        calls = 0

        def invoke(runnable: Runnable[LanguageModelInput, object], conversation: list[BaseMessage]) -> object:
            nonlocal calls
            calls += 1
            return runnable.invoke(conversation)

        try:
            answer = ask(self.model, messages, schema, check=check, max_repairs=self.max_repairs, invoke=invoke)
        except (UnparseableAnswerError, ModelRequestError) as exc:
            return {"value": None, "fault": str(exc), "calls": calls}
        return {"value": answer.value.model_dump(), "fault": "", "calls": calls}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
