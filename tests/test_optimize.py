"""Prompt optimization: what is kept, reverted and dropped, when it stops, what it asks again, and what it writes."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from langgraph.types import RetryPolicy
from optimize_helpers import ENGINE, JUDGE, LENIENT, RECORD, STRICT, WRITER, WRONG, write_classes, write_labelled
from text_helpers import ScriptedTextPainter, good, poor, register

from maskwright.configs.recipe import load_recipe
from maskwright.errors import DatasetError, InputError, MissingDependencyError, ModelOutageError, RecipeError
from maskwright.graphs.judges import load_question
from maskwright.graphs.prompt_files import WRITER_PLACEHOLDERS, find_placeholder_fault, read_prompt_file
from maskwright.graphs.templates import load_template
from maskwright.graphs.writers import build_writer
from maskwright.learning import optimize
from maskwright.learning.optimize import build_optimize_graph, choose_batch
from maskwright.learning.optimize_examples import Example, load_examples, split_examples
from maskwright.learning.optimize_run import describe_optimized, optimize_prompt
from maskwright.learning.optimize_state import OptimizeSettings
from maskwright.learning.optimize_tasks import Trial, mean_score
from maskwright.learning.optimized_prompt import Method, OptimizedPrompt, read_front_matter, save_optimized
from maskwright.tools.protocols import Painted, PaintRequest

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = OptimizeSettings(rounds=3)
NO_PLACEHOLDER = "STRICT. Judge it."


@pytest.fixture(autouse=True)
def record() -> Iterator[None]:
    RECORD.clear()
    yield
    RECORD.clear()


def judge_better(
    folder: Path, settings: OptimizeSettings = SETTINGS, method: Method = "textgrad"
) -> tuple[Path, OptimizedPrompt]:
    """Optimize the scripted judge's question, which keeps everything at first."""
    examples, question = folder / "examples", folder / "question.md"
    if not examples.exists():
        folder.mkdir(exist_ok=True)
        write_labelled(examples)
        question.write_text(LENIENT, encoding="utf-8")
    overrides = [f"llm.judge={JUDGE}", f"llm.planner={ENGINE}", f"agents.text_agent.validation.prompt={question}"]
    recipe = load_recipe("text_agent", [*overrides, "budget.workers=1"])
    out, work = folder / "prompts" / "judge.md", folder / "work"
    return optimize_prompt(recipe, "judge", examples, settings, method=method, out=out, work=work)


def test_the_graph_is_drawn_as_documented() -> None:
    drawing = build_optimize_graph().get_graph().draw_mermaid()
    assert drawing == (GOLDEN / "optimize.mermaid").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("updates", "outcomes", "score", "ending"),
    [
        pytest.param([STRICT], ["kept"], 1.0, "accepted", id="better is kept and accepted"),
        pytest.param([WRONG, STRICT], ["reverted", "kept"], 1.0, "accepted", id="worse is reverted"),
        pytest.param([NO_PLACEHOLDER, STRICT], ["kept"], 1.0, "accepted", id="broken placeholders are repaired"),
        pytest.param([NO_PLACEHOLDER], ["dropped"] * 3, 0.5, "exhausted", id="broken again are dropped"),
        pytest.param([f"Dear, {LENIENT}", STRICT], ["kept", "kept"], 1.0, "accepted", id="as good is kept"),
        pytest.param([WRONG], ["reverted", "dropped", "dropped"], 0.5, "exhausted", id="the same is not tried twice"),
    ],
)
def test_what_becomes_of_proposals(
    updates: list[str | BaseException], outcomes: list[str], score: float, ending: str, tmp_path: Path
) -> None:
    RECORD.updates += updates
    path, optimized = judge_better(tmp_path)
    assert [step["outcome"] for step in optimized.history] == outcomes
    assert (optimized.before["score"], optimized.after["score"], optimized.ending) == (0.5, score, ending)
    assert load_question(str(path)) == (STRICT if score == 1 else LENIENT)
    assert ("no prompt did better" in describe_optimized(optimized, path)) is (score == 0.5)


def test_what_the_engine_is_told(tmp_path: Path) -> None:
    RECORD.updates += [NO_PLACEHOLDER, WRONG, STRICT]
    judge_better(tmp_path)
    [loss, *_] = RECORD.asked("loss")[0]
    assert "a person would reject it" in loss
    assert "The judge would keep it" in loss
    first, repair, second = RECORD.asked("update")
    assert "be strict" in first[0]
    assert "{category}, {criteria}" in first[0]
    assert "lacks the placeholder {category}, {criteria}" in repair[-1]
    assert f"did worse:\n<tried>\n{WRONG}" in second[0]


