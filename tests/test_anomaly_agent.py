"""The anomaly agent: the loop by fixed policy and by a model that calls tools, its rules, its trajectory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from anomaly_helpers import HIGH, LOW, Bench, ScriptedDefects, ScriptedQuality, knowledge, square, tile
from chat_server import Reply, calls, fails, says, serve_script

from maskwright.configs.anomaly import ProceduralSettings
from maskwright.configs.anomaly_agent import AnomalyAgentSettings, Outline
from maskwright.errors import ImageDecodeError, ModelOutageError, UnparseableAnswerError
from maskwright.graphs.anomaly_agent import build_anomaly_agent_graph
from maskwright.graphs.anomaly_chat import ChatDecider
from maskwright.graphs.anomaly_planner import PlanDrawer, family_of, json_to_plan, plan_to_json, plan_to_prompt
from maskwright.graphs.anomaly_services import AnomalyServices
from maskwright.graphs.anomaly_state import AnomalyState
from maskwright.memory.knowledge_notes import Shape
from maskwright.memory.knowledge_search import DefectKnowledge
from maskwright.models.language import build_chat_model
from maskwright.tools.defects import Edited, EditRequest
from maskwright.tools.painting.procedural.painter import ProceduralPainter

GOLDEN = Path(__file__).parent / "golden"


def called(state: AnomalyState) -> list[str]:
    """Short names of the tools, in the order of their calls."""
    short = {"prompt": "PG", "image": "IG", "quality": "QE", "knowledge": "KR", "mask": "MG"}
    names = [str(message["name"]) for message in state["messages"] if message["role"] == "tool"]
    return [short.get(name.split("_")[0], name) for name in names]


def test_the_graph_is_drawn_as_documented() -> None:
    drawing = build_anomaly_agent_graph().get_graph().draw_mermaid()
    assert drawing == (GOLDEN / "anomaly_agent.mermaid").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scores", "order", "ending"),
    [
        pytest.param([HIGH], "PG IG QE MG", "accepted", id="at once"),
        pytest.param([LOW, HIGH], "PG IG QE KR IG QE MG", "accepted", id="after a look-up"),
        pytest.param([LOW, LOW, HIGH], "PG IG QE KR IG QE IG QE MG", "accepted", id="looked up once"),
        pytest.param([LOW], "PG IG QE KR IG QE IG QE IG QE", "exhausted", id="never"),
    ],
)
def test_the_fixed_policy(scores: list[Any], order: str, ending: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, judge=ScriptedQuality(scores))
    state = bench.make()
    assert (called(state), state["ending"]) == (order.split(), ending)
    assert state["flags"] == []
    assert bool(bench.looked_up) == ("KR" in order)


def test_every_edit_starts_from_the_normal_image_and_judges_see_the_edit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, judge=ScriptedQuality([LOW, LOW, HIGH]))
    state = bench.make()
    assert len(bench.painter.requests) == 3
    assert all((request.image_rgb == tile(0)).all() for request in bench.painter.requests)
    for seen, edit in zip(bench.judge.seen, state["edits"], strict=True):
        assert (seen == bench.artifacts.get_image(edit["artifact"])[..., :3]).all()
        assert (seen != tile(0)).any()
    assert len({edit["seed"] for edit in state["edits"]}) == 3


def test_a_low_score_changes_the_plan_by_review_and_knowledge(tmp_path: Path) -> None:
    state = Bench(tmp_path, judge=ScriptedQuality([LOW, HIGH])).make()
    first, second = (edit["plan"] for edit in state["edits"])
    assert second["severity"] > first["severity"]
    assert second["severity"] >= knowledge().ranges["severity"][0]
    assert knowledge().ranges["size_ratio"][0] <= second["size_ratio"] <= knowledge().ranges["size_ratio"][1]


@pytest.mark.parametrize(
    ("is_guess", "is_within"),
    [pytest.param(False, True, id="known"), pytest.param(True, False, id="guessed: the name says more")],
)
def test_a_first_plan_may_be_drawn_within_what_is_known(is_guess: bool, is_within: bool, tmp_path: Path) -> None:
    class Knowing(Bench):
        def look_up(self, defect: str) -> DefectKnowledge:
            return replace(super().look_up(defect), is_guess=is_guess)

    low, high = knowledge().ranges["size_ratio"]
    sizes = []
    for slot in range(8):
        bench = Knowing(tmp_path, settings=AnomalyAgentSettings(plan_by="knowledge"))
        state = bench.make(slot=slot)
        assert called(state) == ["PG", "IG", "QE", "MG"]
        sizes.append(state["edits"][0]["plan"]["size_ratio"])
    assert all(low <= size <= high for size in sizes) is is_within
    assert len(set(sizes)) == 8


def test_the_final_mask_ends_where_it_was_asked_to(tmp_path: Path) -> None:
    class Drawn(Bench):
        def services(self) -> AnomalyServices:
            return replace(super().services(), paint=ProceduralPainter(ProceduralSettings()).paint)

    shares: dict[Outline, float] = {}
    for outline in get_args(Outline):
        bench = Drawn(tmp_path / outline, settings=AnomalyAgentSettings(outline=outline))
        [edit] = bench.make()["edits"]
        rgb = bench.artifacts.get_image(edit["artifact"])[..., :3]
        changed, mask = (rgb != tile(0)).any(axis=2), bench.artifacts.get_image(edit["mask"])[..., 0] > 127
        shares[outline] = float((changed & mask).sum() / changed.sum())
    assert shares["changed"] == 1
    assert 0.2 < shares["half_height"] < 0.95


def test_without_the_loop_the_first_edit_is_taken(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settings=AnomalyAgentSettings(loop=False), judge=ScriptedQuality([LOW]))
    state = bench.make()
    assert (called(state), state["ending"]) == (["PG", "IG", "MG"], "accepted")
    assert not bench.judge.seen


def test_the_trajectory_is_what_trl_trains_on(tmp_path: Path) -> None:
    state = Bench(tmp_path, judge=ScriptedQuality([LOW, HIGH])).make()
    messages = json.loads(json.dumps(state["messages"]))
    assert [message["role"] for message in messages[:3]] == ["user", "assistant", "tool"]
    answered = {message["tool_call_id"]: message["name"] for message in messages if message["role"] == "tool"}
    asked = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls", [])}
    assert asked == answered
    assert all(json.loads(m["content"]) is not None for m in messages if m["role"] == "tool")
    scores = [json.loads(m["content"])["location"] for m in messages if m.get("name") == "quality_evaluation"]
    assert scores == [1.0, 4.0]
    assert messages[-1]["content"] == "Done."


def test_the_same_item_again_is_the_same(tmp_path: Path) -> None:
    first = Bench(tmp_path / "a", judge=ScriptedQuality([LOW, HIGH])).make()
    second = Bench(tmp_path / "b", judge=ScriptedQuality([LOW, HIGH])).make()
    assert first["edits"] == second["edits"]
    assert Bench(tmp_path / "c").make(slot=1)["edits"][0]["plan"] != first["edits"][0]["plan"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(lambda request: square(request, nothing=True), "changed nothing", id="nothing"),
        pytest.param(lambda request: square(request, everywhere=True), "pixels outside the mask changed", id="all"),
    ],
)
def test_an_edit_of_nothing_or_of_everything_is_no_sample(script: Any, reason: str, tmp_path: Path) -> None:
    state = Bench(tmp_path, painter=ScriptedDefects(script)).make()
    assert state["ending"] == "exhausted"
    assert reason in state["reason"]


def test_a_painter_that_does_not_know_its_mask_gets_it_from_the_difference(tmp_path: Path) -> None:
    bench = Bench(tmp_path, painter=ScriptedDefects(lambda request: square(request, known=False)))
    [edit] = bench.make()["edits"]
    mask = bench.artifacts.get_image(edit["mask"])[..., 0] > 127
    true = square(bench.painter.requests[0]).mask_hw
    assert true is not None
    assert (mask & true).sum() / (mask | true).sum() > 0.9


def test_an_unusable_normal_image_costs_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, image_error=ImageDecodeError("broken.png"))
    state = bench.make()
    assert (state["ending"], bench.painter.requests) == ("exhausted", [])
    assert "broken.png" in state["reason"]


@pytest.mark.parametrize(
    ("scores", "ending"),
    [
        pytest.param([ModelOutageError("down"), HIGH], "accepted", id="an outage is tried again"),
        pytest.param([ModelOutageError("down")], "failed", id="a lasting outage is no verdict"),
        pytest.param([UnparseableAnswerError("pass")], "failed", id="nor is nonsense"),
    ],
)
def test_a_judge_outage_in_the_middle(scores: list[Any], ending: str, tmp_path: Path) -> None:
    assert Bench(tmp_path, judge=ScriptedQuality(scores)).make()["ending"] == ending


def decide_by(bench: Bench, base_url: str) -> ChatDecider:
    model = build_chat_model("openai:agent", base_url=base_url, max_retries=0)
    return ChatDecider(
        model=model,
        name="openai:agent",
        settings=bench.settings,
        artifacts=bench.artifacts,
        max_side_px=64,
        max_image_bytes=100_000,
    )


def order(*names: str, **arguments: str) -> list[Reply]:
    return [calls(name, arguments.get(name, "{}")) for name in names]


STRAIGHT = ("prompt_generation", "image_generation", "quality_evaluation", "mask_generation")


def test_a_model_that_calls_tools_sees_the_edits(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with serve_script(*order(*STRAIGHT, image_generation='{"severity": 0.9}'), says("done")) as server:
        bench.decider = decide_by(bench, server.base_url)
        state = bench.make()
    assert (called(state), state["ending"], state["flags"]) == (["PG", "IG", "QE", "MG"], "accepted", [])
    assert state["edits"][0]["plan"]["severity"] == 0.9
    pictures = [
        sum(
            part.get("type") == "image_url"
            for m in body["messages"]
            if isinstance(m["content"], list)
            for part in m["content"]
        )
        for body in server.requests
    ]
    assert pictures == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("replies", "refused"),
    [
        pytest.param(order("image_generation"), "call prompt_generation first", id="no plan"),
        pytest.param(order("prompt_generation", "prompt_generation"), "comes once, first", id="planned twice"),
        pytest.param(order("prompt_generation", "mask_generation"), "after an edit that passed", id="mask too early"),
        pytest.param(
            order("prompt_generation", "knowledge_retrieval"), "comes after a low score", id="looked up early"
        ),
        pytest.param(order("prompt_generation", "quality_evaluation"), "there is no edit yet", id="nothing to judge"),
        pytest.param(order("web_search"), "there is no tool 'web_search'", id="unknown tool"),
        pytest.param(
            order("prompt_generation", "image_generation", image_generation='{"severity": 7}'),
            "severity: Input should be less than or equal to 1",
            id="out of range",
        ),
        pytest.param(
            order("prompt_generation", "image_generation", image_generation='{"centre_xy": [7.5, 0.5]}'),
            "centre_xy.0: Input should be less than or equal to 1",
            id="a place outside the object",
        ),
    ],
)
def test_calls_out_of_order_are_refused_with_a_message(replies: list[Reply], refused: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    done = [] if any("prompt_generation" in reply.body for reply in replies) else ["prompt_generation"]
    with serve_script(*replies, *order(*done, *STRAIGHT[1:]), says("done")) as server:
        bench.decider = decide_by(bench, server.base_url)
        state = bench.make()
    assert state["ending"] == "accepted"
    [flag] = state["flags"]
    assert refused in flag["reason"]
    answers = [json.loads(m["content"]) for m in state["messages"] if m["role"] == "tool"]
    assert {"error": flag["reason"]} in answers


def test_a_model_is_told_that_its_place_is_off_the_object_and_takes_another(tmp_path: Path) -> None:
    """The object is a frame around a hole."""
    painter, object_hw = ProceduralPainter(ProceduralSettings()), np.ones(tile().shape[:2], np.bool_)
    object_hw[8:40, 12:52] = False

    def paint(request: EditRequest) -> Edited:
        return painter.paint([replace(request, foreground_hw=object_hw)])[0]

    bench = Bench(tmp_path, painter=ScriptedDefects(paint), judge=ScriptedQuality([LOW, HIGH]))
    plans = ['{"centre_xy": [0.5, 0.5], "size_ratio": 0.05}', '{"centre_xy": [0.05, 0.5], "severity": 1.0}']
    edits = [reply for plan in plans for reply in order(*STRAIGHT[1:3], image_generation=plan)]
    with serve_script(*order("prompt_generation"), *edits, *order("mask_generation"), says("done")) as server:
        bench.decider = decide_by(bench, server.base_url)
        state = bench.make()
    assert state["ending"] == "accepted"
    told = [json.loads(m["content"])["flaw"] for m in state["messages"] if m.get("name") == "image_generation"]
    assert "px off the object" in told[0]
    assert "give a place on it" in told[0]
    assert told[1] == ""
    assert [bool(edit["mask"]) for edit in state["edits"]] == [False, True]


def test_a_model_that_only_errs_is_stopped(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settings=AnomalyAgentSettings(max_illegal_calls=2))
    with serve_script(*order("mask_generation")) as server:
        bench.decider = decide_by(bench, server.base_url)
        state = bench.make()
    assert (state["ending"], len(state["flags"]), len(server.requests)) == ("exhausted", 3, 4)


def test_a_model_that_stops_calling_ends_without_an_image(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with serve_script(*order("prompt_generation"), says("I think that is enough")) as server:
        bench.decider = decide_by(bench, server.base_url)
        assert bench.make()["ending"] == "exhausted"


def test_an_outage_of_the_model_fails_the_item(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with serve_script(*order("prompt_generation"), fails(500)) as server:
        bench.decider = decide_by(bench, server.base_url)
        assert bench.make()["ending"] == "failed"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("blowhole", "hole"),
        ("MT_Crack", "crack"),
        ("broken_large", "chip"),
        ("Fray", "thread"),
        ("color", "discolouration"),
        ("scratch_head", "scratch"),
        ("anything", "contamination"),
    ],
)
def test_a_defects_name_says_its_family(name: str, family: str) -> None:
    assert family_of(name) == family


def test_a_plan_is_drawn_near_one_defect_that_was_seen() -> None:
    """A long light one at the left border, and a small dark one in the middle."""
    seen = (
        Shape(size_ratio=0.2, elongation=30, orientation_deg=90, centre_xy=(0.02, 0.5), contrast=0.1),
        Shape(size_ratio=0.05, elongation=1.2, orientation_deg=0, centre_xy=(0.5, 0.5), contrast=-0.3),
    )
    known = replace(knowledge(), shapes=seen)
    plans = [PlanDrawer((0.3, 0.8)).draw("blowhole", seed, known) for seed in range(200)]
    long, small = ([plan for plan in plans if plan.tone == tone] for tone in ("lighter", "darker"))
    assert len(long) + len(small) == 200
    assert 70 < len(long) < 130
    assert all(0.1 < plan.size_ratio < 0.35 and plan.elongation > 15 and plan.centre_xy[0] < 0.25 for plan in long)
    assert all(65 < plan.orientation_deg < 115 and plan.centre_xy[0] >= 0 for plan in long)
    assert all(0.03 < plan.size_ratio < 0.09 and 1 <= plan.elongation < 2.2 for plan in small)
    assert len({plan.size_ratio for plan in plans}) == 200
    assert plan_to_json(json_to_plan(plan_to_json(long[0]))) == plan_to_json(long[0])
    assert "lighter than around it" in plan_to_prompt(long[0], "tile")


def test_plans_survive_json_and_name_their_place() -> None:
    plan = PlanDrawer((0.3, 0.8)).draw("crack", 5)
    assert plan_to_json(json_to_plan(plan_to_json(plan))) == plan_to_json(plan)
    assert 0.3 <= plan.severity <= 0.8
    prompt = plan_to_prompt(plan, "tile")
    assert "crack" in prompt and "Change only this place" in prompt  # noqa: PT018  # one sentence
    places = np.array([PlanDrawer((0.3, 0.8)).draw("crack", seed).centre_xy for seed in range(300)])
    assert places.min() < 0.05 < 0.95 < places.max()
