"""The I-Agent: its drawing, its loop, its endings, its judge's veto, its rethinking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_crew import (
    SETTINGS,
    BoxMasker,
    OneSource,
    Script,
    ScriptedLikeness,
    ScriptedSourcePainter,
    build_crew,
    build_item,
    build_prompted_crew,
    build_view,
    make,
    textured,
)
from text_helpers import ScriptedChat, answers, prompt_json

from maskwright.configs.judging import InstanceLimits
from maskwright.errors import BrokenRunError, EmptyMaskError, ImageDecodeError
from maskwright.graphs.image_agent import build_image_agent_graph
from maskwright.graphs.items import image_seed
from maskwright.graphs.pool import Pool
from maskwright.memory.entries import ItemResult
from maskwright.tools.judging.class_judge import VariantJudge
from maskwright.tools.protocols import Painted, PaintRequest

GOLDEN = Path(__file__).parent / "golden"


def _cut_out(seed: int, alpha: int = 255) -> Script:
    return lambda _: Painted(textured(seed, alpha), {"x": 1.0})


def _raise(error: BaseException) -> Script:
    def painted(request: PaintRequest) -> Painted:
        raise error

    return painted


def _in_view(flaw: str = "") -> Script:
    """An opaque picture of the request's view, twice as large, with the edges that guided it."""

    def painted(request: PaintRequest) -> Painted:
        assert request.view is not None
        height, width = request.view.rgb.shape[:2]
        pixels = np.random.default_rng(request.seed % 2**32).integers(0, 255, (2 * height, 2 * width, 4))
        rgba = pixels.astype(np.uint8)
        rgba[..., 3] = 255
        return Painted(rgba, {}, covers_view=True, condition=rgba[..., :3].copy(), flaw=flaw)

    return painted


COPY, NEW, INVISIBLE = _cut_out(0), _cut_out(1), _cut_out(1, alpha=0)


def _make_one(folder: Path, script: list[Script], **changes: object) -> tuple[ItemResult, ScriptedSourcePainter]:
    painter = ScriptedSourcePainter(script)
    [result] = make(build_crew(folder, painter, **changes))
    return result, painter


@pytest.mark.parametrize("name", ["image_agent", "run"])
def test_the_graph_is_drawn_as_documented(name: str) -> None:
    from maskwright.graphs.run import build_run_graph

    graph = build_image_agent_graph() if name == "image_agent" else build_run_graph()
    assert graph.get_graph().draw_mermaid() == (GOLDEN / f"{name}.mermaid").read_text(encoding="utf-8")


def test_the_run_knows_the_agent_as_a_subgraph() -> None:
    from maskwright.graphs.run import build_run_graph

    [(name, _)] = build_run_graph().get_subgraphs()
    assert name == "make_wave"


@pytest.mark.parametrize(
    ("script", "ending", "accepted_rounds"),
    [
        pytest.param([NEW], "accepted", [1], id="good at once"),
        pytest.param([COPY, NEW], "accepted", [2], id="a copy, then good"),
        pytest.param([COPY, COPY, COPY], "exhausted", [], id="only copies"),
        pytest.param([INVISIBLE, NEW], "accepted", [2], id="the mask vanishes, then good"),
        pytest.param([INVISIBLE] * 3, "exhausted", [], id="the mask vanishes"),
        pytest.param([_raise(EmptyMaskError("nothing left"))], "exhausted", [], id="the painter finds no pixel"),
        pytest.param([_raise(RuntimeError("CUDA went away"))], "failed", [], id="the painter breaks"),
        pytest.param([COPY, _raise(RuntimeError("late"))], "failed", [], id="the painter breaks in round two"),
    ],
)
def test_endings(script: list[Script], ending: str, accepted_rounds: list[int], tmp_path: Path) -> None:
    result, painter = _make_one(tmp_path, script)
    assert result["ending"] == ending
    assert [instance["round"] for instance in result["instances"]] == accepted_rounds
    assert len(painter.requests) == len(script)
    assert bool(result["reason"]) is (ending != "accepted")


def test_a_copy_is_retried_stronger_and_less_bound_with_another_seed(tmp_path: Path) -> None:
    result, painter = _make_one(tmp_path, [COPY, NEW])
    first, second = painter.requests
    assert second.strength > first.strength
    assert second.control_scale < first.control_scale
    item_id = build_item()["item_id"]
    assert [first.seed, second.seed] == [image_seed(5, item_id, r, 0) for r in (1, 2)]
    assert first.seed != second.seed
    rejected = [c["name"] for c in result["attempts"][0]["criteria"] if c["outcome"] != "meet"]
    assert rejected == ["source_difference"]


