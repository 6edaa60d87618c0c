"""The judge that looks, through langchain-openai's own client, against a server on loopback that gets real pictures."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, Reply, calls, fails, says, serve_script
from langchain_openai import ChatOpenAI
from PIL import Image

from maskwright.data.records import MaskHW
from maskwright.errors import MaskwrightError, ModelAccessError, ModelOutageError, UnparseableAnswerError
from maskwright.tools.defects import DefectPlan, Edited, EditRequest, QualityJudge
from maskwright.tools.judging.defect_quality import HINTS, RAISE_SEVERITY, SMALLER, hints_of
from maskwright.tools.judging.defect_vision import VisionQualityJudge

HEIGHT, WIDTH = 48, 64
DEFECT = np.s_[20:30, 40:52]
BLUE = (20, 40, 190)
QUESTION = "Is it a {defect}? Planned: {plan}. Use these words:\n{hints}"


def _mask() -> MaskHW:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[DEFECT] = True
    return mask


def _request() -> EditRequest:
    plan = DefectPlan(defect="Riß {x}", family="missing_part", centre_xy=(0.72, 0.5), size_ratio=0.2)
    grey = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    return EditRequest(item_id="a", seed=1, plan=plan, image_rgb=grey, foreground_hw=np.ones_like(_mask()))


def _edited() -> Edited:
    rgb = _request().image_rgb.copy()
    rgb[DEFECT] = BLUE
    return Edited(rgb, None, {})


def _answer(location: object = 4, quality: object = 3, review: str = "fine") -> str:
    return json.dumps({"location": location, "quality": quality, "review": review})


GOOD = _answer()
BAD = _answer(1, 2, f"{RAISE_SEVERITY}, it is faint;\n {SMALLER}")


def _judge(server: ChatServer, **changes: Any) -> VisionQualityJudge:
    model = ChatOpenAI(model="eye", base_url=server.base_url, api_key="k", max_retries=0, timeout=10)
    settings: dict[str, Any] = {"max_repairs": 1, "max_side_px": 768, "max_image_bytes": 100_000}
    return VisionQualityJudge(model=model, name="openai:eye", question=QUESTION, **(settings | changes))


def _parts(body: dict[str, Any]) -> tuple[str, list[Image.Image]]:
    parts = body["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    pictures = [Image.open(BytesIO(base64.b64decode(url.partition(",")[2], validate=True))) for url in urls]
    return "\n".join(part["text"] for part in parts if part["type"] == "text"), pictures


def test_original_edit_and_crop_are_shown() -> None:
    with serve_script(says(BAD)) as server:
        judge: QualityJudge = _judge(server)
        quality = judge.judge(_request(), _edited(), _mask())
    text, (original, edited, crop) = _parts(server.requests[0])
    assert "Is it a Riß {x}? Planned: missing part, middle right of the object, about 20% of its side" in text
    assert all(f"- {hint}" in text for hint in HINTS)
    np.testing.assert_array_equal(np.asarray(original), _request().image_rgb)
    np.testing.assert_array_equal(np.asarray(edited), _edited().rgb)
    assert max(crop.size) >= 256
    assert crop.getpixel((crop.width // 2, crop.height // 2)) == BLUE
    assert crop.getpixel((0, 0)) == (120, 120, 120)
    assert (quality.location, quality.quality, quality.passes) == (1, 2, False)
    assert "\n" not in quality.review
    assert hints_of(quality.review) == {RAISE_SEVERITY, SMALLER}
    assert quality.measures == {"calls": 1, "input_tokens": 7, "output_tokens": 5}


@pytest.mark.parametrize(
    ("replies", "scores"),
    [
        pytest.param([says(GOOD)], (4, 3), id="passes"),
        pytest.param([says(f"<think>Hm.</think>\n```json\n{GOOD}\n```")], (4, 3), id="fence-and-thoughts"),
        pytest.param([fails(400, "response_format"), calls("RubricAnswer", GOOD)], (4, 3), id="tool"),
        pytest.param([says("pass"), says(GOOD)], (4, 3), id="pass-is-no-answer"),
        pytest.param([says(f"Look: {BAD}")], (1, 2), id="prose-around-a-rejection"),
        pytest.param([says(f"{GOOD} But it does not pass."), says(BAD)], (1, 2), id="prose-taken-back"),
        pytest.param([says(_answer(1, 2, "")), says(GOOD)], (1, 2), id="no-review-then-turned-round"),
        pytest.param([says(_answer(0, 9)), says(GOOD)], (0, 3), id="off-scale-then-turned-round"),
        pytest.param([says(_answer(True, 3)), says(GOOD)], (4, 3), id="truth-is-no-score"),
    ],
)
def test_what_an_answer_comes_to(replies: list[Reply], scores: tuple[int, int]) -> None:
    with serve_script(*replies) as server:
        quality = _judge(server).judge(_request(), _edited(), _mask())
    assert (quality.location, quality.quality) == scores
    assert quality.passes == (sum(scores) > 5)
    assert quality.measures["calls"] == len(server.requests)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param(says("pass"), UnparseableAnswerError, id="pass"),
        pytest.param(says('{"verdict": "pass"}'), UnparseableAnswerError, id="pass-in-json"),
        pytest.param(says(_answer("5", "5")), UnparseableAnswerError, id="scores-in-words"),
        pytest.param(says(_answer(6, 5)), UnparseableAnswerError, id="off-scale"),
        pytest.param(says(_answer(1, 1, " ")), UnparseableAnswerError, id="no-review"),
        pytest.param(says(f"Sure! {GOOD}"), UnparseableAnswerError, id="prose-around-a-pass"),
        pytest.param(says(None, refusal="I cannot."), UnparseableAnswerError, id="says-no"),
        pytest.param(fails(500), ModelOutageError, id="outage"),
        pytest.param(fails(401), ModelAccessError, id="key"),
    ],
)
def test_no_answer_is_no_score(reply: Reply, error: type[MaskwrightError]) -> None:
    with serve_script(reply) as server, pytest.raises(error):
        _judge(server).judge(_request(), _edited(), _mask())


def test_a_refused_picture_is_worth_nothing() -> None:
    with serve_script(fails(400, "content_policy_violation")) as server:
        quality = _judge(server).judge(_request(), _edited(), _mask())
    assert (quality.location, quality.quality) == (0, 0)
    assert "content_policy_violation" in quality.review
    assert quality.measures == {"calls": len(server.requests)}


@pytest.mark.parametrize(
    ("edited", "mask"),
    [
        pytest.param(Edited(_request().image_rgb, None, {}), _mask(), id="nothing"),
        pytest.param(_edited(), np.zeros_like(_mask()), id="no-mask"),
        pytest.param(replace(_edited(), flaw="blanked"), _mask(), id="flawed"),
        pytest.param(Edited(255 - _edited().rgb + 40, None, {}), _mask(), id="everything"),
    ],
)
def test_what_needs_no_look_costs_no_call(edited: Edited, mask: MaskHW) -> None:
    with serve_script(says(GOOD)) as server:
        quality = _judge(server).judge(_request(), edited, mask)
    assert (quality.total, server.requests) == (0, [])
    assert quality.review


def test_the_version_tells_what_is_asked() -> None:
    with serve_script(says(GOOD)) as server:
        judge = _judge(server)
    changed = [replace(judge, question="Well? {defect}"), replace(judge, max_side_px=512)]
    assert len({judge.version, *(other.version for other in changed)}) == 3
    assert replace(judge, name="openai:other").version == judge.version