@pytest.mark.parametrize("budget", [4, 7, 11], ids=["the base alone", "in the first step", "while verifying"])
def test_the_budget_ends_the_search_and_more_of_it_goes_on(budget: int, tmp_path: Path) -> None:
    RECORD.updates += [STRICT]
    _, optimized = judge_better(tmp_path, OptimizeSettings(rounds=3, budget_calls=budget))
    assert (optimized.ending, optimized.improved) == ("budget", False)
    assert optimized.calls == budget == len(RECORD.judged) + len(RECORD.engine)
    _, optimized = judge_better(tmp_path)
    assert optimized.ending == "accepted"
    assert set(Counter(RECORD.judged).values()) == {1}


def test_a_budget_too_small_for_the_base_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a budget of 2 calls does not suffice"):
        judge_better(tmp_path, OptimizeSettings(budget_calls=2))


@pytest.mark.parametrize("method", ["textgrad", "gepa"])
def test_a_killed_search_goes_on_without_asking_twice(method: Method, tmp_path: Path) -> None:
    pytest.importorskip("gepa")
    RECORD.updates += [KeyboardInterrupt(), WRONG, STRICT]
    with pytest.raises(KeyboardInterrupt):
        judge_better(tmp_path, method=method)
    path, optimized = judge_better(tmp_path, method=method)
    assert optimized.after["score"] == 1
    assert set(Counter(RECORD.judged).values()) == {1}
    killed = Counter((kind, texts[0]) for kind, texts in RECORD.engine)
    num_asked = len(RECORD.judged) + len(RECORD.engine)
    assert judge_better(tmp_path, method=method)[0] == path
    assert len(RECORD.judged) + len(RECORD.engine) == num_asked
    RECORD.clear()
    RECORD.updates += [WRONG, STRICT]
    judge_better(tmp_path / "unkilled", method=method)
    once = Counter((kind, texts[0]) for kind, texts in RECORD.engine)
    assert [kind for kind, _ in (killed - once).elements()] == ["update"]


def test_an_outage_ends_the_command_and_the_next_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "OUTAGES", RetryPolicy(max_attempts=1, retry_on=ModelOutageError))
    RECORD.updates += [ConnectionError("refused"), STRICT]
    with pytest.raises(ModelOutageError):
        judge_better(tmp_path)
    assert judge_better(tmp_path)[1].after["score"] == 1
    assert set(Counter(RECORD.judged).values()) == {1}


def test_the_file_holds_the_whole_history(tmp_path: Path) -> None:
    RECORD.updates += [WRONG, STRICT]
    path, _ = judge_better(tmp_path)
    matter = read_front_matter(path)
    assert path.name == "judge-1.md"
    assert matter["agent"] == "judge"
    assert matter["scores"] == {"held_out": {"before": 0.5, "after": 1.0}, "train": {"before": 0.5, "after": 1.0}}
    assert matter["models"] == {"engine": ENGINE, "judge": JUDGE}
    assert matter["examples"]["train"] == matter["examples"]["held_out"] == 4  # type: ignore[index]
    assert matter["base_prompt"] == LENIENT
    first, second = matter["history"]  # type: ignore[misc]
    assert (first["prompt"], first["score"], first["outcome"]) == (WRONG, 0.0, "reverted")
    assert (second["prompt"], second["score"], second["outcome"]) == (STRICT, 1.0, "kept")
    assert (first["loss"], first["gradient"]) == ("it keeps torn ones", "be strict")
    assert first["reason"] == "0 on the held-out examples, 0.5 before"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    RECORD.updates += [STRICT]
    first, optimized = judge_better(tmp_path)
    (tmp_path / "prompts" / "judge-2.md").write_text("somebody's", encoding="utf-8")
    again, _ = judge_better(tmp_path, OptimizeSettings(rounds=2))
    assert (first.name, again.name) == ("judge-1.md", "judge-3.md")
    assert save_optimized(optimized, tmp_path / "prompts" / "judge") == first


