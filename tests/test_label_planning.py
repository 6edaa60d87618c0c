"""The embedded scene writer: words of its prompts, measures of them, plans redrawn by what is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from anomaly_helpers import knowledge
from label_agent_helpers import label_item

from maskwright.graphs.anomaly_planner import PlanDrawer, json_to_plan
from maskwright.graphs.label_filter import least
from maskwright.graphs.label_measures import (
    find_coherence_faults,
    find_plausibility_faults,
    find_presence_faults,
    outside_share,
    overlap_share,
    to_box,
    to_points,
)
from maskwright.graphs.label_planning import PlannedSceneWriter, ScenePlanner
from maskwright.graphs.label_state import PromptEntry, PromptScore
from maskwright.graphs.label_words import SETTINGS, labels_to_sentence, names, others_named, plans_to_sentence
from maskwright.graphs.writing import Usage
from maskwright.memory.knowledge_search import DefectKnowledge
from maskwright.tools.defects import DefectPlan

CLASSES = ("blowhole", "crack", "fray")
FULL: PromptScore = {"presence": 10.0, "coherence": 10.0, "plausibility": 10.0, "reasons": []}


def plan(defect: str = "crack", **changes: object) -> DefectPlan:
    base = DefectPlan(
        defect=defect, family="hole", centre_xy=(0.5, 0.5), size_ratio=0.055, severity=0.8, relief="removed"
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def planned(**changes: object) -> PlannedSceneWriter:
    planner = ScenePlanner(drawer=PlanDrawer((0.3, 0.8)), look_up=knowledge, run_seed=3)
    writer = PlannedSceneWriter(classes=CLASSES, run_seed=3, item_name="magnetic_tile", planner=planner)
    return replace(writer, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "label", "named"),
    [
        pytest.param("a Hot  Dog", "hot_dog", True, id="any case, spaces, underscores"),
        pytest.param("two hot dogs", "hot dog", True, id="plural"),
        pytest.param("a dog", "hot dog", False, id="its last word alone"),
        pytest.param("a carpet", "car", False, id="inside a word"),
        pytest.param("eine Mütze", "mütze", True, id="other letters"),
        pytest.param("MT_Crack-like", "crack", True, id="beside marks"),
        pytest.param("anything", "?", True, id="a name without words"),
        pytest.param("", "car", False, id="nothing"),
    ],
)
def test_a_text_names_a_class(text: str, label: str, named: bool) -> None:
    assert names(text, label) is named


@pytest.mark.parametrize(
    ("text", "labels", "others"),
    [
        pytest.param("a cat on a table", ["cat"], ["table"], id="another class"),
        pytest.param("a hot dog", ["hot dog"], [], id="inside a label"),
        pytest.param("a dog", ["dog"], [], id="part of another class"),
        pytest.param("a hot dog and a dog", ["hot dog"], ["dog"], id="beside a label"),
        pytest.param("a cat", ["cat"], [], id="none"),
    ],
)
def test_other_classes_that_a_text_names(text: str, labels: list[str], others: list[str]) -> None:
    assert others_named(text, labels, ["cat", "dog", "hot dog", "table", "?"]) == others


def test_sentences_name_every_label_within_what_a_painter_reads() -> None:
    plans = [plan("crack", centre_xy=(0.1, 0.9)), plan("large_fray", severity=0.2)]
    full = plans_to_sentence(plans, "magnetic_tile", None)
    assert full.startswith("a photograph of a magnetic tile with one severe crack where material is gone, in the lower")
    assert "one faint large fray" in full
    assert (
        plans_to_sentence(plans, "magnetic_tile", 14) == "a photograph of a magnetic tile with a crack and a large fray"
    )
    assert plans_to_sentence(plans, "", 9) == "a photograph of a surface with a crack and"
    assert labels_to_sentence(["apple", "cat", "traffic_light"], "seen from the side", None) == (
        "a photograph of an apple, a cat and a traffic light seen from the side"
    )
    assert labels_to_sentence(["cat"], "seen from the side", 5) == "a photograph of a cat"


@pytest.mark.parametrize(
    ("text", "points"),
    [
        pytest.param("a crack and a fray", 10.0, id="both"),
        pytest.param("a crack", 5.0, id="one of two"),
        pytest.param("a tile", 0.0, id="none"),
        pytest.param("a crack, a fray, a blowhole", 5.0, id="another class"),
    ],
)
def test_presence(text: str, points: float) -> None:
    assert to_points(find_presence_faults(text, ["crack", "fray"], CLASSES)) == points


@pytest.mark.parametrize(
    ("plans", "parts"),
    [
        pytest.param([], [], id="nothing planned"),
        pytest.param([plan()], [], id="one"),
        pytest.param([plan("crack", centre_xy=(0.2, 0.2)), plan("fray", centre_xy=(0.8, 0.8))], [], id="apart"),
        pytest.param([plan("crack"), plan("fray")], ["fray"], id="in one place"),
        pytest.param([plan(centre_xy=(1.0, 0.5))], [], id="half over the edge"),
        pytest.param([plan(centre_xy=(1.0, 1.0))], ["crack"], id="three quarters outside"),
        pytest.param([plan("crack", size_ratio=0.7)], ["crack"], id="half the object"),
    ],
)
def test_coherence(plans: list[DefectPlan], parts: list[str]) -> None:
    faults = find_coherence_faults(plans)
    assert [fault.part for fault in faults] == parts
    assert to_points(faults) < 8 if parts else to_points(faults) == 10


def test_boxes_of_plans() -> None:
    long = plan(size_ratio=0.1, elongation=4.0)
    assert to_box(long) == pytest.approx((0.4, 0.475, 0.6, 0.525))
    assert to_box(replace(long, orientation_deg=90)) == pytest.approx((0.475, 0.4, 0.525, 0.6))
    assert overlap_share((0, 0, 1, 1), (0.5, 0, 0.7, 2)) == pytest.approx(0.5)
    assert overlap_share((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert outside_share((0.5, 0.5, 1.5, 1.5)) == pytest.approx(0.75)
    assert outside_share((-1, -1, 2, 2)) == pytest.approx(8 / 9)
    assert outside_share((0.1, 0.1, 0.9, 0.9)) == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "points", "reason"),
    [
        pytest.param({}, 10.0, "", id="as known"),
        pytest.param({"family": "stain"}, 5.0, "looks like stain, such ones like hole", id="another kind"),
        pytest.param({"relief": "added"}, 7.0, "is added, such ones are removed", id="another relief"),
        pytest.param({"size_ratio": 0.12}, 7.0, "size_ratio 0.12, such ones 0.05 to 0.06", id="twice too large"),
        pytest.param({"size_ratio": 0.025}, 7.0, "size_ratio 0.025", id="half of the least"),
        pytest.param({"severity": 0.5}, 8.0, "severity 0.5, such ones 0.7 to 0.9", id="too faint"),
        pytest.param({"centre_xy": (0.9, 0.1)}, 10.0, "", id="another place"),
        pytest.param({"elongation": 50.0, "irregularity": 1.0}, 10.0, "", id="what is not known"),
    ],
)
def test_plausibility(changes: dict[str, object], points: float, reason: str) -> None:
    faults = find_plausibility_faults(plan(**changes), knowledge("crack"))
    assert to_points(faults) == pytest.approx(points)
    assert [fault.reason.startswith(f"crack: {reason}") for fault in faults] == ([True] if reason else [])


def test_a_place_without_such_defects_is_implausible() -> None:
    edges = replace(knowledge(), place_weights=(0.125,) * 4 + (0.0,) + (0.125,) * 4)
    assert to_points(find_plausibility_faults(plan(), edges)) == 7.0
    assert to_points(find_plausibility_faults(plan(centre_xy=(1.0, 1.0)), edges)) == 10.0


def test_points_never_fall_below_zero() -> None:
    assert to_points(find_plausibility_faults(plan(family="stain", relief="flat", size_ratio=0.9), knowledge())) == 0


def refine(writer: PlannedSceneWriter, *labels: str, slot: int = 0) -> list[tuple[PromptEntry, PromptScore]]:
    """As the agent does with three rewrites."""
    item, usage = label_item(*labels, slot=slot), Usage()
    entry = writer.draft(item, 1, (), usage)
    versions = [(entry, writer.score(item, entry, usage))]
    while least(versions[-1][1]) < 8 and len(versions) < 4:
        entry = writer.rewrite(item, *versions[-1], usage)
        versions.append((entry, writer.score(item, entry, usage)))
    return versions


def test_what_the_name_alone_does_not_say_is_mended_by_what_is_known() -> None:
    [first, *_, last] = refine(planned(), "fray")
    assert least(first[1]) < 2
    assert "fray: looks like thread, such ones like hole" in first[1]["reasons"]
    assert last[1] == FULL
    assert (first[0]["plans"][0]["family"], last[0]["plans"][0]["family"]) == ("thread", "hole")
    assert (last[0]["draft"], last[0]["round"], last[0]["by"], last[0]["rung"]) == (1, 1, "planned", "planned")


def test_parts_that_overlap_are_moved_and_good_ones_stay() -> None:
    writer, item, usage = planned(), label_item("blowhole", "crack"), Usage()
    entry = writer.draft(item, 1, (), usage)
    good = plan("blowhole", centre_xy=(0.3, 0.3))
    bad = plan("crack", centre_xy=(0.31, 0.3))
    plans = [{**old, "centre_xy": list(new.centre_xy)} for old, new in zip(entry["plans"], (good, bad), strict=True)]
    known = {"family": "hole", "size_ratio": 0.055, "severity": 0.8, "elongation": 1.0, "relief": "removed"}
    crowded: PromptEntry = {**entry, "plans": [{**one, **known} for one in plans]}  # type: ignore[typeddict-item]
    score = writer.score(item, crowded, usage)
    assert (score["coherence"] < 8, score["plausibility"]) == (True, 10)
    mended = writer.rewrite(item, crowded, score, usage)
    assert mended["plans"][0] == crowded["plans"][0]
    assert find_coherence_faults([json_to_plan(one) for one in mended["plans"]]) == []


def test_nearly_every_prompt_is_mended_in_three_rewrites() -> None:
    last = [refine(planned(), "blowhole", "crack", "fray", slot=slot)[-1][1] for slot in range(40)]
    assert sum(least(score) >= 8 for score in last) >= 39


def test_a_label_that_the_filter_missed_is_planned_plainer_and_larger() -> None:
    writer, item = planned(), label_item("crack")
    [plain] = writer.plan(item, 2, ["extra fray"])
    [raised] = writer.plan(item, 2, ["missing crack", "extra fray"])
    assert raised.severity > plain.severity
    assert raised.size_ratio > plain.size_ratio
    assert writer.plan(item, 1, []) != writer.plan(item, 2, [])


def test_drafts_depend_on_item_and_seed_alone() -> None:
    def texts(seed: int) -> list[object]:
        writer = planned(planner=ScenePlanner(drawer=PlanDrawer((0.3, 0.8)), look_up=None, run_seed=seed))
        return [writer.draft(label_item("crack", slot=slot), 1, (), Usage()) for slot in range(5)]

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)
    assert len({str(entry) for entry in texts(3)}) == 5


def test_what_nobody_knows_costs_no_points() -> None:
    def nothing(defect: str) -> DefectKnowledge | None:
        return None

    for look_up in (None, nothing):
        writer = planned(planner=ScenePlanner(drawer=PlanDrawer((0.3, 0.8)), look_up=look_up, run_seed=3))
        assert [score["plausibility"] for _, score in refine(writer, "fray")] == [10.0]


def test_without_plans_a_prompt_names_its_labels_in_a_setting_that_names_no_class() -> None:
    classes = ("cat", "cup", "light", "afternoon", "side")
    writer = planned(classes=classes, planner=None)
    entries = [refine(writer, "cat", "cup", slot=slot) for slot in range(30)]
    assert {len(versions) for versions in entries} == {1}
    assert all(versions[0][1] == FULL and versions[0][0]["plans"] == [] for versions in entries)
    texts = {versions[0][0]["text"] for versions in entries}
    assert {text.removeprefix("a photograph of a cat and a cup ") for text in texts} == {
        setting for setting in SETTINGS if not others_named(setting, (), classes)
    }


def test_a_rewrite_without_plans_takes_other_words() -> None:
    writer, item = planned(planner=None), label_item("crack")
    first = writer.draft(item, 1, (), Usage())
    again = writer.rewrite(item, first, {**FULL, "presence": 0.0}, Usage())
    assert again["text"] != first["text"]
    assert again["round"] == 1
