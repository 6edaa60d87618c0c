"""The label agent: prompts refined before they are painted, pictures filtered before they are kept, items drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from label_agent_helpers import (
    EXTRA,
    GOOD,
    HEIGHT,
    LOW,
    LOWER,
    MISSED,
    SEEN,
    WIDTH,
    Bench,
    ScriptedLabels,
    ScriptedScenes,
    ScriptedTextScores,
    ScriptedWriter,
    label_item,
    to_result,
)

from maskwright.configs.label_agent import LabelAgentSettings, LabelFilterSettings
from maskwright.errors import BrokenRunError, ModelOutageError, SampleError, UnparseableAnswerError
from maskwright.graphs.label_agent import build_label_agent_graph
from maskwright.graphs.label_filter import UNSEEN, best_version, is_drawn, refusals
from maskwright.graphs.label_remembering import to_prompt_records
from maskwright.graphs.label_state import LabelState, PromptEntry, PromptScore

GOLDEN = Path(__file__).parent / "golden"
NAN = float("nan")


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages are tried again at once."""
    monkeypatch.setattr("time.sleep", lambda _: None)


def painted(bench: Bench) -> list[str]:
    return [request.prompt for request in bench.painter.requests]


def test_the_graph_is_drawn_as_documented() -> None:
    drawing = build_label_agent_graph().get_graph().draw_mermaid()
    assert drawing == (GOLDEN / "label_agent.mermaid").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scores", "calls", "text"),
    [
        pytest.param([GOOD], "draft score", "prompt 1.0", id="good at once"),
        pytest.param([LOW, GOOD], "draft score rewrite score", "prompt 1.1", id="rewritten once"),
        pytest.param([LOW, LOW, GOOD], "draft" + " score rewrite" * 2 + " score", "prompt 1.2", id="twice"),
        pytest.param([LOW], "draft" + " score rewrite" * 3 + " score", "prompt 1.3", id="never good: the last"),
        pytest.param(
            [LOWER, LOW, LOWER], "draft" + " score rewrite" * 3 + " score", "prompt 1.1", id="never good: the best"
        ),
    ],
)
def test_a_prompt_is_refined_before_it_is_painted(
    scores: list[PromptScore | Exception], calls: str, text: str, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, writer=ScriptedWriter(scores))
    state = bench.make()
    assert (bench.writer.calls, painted(bench)) == (calls.split(), [text])
    assert state["ending"] == "accepted"
    assert len(state["scores"]) == len(state["prompts"])
    assert state["prompts"][state["scenes"][0]["prompt"]]["text"] == text


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        pytest.param({"refine": False}, ["draft"], id="refine off"),
        pytest.param({"max_refinements": 0}, ["draft", "score"], id="no rewrites"),
        pytest.param({"refine_threshold": 3.0}, ["draft", "score"], id="the threshold itself is good enough"),
        pytest.param({"max_refinements": 1}, ["draft", "score", "rewrite", "score"], id="one rewrite"),
    ],
)
def test_settings_of_the_refinement(settings: dict[str, bool | float], calls: list[str], tmp_path: Path) -> None:
    bench = Bench(tmp_path, LabelAgentSettings.model_validate(settings), ScriptedWriter([LOW]))
    assert bench.make()["ending"] == "accepted"
    assert bench.writer.calls == calls


@pytest.mark.parametrize(
    ("script", "texts", "ending"),
    [
        pytest.param([SEEN], "1", "accepted", id="at once"),
        pytest.param([MISSED, SEEN], "1 1", "accepted", id="a new seed"),
        pytest.param([MISSED, EXTRA, SEEN], "1 1 2", "accepted", id="a new prompt"),
        pytest.param([MISSED], "1 1 2 2", "exhausted", id="spent"),
    ],
)
def test_a_refused_picture_is_painted_again(
    script: Sequence[Mapping[str, float]], texts: str, ending: str, tmp_path: Path
) -> None:
    settings = LabelAgentSettings(admission=LabelFilterSettings(max_repaints=3, seeds_per_prompt=2))
    bench = Bench(tmp_path, settings, classifier=ScriptedLabels(script))
    state = bench.make()
    assert painted(bench) == [f"prompt {draft}.0" for draft in texts.split()]
    assert state["ending"] == ending
    assert [scene["number"] for scene in state["scenes"]] == list(range(1, len(state["scenes"]) + 1))
    assert len({request.seed for request in bench.painter.requests}) == len(bench.painter.requests)
    assert state["images_usd"] == 0.25 * len(state["scenes"])
    assert state["reason"] if ending == "exhausted" else "reason" not in state


