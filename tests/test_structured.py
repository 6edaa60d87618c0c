"""The ladder: which rung serves, what each failure means, and that half an answer is none."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableMap
from pydantic import BaseModel, Field, SkipValidation

from maskwright.errors import (
    LanguageModelError,
    MaskwrightError,
    ModelAccessError,
    ModelOutageError,
    ModelRequestError,
    UnparseableAnswerError,
)
from maskwright.models import structured
from maskwright.models.answers import UnfitAnswer, read_answer
from maskwright.models.structured import Structured, aask, ask

FORMS = {"json_schema": "json_schema", "function_calling": "tool_calling"}


class Prompt(BaseModel):
    """A prompt for a painter."""

    prompt: str = Field(min_length=1, max_length=40)


class Verdict(BaseModel):
    """What a judge says."""

    outcome: Literal["meet", "fail"]
    scores: tuple[float, float] = (0.0, 0.0)


class ScriptedChatModel(BaseChatModel):
    """Says what it is told to, in order, and records how it was asked."""

    script: SkipValidation[list[AIMessage | Exception]]
    offers: frozenset[str] = frozenset({"json_schema", "tool_calling"})
    forms: list[str] = Field(default_factory=list)
    prompts: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def with_structured_output(
        self,
        schema: Mapping[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        if FORMS[method] not in self.offers:
            raise NotImplementedError
        return RunnableMap(raw=self.bind(form=FORMS[method]))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.forms.append(kwargs.get("form", "plain"))
        self.prompts.append(messages)
        reply = self.script.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return ChatResult(generations=[ChatGeneration(message=reply)])


def _says(text: str) -> AIMessage:
    return AIMessage(text, usage_metadata={"input_tokens": 10, "output_tokens": 2, "total_tokens": 12})


def _calls(**arguments: object) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "Prompt", "args": arguments, "id": "1"}])


def _scripted(*script: AIMessage | Exception, offers: Sequence[str] = ("json_schema", "tool_calling")) -> Any:
    return ScriptedChatModel(script=list(script), offers=frozenset(offers))


def _ask_in_a_loop(*args: Any, **kwargs: Any) -> Structured[Any]:
    return asyncio.run(aask(*args, **kwargs))


QUESTION = [SystemMessage("You write."), HumanMessage("A red apple.")]
GOOD = '{"prompt": "a red apple"}'
REFUSED = ModelInvalidRequestError("response_format is not supported")
both_ways = pytest.mark.parametrize("run", [ask, _ask_in_a_loop], ids=["sync", "async"])


@both_ways
@pytest.mark.parametrize(
    ("script", "offers", "rung", "forms"),
    [
        pytest.param([_says(GOOD)], ["json_schema"], "json_schema", ["json_schema"], id="schema"),
        pytest.param([_calls(prompt="a")], ["tool_calling"], "tool_calling", ["tool_calling"], id="tool"),
        pytest.param([_calls(prompt="a")], ["json_schema"], "tool_calling", ["json_schema"], id="schema-by-a-tool"),
        pytest.param(
            [REFUSED, _calls(prompt="a")],
            ["json_schema", "tool_calling"],
            "tool_calling",
            ["json_schema", "tool_calling"],
            id="schema-refused",
        ),
        pytest.param([_says(f"Sure: {GOOD}")], ["json_schema"], "extract", ["json_schema"], id="schema-in-prose"),
        pytest.param([_says(GOOD)], ["tool_calling"], "extract", ["tool_calling"], id="text-for-a-tool-call"),
        pytest.param([_says(GOOD)], [], "extract", ["plain"], id="offers-nothing"),
        pytest.param(
            [REFUSED, REFUSED, _says(f"```json\n{GOOD}\n```")],
            ["json_schema", "tool_calling"],
            "extract",
            ["json_schema", "tool_calling", "plain"],
            id="both-refused",
        ),
        pytest.param([_says("An apple!"), _says(GOOD)], [], "repair", ["plain", "plain"], id="repaired"),
        pytest.param(
            [_says("An apple!"), _says("A pear!")], [], "template", ["plain", "plain"], id="template-at-the-end"
        ),
    ],
)
def test_the_first_rung_that_fits_serves(
    run: Callable[..., Structured[Prompt]],
    script: list[AIMessage | Exception],
    offers: list[str],
    rung: str,
    forms: list[str],
) -> None:
    model = _scripted(*script, offers=offers)
    answer = run(model, QUESTION, Prompt, template=lambda: Prompt(prompt="an apple"))
    assert (answer.rung, model.forms, answer.attempts) == (rung, forms, len(forms))
    assert answer.value.prompt in ("a", "a red apple", "an apple")


@both_ways
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        pytest.param(ConnectionRefusedError("refused"), ModelOutageError, id="connection"),
        pytest.param(TimeoutError(), ModelOutageError, id="timeout"),
        pytest.param(ModelRateLimitError("slow down"), ModelOutageError, id="rate-limit"),
        pytest.param(ModelAPIError("boom"), ModelOutageError, id="server"),
        pytest.param(ModelAuthenticationError("key sk-123"), ModelAccessError, id="key"),
        pytest.param(ModelPermissionDeniedError("key sk-123"), ModelAccessError, id="permission"),
        pytest.param(ContextOverflowError("too long"), ModelRequestError, id="too-long"),
    ],
)
def test_a_failure_is_not_stepped_over_even_by_a_writer(
    run: Callable[..., Structured[Prompt]], failure: Exception, error: type[MaskwrightError]
) -> None:
    model = _scripted(failure, _says(GOOD))
    with pytest.raises(error) as caught:
        run(model, QUESTION, Prompt, template=lambda: Prompt(prompt="an apple"))
    assert model.forms == ["json_schema"]
    assert "sk-123" not in str(caught.value)
    assert "sk-123" not in str(caught.value.__cause__)


def test_a_bug_is_not_taken_for_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        ask(_scripted(ZeroDivisionError()), QUESTION, Prompt)


@both_ways
def test_a_judge_without_an_answer_gives_no_verdict(run: Callable[..., Structured[Verdict]]) -> None:
    model = _scripted(*[_says("I like it.") for _ in range(5)])
    with pytest.raises(UnparseableAnswerError, match=r"no Verdict in 5 attempts.*'I like it\.'") as caught:
        run(model, QUESTION, Verdict, max_repairs=2)
    assert isinstance(caught.value, LanguageModelError)
    assert model.forms == ["json_schema", "tool_calling", "plain", "plain", "plain"]


def test_a_request_refused_in_every_form_is_the_question_s_fault() -> None:
    model = _scripted(REFUSED, REFUSED, ModelInvalidRequestError("no images"), _says(GOOD))
    with pytest.raises(ModelRequestError, match="no images"):
        ask(model, QUESTION, Prompt)
    assert ask(model, QUESTION, Prompt).rung == "json_schema"


def test_not_found_may_mean_the_form_or_the_model() -> None:
    missing = ModelNotFoundError("no endpoint")
    model = _scripted(missing, _calls(prompt="a"), _calls(prompt="b"))
    assert [ask(model, QUESTION, Prompt).rung for _ in range(2)] == ["tool_calling"] * 2
    assert model.forms == ["json_schema", "tool_calling", "tool_calling"]
    with pytest.raises(ModelAccessError, match="not known there: no endpoint"):
        ask(_scripted(missing, missing, missing), QUESTION, Prompt)


def test_what_a_model_lacks_is_asked_once_for_each_schema() -> None:
    model = _scripted(REFUSED, _calls(prompt="a"), _calls(prompt="b"), _says('{"outcome": "meet"}'))
    ask(model, QUESTION, Prompt)
    assert ask(model, QUESTION, Prompt).attempts == 1
    assert ask(model, QUESTION, Verdict).rung == "json_schema"
    assert model.forms == ["json_schema", "tool_calling", "tool_calling", "json_schema"]


def test_a_provider_that_ignores_the_schema_is_asked_plainly_from_then_on() -> None:
    prose = [_says("An apple!"), _says("Red!")]
    model = _scripted(*prose, _says(GOOD), _says(GOOD))
    assert ask(model, QUESTION, Prompt).attempts == 3
    assert ask(model, QUESTION, Prompt).attempts == 1
    assert model.forms[-1] == "plain"


def test_a_wrong_answer_is_not_held_against_the_provider() -> None:
    model = _scripted(_says('{"prompt": ""}'), _says('{"prompt": "" }'), _says(GOOD), _says(GOOD))
    ask(model, QUESTION, Prompt)
    assert ask(model, QUESTION, Prompt).rung == "json_schema"


def test_what_a_model_lacks_is_forgotten_with_it() -> None:
    model = _scripted(_says("An apple!"), _says(GOOD), offers=["json_schema"])
    ask(model, QUESTION, Prompt)
    key = id(model)
    assert structured._LACKING[key]
    del model
    gc.collect()
    assert key not in structured._LACKING


def test_the_model_is_shown_its_mistake() -> None:
    model = _scripted(_says('{"prompt": "' + 50 * "x" + '"}'), _says(GOOD), offers=[])
    assert ask(model, QUESTION, Prompt).rung == "repair"
    *question, wrong, fault = model.prompts[-1]
    assert question == model.prompts[0]
    assert "xxxx" in wrong.text
    assert "prompt: String should have at most 40 characters" in fault.text


def test_tokens_and_attempts_add_up() -> None:
    model = _scripted(REFUSED, _says("An apple!"), _says(GOOD))
    answer = ask(model, QUESTION, Prompt)
    assert (answer.attempts, answer.input_tokens, answer.output_tokens) == (3, 20, 4)
    assert answer.raw_text == GOOD


@pytest.mark.parametrize("last", [HumanMessage, AIMessage])
def test_images_pass_and_the_schema_joins_the_last_turn(last: type[BaseMessage]) -> None:
    image = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}
    content: list[str | dict[str, str]] = [{"type": "text", "text": "Judge."}, image]
    question = [last(content=content)]
    model = _scripted(_says("?"), _says("?"), _says('{"outcome": "meet"}'))
    ask(model, question, Verdict)
    assert [prompt[0].content[1] for prompt in model.prompts] == [image] * 3
    assert question == [last(content=content)]
    assert len(model.prompts[-1]) == (1 if last is HumanMessage else 2)
    assert "JSON schema" in model.prompts[-1][-1].text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"outcome": "meet"}', "meet", id="bare"),
        pytest.param('Here:\n```json\n{"outcome": "fail"}\n```\nDone.', "fail", id="fenced"),
        pytest.param('{"outcome": "meet",\n}', "meet", id="trailing-comma"),
        pytest.param('{"outcome": "meet", "scores": [1, 2,],}', "meet", id="trailing-commas"),
        pytest.param('<think>{"outcome": "fail"}</think>{"outcome": "meet"}', "meet", id="thoughts"),
        pytest.param('{"outcome": "fail"}</think>{"outcome": "meet"}', "meet", id="thoughts-opened-by-the-template"),
        pytest.param('In {braces}: {"outcome": "meet"}', "meet", id="braces-in-prose"),
        pytest.param('{"a": 1} {"outcome": "meet"}', "meet", id="another-object-first"),
        pytest.param('{"outcome": "meet"} or {"outcome": "meet"}', "meet", id="said-twice"),
        pytest.param('{"outcome": "meet", "why": "a, } and ,]"}', "meet", id="commas-in-a-string"),
        pytest.param('{"outcome": "meet"} {"outcome": "fail"}', "2 different answers", id="contradiction"),
        pytest.param('{"outcome": "maybe"}', "outcome: Input should be 'meet' or 'fail'", id="outside-the-schema"),
        pytest.param('{"scores": [1, 2], "outcome": "meet"', "no whole JSON object", id="truncated"),
        pytest.param('{"best": {"outcome": "meet"}, "and', "no whole JSON object", id="inside-of-a-truncated-one"),
        pytest.param('<think>{"outcome": "meet"}', "no whole JSON object", id="never-stopped-thinking"),
        pytest.param('{"best": {"outcome": "meet"}}', "outcome: Field required", id="nested"),
        pytest.param('{"outcome": "meet", "scores": [NaN, 1]}', "no whole JSON object", id="nan"),
        pytest.param("{'outcome': 'meet'}", "no whole JSON object", id="python"),
        pytest.param('["meet"]', "no whole JSON object", id="list"),
        pytest.param('{"a":' * 100_000, "no whole JSON object", id="nesting-bomb"),
        pytest.param("{" * 100_000, "no whole JSON object", id="braces"),
        pytest.param("", "no whole JSON object", id="empty"),
    ],
)
def test_reading_an_answer(text: str, expected: str) -> None:
    if expected in ("meet", "fail"):
        assert read_answer(text, Verdict).outcome == expected
    else:
        with pytest.raises(UnfitAnswer, match=expected):
            read_answer(text, Verdict)
