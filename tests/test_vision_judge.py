"""The vision judge through langchain-openai's own client, against a server on loopback that gets real picture bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, Reply, calls, fails, says, serve_script
from PIL import Image

from maskwright.configs.llm import LLMSettings
from maskwright.configs.validation import CRITERIA, CriterionSettings, Kind, ValidationSettings
from maskwright.data.records import ImageRGBA
from maskwright.errors import (
    MaskwrightError,
    ModelAccessError,
    ModelOutageError,
    RecipeError,
    SampleError,
    UnparseableAnswerError,
)
from maskwright.graphs.judges import build_judges, load_question
from maskwright.tools.judging.shown import GREY, show_picture
from maskwright.tools.judging.vision import ChatVisionJudge

HEIGHT, WIDTH = 48, 64
RED = (200, 30, 40)
NAMES = [criterion.name for criterion in CRITERIA["cut_out"]]
DESCRIPTION = "one red bolt on grey"
SLOW_S = 20.0


def _cutout() -> ImageRGBA:
    """A red box, bright green where it is transparent."""
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    rgba[...] = (0, 255, 0, 0)
    rgba[10:30, 16:48] = (*RED, 255)
    return rgba


def _noise(height: int = HEIGHT, width: int = WIDTH) -> ImageRGBA:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    return pixels


def _answer(outcome: str = "meet", *, names: list[str] = NAMES, **others: str) -> str:
    """All criteria alike, but for `others`."""
    outcomes = dict.fromkeys(names, outcome) | others
    judged = {name: {"outcome": said, "reason": f"seen: {said}"} for name, said in outcomes.items()}
    return json.dumps({"description": DESCRIPTION, **judged})


GOOD = _answer()
BAD = _answer(intact="fail")
UNEXPLAINED = BAD.replace("seen: fail", "")


def _judge(server: ChatServer, llm: dict[str, Any] | None = None, **settings: Any) -> ChatVisionJudge:
    model = {"model": "openai:eye", "base_url": server.base_url, "max_retries": 1, "timeout_s": 10} | (llm or {})
    [judge] = build_judges(LLMSettings.model_validate({"judge": model}), ValidationSettings(**settings), 3)
    return judge


def _content(body: dict[str, Any]) -> tuple[str, str, bytes]:
    """Text, MIME type and bytes of the picture that a request holds."""
    parts = body["messages"][0]["content"]
    [url] = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    head, _, encoded = url.partition(",")
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return text, head.removeprefix("data:").removesuffix(";base64"), base64.b64decode(encoded, validate=True)


def _is_shown_whole(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return bool((pixels[10:30, 16:48] == RED).all() and (pixels[:10] == GREY).all() and (pixels[:, 48:] == GREY).all())


@pytest.mark.parametrize("kind", ["cut_out", "edit"])
def test_a_picture_and_its_criteria_are_sent(kind: Kind) -> None:
    names = [criterion.name for criterion in CRITERIA[kind]]
    with serve_script(says(_answer(names=names, single_object="fail"))) as server:
        opinion = _judge(server, kind=kind).judge(_cutout(), "traffic_light")
    [body] = server.requests
    text, mime, encoded = _content(body)
    picture = Image.open(BytesIO(encoded))
    assert (mime, picture.format, picture.size, picture.mode) == ("image/png", "PNG", (WIDTH, HEIGHT), "RGB")
    assert _is_shown_whole(picture)
    asked = [f"- {c.name}: {c.question}".replace("{category}", "traffic light") for c in CRITERIA[kind]]
    assert [line for line in text.splitlines() if line.partition(":")[0].removeprefix("- ") in names] == asked
    schema = body["response_format"]["json_schema"]["schema"]
    assert list(schema["properties"]) == ["description", *names]
    assert [(c.name, c.outcome, c.score) for c in opinion.criteria] == [
        (name, *(("fail", 0.0) if name == "single_object" else ("meet", 1.0))) for name in names
    ]
    assert not opinion.verdict.accepted
    assert (opinion.judge, opinion.description, opinion.rung) == ("openai:eye", DESCRIPTION, "json_schema")
    assert (opinion.calls, opinion.input_tokens, opinion.output_tokens) == (1, 7, 5)


@pytest.mark.parametrize(
    ("replies", "is_accepted", "rung"),
    [
        pytest.param([says(GOOD)], True, "json_schema", id="all-met"),
        pytest.param(
            [says(f"<think>It fails?</think>\n```json\n{GOOD}\n```")], True, "extract", id="fence-and-thoughts"
        ),
        pytest.param([fails(400, "response_format"), calls("PictureAnswer", GOOD)], True, "tool_calling", id="tool"),
        pytest.param([says(_answer(intact="abstain"))], False, "json_schema", id="cannot-tell"),
        pytest.param([says(f"Look: {BAD} That is all.")], False, "extract", id="prose-around-a-rejection"),
        pytest.param([says(f"Fine. {GOOD} This does not pass."), says(BAD)], False, "repair", id="prose-taken-back"),
        pytest.param([says(f"Here it is: {GOOD}"), says(GOOD)], True, "repair", id="prose-then-bare"),
        pytest.param([says(UNEXPLAINED), says(BAD)], False, "repair", id="unexplained-then-explained"),
        pytest.param([says(UNEXPLAINED), says(GOOD)], False, "repair", id="unexplained-then-turned-round"),
        pytest.param(
            [says(_answer("pass", intact="fail")), says(GOOD)], False, "extract", id="wrong-enum-turned-round"
        ),
        pytest.param([says(BAD + GOOD), says(GOOD)], False, "extract", id="two-answers-that-differ"),
        pytest.param([fails(500), says(GOOD)], True, "json_schema", id="outage-that-passes"),
        pytest.param([fails(429), says(GOOD)], True, "json_schema", id="rate-limit-that-passes"),
    ],
)
def test_what_an_answer_comes_to(replies: list[Reply], is_accepted: bool, rung: str) -> None:
    with serve_script(*replies) as server:
        opinion = _judge(server).judge(_cutout(), "bolt")
    assert opinion.verdict.accepted == is_accepted
    assert opinion.rung == rung


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param(says(f"Sure! {GOOD}"), UnparseableAnswerError, id="prose-around-json"),
        pytest.param(says(GOOD[:-20], finish_reason="length"), UnparseableAnswerError, id="truncated"),
        pytest.param(says(_answer("pass")), UnparseableAnswerError, id="wrong-enum"),
        pytest.param(says("This does not pass."), UnparseableAnswerError, id="plain-prose"),
        pytest.param(says("It passes, all criteria are met."), UnparseableAnswerError, id="plain-prose-yes"),
        pytest.param(says(None, refusal="I cannot look at it."), UnparseableAnswerError, id="refusal"),
        pytest.param(says("", finish_reason="content_filter"), UnparseableAnswerError, id="filtered"),
        pytest.param(says(UNEXPLAINED), UnparseableAnswerError, id="no-reason"),
        pytest.param(says(json.dumps(json.loads(GOOD) | {"x": 1})), UnparseableAnswerError, id="extra-key"),
        pytest.param(says(_answer(names=NAMES[1:])), UnparseableAnswerError, id="criterion-missing"),
        pytest.param(fails(500), ModelOutageError, id="server-error"),
        pytest.param(fails(429), ModelOutageError, id="rate-limit"),
        pytest.param(Reply(delay_s=SLOW_S), ModelOutageError, id="slow"),
        pytest.param(fails(401), ModelAccessError, id="key"),
    ],
)
def test_no_opinion_is_no_verdict(reply: Reply, error: type[MaskwrightError]) -> None:
    with serve_script(reply) as server:
        judge = _judge(server, {"max_retries": 0, "timeout_s": 0.3 if reply.delay_s else 10})
        with pytest.raises(error):
            judge.judge(_cutout(), "bolt")


def _takes_at_most(num_bytes: int) -> Callable[[dict[str, Any]], Reply]:
    def reply(body: dict[str, Any]) -> Reply:
        return says(GOOD) if len(_content(body)[2]) <= num_bytes else fails(400, "image exceeds the maximum size")

    return reply


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        pytest.param([fails(400, "content_policy_violation")], "content_policy_violation", id="content-policy"),
        pytest.param([_takes_at_most(100_000)], "exceeds the maximum size", id="too-large"),
        pytest.param([fails(400, "response_format"), fails(400, "unsafe")], "unsafe", id="form-then-picture"),
    ],
)
def test_a_refused_picture_is_abstained_from(replies: list[Reply], message: str) -> None:
    with serve_script(*replies) as server:
        opinion = _judge(server).judge(_noise(300, 400), "bolt")
    assert {(c.outcome, c.score) for c in opinion.criteria} == {("abstain", 0.0)}
    assert [c.name for c in opinion.criteria] == NAMES
    assert all(message in c.reason and len(c.reason) <= 300 for c in opinion.criteria)
    assert (opinion.rung, opinion.description, opinion.calls) == ("refused", "", len(server.requests))
    assert message in opinion.raw_text


def test_a_known_size_limit_is_kept() -> None:
    with serve_script(_takes_at_most(100_000)) as server:
        opinion = _judge(server, max_image_bytes=100_000).judge(_noise(300, 400), "bolt")
    assert opinion.verdict.accepted
    assert _content(server.requests[0])[1] == "image/jpeg"


def test_what_a_provider_lacks_is_asked_for_once() -> None:
    with serve_script(fails(400, "response_format"), fails(400, "tools"), says(GOOD)) as server:
        judge = _judge(server)
        opinions = [judge.judge(_cutout(), category) for category in ("bolt", "nut")]
    assert server.forms == ["json_schema", "tool_calling", "plain", "plain"]
    assert [opinion.calls for opinion in opinions] == [3, 1]


def test_criteria_may_be_named_like_anything() -> None:
    criteria = [CriterionSettings(name=name, question="It is a {category} {x}.") for name in ("copy", "schema")]
    with serve_script(says(_answer(names=["copy", "schema"]))) as server:
        opinion = _judge(server, criteria=criteria).judge(_cutout(), "bolt {y}")
    assert opinion.verdict.accepted
    assert "- copy: It is a bolt {y} {x}." in _content(server.requests[0])[0]
    taken = [CriterionSettings(name="description", question="It holds.")]
    with pytest.raises(RecipeError, match="another name under"):
        _judge(server, criteria=taken)


def test_the_version_tells_what_is_asked() -> None:
    with serve_script(says(GOOD)) as server:
        judge = _judge(server)
    changed = [
        replace(judge, question=judge.question + " Be strict."),
        replace(judge, criteria=judge.criteria[1:]),
        replace(judge, max_side_px=512),
        replace(judge, max_image_bytes=10_000),
    ]
    assert len({judge.version, *(other.version for other in changed)}) == 5
    assert replace(judge, name="openai:other", max_repairs=3).version == judge.version


def test_two_judges_ask_the_same() -> None:
    llm = {"judge": "openai:a", "second_judge": "openai:b"}
    models = {role: {"model": name, "base_url": "http://127.0.0.1:9/v1"} for role, name in llm.items()}
    first, second = build_judges(LLMSettings.model_validate(models), ValidationSettings(), 3)
    assert (first.name, second.name, first.version) == ("openai:a", "openai:b", second.version)
    assert build_judges(LLMSettings(), ValidationSettings(prompt="no such file"), 3) == ()


# -- how a picture is shown


@pytest.mark.parametrize(
    ("picture", "max_side_px", "max_bytes", "mime", "size_wh"),
    [
        pytest.param(_cutout(), 768, 10_000, "image/png", (64, 48), id="small-stays"),
        pytest.param(_cutout(), 32, 10_000, "image/png", (32, 24), id="shrunk"),
        pytest.param(np.rot90(_cutout()), 32, 10_000, "image/png", (24, 32), id="shrunk-upright"),
        pytest.param(_noise(4, 800), 100, 10_000, "image/png", (100, 1), id="very-wide"),
        pytest.param(_noise()[..., :3], 768, 20_000, "image/png", (64, 48), id="rgb"),
        pytest.param(_noise(300, 400), 768, 120_000, "image/jpeg", (400, 300), id="jpeg"),
        pytest.param(_noise(300, 400), 768, 20_000, "image/jpeg", (225, 169), id="jpeg-and-smaller"),
    ],
)
def test_showing(picture: ImageRGBA, max_side_px: int, max_bytes: int, mime: str, size_wh: tuple[int, int]) -> None:
    encoded, shown_as = show_picture(picture, max_side_px, max_bytes)
    assert (shown_as, Image.open(BytesIO(encoded)).size) == (mime, size_wh)
    assert len(encoded) <= max_bytes


def test_soft_edges_mix_with_grey() -> None:
    soft = np.full((HEIGHT, WIDTH, 4), (200, 0, 50, 128), np.uint8)
    pixels = np.asarray(Image.open(BytesIO(show_picture(soft, 64, 10_000)[0])))
    assert np.abs(pixels.astype(int) - (163, 63, 88)).max() <= 1


@pytest.mark.parametrize(
    ("picture", "max_bytes"),
    [
        pytest.param(np.zeros((HEIGHT, WIDTH), np.uint8), 10_000, id="no-channels"),
        pytest.param(np.zeros((HEIGHT, WIDTH, 4), np.float32), 10_000, id="floats"),
        pytest.param(np.zeros((0, WIDTH, 4), np.uint8), 10_000, id="empty"),
        pytest.param(_cutout(), 10, id="no-room"),
    ],
)
def test_what_cannot_be_shown(picture: ImageRGBA, max_bytes: int) -> None:
    with pytest.raises(SampleError, match=r"cannot be shown|max_image_bytes"):
        show_picture(picture, 64, max_bytes)


# -- the question


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Is it a {category}?\n{criteria}\n", id="plain"),
        pytest.param("---\nscore: 0.9\nnote: '{x} ---'\n---\nIs it a {category}?\n{criteria}\n", id="front-matter"),
        pytest.param("\ufeff---\r\nscore: 0.9\r\n---\r\nIs it a {category}?\r\n{criteria}", id="windows"),
    ],
)
def test_a_question_of_the_users(text: str, tmp_path: Path) -> None:
    path = tmp_path / "häufige frage.md"
    path.write_text(text, encoding="utf-8", newline="")
    assert load_question(str(path)) == "Is it a {category}?\n{criteria}"
    with serve_script(says(GOOD)) as server:
        _judge(server, prompt=str(path)).judge(_cutout(), "bolt")
    assert _content(server.requests[0])[0].startswith("Is it a bolt?\n- right_category: The object is a bolt,")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("Is it a {category}?", r"lacks the placeholder \{criteria\}", id="lacks-one"),
        pytest.param(
            "---\na: '{category} {criteria}'\n---\n", r"lacks the placeholder \{category\}, \{criteria\}", id="no-body"
        ),
        pytest.param("{category} {criteria} {reason}", r"unknown placeholder \{reason\}", id="unknown"),
        pytest.param("{category} {criteria} {category.x}", r"unknown placeholder \{category.x\}", id="attribute"),
        pytest.param("{category} {criteria} {}", r"unknown placeholder \{\}", id="unnamed"),
        pytest.param("{category:d} {category} {criteria}", "has a format", id="format"),
        pytest.param('{category} {criteria} {"a": 1}', "unknown placeholder", id="json"),
        pytest.param("{category} {criteria} {", "do not pair", id="open-brace"),
    ],
)
def test_a_question_that_cannot_be_asked(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "frage ü.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=message):
        load_question(str(path))


def test_a_question_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes(b"\xff{category} {criteria}")
    for prompt in ("judgee", str(tmp_path), str(tmp_path / "latin.md")):
        with pytest.raises(RecipeError, match="cannot be read"):
            load_question(prompt)


def test_the_built_in_question_can_be_asked(tmp_path: Path) -> None:
    copy = tmp_path / "copy.md"
    copy.write_text(load_question("judge"), encoding="utf-8")
    assert load_question(str(copy)) == load_question("judge")
