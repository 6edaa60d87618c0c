"""Reading a model's answer: the JSON object in it, held against a schema."""

from __future__ import annotations

import json
import re
from typing import NoReturn, TypeVar

from langchain_core.messages import AIMessage
from pydantic import BaseModel, ValidationError

T = TypeVar("T", bound=BaseModel)

_OBJECT_START = re.compile(r"""\{\s*["'}]""")
_STRING_OR_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])')


class UnfitAnswer(ValueError):  # noqa: N818
    """No object of an answer fits the schema. The message is what the model is shown; it never leaves the ladder."""


class FaultyAnswer(UnfitAnswer):
    """An object fits the schema, and the asker finds fault with what it says."""


def message_of(reply: object) -> AIMessage:
    """The message in what a chat model returns, plainly or by `with_structured_output(include_raw=True)`."""
    message = reply["raw"] if isinstance(reply, dict) else reply
    if not isinstance(message, AIMessage):
        raise TypeError(f"a chat model answered with a {type(message).__name__}; expected an AIMessage")
    return message


def text_of(message: AIMessage) -> str:
    """What to read an answer from: tool calls, broken ones too, before text, and a refusal where there is no text."""
    calls = [json.dumps(call["args"]) for call in message.tool_calls]
    calls += [call["args"] or "" for call in message.invalid_tool_calls]
    return "\n".join(calls) or message.text or str(message.additional_kwargs.get("refusal") or "")


def read_answer(text: str, schema: type[T]) -> T:
    """The one object in `text` that fits `schema`, whatever prose, fences, thoughts and trailing commas are around it.

    A truncated object is not completed: half a verdict is none.

    Raises:
        UnfitAnswer: none fits, or several that differ do.
    """
    fitting: list[T] = []
    fault = "it holds no whole JSON object"
    for candidate in find_objects(text):
        try:
            # As JSON, not as Python values: only so do tuples, enums and dates read as their schema says.
            value = schema.model_validate_json(json.dumps(candidate))
        except ValidationError as exc:
            fault = _describe(exc)
        else:
            if value not in fitting:
                fitting.append(value)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        fault = f"it holds {len(fitting)} different answers; give exactly one"
    raise UnfitAnswer(fault)


def find_objects(text: str) -> list[dict[str, object]]:
    """The outermost JSON objects in `text`, in order, up to the first broken one: what follows may be its inside."""
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    objects, position = [], 0
    while start := _OBJECT_START.search(text, position):
        decoded = _decode(text[start.start() :])
        if decoded is None:
            break
        objects.append(decoded[0])
        position = start.start() + decoded[1]
    return objects


def _decode(text: str) -> tuple[dict[str, object], int] | None:
    """The object that `text` begins with and its length, trailing commas forgiven; None if it is no JSON."""
    for attempt in (text, _STRING_OR_TRAILING_COMMA.sub(lambda match: match[1] or " ", text)):
        try:
            return _DECODER.raw_decode(attempt)
        except (ValueError, RecursionError):
            continue
    return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _describe(exc: ValidationError) -> str:
    """What is wrong, field by field, without Pydantic's links."""
    faults = exc.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'the object'}: {fault['msg']}" for fault in faults[:8])
