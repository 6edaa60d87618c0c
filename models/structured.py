"""The one ladder by which every agent gets a structured answer, whatever its model can do.

Rungs, from the surest to the last resort: the provider's own JSON schema; a forced tool call; a plain call whose text
holds the object; a repair turn that shows the model its mistake; and, for writers only, a template that cannot fail.
An outage is never a reason to step down, and a judge has no template: without an answer there is no verdict.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import openai
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from ..errors import UnparseableAnswerError
from .answers import FaultyAnswer, UnfitAnswer, message_of, read_answer, text_of
from .failures import FAILURES, describe_model, raise_unless_refused, recover_message, refusal_error

T = TypeVar("T", bound=BaseModel)
ProviderRung = Literal["json_schema", "tool_calling"]
Rung = Literal[ProviderRung, "extract", "repair", "template"]
Outcome = AIMessage | Exception
"""What came of a call: the model's message, or why there is none."""

SHOWN_CHARS = 300
"""How much of an answer that does not fit goes into the error."""
ECHOED_CHARS = 4000
"""How much of it the model is shown again."""

_STRUCTURED_OUTPUT: dict[ProviderRung, dict[str, str | bool]] = {
    "json_schema": {"method": "json_schema", "strict": True},
    "tool_calling": {"method": "function_calling"},
}
_Offer = tuple[ProviderRung, type[BaseModel]]
_LACKING: dict[int, set[_Offer]] = {}
"""What models (by id, while they live) turned out not to offer; with the schema, for a provider may refuse just one."""


@dataclass(frozen=True, slots=True)
class Structured(Generic[T]):
    """An answer, and what it took to get it."""

    value: T
    rung: Rung
    """What served. `json_schema`: asked with the schema, the model answered with the bare object; some servers drop the
    schema without a word, and no answer shows whether decoding was held to it. In prose, the same is `extract`."""
    attempts: int
    """Requests, the refused ones too; a client's own retries are not counted."""
    raw_text: str
    """The model's last answer as it came."""
    input_tokens: int
    """Of all attempts, as the provider counts them; 0 if it does not."""
    output_tokens: int


Invoke = Callable[[Runnable[LanguageModelInput, object], list[BaseMessage]], object]
"""Carries out one call of the ladder."""


def invoke_alone(runnable: Runnable[LanguageModelInput, object], messages: list[BaseMessage]) -> object:
    """One call by itself."""
    return runnable.invoke(messages)


def ask(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    schema: type[T],
    *,
    template: Callable[[], T] | None = None,
    check: Callable[[T], str] | None = None,
    max_repairs: int = 1,
    invoke: Invoke = invoke_alone,
) -> Structured[T]:
    """Ask a model for an object that fits a schema, down the ladder until one does.

    What a provider turns out not to offer is remembered with the model and not asked for again.

    Args:
        messages: the question; images may be in it as content blocks.
        template: makes the answer when the model cannot; for writers, never for judges.
        check: what is wrong with an answer that fits the schema, as the model is told it; "" where nothing is.
        max_repairs: how often the model is shown what is wrong with its answer.
        invoke: carries out each call, where calls of several askers shall become one batch.

    Raises:
        UnparseableAnswerError: no answer fits, and there is no template.
        ModelOutageError: the model cannot be reached or breaks down, after its client's own retries.
        ModelRequestError: it refuses the question in every form.
        ModelAccessError: it refuses the key, or the server does not know it.
    """
    climb = _climb(model, messages, _Form(schema, check), template, max_repairs)
    step: _Call | Structured[T] = next(climb)
    while isinstance(step, _Call):
        outcome: Outcome
        try:
            outcome = message_of(invoke(step.runnable, step.messages))
        except FAILURES as exc:
            outcome = exc
        step = _advance(climb, outcome)
    return step


async def aask(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    schema: type[T],
    *,
    template: Callable[[], T] | None = None,
    check: Callable[[T], str] | None = None,
    max_repairs: int = 1,
) -> Structured[T]:
    """`ask`, without blocking the event loop."""
    climb = _climb(model, messages, _Form(schema, check), template, max_repairs)
    step: _Call | Structured[T] = next(climb)
    while isinstance(step, _Call):
        outcome: Outcome
        try:
            outcome = message_of(await step.runnable.ainvoke(step.messages))
        except FAILURES as exc:
            outcome = exc
        step = _advance(climb, outcome)
    return step


@dataclass(frozen=True, slots=True)
class _Call:
    runnable: Runnable[LanguageModelInput, object]
    messages: list[BaseMessage]


@dataclass(frozen=True, slots=True)
class _Form(Generic[T]):
    """What an answer must be."""

    schema: type[T]
    check: Callable[[T], str] | None

    def read(self, text: str) -> T:
        """The answer in a text; raises UnfitAnswer, FaultyAnswer where it fits the schema and the check finds fault."""
        answer = read_answer(text, self.schema)
        if fault := self.check(answer) if self.check else "":
            raise FaultyAnswer(fault)
        return answer


