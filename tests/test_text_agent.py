"""The T-Agent: its drawing, its loop, its endings, its judge's veto, and what bad painters come to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from text_crew import NOTHING_KNOWN, SEED, SETTINGS, ScriptedMemory, build_crew, build_item, make
from text_helpers import (
    GOOD,
    PaintScript,
    ScriptedMasker,
    ScriptedScorer,
    ScriptedSimilarity,
    ScriptedTextPainter,
    breaks,
    draw,
    good,
    paints,
    poor,
)

from maskwright.configs.agents import TextAgentSettings
from maskwright.configs.judging import SimilaritySettings
from maskwright.errors import BrokenRunError, InputError, PromptError
from maskwright.graphs.crews import AgentGraphs
from maskwright.graphs.image_agent import build_image_agent_graph
from maskwright.graphs.items import image_seed
from maskwright.graphs.pool import Pool
from maskwright.graphs.text_agent import build_text_agent_graph
from maskwright.tools.judging.painted_judge import PaintedJudge
from maskwright.tools.protocols import Painted, PaintRequest

GOLDEN = Path(__file__).parent / "golden"
BLACK = np.dstack([np.zeros((48, 64, 3), np.uint8), draw(0)[..., 3]])
OPAQUE_BLACK = np.dstack([np.zeros((48, 64, 3), np.uint8), np.full((48, 64), 255, np.uint8)])


def test_the_graph_is_drawn_as_documented() -> None:
    drawing = build_text_agent_graph().get_graph().draw_mermaid()
    assert drawing == (GOLDEN / "text_agent.mermaid").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "ending", "kept", "num_rounds"),
    [
        pytest.param([good], "accepted", [(1, 0), (1, 1)], 1, id="good at once"),
        pytest.param([good, poor], "accepted", [(1, 0)], 1, id="just enough"),
        pytest.param([poor, poor, good], "accepted", [(2, 0), (2, 1)], 2, id="rethought, then good"),
        pytest.param([poor], "exhausted", [], 3, id="poor to the end"),
    ],
)
def test_endings(
    script: list[PaintScript], ending: str, kept: list[tuple[int, int]], num_rounds: int, tmp_path: Path
) -> None:
    painter = ScriptedTextPainter(script)
    [result] = make(build_crew(tmp_path, painter))
    assert result["ending"] == ending
    assert [(one["round"], one["index"]) for one in result["instances"]] == kept
    assert len(result["rounds"]) == len(painter.batches) == num_rounds
    assert len(result["attempts"]) == 2 * num_rounds
    assert bool(result["reason"]) is (ending == "exhausted")
    assert {path.name for path in (tmp_path / "artifacts").rglob("*.png")} >= {
        one["artifact"] for one in [*result["instances"], *result["attempts"]]
    }


@pytest.mark.parametrize(
    ("script", "num_rounds"),
    [
        pytest.param([good, poor], 3, id="the first round"),
        pytest.param([poor] * 4 + [good, poor], 3, id="the last round"),
        pytest.param([good, poor, good, good], 2, id="and a later round fills up"),
    ],
)
def test_what_passed_stays_when_the_prompt_is_rethought(
    script: list[PaintScript], num_rounds: int, tmp_path: Path
) -> None:
    strict = SETTINGS.model_copy(update={"min_yield": 1.0})
    [result] = make(build_crew(tmp_path, ScriptedTextPainter(script), settings=strict))
    accepted = [(one["round"], one["index"]) for one in result["attempts"] if one["accepted"]]
    assert (result["ending"], len(result["rounds"])) == ("accepted", num_rounds)
    assert [(one["round"], one["index"]) for one in result["instances"]] == accepted != []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        pytest.param(paints(OPAQUE_BLACK, "the picture is not finite"), "the picture is not finite", id="nan"),
        pytest.param(paints(draw(1), "blanked by the safety checker"), "safety checker", id="safety checker"),
        pytest.param(paints(OPAQUE_BLACK), "area_share", id="black frame"),
        pytest.param(paints(BLACK), "contrast", id="black object"),
        pytest.param(paints(draw(1) * np.uint8(0)), "has no pixel", id="nothing visible"),
    ],
)
def test_what_is_no_picture_is_never_accepted(script: PaintScript, says: str, tmp_path: Path) -> None:
    similarity = ScriptedSimilarity(ScriptedScorer(answer=1.0))
    [result] = make(build_crew(tmp_path, ScriptedTextPainter([script]), similarity=similarity))
    assert (result["ending"], result["instances"]) == ("exhausted", [])
    assert says in " ".join(result["rounds"][0]["reasons"])


def test_a_flawed_picture_costs_no_mask_and_no_score(tmp_path: Path) -> None:
    masker, scorer = ScriptedMasker(), ScriptedScorer()
    painter = ScriptedTextPainter([paints(OPAQUE_BLACK, "not finite"), good])
    crew = build_crew(tmp_path, painter, masker=masker, similarity=ScriptedSimilarity(scorer))
    [result] = make(crew)
    assert len(masker.requests) == len(scorer.batches) == 1
    assert [attempt["accepted"] for attempt in result["attempts"]] == [False, True]


@pytest.mark.parametrize(
    ("found", "criterion"),
    [
        pytest.param((0.0, None), "mask", id="empty mask"),
        pytest.param((1.0, 2), "num_instances", id="two objects"),
        pytest.param((1.0, 0), "num_instances", id="none counted"),
    ],
)
def test_the_masker_s_finding_decides(found: tuple[float, int | None], criterion: str, tmp_path: Path) -> None:
    [result] = make(build_crew(tmp_path, masker=ScriptedMasker([found])))
    assert result["ending"] == "exhausted"
    failed = {c["name"] for a in result["attempts"] for c in a["criteria"] if c["outcome"] != "meet"}
    assert failed == {criterion}


@pytest.mark.parametrize("answer", [float("nan"), float("inf")], ids=str)
def test_a_score_that_is_no_number_accepts_nothing_and_is_told_to_nobody(answer: float, tmp_path: Path) -> None:
    similarity = ScriptedSimilarity(ScriptedScorer(answer=answer))
    [result] = make(build_crew(tmp_path, similarity=similarity))
    assert result["ending"] == "exhausted"
    assert "image_text could not be scored" in result["reason"]
    assert [one["scores"] for one in result["rounds"]] == [{}] * 3


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        pytest.param(RuntimeError("CUDA went away"), "failed", id="a defect"),
        pytest.param(PromptError("too long"), "exhausted", id="a bad sample"),
    ],
)
def test_a_painter_that_breaks_ends_its_item(error: Exception, ending: str, tmp_path: Path) -> None:
    [result] = make(build_crew(tmp_path, ScriptedTextPainter([breaks(error)])))
    assert (result["ending"], result["instances"]) == (ending, [])
    assert result["reason"] == f"paint: {type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        pytest.param(RuntimeError("late"), "failed", id="a defect"),
        pytest.param(PromptError("late"), "accepted", id="a bad sample"),
    ],
)
def test_what_passed_stays_unless_the_item_is_made_anew(error: Exception, ending: str, tmp_path: Path) -> None:
    strict = SETTINGS.model_copy(update={"min_yield": 1.0})
    [result] = make(build_crew(tmp_path, ScriptedTextPainter([good, poor, breaks(error)]), settings=strict))
    assert (result["ending"], len(result["rounds"])) == (ending, 1)
    kept = [(1, 0)] if ending == "accepted" else []
    assert [(one["round"], one["index"]) for one in result["instances"]] == kept
    assert "late" in result["reason"]


@pytest.mark.parametrize(
    "error", [BrokenRunError("disk full"), InputError("no such key"), MemoryError()], ids=lambda e: type(e).__name__
)
def test_a_broken_run_is_not_an_item_s_failure(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        make(build_crew(tmp_path, ScriptedTextPainter([breaks(error)])), [build_item(0), build_item(1)])


def test_a_bad_sample_of_one_item_leaves_its_companions_alone(tmp_path: Path) -> None:
    class Picky(ScriptedTextPainter):
        def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
            if any(request.item_id == build_item(1)["item_id"] for request in requests):
                raise PromptError("too long")
            return super().paint(requests)

    results = make(build_crew(tmp_path, Picky()), [build_item(slot) for slot in range(3)])
    assert [result["ending"] for result in results] == ["accepted", "exhausted", "accepted"]


def test_what_a_wave_paints_is_one_batch_in_item_order(tmp_path: Path) -> None:
    painter = ScriptedTextPainter([good, good, poor, poor, good, good])
    items = [build_item(slot) for slot in range(3)]
    results = make(build_crew(tmp_path, painter), items)
    batches = [[request.item_id for request in batch] for batch in painter.batches]
    assert batches == [[item["item_id"] for item in items for _ in range(2)], [items[1]["item_id"]] * 2]
    assert [result["item"] for result in results] == items


def test_seeds_depend_on_item_round_and_index_alone(tmp_path: Path) -> None:
    painter = ScriptedTextPainter([poor, poor, good])
    [result] = make(build_crew(tmp_path, painter))
    expected = [image_seed(SEED, build_item()["item_id"], round_, index) for round_ in (1, 2) for index in (0, 1)]
    assert [request.seed for request in painter.requests] == expected
    assert [attempt["seed"] for attempt in result["attempts"]] == expected
    assert len(set(expected)) == 4


@pytest.mark.parametrize(
    ("image_image", "limits", "up"),
    [
        pytest.param(None, {}, False, id="unlike its name: closer to the start"),
        pytest.param(0.99, {"max_image_image": 0.9}, True, id="too like the real ones: farther"),
        pytest.param(0.01, {"min_image_image": 0.5}, False, id="unlike the real ones: closer"),
    ],
)
def test_strength_follows_the_reasons(
    image_image: float | None, limits: Mapping[str, float], up: bool, tmp_path: Path
) -> None:
    painter = ScriptedTextPainter([poor if image_image is None else good])
    judge = PaintedJudge(SETTINGS.limits.model_copy(update=limits), SimilaritySettings())
    make(build_crew(tmp_path, painter, similarity=ScriptedSimilarity(image_image=image_image), judge=judge))
    strengths = [batch[0].strength for batch in painter.batches]
    assert strengths == ([0.6, 0.7, 0.8] if up else [0.6, 0.5, 0.4])


def test_a_near_duplicate_of_the_pool_asks_for_more_strength(tmp_path: Path) -> None:
    [first] = make(build_crew(tmp_path, ScriptedTextPainter([paints(draw(7))]), settings=_single()))
    pool = Pool()
    pool.add(first)
    painter = ScriptedTextPainter([paints(draw(7)), good])
    [result] = make(build_crew(tmp_path, painter, settings=_single()), [build_item(1)], pool)
    assert "pool_distance_bits" in result["rounds"][0]["reasons"][0]
    assert [batch[0].strength for batch in painter.batches] == [0.6, 0.7]
    assert result["ending"] == "accepted"


def test_two_equal_pictures_of_a_prompt_count_once(tmp_path: Path) -> None:
    [result] = make(build_crew(tmp_path, ScriptedTextPainter([paints(draw(7))])))
    assert [attempt["accepted"] for attempt in result["attempts"]] == [True, False]


def _single() -> TextAgentSettings:
    return SETTINGS.model_copy(update={"images_per_prompt": 1})


@pytest.mark.parametrize(("limit", "script"), [("min_strength", poor), ("max_strength", paints(draw(7)))])
def test_strength_stays_within_its_limits(limit: str, script: PaintScript, tmp_path: Path) -> None:
    settings = _single().model_copy(update={limit: 0.6})
    pool = Pool()
    pool.add(make(build_crew(tmp_path / "a", ScriptedTextPainter([paints(draw(7))])))[0])
    painter = ScriptedTextPainter([script])
    make(build_crew(tmp_path, painter, settings=settings), pool=pool)
    assert {request.strength for request in painter.requests} == {0.6}


@pytest.mark.parametrize(("recalled", "first"), [(None, 0.6), (0.45, 0.45)], ids=["nothing", "what worked"])
def test_a_class_starts_from_the_strength_that_worked(recalled: float | None, first: float, tmp_path: Path) -> None:
    painter = ScriptedTextPainter()
    memory = ScriptedMemory({**NOTHING_KNOWN, "strength": recalled})
    [result] = make(build_crew(tmp_path, painter, memory=memory))
    assert painter.requests[0].strength == result["rounds"][0]["strength"] == first


def test_the_class_s_own_scores_set_its_threshold(tmp_path: Path) -> None:
    similarity = SETTINGS.similarity.model_copy(
        update={"image_text": SETTINGS.similarity.image_text.model_copy(update={"mode": "best_share", "share": 0.5})}
    )
    pool = Pool()
    pool.scores["text_agent"][3] += [{"image_text": 1.0}] * 10
    painter = ScriptedTextPainter([good])
    judge = PaintedJudge(SETTINGS.limits, similarity)
    [alone] = make(build_crew(tmp_path / "a", painter, judge=judge))
    [beside] = make(build_crew(tmp_path / "b", painter, judge=judge), pool=pool)
    assert (alone["ending"], beside["ending"]) == ("accepted", "exhausted")
    assert f"image_text {GOOD:.1f}" in beside["reason"]


def test_state_holds_json_and_no_pixels(tmp_path: Path) -> None:
    states: list[Mapping[str, object]] = []
    graph = build_text_agent_graph()

    class Watched:
        def invoke(self, first: object, **options: object) -> object:
            states.extend(graph.stream(first, stream_mode="values", **options))  # type: ignore[call-overload]
            return states[-1]

    crew = build_crew(tmp_path, ScriptedTextPainter([poor, poor, good]))
    graphs = AgentGraphs(Watched(), build_image_agent_graph())  # type: ignore[arg-type]
    [result] = list(crew.make(graphs, [build_item()], Pool(), lambda made: made))
    assert (result["ending"], len(states)) == ("accepted", 15)
    for state in states:
        assert len(json.dumps(state, allow_nan=False)) < 20_000


def test_the_pool_knows_a_soft_edged_picture_again(tmp_path: Path) -> None:
    soft = draw(7)
    soft[..., 3] = cv2.GaussianBlur(soft[..., 3], (0, 0), 0.7)
    pool = Pool()
    pool.add(make(build_crew(tmp_path / "a", ScriptedTextPainter([paints(soft)]), settings=_single()))[0])
    assert len(pool.instances) == 1
    again = build_crew(tmp_path / "b", ScriptedTextPainter([paints(soft)]), settings=_single())
    [result] = make(again, [build_item(1)], pool)
    assert result["ending"] == "exhausted"