def test_a_new_prompt_is_told_why_pictures_of_the_last_were_refused(tmp_path: Path) -> None:
    settings = LabelAgentSettings(admission=LabelFilterSettings(max_repaints=6, seeds_per_prompt=3))
    script = [MISSED, EXTRA, EXTRA, MISSED, MISSED, MISSED, SEEN]
    bench = Bench(tmp_path, settings, classifier=ScriptedLabels(script))
    state = bench.make()
    assert bench.writer.told == [(), ("extra blowhole", "missing crack"), ("missing crack",)]
    assert [prompt["draft"] for prompt in state["prompts"]] == [1, 2, 3]


def test_the_classifier_sees_the_picture_and_the_ledger_what_it_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, classifier=ScriptedLabels([MISSED, SEEN]))
    state = bench.make(label_item("crack"))
    assert bench.classifier is not None
    assert bench.classifier.seen == [10, 20]
    first, second = state["scenes"]
    assert (first["refused"], second["refused"]) == (["missing crack"], [])
    assert second["probabilities"] == pytest.approx(SEEN, abs=1e-5)
    assert bench.artifacts.get_image(second["artifact"]).shape[:2] == (HEIGHT, WIDTH)
    assert second["background"] == "train/good/größe 1.png"
    [request, _] = bench.painter.requests
    assert (request.labels, request.background) == (("crack",), 7)
    assert json.loads(json.dumps(state)) == state


def test_without_the_filter_what_is_painted_is_admitted_unless_it_is_no_picture(tmp_path: Path) -> None:
    settings = LabelAgentSettings(filter=False)
    bench = Bench(tmp_path, settings, painter=ScriptedScenes(["black", ""]), classifier=None)
    state = bench.make()
    assert state["ending"] == "accepted"
    assert [scene["refused"] for scene in state["scenes"]] == [["flaw: black"], []]
    assert [scene["probabilities"] for scene in state["scenes"]] == [{}, {}]


def test_a_flawed_picture_is_never_looked_at(tmp_path: Path) -> None:
    bench = Bench(tmp_path, painter=ScriptedScenes(["black"]))
    state = bench.make()
    assert bench.classifier is not None
    assert (state["ending"], state["reason"], bench.classifier.seen) == ("exhausted", "flaw: black", [])
    assert len(state["scenes"]) == 1 + bench.settings.admission.max_repaints


def test_a_filter_without_a_classifier_admits_nothing(tmp_path: Path) -> None:
    assert Bench(tmp_path, classifier=None).make()["reason"] == "missing crack"


def test_a_picture_must_fit_its_prompt_where_that_is_asked(tmp_path: Path) -> None:
    settings = LabelAgentSettings(admission=LabelFilterSettings(min_text_score=0.3))
    bench = Bench(tmp_path, settings, text_scorer=ScriptedTextScores([0.1, 0.5]))
    state = bench.make()
    assert bench.text_scorer is not None
    assert bench.text_scorer.texts == ["prompt 1.0", "prompt 1.0"]
    assert [(scene["refused"], scene["text_score"]) for scene in state["scenes"]] == [
        (["text score"], pytest.approx(0.1)),
        ([], pytest.approx(0.5)),
    ]


