"""Words of the T-Agent: what is a prompt, what is mended, and what is asked of a model over the wire."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from chat_server import ChatServer, Reply, calls, fails, says, serve_script
from text_helpers import Answer, ScriptedChat, answers, kind_of, prompt_json, scripted_answer, values_json

from maskwright.errors import ModelAccessError, ModelOutageError
from maskwright.graphs.writing import (
    LOOKS,
    MAX_CHARS,
    MAX_WORDS,
    VIEWS,
    Captioner,
    Feedback,
    Memory,
    PromptWriter,
    Usage,
    compose_prompt,
    describe,
    find_fault,
    mentions,
    tidy,
)
from maskwright.models.language import build_chat_model

ELEMENTS = ("racing car", "red", "from above")


def _writer(chat: object, max_tokens: int | None = None, max_repairs: int = 1) -> PromptWriter:
    return PromptWriter(
        planner=chat,  # type: ignore[arg-type]
        planner_name="planner",
        writer=chat,  # type: ignore[arg-type]
        writer_name="writer",
        max_repairs=max_repairs,
        count_tokens=lambda prompt: len(prompt.split()),
        max_tokens=max_tokens,
    )


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        pytest.param("a red car", "a red car", id="as it is"),
        pytest.param('  "a red\n  car." ', "a red car", id="quotes and lines"),
        pytest.param("A red car. It is fast! Buy it", "A red car", id="first sentence"),
        pytest.param("a red car, seen from above, on grass", "a red car, seen from above, on grass", id="clauses"),
        pytest.param("a red car, a red car, on grass", "a red car", id="a clause that repeats ends it"),
        pytest.param("a red car, this is a nice picture", "a red car", id="a clause about itself ends it"),
        pytest.param("ein rotes Auto, über Gras", "ein rotes Auto, über Gras", id="other letters"),
        pytest.param("a 1.5 m tall car", "a 1.5 m tall car", id="a point inside a number"),
        pytest.param("", "", id="nothing"),
        pytest.param(' "." ', "", id="only marks"),
    ],
)
def test_tidy(said: str, prompt: str) -> None:
    assert tidy(said) == prompt
    assert tidy(prompt) == prompt


def test_tidy_keeps_so_many_words() -> None:
    assert tidy(" ".join(f"word{number}" for number in range(99))).split()[-1] == f"word{MAX_WORDS - 1}"


@pytest.mark.parametrize(
    ("prompt", "category", "named"),
    [
        pytest.param("A Red Car", "car", True, id="any case"),
        pytest.param("two cars", "car", True, id="plural"),
        pytest.param("two buses", "bus", True, id="plural in es"),
        pytest.param("a shiny ball", "sports ball", True, id="last word of two"),
        pytest.param("a carpet", "car", False, id="inside a word"),
        pytest.param("a nut", "bolt", False, id="another class"),
        pytest.param("eine große Mutter ö", "Mutter ö", True, id="other letters"),
        pytest.param("a c++ book", "c++", True, id="marks in a name"),
        pytest.param("anything", "?", True, id="a name without a word"),
        pytest.param("", "car", False, id="nothing"),
    ],
)
def test_mentions(prompt: str, category: str, named: bool) -> None:
    assert mentions(prompt, category) is named


@pytest.mark.parametrize(
    ("prompt", "last", "fault"),
    [
        pytest.param("a red car on grass", "", "", id="none"),
        pytest.param("a red car on grass", "a red car", "", id="changed"),
        pytest.param("I'm sorry, no car", "", "no caption", id="refusal"),
        pytest.param("I’m sorry, I can’t paint a car", "", "no caption", id="refusal in fine typography"),
        pytest.param("As an AI I know no car", "", "no caption", id="refusal of an AI"),
        pytest.param("Write a short caption for a car", "", "repeats the question", id="the question"),
        pytest.param("a car. What was wrong: blurry", "", "repeats the question", id="the feedback"),
        pytest.param("This worked before: a car", "", "repeats the question", id="the memory"),
        pytest.param("a car, made bad pictures of a car", "", "repeats the question", id="the complaint"),
        pytest.param("a car, border_contact 0.15 is over", "", "repeats the question", id="a measure"),
        pytest.param('{"prompt": a car', "", "repeats the question", id="JSON inside"),
        pytest.param(
            "a car on a plain background. Make a car", "", "repeats the question", id="the end of the question"
        ),
        pytest.param("a red bicycle", "", "must contain the word 'car'", id="another class"),
        pytest.param("a bicycle. And a car", "", "must contain the word 'car'", id="the class is cut off"),
        pytest.param("A red Car.", "a red car", "the same caption again", id="the last one again"),
    ],
)
def test_find_fault(prompt: str, last: str, fault: str) -> None:
    found = find_fault(prompt, "car", last)
    assert fault in found
    assert bool(found) is bool(fault)


def test_elements_in_a_row() -> None:
    assert describe(ELEMENTS) == "red racing car, from above"
    assert compose_prompt(ELEMENTS) == "a single red racing car, from above"
    assert len(compose_prompt(("x" * 90, "y" * 90, "z"))) == MAX_CHARS


def test_a_prompt_without_a_model_fits_the_encoder() -> None:
    written = _writer(ScriptedChat(), max_tokens=4).compose(ELEMENTS)
    assert (written.prompt, written.rung) == ("a single red racing", "template")


def test_what_a_writer_is_told() -> None:
    memory = Memory(["a brass bolt"], [("a bolt", "too dark")])
    assert str(memory).splitlines() == [
        "This worked before, write another one: a brass bolt",
        "This failed (too dark): a bolt",
    ]
    feedback = Feedback({"image_text": 0.25}, ["too dark", "too small"], ["a smudge"])
    assert str(feedback).splitlines() == [
        "What was wrong: too dark; too small.",
        "Mean scores: image_text 0.25.",
        "What the pictures showed: a smudge.",
    ]
    assert str(Feedback({}, [])) == "What was wrong: too few pictures were good."


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        pytest.param(
            "looks", values_json("Red.", " pale blue ", "GOLD", "tin"), ("red", "pale blue", "gold", "tin"), id="tidied"
        ),
        pytest.param("looks", values_json("red", "Red", "blue", "BLUE "), ("red", "blue"), id="duplicates"),
        pytest.param("looks", values_json("red", "1990s", "blue", "24/7"), ("red", "blue"), id="digits"),
        pytest.param("looks", values_json("red", "car", "Car.", "blue"), ("red", "blue"), id="the class itself"),
        pytest.param("looks", values_json("red", "Red", "42", "red."), LOOKS, id="one is none"),
        pytest.param("looks", "I'm sorry, I cannot.", LOOKS, id="refusal"),
        pytest.param("looks", '{"values": ["red"]}', LOOKS, id="too few"),
        pytest.param("views", "", VIEWS, id="nothing"),
        pytest.param(
            "views",
            values_json("from above", "a b c d e f", "from behind", "x" * 39),
            ("from above", "from behind", "x" * 39),
            id="more than five words",
        ),
        pytest.param(
            "kinds",
            values_json("race car", "wagon", "old car", "cars"),
            ("race car", "old car", "cars"),
            id="kinds name the class",
        ),
        pytest.param("kinds", values_json("Paris", "London", "Rome", "Oslo"), ("car",), id="kinds that miss it"),
        pytest.param("kinds", "no idea", ("car",), id="no kinds"),
    ],
)
def test_what_a_planner_s_list_comes_to(kind: str, said: str, expected: tuple[str, ...]) -> None:
    elements = _writer(ScriptedChat(script=answers(**{kind: [said]}))).plan("car", Usage())
    assert getattr(elements, kind) == expected


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([prompt_json("a red car")], id="the last prompt"),
        pytest.param([prompt_json("i cannot paint a car")], id="refusal"),
        pytest.param(["a car"], id="no JSON"),
    ],
)
def test_a_rethink_that_fails_is_made_of_elements(said: Sequence[Answer]) -> None:
    chat, usage = ScriptedChat(script=answers(revise=said)), Usage()
    written = _writer(chat).revise("car", "a red car", ELEMENTS, Feedback({}, ["too dark"]), Memory(), usage)
    assert (written.prompt, written.rung) == (compose_prompt(ELEMENTS), "template")
    assert usage.calls == len(chat.conversations) == 2
    assert written.version.startswith("revise-")


def test_a_repair_shows_the_fault() -> None:
    chat = ScriptedChat(script=answers(write=[prompt_json("a bicycle"), prompt_json("a red car")]))
    written = _writer(chat).write("car", ELEMENTS, Memory(), Usage())
    assert (written.prompt, written.rung) == ("a red car", "repair")
    assert "must contain the word 'car'" in chat.conversations[-1][-1]


def _over_the_wire(server: ChatServer) -> PromptWriter:
    return _writer(build_chat_model("openai:m", base_url=server.base_url, max_tokens=64, max_retries=0))


def _question(body: dict[str, list[dict[str, str]]]) -> str:
    return body["messages"][0]["content"]


def test_a_server_is_asked_by_schema_and_its_tokens_are_counted() -> None:
    usage = Usage()
    with serve_script(lambda body: says(scripted_answer(_question(body)))) as server:
        writer = _over_the_wire(server)
        elements = writer.plan("car", usage)
        written = writer.write("car", ELEMENTS, Memory(), usage)
    assert elements.kinds == ("round car", "flat car", "tall car", "small car")
    assert (written.prompt, written.rung) == ("a single red racing car, from above", "json_schema")
    assert [kind_of(_question(body)) for body in server.requests] == ["kinds", "looks", "views", "write"]
    assert set(server.forms) == {"json_schema"}
    assert (usage.calls, usage.input_tokens, usage.output_tokens) == (
        4,
        {"planner": 21, "writer": 7},
        {"planner": 15, "writer": 5},
    )


GOOD = prompt_json("a red car on grass")


@pytest.mark.parametrize(
    ("replies", "rung", "prompt"),
    [
        pytest.param([says(GOOD)], "json_schema", "a red car on grass", id="by its schema"),
        pytest.param([fails(400), calls("WrittenPrompt", GOOD)], "tool_calling", "a red car on grass", id="by a tool"),
        pytest.param([says(f"Sure! {GOOD}")], "extract", "a red car on grass", id="in prose"),
        pytest.param([says("words"), says("words"), says(GOOD)], "extract", "a red car on grass", id="plainly"),
        pytest.param([says(None, refusal="I cannot help")], "template", None, id="a refusal"),
        pytest.param([says('{"prompt": "a red ca', finish_reason="length")], "template", None, id="cut short"),
        pytest.param([says("")], "template", None, id="nothing"),
        pytest.param([says(prompt_json("x" * 500))], "template", None, id="endless"),
    ],
)
def test_a_server_s_answers_down_the_ladder(replies: Sequence[Reply], rung: str, prompt: str | None) -> None:
    with serve_script(*replies) as server:
        written = _over_the_wire(server).write("car", ELEMENTS, Memory(), Usage())
    assert (written.rung, written.prompt) == (rung, prompt or compose_prompt(ELEMENTS))


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param(fails(503), ModelOutageError, id="down"),
        pytest.param(fails(429), ModelOutageError, id="rate limit"),
        pytest.param(fails(401), ModelAccessError, id="key"),
    ],
)
def test_a_server_that_does_not_answer_is_never_replaced_by_the_template(reply: Reply, error: type[Exception]) -> None:
    with serve_script(reply) as server, pytest.raises(error):
        _over_the_wire(server).write("car", ELEMENTS, Memory(), Usage())


def test_a_captioner_sends_the_picture_and_flattens_the_answer() -> None:
    usage = Usage()
    with serve_script(says(json.dumps({"caption": "a grey\n  smudge"}))) as server:
        model = build_chat_model("openai:m", base_url=server.base_url, max_retries=0)
        caption = Captioner(model=model, name="eyes", max_repairs=0).caption(b"\x89PNG", usage)
    assert caption == "a grey smudge"
    [part] = [part for part in server.requests[0]["messages"][0]["content"] if part["type"] == "image_url"]
    assert part["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert usage.input_tokens == {"eyes": 7}
