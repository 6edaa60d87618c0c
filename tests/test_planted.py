"""Bad pictures planted on purpose, and the judges that they find out, asked over loopback."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from chat_server import ChatServer, Reply, fails, says, serve_script
from PIL import Image

from maskwright.configs.llm import LLMSettings
from maskwright.configs.validation import CRITERIA, CriterionSettings, Kind, ValidationSettings
from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.errors import BrokenRunError, ModelOutageError
from maskwright.graphs.judges import build_judges, check_judge
from maskwright.graphs.planted import KINDS, Planted, plant
from maskwright.tools.judging.shown import GREY
from maskwright.tools.judging.vision import ChatVisionJudge

HEIGHT, WIDTH = 48, 64
RED, BLUE = (200, 30, 40), (30, 60, 200)
COLOURS = {"hex bolt": RED, "Mutter ö": BLUE}
CUT_OUT = [criterion.name for criterion in CRITERIA["cut_out"]]


def _cutout(category: str) -> ImageRGBA:
    rgba = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    cv2.ellipse(rgba, (30, 24), (25, 18), 0, 0, 360, (*COLOURS[category], 255), -1)
    return rgba


SOURCES = [(_cutout("hex bolt"), "hex bolt"), (_cutout("Mutter ö"), "Mutter ö")]


def _plant(count: int, kind: Kind = "cut_out", seed: int = 3) -> list[Planted]:
    return plant(SOURCES, count, CRITERIA[kind], seed)


def _judge(server: ChatServer) -> ChatVisionJudge:
    model = {"model": "openai:eye", "base_url": server.base_url, "max_retries": 0}
    [judge] = build_judges(LLMSettings.model_validate({"judge": model}), ValidationSettings(), 3)
    return judge


def _answer(failed: dict[str, str]) -> Reply:
    judged = {
        name: {"outcome": "fail" if name in failed else "meet", "reason": failed.get(name, "")} for name in CUT_OUT
    }
    return says(json.dumps({"description": "what it is", **judged}))


def _look(body: dict[str, Any]) -> Reply:
    """Answer by what is in the picture: objects are what is not grey, and their class is their colour."""
    text, picture = body["messages"][0]["content"]
    encoded = picture["image_url"]["url"].partition("base64,")[2]
    return _answer(_see(np.asarray(Image.open(BytesIO(base64.b64decode(encoded)))), text["text"]))


def _see(rgb: ImageRGB, question: str) -> dict[str, str]:
    mask = np.abs(rgb.astype(int) - GREY).max(axis=2) > 20
    num_objects = cv2.connectedComponents(mask.astype(np.uint8))[0] - 1
    if num_objects == 0:
        return {"right_category": "there is nothing"}
    failed = {}
    category = "hex bolt" if "is a hex bolt," in question else "Mutter ö"
    if np.abs(rgb[mask].mean(axis=0) - COLOURS[category]).max() > 20:
        failed["right_category"] = "it has another colour"
    if num_objects == 2:
        failed["single_object"] = "there are two"
    on_border = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
    if num_objects > 2 or on_border:
        failed["intact"] = "a part is missing"
    return failed


def test_an_honest_judge_passes() -> None:
    planted = _plant(10)
    with serve_script(_look) as server:
        judge = _judge(server)
        check = check_judge(judge, planted, 1.0)
        whole = [judge.judge(np.pad(rgba, ((9, 9), (9, 9), (0, 0))), category) for rgba, category in SOURCES]
    assert all(opinion.verdict.accepted for opinion in whole)
    told = {"wrong category": "it has another colour", "two objects": "there are two", "nothing at all": "nothing"}
    for bad, opinion in check.answers:
        assert opinion is not None
        [reason] = [criterion.reason for criterion in opinion.verdict.rejections]
        assert told.get(bad.kind, "a part is missing") in reason
    assert Counter(bad.kind for bad in planted) == dict.fromkeys(KINDS, 2)
    assert check.caught_share == 1
    entry = check.to_entry()
    assert (entry["judge"], entry["version"], entry["calls"], entry["input_tokens"]) == (
        "openai:eye",
        judge.version,
        10,
        70,
    )
    assert [planted["kind"] for planted in entry["planted"]] == [bad.kind for bad in planted]
    json.dumps(entry)


def test_a_judge_that_always_says_yes_is_found_out() -> None:
    with serve_script(_answer({})) as server, pytest.raises(BrokenRunError) as caught:
        check_judge(_judge(server), _plant(6), 0.5)
    message = str(caught.value)
    assert "'openai:eye' accepted 6 of 6 pictures" in message
    assert re.search(r"wrong category \(2\), two objects \(1\).*`llm.judge`.*`validation.planted: 0`", message)


@pytest.mark.parametrize(
    ("num_yes", "is_trusted"), [pytest.param(2, True, id="just-enough"), pytest.param(3, False, id="one-too-many")]
)
def test_some_may_slip_through(num_yes: int, is_trusted: bool) -> None:
    no = _answer({"intact": "no"})
    with serve_script(*[_answer({})] * num_yes, no) as server:
        judge = _judge(server)
        if is_trusted:
            assert check_judge(judge, _plant(4), 0.5).accepted == ["wrong category", "two objects"]
        else:
            with pytest.raises(BrokenRunError, match="accepted 3 of 4"):
                check_judge(judge, _plant(4), 0.5)


@pytest.mark.parametrize(
    ("replies", "error", "message"),
    [
        pytest.param([fails(400, "no images here")], BrokenRunError, "no images here", id="takes-no-picture"),
        pytest.param([says("It is fine.")], BrokenRunError, "no answer of it fits", id="knows-no-schema"),
        pytest.param([fails(503)], ModelOutageError, "503", id="outage"),
    ],
)
def test_a_judge_without_an_opinion(replies: list[Reply], error: type[Exception], message: str) -> None:
    with serve_script(*replies) as server, pytest.raises(error, match=message):
        check_judge(_judge(server), _plant(2), 0.0)


def test_one_refusal_counts_as_caught() -> None:
    refuse_once: list[Reply | Callable[[dict[str, Any]], Reply]] = [fails(400, "unsafe")] * 3
    with serve_script(*refuse_once, _look) as server:
        check = check_judge(_judge(server), _plant(2), 1.0)
    assert [opinion and opinion.rung for _, opinion in check.answers] == ["refused", "json_schema"]


def test_nothing_planted_is_nothing_asked() -> None:
    with serve_script(fails(500)) as server:
        check = check_judge(_judge(server), [], 1.0)
    assert (check.caught_share, server.requests) == (1.0, [])


@pytest.mark.parametrize(
    ("criteria", "kinds"),
    [
        pytest.param(CRITERIA["cut_out"], set(KINDS), id="cut_out"),
        pytest.param(CRITERIA["edit"], set(KINDS) - {"cut in half"}, id="edit"),
        pytest.param(CRITERIA["scene"], set(), id="scene"),
        pytest.param(
            [CriterionSettings(name="intact", question="It is whole.")], {"cut in half", "fragments"}, id="own"
        ),
        pytest.param([CriterionSettings(name="pretty", question="It is nice.")], set(), id="unknown"),
    ],
)
def test_only_what_a_criterion_sees_is_planted(criteria: tuple[CriterionSettings, ...], kinds: set[str]) -> None:
    planted = plant(SOURCES, 7, criteria, 3)
    assert {bad.kind for bad in planted} == kinds
    assert len(planted) == (7 if kinds else 0)


def test_planting_follows_the_seed() -> None:
    first, again, other = _plant(10), _plant(15), _plant(10, seed=4)
    for bad, same in zip(first, again, strict=False):
        assert (bad.kind, bad.category) == (same.kind, same.category)
        assert np.array_equal(bad.picture, same.picture)
    assert any(not np.array_equal(one.picture, two.picture) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize(
    "sources",
    [
        pytest.param(SOURCES[:1], id="one-class"),
        pytest.param([(_cutout("hex bolt"), "hex bolt"), (_cutout("Mutter ö"), "Hex_bolt")], id="one-class-twice"),
    ],
)
def test_one_class_has_no_wrong_name(sources: list[tuple[ImageRGBA, str]]) -> None:
    planted = plant(sources, 8, CRITERIA["cut_out"], 3)
    assert {bad.kind for bad in planted} == set(KINDS) - {"wrong category"}
    assert {bad.category for bad in planted} <= {category for _, category in sources}


@pytest.mark.parametrize(
    "rgba",
    [
        pytest.param(np.zeros((HEIGHT, WIDTH, 4), np.uint8), id="empty"),
        pytest.param(_cutout("hex bolt")[20:28], id="tiny"),
    ],
)
def test_what_shows_nothing_is_not_spoilt(rgba: ImageRGBA) -> None:
    assert plant([(rgba, "hex bolt")], 4, CRITERIA["cut_out"], 3) == []
    with_a_good_one = plant([(rgba, "hex bolt"), SOURCES[1]], 4, CRITERIA["cut_out"], 3)
    assert {bad.category for bad in with_a_good_one} == {"Mutter ö"}