@pytest.mark.parametrize(
    ("labels", "probabilities", "text_score", "reasons"),
    [
        pytest.param(["crack"], SEEN, None, [], id="all as prompted"),
        pytest.param(["crack"], {"crack": 0.5, "fray": 0.49}, None, [], id="the limits themselves"),
        pytest.param(["crack"], MISSED, None, ["missing crack"], id="missing"),
        pytest.param(["crack"], EXTRA, None, ["extra blowhole"], id="extra"),
        pytest.param(["crack"], {"crack": 0.9, "fray": 0.5}, None, ["extra fray"], id="extra at the limit"),
        pytest.param(
            ["crack", "fray"], EXTRA, 0.1, ["missing fray", "extra blowhole", "text score"], id="all that is wrong"
        ),
        pytest.param(["crack"], SEEN, 0.3, [], id="text score at the limit"),
        pytest.param(["crack"], SEEN, NAN, ["text score"], id="text score that is no number"),
        pytest.param(["crack"], {"crack": NAN, "fray": NAN}, None, ["missing crack", "extra fray"], id="no numbers"),
        pytest.param(["crack"], {}, None, ["missing crack"], id="nothing known"),
    ],
)
def test_refusals(
    labels: list[str], probabilities: Mapping[str, float], text_score: float | None, reasons: list[str]
) -> None:
    assert refusals(labels, probabilities, LabelFilterSettings(min_text_score=0.3), text_score) == reasons


def test_a_text_score_without_a_limit_refuses_nothing() -> None:
    assert refusals(["crack"], SEEN, LabelFilterSettings(), -1.0) == []


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        pytest.param({"crack": 0.0, "fray": 0.0}, 0, id="closed"),
        pytest.param({"crack": 0.25, "fray": 0.0}, 500, id="a quarter open"),
        pytest.param({"crack": 0.25, "fray": 0.75}, 1500, id="the most open one decides"),
        pytest.param({"crack": 1.0, "fray": 0.1}, 2000, id="open"),
        pytest.param({}, 0, id="no quota"),
    ],
)
def test_items_are_drawn_in_proportion_to_open_quotas(shares: Mapping[str, float], expected: int) -> None:
    drawn = [is_drawn(f"label-{number:04d}", ["crack", "fray"], shares, 3) for number in range(2000)]
    assert sum(drawn) == pytest.approx(expected, abs=70 if 0 < expected < 2000 else 0)
    assert drawn == [is_drawn(f"label-{number:04d}", ["crack", "fray"], shares, 3) for number in range(2000)]


def test_another_run_draws_other_items_and_a_fuller_quota_only_fewer() -> None:
    def drawn(share: float, seed: int) -> set[int]:
        return {n for n in range(200) if is_drawn(f"label-{n:04d}", ["crack"], {"crack": share}, seed)}

    assert drawn(0.5, 3) != drawn(0.5, 4)
    assert drawn(0.2, 3) < drawn(0.5, 3)


def test_an_item_that_is_not_drawn_costs_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, open_shares={"crack": 0.0})
    state = bench.make()
    assert (state["ending"], state["reason"]) == ("exhausted", "quota")
    assert (bench.writer.calls, bench.painter.requests, state["prompts"]) == ([], [], [])


@pytest.mark.parametrize(
    ("scores", "ending"),
    [
        pytest.param([ModelOutageError("down"), GOOD], "accepted", id="an outage is tried again"),
        pytest.param([ModelOutageError("down")], "failed", id="a lasting one fails"),
        pytest.param([UnparseableAnswerError("nine")], "failed", id="a score is never made up"),
    ],
)
def test_a_writer_that_lets_the_item_down(scores: list[PromptScore | Exception], ending: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, writer=ScriptedWriter(scores))
    state = bench.make()
    assert state["ending"] == ending
    assert ("score_prompt: " in state.get("reason", "")) == (ending == "failed")
    assert bool(bench.painter.requests) == (ending == "accepted")


def test_a_bad_sample_exhausts_and_a_broken_run_stops(tmp_path: Path) -> None:
    state = Bench(tmp_path, painter=ScriptedScenes([SampleError("background unreadable")])).make()
    assert state["ending"] == "exhausted"
    assert "background unreadable" in state["reason"]
    with pytest.raises(BrokenRunError, match="no disk"):
        Bench(tmp_path, painter=ScriptedScenes([BrokenRunError("no disk")])).make()


