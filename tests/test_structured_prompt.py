"""Gen-n-Val's prompts in fields: joined by importance, within 75 tokens, and never two objects or a background."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from chat_server import says, serve_script
from model_helpers import fetched
from text_helpers import ScriptedChat, ScriptedTextPainter

from maskwright.configs.llm import LLMSettings
from maskwright.graphs.structured_prompt import (
    MAX_TOKENS,
    StructuredPrompt,
    StructuredPromptWriter,
    compose_fields,
    find_field_fault,
    join_fields,
    said_fields,
)
from maskwright.graphs.templates import Template
from maskwright.graphs.writers import build_writer
from maskwright.graphs.writing import Feedback, Memory, PromptWriter, Usage
from maskwright.models.language import build_chat_model

ELEMENTS = ("racing car", "red", "from above")
FIELDS = {
    "subject": "a single red racing car",
    "status": "brand new",
    "colour": "crimson",
    "medium": "studio photograph",
    "viewpoint": "from above",
    "texture": "glossy paint",
    "quality": "high resolution",
    "lighting": "soft light",
    "style": "realism",
    "atmosphere": "calm",
    "time_period": "modern",
}
PROMPT = ", ".join(FIELDS.values())


def _answer(**changes: str) -> str:
    return json.dumps({**FIELDS, **changes}, ensure_ascii=False)


def _prompt(**changes: str) -> StructuredPrompt:
    return StructuredPrompt(**{**FIELDS, **changes})


def _writer(chat: object, max_tokens: int | None = None, question: Template | None = None) -> StructuredPromptWriter:
    return StructuredPromptWriter(
        planner=chat,  # type: ignore[arg-type]
        planner_name="planner",
        writer=chat,  # type: ignore[arg-type]
        writer_name="writer",
        max_repairs=1,
        count_tokens=lambda prompt: len(prompt.split()),
        max_tokens=max_tokens,
        question=question,
    )


def _chat(*answers: str) -> ScriptedChat:
    """Answers in order, the last one again and again."""
    left = list(answers)
    return ScriptedChat(script=lambda _: left.pop(0) if len(left) > 1 else left[0])


def test_fields_become_one_prompt_in_the_order_of_importance() -> None:
    chat, usage = _chat(json.dumps(dict(reversed(FIELDS.items())))), Usage()
    written = _writer(chat).write("car", ELEMENTS, Memory(good=["a blue car"]), usage)
    assert (written.prompt, written.fields) == (PROMPT, FIELDS)
    assert (written.rung, written.shortened) == ("extract", "")
    assert written.version.startswith("ld_writer-")
    [question] = chat.questions
    assert "single red racing car, from above" in question
    assert "another one: a blue car" in question
    assert usage.calls == 1


@pytest.mark.parametrize(
    ("max_tokens", "prompt", "shortened"),
    [
        pytest.param(None, PROMPT, "", id="no limit of the encoder's"),
        pytest.param(len(PROMPT.split()), PROMPT, "", id="just enough"),
        pytest.param(
            len(PROMPT.split()) - 1, PROMPT.removesuffix(", modern"), "by leaving out time_period", id="one too many"
        ),
        pytest.param(
            8,
            "a single red racing car, brand new, crimson",
            "by leaving out medium, viewpoint, texture, quality, lighting, style, atmosphere, time_period",
            id="few",
        ),
        pytest.param(3, "a single red", "cut", id="not even the subject"),
        pytest.param(1, "a", "cut", id="one"),
    ],
)
def test_whole_fields_are_left_out_from_the_least_important_upward(
    max_tokens: int | None, prompt: str, shortened: str
) -> None:
    written = _writer(_chat(_answer()), max_tokens).write("car", ELEMENTS, Memory(), Usage())
    assert (written.prompt, written.shortened) == (prompt, shortened)
    assert written.prompt == join_fields(written.fields)


def test_no_encoder_is_given_more_than_75_tokens() -> None:
    writer = replace(_writer(_chat(_answer()), max_tokens=1000), count_tokens=len)
    written = writer.write("car", ELEMENTS, Memory(), Usage())
    assert len(written.prompt) <= MAX_TOKENS < len(PROMPT)
    assert written.shortened.startswith("by leaving out")


@pytest.mark.parametrize(
    ("changes", "left_out"),
    [
        pytest.param({"style": "none"}, {"style"}, id="nothing said"),
        pytest.param({"time_period": "Unknown."}, {"time_period"}, id="unknown"),
        pytest.param({"lighting": "  ", "texture": ""}, {"lighting", "texture"}, id="empty"),
        pytest.param({"time_period": "time period"}, {"time_period"}, id="its own name"),
        pytest.param({"colour": "Red"}, {"colour"}, id="said before"),
        pytest.param({"style": "calm realism", "atmosphere": "calm"}, {"atmosphere"}, id="said by another field"),
        pytest.param({"style": "réalisme ü"}, set(), id="other letters"),
    ],
)
def test_what_says_nothing_new_is_left_out(changes: dict[str, str], left_out: set[str]) -> None:
    assert FIELDS.keys() - said_fields(_prompt(**changes)).keys() == left_out


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param({}, "", id="none"),
        pytest.param({"subject": "a red bicycle"}, "must contain the word 'car'", id="another class"),
        pytest.param({"subject": "a bicycle", "style": "car style"}, "subject must contain", id="named elsewhere only"),
        pytest.param({"subject": "I'm sorry, no car"}, "no description", id="refusal"),
        pytest.param({"style": "as an AI I can't"}, "no description", id="refusal in another field"),
        pytest.param({"medium": "JSON schema"}, "repeats the question", id="the question"),
        pytest.param({"medium": '{"medium": "x"'}, "repeats the question", id="JSON inside"),
        pytest.param({"lighting": "white background"}, "lighting must not speak of a background", id="background"),
        pytest.param({"subject": "a car on a backdrop"}, "subject must not speak", id="backdrop"),
        pytest.param({"subject": "a car and a dog"}, "leave out 'and a'", id="a second object"),
        pytest.param({"subject": "two cars"}, "leave out 'two cars'", id="two of them"),
        pytest.param({"subject": "a car beside a tree"}, "leave out 'beside'", id="company"),
        pytest.param({"viewpoint": "three-quarter view"}, "", id="a view with a number in it"),
    ],
)
def test_find_field_fault(changes: dict[str, str], fault: str) -> None:
    found = find_field_fault(_prompt(**changes), "car", "")
    assert fault in found
    assert bool(found) is bool(fault)


def test_a_faulty_answer_is_asked_again_then_the_template_serves() -> None:
    chat, usage = _chat(_answer(subject="a car and a dog")), Usage()
    written = _writer(chat).write("car", ELEMENTS, Memory(), usage)
    assert written.rung == "template"
    assert usage.calls == len(chat.conversations) == 2
    assert "one object only" in chat.conversations[1][-1]
    assert written.prompt == join_fields(said_fields(compose_fields(ELEMENTS)))
    mended = _writer(_chat(_answer(subject="two cars"), _answer())).write("car", ELEMENTS, Memory(), Usage())
    assert (mended.rung, mended.prompt) == ("repair", PROMPT)


def test_a_template_is_good_by_itself_and_another_for_other_elements() -> None:
    kinds, looks, views = ("racing car", "toy car", "car"), ("red", "blue"), ("from above", "side view")
    found = [compose_fields((kind, look, view)) for kind in kinds for look in looks for view in views]
    assert {find_field_fault(one, "car", "") for one in found} == {""}
    assert all(said_fields(one).keys() == FIELDS.keys() for one in found)
    assert len({(one.medium, one.lighting, one.style, one.atmosphere) for one in found}) > len(found) / 2
    assert compose_fields(ELEMENTS) == compose_fields(ELEMENTS)
    assert compose_fields(("x" * 90, "y" * 90, "z" * 90)).subject == "a single " + "x" * 51


def test_a_prompt_without_a_model_is_the_template() -> None:
    chat = _chat(_answer())
    written = _writer(chat).compose(ELEMENTS)
    assert (written.rung, written.version) == ("template", "ld_compose")
    assert written.fields == said_fields(compose_fields(ELEMENTS))
    assert chat.conversations == []


def test_a_prompt_that_failed_is_changed() -> None:
    chat = _chat(_answer(), _answer(), _answer(style="naturalism"))
    writer = _writer(chat)
    feedback = Feedback({"image_text": 0.2}, ["blurred"], ["a grey smudge"])
    written = writer.revise("car", PROMPT, ELEMENTS, feedback, Memory(), Usage())
    assert (written.rung, written.prompt) == ("template", join_fields(said_fields(compose_fields(ELEMENTS, PROMPT))))
    assert written.version.startswith("ld_revise-")
    for told in (PROMPT, "image_text 0.20", "blurred", "a grey smudge"):
        assert told in chat.questions[0]
    again = writer.revise("car", PROMPT, ELEMENTS, feedback, Memory(), Usage())
    assert again.fields["style"] == "naturalism"


def test_fields_that_a_model_leaves_out_are_no_fault() -> None:
    written = _writer(_chat('{"subject": "a red car"}')).write("car", ELEMENTS, Memory(), Usage())
    assert (written.prompt, written.rung) == ("a red car", "extract")


def test_another_question_is_asked_in_the_place_of_the_built_in_one() -> None:
    chat = _chat(_answer())
    written = _writer(chat, question=Template("mine", "{memory} Paint {subject}!")).write(
        "car", ELEMENTS, Memory(), Usage()
    )
    assert chat.questions[0].startswith("Paint red racing car, from above!")
    assert written.version.startswith("mine-")


def test_the_schema_that_a_server_is_sent_is_strict() -> None:
    with serve_script(says(_answer())) as server:
        chat = build_chat_model("openai:m", base_url=server.base_url)
        written = _writer(chat).write("car", ELEMENTS, Memory(), Usage())
    assert (written.prompt, written.rung) == (PROMPT, "json_schema")
    schema = server.requests[0]["response_format"]["json_schema"]["schema"]
    assert schema["required"] == list(FIELDS) == list(schema["properties"])
    assert schema["additionalProperties"] is False
    assert not any("default" in one for one in schema["properties"].values())


@pytest.mark.parametrize(
    ("style", "kind"),
    [("caption", PromptWriter), ("structured", StructuredPromptWriter)],
    ids=["caption", "structured"],
)
def test_the_style_of_the_settings_is_the_writer_s(style: str, kind: type[PromptWriter]) -> None:
    llm = LLMSettings(model="text_helpers:make_writer")
    writer = build_writer(llm, ScriptedTextPainter(), 0, style)  # type: ignore[arg-type]
    assert type(writer) is kind


@pytest.mark.slow
def test_the_embedded_model_answers_in_fields() -> None:
    fetched("smollm2")
    llm = LLMSettings(model="embedded:smollm2", max_tokens=160)
    writer = build_writer(llm, ScriptedTextPainter(), 0, "structured")
    written = writer.write("cup", ("coffee cup", "red", "side view"), Memory(), Usage())
    assert written.rung in ("json_schema", "repair")
    assert "cup" in written.fields["subject"]
    assert len(written.fields) > 3
