"""The scene writer that asks a model: what it is asked, what is mended, and that a score is never made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from anomaly_helpers import knowledge
from label_agent_helpers import label_item
from text_helpers import INPUT_TOKENS, ScriptedChat

from maskwright.errors import ModelOutageError, UnparseableAnswerError
from maskwright.graphs.anomaly_planner import PlanDrawer
from maskwright.graphs.label_planning import PlannedSceneWriter, ScenePlanner
from maskwright.graphs.label_state import PromptScore
from maskwright.graphs.label_writing import ModelSceneWriter, WrittenScene, find_scene_fault, tidy_scene
from maskwright.graphs.templates import load_template
from maskwright.graphs.writing import Usage

CLASSES = ("blowhole", "crack", "fray")
LOW: PromptScore = {"presence": 9.0, "coherence": 9.5, "plausibility": 3.0, "reasons": ["the crack floats"]}


def scene_json(prompt: str, *labels: str) -> str:
    parts = [{"label": label, "what": "a thin dark line", "where": "at the left"} for label in labels]
    return json.dumps({"parts": parts, "prompt": prompt}, ensure_ascii=False)


def score_json(presence: object = 9, coherence: object = 8.5, plausibility: object = 4, **more: object) -> str:
    scores = {"presence": presence, "coherence": coherence, "plausibility": plausibility}
    return json.dumps({"reasons": ["too\n large"], **scores, **more})


@dataclass
class Answers:
    """Each answer once, the last one again and again."""

    queue: Sequence[str | Exception]
    num_asked: int = 0

    def __call__(self, question: str) -> str:
        answer = self.queue[min(self.num_asked, len(self.queue) - 1)]
        self.num_asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def build(*answers: str | Exception, with_plans: bool = True) -> tuple[ModelSceneWriter, ScriptedChat]:
    chat = ScriptedChat(script=Answers(answers))
    planner = ScenePlanner(drawer=PlanDrawer((0.3, 0.8)), look_up=knowledge, run_seed=3) if with_plans else None
    planned = PlannedSceneWriter(classes=CLASSES, run_seed=3, item_name="magnetic_tile", planner=planner)
    return ModelSceneWriter(model=chat, name="writer", max_repairs=1, planned=planned), chat


GOOD = scene_json("A tile with a thin crack", "crack")


def test_a_draft_is_asked_for_with_the_plans_as_facts() -> None:
    writer, chat = build(GOOD)
    usage = Usage()
    entry = writer.draft(label_item("crack"), 1, (), usage)
    assert (entry["text"], entry["by"], entry["rung"]) == ("A tile with a thin crack", "writer", "extract")
    assert entry.get("template") == load_template("scene_draft").version
    assert [plan["defect"] for plan in entry["plans"]] == ["crack"]
    [question] = chat.questions
    assert "of a magnetic tile that shows each of these, and plainly: crack." in question
    assert "none of these: blowhole, fray." in question
    assert "crack where material is gone, in the" in question
    assert "refused" not in question
    assert (usage.calls, usage.input_tokens) == (1, {"writer": INPUT_TOKENS})


def test_a_later_draft_is_told_why_pictures_were_refused() -> None:
    writer, chat = build(GOOD, with_plans=False)
    entry = writer.draft(label_item("crack"), 2, ["missing crack", "extra fray"], Usage())
    assert "Pictures of the last prompt were refused: missing crack; extra fray." in chat.questions[0]
    assert "What will be painted" not in chat.questions[0]
    assert (entry["draft"], entry["round"], entry["plans"]) == (2, 0, [])


def test_a_draft_that_names_another_class_is_mended_once_then_the_embedded_writers() -> None:
    wrong = scene_json("A tile with a crack and a fray", "crack")
    writer, chat = build(wrong, GOOD)
    assert writer.draft(label_item("crack"), 1, (), Usage())["rung"] == "repair"
    assert "must not contain the words fray" in chat.conversations[-1][-1]
    writer, _ = build(wrong)
    entry = writer.draft(label_item("crack"), 1, (), Usage())
    assert (entry["rung"], entry["by"]) == ("template", "planned")
    assert entry["text"] == writer.planned.draft(label_item("crack"), 1, (), Usage())["text"]


def test_the_model_scores_its_own_prompt() -> None:
    writer, chat = build(GOOD, score_json())
    entry = writer.draft(label_item("crack"), 1, (), Usage())
    score = writer.score(label_item("crack"), entry, Usage())
    assert score == {
        "presence": 9.0,
        "coherence": 8.5,
        "plausibility": 4.0,
        "reasons": ["too large"],
        "template": load_template("scene_score").version,
    }
    assert "Prompt: A tile with a thin crack" in chat.questions[1]
    assert "blowhole: gas that did not escape" in chat.questions[1]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("nine out of ten", id="prose"),
        pytest.param(score_json(presence=11), id="beyond the scale"),
        pytest.param(score_json(presence=-1), id="below the scale"),
        pytest.param(score_json(presence=float("nan")), id="no number"),
        pytest.param(score_json(presence=None), id="null"),
        pytest.param(score_json(verdict="good"), id="another key"),
        pytest.param('{"presence": 9, "coherence": 9, "reasons": []}', id="a criterion is missing"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_score_is_never_made_up(answer: str) -> None:
    writer, chat = build(GOOD, answer)
    entry = writer.draft(label_item("crack"), 1, (), Usage())
    with pytest.raises(UnparseableAnswerError):
        writer.score(label_item("crack"), entry, Usage())
    assert len(chat.questions) == 3


def test_an_outage_is_no_reason_to_take_the_template() -> None:
    writer, _ = build(ModelOutageError("down"))
    with pytest.raises(ModelOutageError):
        writer.draft(label_item("crack"), 1, (), Usage())


def test_a_rewrite_is_told_scores_and_reasons_and_redraws_what_is_wrong() -> None:
    better = scene_json("A tile with a faint crack at its edge", "crack")
    writer, chat = build(GOOD, better)
    item = label_item("crack")
    entry = writer.draft(item, 1, (), Usage())
    again = writer.rewrite(item, entry, LOW, Usage())
    assert (again["draft"], again["round"], again["text"]) == (1, 1, "A tile with a faint crack at its edge")
    assert again.get("template") == load_template("scene_rewrite").version
    assert "presence 9, coherence 9.5, plausibility 3." in chat.questions[1]
    assert "What is wrong: the crack floats" in chat.questions[1]
    assert again["plans"] != entry["plans"]
    assert again["plans"][0]["family"] in knowledge().families


def test_plans_stay_where_only_the_words_are_wrong() -> None:
    writer, _ = build(GOOD, scene_json("A tile with one crack", "crack"))
    item = label_item("crack")
    entry = writer.draft(item, 1, (), Usage())
    good = writer.planned.rewrite(item, entry, LOW, Usage())["plans"]
    wordy: PromptScore = {"presence": 2.0, "coherence": 9.0, "plausibility": 9.0, "reasons": ["no crack"]}
    assert writer.rewrite(item, {**entry, "plans": good}, wordy, Usage())["plans"] == good
    moved = writer.rewrite(item, {**entry, "plans": good}, LOW, Usage())["plans"]
    assert moved[0]["centre_xy"] != good[0]["centre_xy"]


@pytest.mark.parametrize(
    ("prompt", "parts", "fault"),
    [
        pytest.param("a crack and a fray", ["crack", "fray"], "", id="none"),
        pytest.param("a Crack, two frays", ["the crack", "fray"], "", id="other forms"),
        pytest.param("", ["crack", "fray"], "that is no prompt", id="nothing"),
        pytest.param("I'm sorry, I cannot do this", ["crack", "fray"], "that is no prompt", id="refusal"),
        pytest.param("a crack {fray}", ["crack", "fray"], "that is no prompt", id="braces"),
        pytest.param("a crack", ["crack", "fray"], "must contain the words fray", id="a label is missing"),
        pytest.param("a crack, a fray, a hot dog", ["crack", "fray"], "not contain the words hot dog", id="another"),
        pytest.param("a crack and a fray", ["crack"], "an entry for fray", id="a part is missing"),
        pytest.param("a crack, a fray" + " and so on" * 5, ["crack", "fray"], "use at most 12", id="too long"),
        pytest.param("A crack, a fray", ["crack", "fray"], "the same prompt again", id="the last one again"),
    ],
)
def test_what_is_no_prompt_for_its_labels(prompt: str, parts: list[str], fault: str) -> None:
    scene = WrittenScene.model_validate_json(scene_json(prompt, *parts))
    found = find_scene_fault(scene, ["crack", "fray"], ["crack", "fray", "hot_dog"], "a crack, a fray", 12)
    assert fault in found
    assert bool(found) is bool(fault)


def test_a_painter_that_reads_less_is_written_less() -> None:
    writer, chat = build(scene_json("A tile with a thin crack in it", "crack"))
    short = replace(writer, planned=replace(writer.planned, max_words=6))
    entry = short.draft(label_item("crack"), 1, (), Usage())
    assert "at most 6 words" in chat.questions[0]
    assert len(entry["text"].split()) <= 6


@pytest.mark.parametrize(
    ("said", "prompt"),
    [('"a\n crack"', "a crack"), ("  a crack. A fray. ", "a crack. A fray."), ("größer", "größer")],
)
def test_tidy(said: str, prompt: str) -> None:
    assert tidy_scene(said) == prompt