def test_a_damaged_sample_is_retried_weaker_and_more_bound(tmp_path: Path) -> None:
    def dust(request: PaintRequest) -> Painted:
        rgba = textured(1, alpha=0)
        rgba[:5, :5, 3] = 255
        return Painted(rgba, {})

    _, painter = _make_one(tmp_path, [dust, NEW])
    assert painter.requests[1].strength < painter.requests[0].strength
    assert painter.requests[1].control_scale > painter.requests[0].control_scale


def test_the_pool_of_the_wave_refuses_a_near_duplicate(tmp_path: Path) -> None:
    first, _ = _make_one(tmp_path, [NEW])
    pool = Pool()
    pool.add(first)
    [result] = make(build_crew(tmp_path, ScriptedSourcePainter([NEW] * 3)), [build_item(1)], pool)
    assert result["ending"] == "exhausted"
    assert "pool_distance_bits" in result["reason"]


def test_an_unreadable_source_costs_no_paint(tmp_path: Path) -> None:
    result, painter = _make_one(tmp_path, [], sources=OneSource(ImageDecodeError("a.png cannot be decoded")))
    assert (result["ending"], painter.requests) == ("exhausted", [])
    assert result["unreadable_image"] == "a.png"


def test_a_source_cut_too_much_costs_no_paint(tmp_path: Path) -> None:
    result, painter = _make_one(tmp_path, [], sources=OneSource(truncation=0.9))
    assert (result["ending"], painter.requests) == ("exhausted", [])
    assert "truncation 0.90 is over 0.70" in result["reason"]


def test_a_source_that_keeps_failing_is_left_for_another(tmp_path: Path) -> None:
    pool, sources = Pool(), OneSource()
    crew = build_crew(tmp_path, ScriptedSourcePainter([COPY] * 9 + [NEW]), sources=sources, source_rows={3: (0, 4)})
    for slot in range(3):
        pool.add(make(crew, [build_item(slot)], pool)[0])
    [result] = make(crew, [build_item(3)], pool)
    assert sources.rows == [0, 0, 0, 4]
    assert result["ending"] == "accepted"
    assert result["source"] is not None
    assert result["source"]["row"] == 4


def test_a_class_whose_sources_are_all_retired_costs_no_paint(tmp_path: Path) -> None:
    pool, painter = Pool(), ScriptedSourcePainter([COPY] * 9)
    crew = build_crew(tmp_path, painter)
    for slot in range(3):
        pool.add(make(crew, [build_item(slot)], pool)[0])
    [result] = make(crew, [build_item(3)], pool)
    assert (result["ending"], len(painter.requests)) == ("exhausted", 9)
    assert "every source of the class is retired" in result["reason"]