def test_a_writer_learns_what_makes_good_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def paint(request: PaintRequest) -> Painted:
        return (good if "glossy" in request.prompt else poor)(request)

    overrides = register(monkeypatch, ScriptedTextPainter([paint]))
    recipe = load_recipe("text_agent", [*overrides, f"llm.model={WRITER}", f"llm.planner={ENGINE}"])
    RECORD.updates += ["{memory}\nWrite a short caption, glossy, for a single {subject} on a plain background."]
    folder = write_classes(tmp_path / "classes", "bolt", "büchse", "nut", "cog")
    path, optimized = optimize_prompt(
        recipe, "writer", folder, SETTINGS, out=tmp_path / "writer.md", work=tmp_path / "work"
    )
    assert (optimized.before["score"], optimized.after["score"]) == (0.0, 1.0)
    assert optimized.before["metrics"]["image_text"] < optimized.after["metrics"]["image_text"]
    assert "0 of 4 pictures were good" in RECORD.asked("loss")[0][0]
    named = load_recipe("text_agent", [*overrides, f"llm.writer_prompt={path}"])
    question = build_writer(named.llm, ScriptedTextPainter(), 0).question
    assert question is not None
    assert "glossy" in question.text
    assert not question.text.startswith("---")


def test_a_class_that_the_painter_does_not_know_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = register(monkeypatch, ScriptedTextPainter(unknown=frozenset({"cog"})))
    folder = write_classes(tmp_path / "classes", "bolt", "cog")
    with pytest.raises(RecipeError, match="does not know 'cog'"):
        optimize_prompt(load_recipe("text_agent", overrides), "writer", folder, SETTINGS, work=tmp_path / "work")


def test_gepa_on_the_same_examples(tmp_path: Path) -> None:
    pytest.importorskip("gepa")
    RECORD.updates += [WRONG, STRICT]
    path, optimized = judge_better(tmp_path, method="gepa")
    assert [step["outcome"] for step in optimized.history] == ["reverted", "kept"]
    assert (optimized.before["score"], optimized.after["score"], optimized.ending) == (0.5, 1.0, "accepted")
    assert read_front_matter(path)["method"] == "gepa"


@pytest.mark.parametrize("rounds", [1, 2], ids=str)
def test_gepa_keeps_to_the_rounds(rounds: int, tmp_path: Path) -> None:
    pytest.importorskip("gepa")
    RECORD.updates += [WRONG]
    _, optimized = judge_better(tmp_path, OptimizeSettings(rounds=rounds), method="gepa")
    assert (len(optimized.history), optimized.ending) == (rounds, "exhausted")


def test_gepa_that_is_not_installed_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa", None)
    with pytest.raises(MissingDependencyError, match=r"maskwright\[optimize\]"):
        judge_better(tmp_path, method="gepa")


def _empty(folder: Path) -> None:
    folder.mkdir()


def _one_label(folder: Path) -> None:
    write_labelled(folder)
    for path in (folder / "schräube" / "reject").glob("*"):
        path.unlink()


def _undecodable(folder: Path) -> None:
    write_labelled(folder)
    path = folder / "schräube" / "keep" / "0.png"
    path.write_bytes(path.read_bytes()[:60])


def _lines(*lines: str) -> object:
    def make(folder: Path) -> None:
        write_labelled(folder)
        (folder / "examples.jsonl").write_text("\n".join(lines), encoding="utf-8")

    return make


def _line(**entry: object) -> str:
    return json.dumps({"category": "bolt", "keep": True, "image": "schräube/keep/0.png"} | entry)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda folder: None, "is no folder", id="missing"),
        pytest.param(_empty, "holds 0 examples", id="empty"),
        pytest.param(_one_label, "4 pictures to keep and 0 to reject", id="one label only"),
        pytest.param(_undecodable, "cannot be", id="damaged picture"),
        pytest.param(_lines(_line(image="../outside.png")), "not a safe file name", id="leaves the folder"),
        pytest.param(_lines(_line(image="nobody.png")), "nobody.png", id="missing picture"),
        pytest.param(_lines(_line(keep="perhaps")), "examples.jsonl:1: keep is 'perhaps'", id="no label"),
        pytest.param(_lines(_line(), "", "{"), "examples.jsonl:3", id="no JSON"),
        pytest.param(_lines(_line(image=None)), "image is missing", id="no picture"),
    ],
)
def test_bad_examples_are_refused(make: object, says: str, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "examples")
    with pytest.raises(DatasetError, match=says):
        load_examples(tmp_path / "examples", "judge")


def test_a_list_of_examples_tells_reasons(tmp_path: Path) -> None:
    folder = write_labelled(tmp_path / "examples")
    rejected = [_line(keep=False, reason="zu dunkel", image=f"schräube/reject/{number}.png") for number in (0, 1)]
    kept = [_line(image=f"schräube/keep/{number}.png") for number in (0, 1)]
    (folder / "examples.jsonl").write_text("\n".join([*kept, *rejected]), encoding="utf-8")
    examples = load_examples(folder, "judge")
    assert [(one.category, one.keep, one.reason) for one in examples][1:3] == [
        ("bolt", True, ""),
        ("bolt", False, "zu dunkel"),
    ]