@dataclass(slots=True)
class _Tally:
    """What an ask has cost so far, and the last answer."""

    model: BaseChatModel
    attempts: int = 0
    raw_text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    refusal: Exception | None = None

    def take(self, outcome: Outcome) -> AIMessage | None:
        """Count an outcome; returns its message, or None if the request was refused in this form."""
        self.attempts += 1
        if isinstance(outcome, Exception):
            message = recover_message(outcome)
            if message is None:
                raise_unless_refused(self.model, outcome)
                self.refusal = outcome
                return None
        else:
            message = outcome
        self.raw_text = text_of(message)
        if usage := message.usage_metadata:
            self.input_tokens += usage["input_tokens"]
            self.output_tokens += usage["output_tokens"]
        return message

    def finish(self, value: T, rung: Rung) -> Structured[T]:
        return Structured(value, rung, self.attempts, self.raw_text, self.input_tokens, self.output_tokens)


def _advance(climb: Generator[_Call, Outcome, Structured[T]], outcome: Outcome) -> _Call | Structured[T]:
    try:
        return climb.send(outcome)
    except StopIteration as done:
        answer: Structured[T] = done.value
        return answer


def _climb(
    model: BaseChatModel,
    messages: Sequence[BaseMessage],
    form: _Form[T],
    template: Callable[[], T] | None,
    max_repairs: int,
) -> Generator[_Call, Outcome, Structured[T]]:
    """The ladder without its calls: yields each, is sent its outcome, returns the answer."""
    schema = form.schema
    lacking = _lacking(model)
    tally = _Tally(model)
    refused: set[_Offer] = set()
    faulty = ""
    for asked, runnable in _provider_rungs(model, schema):
        conversation = list(messages)
        for turn in range(1 + max_repairs):
            message = tally.take((yield _Call(runnable, conversation)))
            if message is None:
                refused.add((asked, schema))
                break
            try:
                answer = form.read(tally.raw_text)
            except FaultyAnswer as exc:
                faulty = str(exc)
                conversation = [*conversation, *_repair_turn(tally.raw_text, faulty)]
            except UnfitAnswer:
                if message.text and "{" not in tally.raw_text:
                    lacking.add((asked, schema))
                break
            else:
                lacking.update(refused)
                return tally.finish(answer, "repair" if turn else _served_rung(asked, message))
        if faulty:  # the form was no trouble, so another form is no cure
            return tally.finish(*_last_resort(tally, form, template, faulty))

    conversation = _with_schema(messages, schema)
    rung: Rung = "extract"
    for _ in range(1 + max_repairs):
        if tally.take((yield _Call(model, conversation))) is None:
            raise refusal_error(model, tally.refusal) from tally.refusal
        # Served as a plain request: what was refused before was the form, not the question.
        lacking.update(refused)
        try:
            return tally.finish(form.read(tally.raw_text), rung)
        except UnfitAnswer as exc:
            fault = str(exc)
        conversation = [*conversation, *_repair_turn(tally.raw_text, fault)]
        rung = "repair"
    return tally.finish(*_last_resort(tally, form, template, fault))


def _last_resort(
    tally: _Tally, form: _Form[T], template: Callable[[], T] | None, fault: str
) -> tuple[T, Literal["template"]]:
    if template is not None:
        return template(), "template"
    raise UnparseableAnswerError(
        f"{describe_model(tally.model)} gave no {form.schema.__name__} in {tally.attempts} attempts: {fault}. "
        f"Its last answer: {tally.raw_text[:SHOWN_CHARS]!r}. Use a stronger model, or raise its `max_tokens`."
    )


def _lacking(model: BaseChatModel) -> set[_Offer]:
    key = id(model)
    if key not in _LACKING:
        _LACKING[key] = set()
        weakref.finalize(model, _LACKING.pop, key, None)
    return _LACKING[key]


def _provider_rungs(
    model: BaseChatModel, schema: type[BaseModel]
) -> Iterator[tuple[ProviderRung, Runnable[LanguageModelInput, object]]]:
    """The rungs that the model may have. As a dictionary the schema is only sent: reading the answer is ours."""
    function = openai.pydantic_function_tool(schema)["function"]
    strict_schema = {**function["parameters"], "title": function["name"]}
    for rung, options in _STRUCTURED_OUTPUT.items():
        if (rung, schema) in _lacking(model):
            continue
        try:
            yield rung, model.with_structured_output(strict_schema, include_raw=True, **options)
        except (NotImplementedError, TypeError, ValueError):
            _lacking(model).add((rung, schema))


def _served_rung(asked: ProviderRung, message: AIMessage) -> Rung:
    if message.tool_calls:
        return "tool_calling"
    text = message.text.strip()
    return asked if asked == "json_schema" and text.startswith("{") and text.endswith("}") else "extract"


def _with_schema(messages: Sequence[BaseMessage], schema: type[BaseModel]) -> list[BaseMessage]:
    """The question with the schema in words, in its last message: some chat templates take no two user turns."""
    text = f"Answer with one JSON object and nothing else. Its JSON schema:\n{json.dumps(schema.model_json_schema())}"
    *before, last = messages
    if not isinstance(last, HumanMessage):
        return [*messages, HumanMessage(text)]
    content = f"{last.content}\n\n{text}" if isinstance(last.content, str) else [*last.content, _text_block(text)]
    return [*before, last.model_copy(update={"content": content})]


def _text_block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _repair_turn(answer: str, fault: str) -> list[BaseMessage]:
    text = f"That does not fit the schema: {fault}. Answer again with the whole JSON object and nothing else."
    return [AIMessage(answer[:ECHOED_CHARS] or "(no answer)"), HumanMessage(text)]
