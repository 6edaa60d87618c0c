"""The T-Agent and its writer: outages, nonsense, prompts too long or too old, and what it is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from langgraph.types import RetryPolicy
from text_crew import SETTINGS, ScriptedMemory, build_crew, build_item, make
from text_helpers import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    POOR,
    Answer,
    ScriptedChat,
    ScriptedTextPainter,
    answers,
    breaks,
    good,
    kind_of,
    poor,
    prompt_json,
)

from maskwright.errors import ModelAccessError, ModelOutageError
from maskwright.graphs import text_agent
from maskwright.graphs.writing import Captioner

REFUSAL = prompt_json("I'm sorry, I cannot help with a bolt")
ECHO = prompt_json("Write a short caption for a picture of a bolt")
LONG = prompt_json("a shiny red bolt with a very fine thread, alone on a wide white table")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False, retry_on=ModelOutageError)
    assert policy.max_attempts == text_agent.OUTAGES.max_attempts
    monkeypatch.setattr(text_agent, "OUTAGES", policy)


@pytest.mark.parametrize("failures", [1, 2], ids=["once", "for good"])
@pytest.mark.usefixtures("impatient")
def test_an_outage_is_asked_again_and_then_fails_the_item(failures: int, tmp_path: Path) -> None:
    chat = ScriptedChat(script=answers(write=[*[ConnectionError("refused")] * failures, prompt_json("a shiny bolt")]))
    [result] = make(build_crew(tmp_path, chat=chat))
    assert len(chat.asked("write")) == 2
    assert result["ending"] == ("accepted" if failures == 1 else "failed")
    assert ("ModelOutageError" in result["reason"]) is (failures == 2)


@pytest.mark.usefixtures("impatient")
def test_an_outage_while_rethinking_repeats_no_paint(tmp_path: Path) -> None:
    painter = ScriptedTextPainter([poor, poor, good])
    chat = ScriptedChat(script=answers(revise=[TimeoutError("slow"), prompt_json("a better bolt")]))
    [result] = make(build_crew(tmp_path, painter, chat))
    assert [one["prompt"] for one in result["rounds"]][1:] == ["a better bolt"]
    assert (result["ending"], len(painter.batches)) == ("accepted", 2)


@pytest.mark.usefixtures("impatient")
def test_an_outage_of_a_hosted_painter_is_asked_again(tmp_path: Path) -> None:
    painter = ScriptedTextPainter([breaks(ModelOutageError("rate limit")), good])
    [result] = make(build_crew(tmp_path, painter))
    assert (result["ending"], len(painter.batches)) == ("accepted", 2)


@pytest.mark.usefixtures("impatient")
def test_a_refused_key_stops_everything(tmp_path: Path) -> None:
    chat = ScriptedChat(script=answers(write=[ModelAccessError("wrong key")]))
    with pytest.raises(ModelAccessError, match="wrong key"):
        make(build_crew(tmp_path, chat=chat))


@pytest.mark.parametrize(
    ("said", "rung", "prompt"),
    [
        pytest.param([prompt_json("a bolt, shiny")], "extract", "a bolt, shiny", id="sense at once"),
        pytest.param(["blah", prompt_json("a shiny bolt")], "repair", "a shiny bolt", id="garbage, then sense"),
        pytest.param([REFUSAL, prompt_json("a shiny bolt")], "repair", "a shiny bolt", id="refusal, then sense"),
        pytest.param([prompt_json("a shiny nut"), prompt_json("a bolt")], "repair", "a bolt", id="another class"),
        pytest.param(["blah"], "template", None, id="garbage"),
        pytest.param([REFUSAL], "template", None, id="refusal"),
        pytest.param([ECHO], "template", None, id="echo"),
        pytest.param(["I'm sorry, I cannot do that."], "template", None, id="refusal in words"),
        pytest.param([""], "template", None, id="nothing"),
    ],
)
def test_a_writer_s_nonsense_is_mended_and_never_painted(
    said: Sequence[Answer], rung: str, prompt: str | None, tmp_path: Path
) -> None:
    painter = ScriptedTextPainter()
    [result] = make(build_crew(tmp_path, painter, ScriptedChat(script=answers(write=said))))
    [told] = result["rounds"]
    kind, look, view = told["elements"]
    assert told["rung"] == rung
    assert told["prompt"] == (prompt or f"a single {look} {kind}, {view}")
    assert {request.prompt for request in painter.requests} == {told["prompt"]}
    assert result["ending"] == "accepted"


@pytest.mark.parametrize(
    ("shorter", "prompt", "shortened"),
    [
        pytest.param(prompt_json("a red bolt"), "a red bolt", "by the writer", id="by the writer"),
        pytest.param(LONG, "a shiny red bolt with", "cut", id="the same again"),
        pytest.param("blah", "a shiny red bolt with", "cut", id="garbage"),
        pytest.param(prompt_json("a red nut"), "a shiny red bolt with", "cut", id="another class"),
        pytest.param(prompt_json("one bolt and four more words"), "a shiny red bolt with", "cut", id="still too long"),
    ],
)
def test_a_prompt_over_the_encoder_s_length_is_shortened_once_then_cut(
    shorter: str, prompt: str, shortened: str, tmp_path: Path
) -> None:
    chat = ScriptedChat(script=answers(write=[LONG], shorten=[shorter]))
    painter = ScriptedTextPainter(max_tokens=5)
    [result] = make(build_crew(tmp_path, painter, chat))
    assert (result["rounds"][0]["prompt"], result["rounds"][0]["shortened"]) == (prompt, shortened)
    assert all(painter.count_tokens(request.prompt) <= 5 for request in painter.requests)
    assert len(chat.asked("shorten")) == 1


def test_the_writer_is_told_what_worked_and_what_did_not(tmp_path: Path) -> None:
    chat = ScriptedChat()
    memory = ScriptedMemory({"good": ["a brass bolt"], "bad": [("a blurry bolt", "contrast is low")], "strength": None})
    make(build_crew(tmp_path, chat=chat, memory=memory))
    [question] = chat.asked("write")
    assert "a brass bolt" in question
    assert "This failed (contrast is low): a blurry bolt" in question


def test_the_rethinking_writer_is_told_prompt_reasons_and_scores(tmp_path: Path) -> None:
    chat = ScriptedChat()
    [result] = make(build_crew(tmp_path, ScriptedTextPainter([poor, poor, good]), chat))
    [question] = chat.asked("revise")
    first, second = result["rounds"]
    assert f'"{first["prompt"]}"' in question
    assert all(reason in question for reason in first["reasons"])
    assert f"image_text {POOR:.2f}" in question
    assert second["prompt"] != first["prompt"]


def test_a_prompt_near_memory_is_written_anew(tmp_path: Path) -> None:
    chat = ScriptedChat(script=answers(write=[prompt_json("the same old bolt"), prompt_json("a new bolt")]))
    memory = ScriptedMemory(near=("same old",))
    [result] = make(build_crew(tmp_path, chat=chat, memory=memory))
    assert (result["rounds"][0]["prompt"], result["rounds"][0]["novelty"]) == ("a new bolt", 0.8)
    assert memory.compared == ["the same old bolt", "a new bolt"]


def test_a_writer_that_only_repeats_memory_is_passed_over(tmp_path: Path) -> None:
    chat = ScriptedChat(script=answers(write=[prompt_json("the same old bolt")]))
    [result] = make(build_crew(tmp_path, chat=chat, memory=ScriptedMemory(near=("same old",))))
    told = result["rounds"][0]
    kind, look, view = told["elements"]
    assert (told["prompt"], told["rung"]) == (f"a single {look} {kind}, {view}", "template")
    assert len(chat.asked("write")) == 1 + SETTINGS.max_rewrites


def test_where_nothing_is_new_the_item_is_made_all_the_same(tmp_path: Path) -> None:
    [result] = make(build_crew(tmp_path, memory=ScriptedMemory(near=("bolt",))))
    assert (result["ending"], result["rounds"][0]["novelty"]) == ("accepted", 0.01)


def test_captions_of_rejected_pictures_reach_the_writer(tmp_path: Path) -> None:
    chat, seeing = ScriptedChat(), ScriptedChat(script=answers(caption=['{"caption": "a grey smudge"}']))
    captioner = Captioner(model=seeing, name="eyes", max_repairs=0)
    painter = ScriptedTextPainter([good, poor, good, good])
    strict = SETTINGS.model_copy(update={"min_yield": 1.0})
    [result] = make(build_crew(tmp_path, painter, chat, captioner=captioner, settings=strict))
    assert len(seeing.conversations) == 1, "only the rejected picture is looked at"
    assert result["rounds"][1]["captions"] == ["a grey smudge"]
    assert "What the pictures showed: a grey smudge." in chat.asked("revise")[0]
    assert result["cost"]["input_tokens"]["eyes"] == INPUT_TOKENS


def test_every_call_and_picture_is_on_the_bill(tmp_path: Path) -> None:
    chat = ScriptedChat()
    painter = ScriptedTextPainter([lambda request: replace(poor(request), usd=0.02)] * 2 + [good])
    [result] = make(build_crew(tmp_path, painter, chat))
    cost = result["cost"]
    assert cost["calls"] == len(chat.conversations) == 5
    assert cost["input_tokens"] == {"planner": 3 * INPUT_TOKENS, "writer": 2 * INPUT_TOKENS}
    assert cost["output_tokens"] == {"planner": 3 * OUTPUT_TOKENS, "writer": 2 * OUTPUT_TOKENS}
    assert cost["images_usd"] == pytest.approx(0.04)
    assert cost["device_seconds"] > 0


def test_elements_are_planned_once_a_class(tmp_path: Path) -> None:
    chat = ScriptedChat()
    results = make(build_crew(tmp_path, chat=chat), [build_item(slot) for slot in range(4)])
    assert [len(chat.asked(kind)) for kind in ("kinds", "looks", "views")] == [1, 1, 1]
    assert len({tuple(result["rounds"][0]["elements"]) for result in results}) > 1


def test_elements_of_all_classes_are_there_before_the_first_prompt(tmp_path: Path) -> None:
    chat = ScriptedChat()
    others = [{**build_item(), "item_id": f"text-{number}-0000", "category_id": number} for number in (4, 5)]
    results = make(build_crew(tmp_path, chat=chat), [build_item(), *others])  # type: ignore[list-item]
    kinds = [kind_of(question) for question in chat.questions]
    assert sorted(kinds[:9]) == sorted(["kinds", "looks", "views"] * 3)
    assert not {"kinds", "looks", "views"} & set(kinds[9:])
    assert [result["cost"]["input_tokens"]["planner"] for result in results] == [3 * INPUT_TOKENS] * 3


def test_a_planner_that_fails_is_met_by_the_item(tmp_path: Path) -> None:
    plenty = json.dumps({"values": ["round bolt", "flat bolt", "tall bolt", "small bolt"]})
    chat = ScriptedChat(script=answers(kinds=[ConnectionError("refused"), plenty]))
    [result] = make(build_crew(tmp_path, chat=chat))
    assert result["ending"] == "accepted"
    assert [len(chat.asked(kind)) for kind in ("kinds", "looks", "views")] == [2, 1, 1]