def outage_in_score(folder: Path) -> Bench:
    return Bench(folder, writer=ScriptedWriter([LOW, ModelOutageError("down")]))


def outage_in_paint(folder: Path) -> Bench:
    return Bench(folder, painter=ScriptedScenes([ModelOutageError("down")]))


def outage_in_look(folder: Path) -> Bench:
    return Bench(folder, classifier=ScriptedLabels([MISSED, ModelOutageError("down")]))


@pytest.mark.parametrize(
    ("broken", "calls", "num_painted"),
    [
        pytest.param(outage_in_score, ["score"], 1, id="score"),
        pytest.param(outage_in_paint, [], 1, id="paint"),
        pytest.param(outage_in_look, [], 0, id="look"),
    ],
)
def test_a_failed_item_goes_on_where_it_stopped(
    broken: object, calls: list[str], num_painted: int, tmp_path: Path
) -> None:
    assert callable(broken)
    failed = broken(tmp_path).make()
    assert failed["ending"] == "failed"
    bench = Bench(tmp_path, open_shares={})
    state = bench.make(earlier=to_result(failed))
    assert (state["ending"], bench.writer.calls, len(bench.painter.requests)) == ("accepted", calls, num_painted)
    assert [scene["number"] for scene in state["scenes"]] == list(range(1, len(state["scenes"]) + 1))
    assert state["scenes"][-1]["refused"] == []


def test_a_picture_that_nobody_saw_is_not_admitted(tmp_path: Path) -> None:
    state = Bench(tmp_path, classifier=ScriptedLabels([ModelOutageError("down")])).make()
    assert [scene["refused"] for scene in state["scenes"]] == [[UNSEEN]]
    [record] = to_prompt_records(to_result(state), "run", "2025-01-02T03:04:05+00:00")
    assert (record.num_painted, record.num_kept, record.reasons) == (0, 0, ())


def test_the_same_item_again_is_the_same(tmp_path: Path) -> None:
    def run(folder: str, item_id: str) -> LabelState:
        return Bench(tmp_path / folder, classifier=ScriptedLabels([MISSED, SEEN])).make(label_item(item_id=item_id))

    assert run("a", "one") == run("b", "one")
    assert run("c", "two")["scenes"][0]["seed"] != run("a", "one")["scenes"][0]["seed"]


def test_best_version_is_of_the_last_draft() -> None:
    def prompt(draft: int, number: int) -> PromptEntry:
        return {"draft": draft, "round": number, "text": "", "plans": [], "by": "", "rung": ""}

    prompts = [prompt(1, 0), prompt(2, 0), prompt(2, 1)]
    assert best_version(prompts, [GOOD, LOW, LOWER]) == 1
    assert best_version(prompts, [GOOD, LOW, LOW]) == 2
    assert best_version(prompts, []) == 2


def test_every_version_is_remembered_with_what_became_of_it(tmp_path: Path) -> None:
    settings = LabelAgentSettings(admission=LabelFilterSettings(max_repaints=3, seeds_per_prompt=2))
    bench = Bench(
        tmp_path, settings, ScriptedWriter([LOW, GOOD, GOOD]), classifier=ScriptedLabels([MISSED, MISSED, SEEN])
    )
    records = to_prompt_records(to_result(bench.make()), "0123456789abcdef", "2025-01-02T03:04:05+00:00")
    name = "0123456789ab-label-größe-0000"
    assert [(r.record_id, r.parent, r.num_painted, r.num_kept) for r in records] == [
        (f"{name}-d1-r0", "", 0, 0),
        (f"{name}-d1-r1", f"{name}-d1-r0", 2, 0),
        (f"{name}-d2-r0", "", 1, 1),
    ]
    assert [record.reasons for record in records] == [("too large",), ("missing crack",), ()]
    assert records[0].scores == {"presence": 9.0, "coherence": 9.0, "plausibility": 3.0}
    assert {record.category for record in records} == {"crack"}
