"""The validation agent inside the painters' graphs: measures first, judges next, a person where they differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from image_crew import ScriptedSourcePainter, textured
from image_crew import build_crew as build_image_crew
from image_crew import make as make_variants
from text_crew import build_crew, make
from text_helpers import ScriptedTextPainter, good, poor
from vision_helpers import BAD, GOOD, UNSURE, Answer, ScriptedJudge, build_validator, review_of, says

from maskwright.errors import BrokenRunError, ModelOutageError, UnparseableAnswerError
from maskwright.graphs.held import settle
from maskwright.graphs.validation_agent import build_validation_graph
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import Attempt, ItemResult
from maskwright.tools.protocols import Painted

GOLDEN = Path(__file__).parent / "golden"
Make = Callable[..., ItemResult]


def make_text(
    folder: Path, *judges: ScriptedJudge, painter: ScriptedTextPainter | None = None, **settings: object
) -> ItemResult:
    """One item of the T-Agent: two images a round, at most three rounds."""
    validator = build_validator(*judges, **settings)  # type: ignore[arg-type]
    [result] = make(build_crew(folder, painter or ScriptedTextPainter([good]), validator=validator))
    return result


def make_image(folder: Path, *judges: ScriptedJudge, **settings: object) -> ItemResult:
    """One item of the I-Agent: an image a round."""
    validator = build_validator(*judges, **settings)  # type: ignore[arg-type]
    painter = ScriptedSourcePainter(
        [lambda request: Painted(textured(len(request.item_id) + request.seed % 97), {})] * 5
    )
    [result] = make_variants(build_image_crew(folder / "artifacts", painter, validator=validator))
    return result


AGENTS = pytest.mark.parametrize("make_item", [make_text, make_image], ids=["text_agent", "image_agent"])


def test_the_graph_is_drawn_as_documented() -> None:
    drawing = build_validation_graph().get_graph().draw_mermaid()
    assert drawing == (GOLDEN / "validation_agent.mermaid").read_text(encoding="utf-8")


@AGENTS
@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        pytest.param(GOOD, "accepted", id="all met"),
        pytest.param(BAD, "exhausted", id="one fails"),
        pytest.param(UNSURE, "exhausted", id="one cannot be told"),
        pytest.param({}, "exhausted", id="no criterion answered at all"),
    ],
)
def test_only_what_meets_every_criterion_is_kept(tmp_path: Path, make_item: Make, answer: Answer, ending: str) -> None:
    judge = ScriptedJudge([answer])
    result = make_item(tmp_path, judge)
    if answer == {}:  # such a judge says nothing against it, and nothing for it
        assert all(not attempt["opinions"][0]["criteria"] for attempt in result["attempts"])
    assert result["ending"] == ending
    assert bool(result["instances"]) == (ending == "accepted")


@AGENTS
def test_opinions_and_what_they_cost_are_kept(tmp_path: Path, make_item: Make) -> None:
    judge = ScriptedJudge([BAD, GOOD])
    result = make_item(tmp_path, judge)
    [first, *_] = result["attempts"]
    [opinion] = first["opinions"]
    assert (opinion["judge"], opinion["version"], opinion["rung"]) == ("scripted", "judge-1", "json_schema")
    assert opinion["description"].startswith("a ")
    assert {c["name"]: c["outcome"] for c in first["criteria"]}["intact"] == "fail"
    assert "intact looks wrong" in [c["reason"] for c in first["criteria"]]
    assert result["cost"]["input_tokens"]["scripted"] == 10 * len(judge.seen)


def test_a_judge_sees_the_cut_out_and_the_class(tmp_path: Path) -> None:
    judge = ScriptedJudge()
    result = make_text(tmp_path, judge)
    store = ArtifactStore(tmp_path / "artifacts")
    assert [category for _, category in judge.seen] == ["bolt", "bolt"]
    for (picture, _), attempt in zip(judge.seen, result["attempts"], strict=True):
        assert (picture == store.get_image(attempt["artifact"])).all()


def test_what_the_measures_reject_costs_no_look(tmp_path: Path) -> None:
    judge = ScriptedJudge()
    result = make_text(tmp_path, judge, painter=ScriptedTextPainter([poor]))
    assert result["ending"] == "exhausted"
    assert not judge.seen
    assert all("opinions" not in attempt for attempt in result["attempts"])


def test_a_rejection_is_rethought_with_the_judges_reason(tmp_path: Path) -> None:
    result = make_text(tmp_path, ScriptedJudge([BAD, BAD, GOOD]))
    assert [one["num_kept"] for one in result["rounds"]] == [0, 2]
    assert "intact looks wrong" in result["rounds"][0]["reasons"]


@AGENTS
def test_where_two_judges_disagree_a_person_is_asked(tmp_path: Path, make_item: Make) -> None:
    result = make_item(tmp_path, ScriptedJudge([GOOD], "kind"), ScriptedJudge([BAD], "strict"))
    assert result["ending"] == "held"
    assert result["instances"] == []
    assert {attempt.get("held") for attempt in result["attempts"]} == {"disagreement"}
    assert "strict: intact looks wrong" in [c["reason"] for a in result["attempts"] for c in a["criteria"]]


@AGENTS
def test_two_judges_of_one_mind_need_nobody(tmp_path: Path, make_item: Make) -> None:
    assert make_item(tmp_path, ScriptedJudge([GOOD], "a"), ScriptedJudge([GOOD], "b"))["ending"] == "accepted"
    both_no = make_item(tmp_path, ScriptedJudge([BAD], "a"), ScriptedJudge([says(right_category="fail")], "b"))
    assert both_no["ending"] == "exhausted"
    unmet = {c["name"] for c in both_no["attempts"][0]["criteria"] if c["outcome"] != "meet"}
    assert unmet == {"intact", "right_category"}


@AGENTS
@pytest.mark.parametrize("judges", [(), (ScriptedJudge(),)], ids=["measures alone", "a judge"])
def test_the_audit_asks_a_person_about_its_share(
    tmp_path: Path, make_item: Make, judges: tuple[ScriptedJudge, ...]
) -> None:
    result = make_item(tmp_path, *judges, audit_share=1.0)
    assert result["ending"] == "held"
    assert max(attempt["round"] for attempt in result["attempts"]) == 1, "the audit makes nobody paint more"
    assert {attempt.get("held") for attempt in result["attempts"]} == {"audit"}
    assert not any(attempt["accepted"] for attempt in result["attempts"])


def test_the_audit_draws_the_same_again_and_about_its_share() -> None:
    attempt: Attempt = {
        "round": 1, "index": 0, "seed": 0, "strength": 0.0, "artifact": "", "parameters": {}, "truncated_sides": [],
        "measures": {"sharpness": 1.0}, "criteria": [], "accepted": False,
    }  # fmt: skip
    validator = build_validator(audit_share=0.2, run_seed=3)
    drawn = [f"item-{i}" for i in range(2000) if "held" in validator.weigh(attempt, f"item-{i}")]
    assert drawn == [f"item-{i}" for i in range(2000) if "held" in validator.weigh(attempt, f"item-{i}")]
    assert 320 < len(drawn) < 480
    unmeasured: Attempt = {**attempt, "measures": {}}
    assert "held" not in build_validator(audit_share=1.0).weigh(unmeasured, "item-0")


@AGENTS
@pytest.mark.parametrize(
    ("keep", "ending"), [pytest.param(True, "accepted", id="kept"), pytest.param(False, "exhausted", id="rejected")]
)
def test_a_person_decides_what_was_held(
    tmp_path: Path, make_item: Make, keep: bool, ending: Literal["accepted", "exhausted"]
) -> None:
    result = make_item(tmp_path, ScriptedJudge([GOOD], "kind"), ScriptedJudge([BAD], "strict"))
    item_id, store = result["item"]["item_id"], ArtifactStore(tmp_path / "artifacts")
    reviews = [review_of(attempt, item_id, keep=keep) for attempt in result["attempts"]]
    settled = settle(result, reviews, store)
    assert settled["ending"] == ending
    assert len(settled["instances"]) == (len(reviews) if keep else 0)
    assert settle(settled, reviews, store) == settled
    if len(reviews) > 1:
        assert settle(result, reviews[:1], store)["ending"] == "held"


def test_nobody_decides_what_was_not_held(tmp_path: Path) -> None:
    result = make_text(tmp_path, ScriptedJudge())
    reviews = [review_of(attempt, result["item"]["item_id"], keep=False) for attempt in result["attempts"]]
    assert settle(result, reviews, ArtifactStore(tmp_path / "artifacts")) == result


@AGENTS
def test_an_outage_is_tried_again(tmp_path: Path, make_item: Make) -> None:
    judge = ScriptedJudge([ModelOutageError("down"), GOOD])
    assert make_item(tmp_path, judge)["ending"] == "accepted"


@AGENTS
@pytest.mark.parametrize(
    "error", [ModelOutageError("down"), UnparseableAnswerError("nonsense")], ids=lambda error: type(error).__name__
)
def test_without_an_answer_there_is_no_verdict(tmp_path: Path, make_item: Make, error: Exception) -> None:
    result = make_item(tmp_path, ScriptedJudge([error]))
    assert result["ending"] == "failed"
    assert result["instances"] == []
    assert type(error).__name__ in result["reason"]


def test_a_judge_that_rejects_everything_stops_the_run(tmp_path: Path) -> None:
    judge = ScriptedJudge([BAD])
    with pytest.raises(BrokenRunError, match=r"rejected 3 pictures in a row, most often: intact looks wrong"):
        make_text(tmp_path, judge, limit=3)


def test_one_kept_picture_ends_the_streak(tmp_path: Path) -> None:
    judge = ScriptedJudge([BAD, BAD, GOOD, BAD, BAD, BAD])
    result = make_text(tmp_path, judge, limit=4)
    assert len(judge.seen) == 4
    assert [attempt["accepted"] for attempt in result["attempts"]] == [False, False, True, False]