@pytest.mark.parametrize("error", [BrokenRunError("disk full"), MemoryError()], ids=["disk", "memory"])
def test_a_broken_run_is_not_an_item_s_failure(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        _make_one(tmp_path, [_raise(error)])


def test_every_artifact_of_the_result_is_durable(tmp_path: Path) -> None:
    result, _ = _make_one(tmp_path, [COPY, NEW])
    named = {attempt["artifact"] for attempt in result["attempts"]} | {result["source"]["artifact"]}  # type: ignore[index]
    assert {path.name for path in tmp_path.rglob("*.png")} == named


def test_items_side_by_side_are_painted_in_one_batch(tmp_path: Path) -> None:
    batches: list[int] = []

    class CountingPainter(ScriptedSourcePainter):
        def paint(self, requests):  # type: ignore[no-untyped-def]
            batches.append(len(requests))
            return super().paint(requests)

    painter = CountingPainter([_cut_out(seed) for seed in range(1, 5)])
    results = make(build_crew(tmp_path, painter), [build_item(slot) for slot in range(4)])
    assert batches == [4]
    assert [result["item"]["slot"] for result in results] == [0, 1, 2, 3]


LIKE_LIMITS = InstanceLimits(min_source_likeness=0.5, max_source_likeness=0.97)


@pytest.mark.parametrize(
    ("likeness", "reason", "is_stronger"),
    [
        pytest.param(0.99, "source_likeness 0.99 is over 0.97", True, id="a copy"),
        pytest.param(0.2, "source_likeness 0.2 is under 0.5", False, id="a stranger"),
    ],
)
def test_likeness_to_the_source_has_two_limits(likeness: float, reason: str, is_stronger: bool, tmp_path: Path) -> None:
    similarity = ScriptedLikeness([{"source_likeness": likeness}, {"source_likeness": 0.8}])
    result, painter = _make_one(tmp_path, [NEW, NEW], similarity=similarity, judge=VariantJudge(LIKE_LIMITS, None))
    assert result["ending"] == "accepted"
    assert [c["reason"] for c in result["attempts"][0]["criteria"] if c["reason"]] == [reason]
    assert (painter.requests[1].strength > painter.requests[0].strength) is is_stronger


def test_a_painter_of_views_is_masked_by_the_known_box_and_compared_with_the_source(tmp_path: Path) -> None:
    masker = BoxMasker(shift_px=4)
    result, painter = _make_view(tmp_path, [_in_view()], masker=masker)
    [attempt] = result["attempts"]
    assert masker.requests[0].box_xyxy == (60, 40, 120, 80)
    assert np.array_equal(masker.requests[0].mask_hw, np.kron(build_view().mask_hw, np.ones((2, 2), np.bool_)))
    assert attempt["measures"]["source_iou"] == pytest.approx(56 / 64)
    assert attempt["measures"]["mask_score"] == 0.9
    assert (result["ending"], attempt["control_scale"]) == ("accepted", SETTINGS.control_scale)
    assert {"painted", "condition", "artifact"} <= attempt.keys()
    assert painter.requests[0].view is not None


def _make_view(
    folder: Path, script: list[Script], chat: ScriptedChat | None = None, **changes: object
) -> tuple[ItemResult, ScriptedSourcePainter]:
    crew = build_prompted_crew(folder, script, chat or ScriptedChat(), **changes)
    [result] = make(crew)
    assert isinstance(crew.painter, ScriptedSourcePainter)
    return result, crew.painter


@pytest.mark.parametrize(
    ("shift_px", "reason"),
    [
        pytest.param(0, "source_iou 1 is over 0.98", id="the source's own mask"),
        pytest.param(40, "source_iou 0.2 is under 0.5", id="something else"),
    ],
)
def test_a_mask_is_that_of_the_same_object_and_no_copy(shift_px: int, reason: str, tmp_path: Path) -> None:
    result, _ = _make_view(tmp_path, [_in_view()] * 3, masker=BoxMasker(shift_px))
    assert result["ending"] == "exhausted"
    assert reason in result["reason"]


def test_a_picture_without_the_object_is_rejected_by_its_mask(tmp_path: Path) -> None:
    result, _ = _make_view(tmp_path, [_in_view()] * 3, masker=BoxMasker(shift_px=10_000))
    assert result["ending"] == "exhausted"
    assert [c["name"] for c in result["attempts"][0]["criteria"]] == ["mask"]


def test_a_flawed_picture_is_neither_masked_nor_measured(tmp_path: Path) -> None:
    masker = BoxMasker(shift_px=4)
    result, _ = _make_view(tmp_path, [_in_view(flaw="black"), _in_view()], masker=masker)
    assert [attempt["accepted"] for attempt in result["attempts"]] == [False, True]
    assert result["attempts"][0]["criteria"][0]["reason"] == "black"
    assert len(masker.requests) == 1


def test_the_prompt_is_rethought_from_the_reasons(tmp_path: Path) -> None:
    chat = ScriptedChat(script=answers(adjust=[prompt_json("a rusty bolt on a bench")]))
    result, painter = _make_view(tmp_path, [_in_view()] * 3, chat, masker=BoxMasker(shift_px=40))
    assert [request.prompt for request in painter.requests[:2]] == ["a photo of a bolt", "a rusty bolt on a bench"]
    assert "source_iou" in chat.asked("adjust")[0]
    assert [told["prompt"] for told in result["rounds"]][:2] == ["a photo of a bolt", "a rusty bolt on a bench"]
    assert result["rounds"][0]["num_kept"] == 0
    assert result["cost"]["calls"] >= 2


def test_a_prompt_may_be_left_as_it_is(tmp_path: Path) -> None:
    chat = ScriptedChat()
    settings = SETTINGS.model_copy(update={"rewrite_prompts": False, "prompt": "one {name} on a table"})
    _, painter = _make_view(tmp_path, [_in_view()] * 3, chat, masker=BoxMasker(shift_px=40), settings=settings)
    assert {request.prompt for request in painter.requests} == {"one bolt on a table"}
    assert chat.questions == []