def test_each_label_is_on_both_sides_whatever_the_order(tmp_path: Path) -> None:
    examples = load_examples(write_labelled(tmp_path / "examples", each=3), "judge")
    for seed in range(5):
        learned, held_out = split_examples(examples, 0.5, seed)
        assert {one.keep for one in learned} == {one.keep for one in held_out} == {True, False}
        assert split_examples(examples[::-1], 0.5, seed) == (learned, held_out)
        assert sorted(one.example_id for one in (*learned, *held_out)) == sorted(one.example_id for one in examples)


def test_an_epoch_shows_every_example_once() -> None:
    learned = [Example(example_id=str(number), category="bolt") for number in range(9)]
    epochs = [[choose_batch(learned, 3 * epoch + step, OptimizeSettings()) for step in (1, 2, 3)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(one.example_id for batch in epoch for one in batch) == [str(number) for number in range(9)]
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param({"keep": [1.0] * 9, "reject": [0.0]}, 0.5, id="the rarer label counts as much"),
        pytest.param({"keep": [1.0, 0.0], "reject": [1.0]}, 0.75, id="mean of means"),
        pytest.param({"painted": [0.25, 0.75]}, 0.5, id="one group"),
    ],
)
def test_groups_count_alike(scores: dict[str, list[float]], expected: float) -> None:
    trials: list[Trial] = [
        {"example_id": "", "group": group, "score": score, "metrics": {}, "evidence": "", "calls": 1}
        for group, values in scores.items()
        for score in values
    ]
    assert mean_score(trials) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("{memory} {subject}", "", id="as it must be"),
        pytest.param("{memory} {subject} {{sic}}", "", id="escaped braces"),
        pytest.param("{memory}", "lacks the placeholder {subject}", id="lacking"),
        pytest.param("{memory} {subject} {kind}", "unknown placeholder {kind}", id="unknown"),
        pytest.param("{memory} {subject} {}", "unknown placeholder {}", id="unnamed"),
        pytest.param("{memory} {subject.text}", "lacks the placeholder {subject}", id="an attribute"),
        pytest.param("{memory!r} {subject}", "has a format", id="a conversion"),
        pytest.param("{memory} {subject} }", "do not pair", id="a stray brace"),
    ],
)
def test_placeholders(text: str, says: str) -> None:
    fault = find_placeholder_fault(text, WRITER_PLACEHOLDERS)
    assert (says in fault) if says else fault == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "cannot be read", id="missing"),
        pytest.param(b"\xff\xfe\xff", "cannot be read", id="no text"),
        pytest.param(b"---\nagent: judge\n---\n{category} {criteria}", "lacks the placeholder", id="a judge's"),
    ],
)
def test_a_prompt_file_that_will_not_do_is_refused(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "schreiber.md"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=says):
        read_prompt_file(path, "writer", WRITER_PLACEHOLDERS)


def test_a_prompt_of_several_parts_survives_its_file(tmp_path: Path) -> None:
    RECORD.updates += [f"STRICT.\n---\nGrüße: \n{LENIENT}\n---\nEnde"]
    path, optimized = judge_better(tmp_path)
    assert load_question(str(path)) == optimized.after["prompt"]
    assert yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])["improved"] is True


def test_the_built_in_questions_pass_their_own_check() -> None:
    for name in ("writer", "ld_writer"):
        assert find_placeholder_fault(load_template(name).text, WRITER_PLACEHOLDERS) == ""


def test_the_seeds_of_pictures_do_not_depend_on_the_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = ScriptedTextPainter([poor])
    overrides = register(monkeypatch, painter)
    recipe = load_recipe("text_agent", [*overrides, f"llm.model={WRITER}", f"llm.planner={ENGINE}"])
    RECORD.updates += ["Write a short caption, new, of a single {subject} on a plain background. {memory}"]
    folder = write_classes(tmp_path / "classes", "bolt", "nut")
    optimize_prompt(recipe, "writer", folder, OptimizeSettings(rounds=1), out=tmp_path / "w.md", work=tmp_path / "work")
    seeds = Counter((request.item_id, request.seed) for request in painter.requests)
    assert set(seeds.values()) == {1, 2}
