"""The plan: quotas shared between the agents, waves that share a memory, and ids that never change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from maskwright.configs.recipe import load_recipe
from maskwright.data.coco import load_coco
from maskwright.data.records import Dataset
from maskwright.graphs.work import WorkPlan, plan_work

NEW = {"bolt": 8, "Mutter ö": 18}
"""What `at_least` 20 asks for, with 12 and 2 there."""


@pytest.fixture
def dataset(photographs: Path) -> Dataset:
    annotations = photographs / "annotations" / "instances_train.json"
    return load_coco({"train": annotations}, {"train": photographs / "images" / "train"})


def _plan(dataset: Dataset, *overrides: str, knows: Callable[[str], bool] = lambda _: True) -> WorkPlan:
    return plan_work(dataset, load_recipe("instada", ["plan.at_least=20", *overrides]), knows)


def _per_agent(plan: WorkPlan, name: str) -> Counter[str]:
    return Counter(item["agent"] for item in plan.items if item["category"] == name)


@pytest.mark.parametrize(
    ("share", "for_text"),
    [
        pytest.param(0.0, {"bolt": 0, "Mutter ö": 0}, id="none"),
        pytest.param(0.25, {"bolt": 2, "Mutter ö": 4}, id="a quarter"),
        pytest.param(0.5, {"bolt": 4, "Mutter ö": 9}, id="half"),
        pytest.param(1.0, NEW, id="all"),
    ],
)
def test_the_agents_share_each_quota(share: float, for_text: dict[str, int], dataset: Dataset) -> None:
    plan = _plan(dataset, f"agents.text_agent.quota_share={share}", "agents.text_agent.images_per_prompt=1")
    for name, new in NEW.items():
        made = _per_agent(plan, name)
        assert (made["text_agent"], made["image_agent"]) == (for_text[name], new - for_text[name])
    names = {quota.category.category_id: quota.category.name for quota in plan.quotas}
    assert {names[key]: value for key, value in plan.text_quota.items()} == {k: v for k, v in for_text.items() if v}


@pytest.mark.parametrize(
    ("images", "min_yield", "num_items"),
    [
        pytest.param(4, 0.5, 9, id="two of four are kept"),
        pytest.param(4, 1.0, 5, id="all are kept"),
        pytest.param(4, 0.0, 18, id="at least one is hoped for"),
        pytest.param(1, 0.5, 18, id="one picture"),
    ],
)
def test_items_are_as_many_as_just_fill_the_quota(
    images: int, min_yield: float, num_items: int, dataset: Dataset
) -> None:
    settings = f"agents.text_agent={{quota_share: 1, images_per_prompt: {images}, min_yield: {min_yield}}}"
    assert _per_agent(_plan(dataset, settings), "Mutter ö")["text_agent"] == num_items


def test_a_class_that_cannot_be_painted_goes_to_the_i_agent(dataset: Dataset) -> None:
    plan = _plan(dataset, knows=lambda name: name != "bolt")
    assert plan.unpainted == ("bolt",)
    assert _per_agent(plan, "bolt") == {"image_agent": NEW["bolt"]}
    assert set(_per_agent(plan, "Mutter ö")) == {"text_agent", "image_agent"}
    assert plan.without_source == ()


def test_without_an_i_agent_a_class_that_cannot_be_painted_is_left_out_and_named(dataset: Dataset) -> None:
    plan = _plan(dataset, "agents.image_agent=null", knows=lambda name: name != "bolt")
    assert (plan.unpainted, plan.without_source) == (("bolt",), ("bolt",))
    assert {item["category"] for item in plan.items} == {"Mutter ö"}


def test_without_a_t_agent_nobody_is_asked_what_it_knows(dataset: Dataset) -> None:
    def nobody(name: str) -> bool:
        raise AssertionError(name)

    plan = _plan(dataset, "agents.text_agent=null", knows=nobody)
    assert {item["agent"] for item in plan.items} == {"image_agent"}
    assert (plan.unpainted, plan.text_quota) == ((), {})


@pytest.mark.parametrize("per_wave", [1, 3])
def test_a_wave_holds_one_agent_and_of_the_t_agent_s_one_turn_of_each_class(per_wave: int, dataset: Dataset) -> None:
    plan = _plan(dataset, f"agents.text_agent.items_per_wave={per_wave}", "plan.wave_size=4")
    for wave in plan.waves:
        assert len({item["agent"] for item in wave}) == 1
        assert 1 <= len(wave) <= 4
        if wave[0]["agent"] == "text_agent":
            assert max(Counter(item["category"] for item in wave).values()) <= per_wave


def test_slots_of_a_class_come_in_order_over_the_waves(dataset: Dataset) -> None:
    plan = _plan(dataset, "agents.text_agent.items_per_wave=2", "agents.text_agent.images_per_prompt=1")
    texts = [item for item in plan.items if item["agent"] == "text_agent"]
    for name in NEW:
        slots = [item["slot"] for item in texts if item["category"] == name]
        assert slots == list(range(len(slots)))


def test_agents_take_turns_so_that_a_limit_leaves_both(dataset: Dataset) -> None:
    overrides = ("plan.wave_size=3",)
    whole = _plan(dataset, *overrides)
    turns = [agent for agent, _ in groupby(wave[0]["agent"] for wave in whole.waves)]
    assert turns[:4] == ["text_agent", "image_agent"] * 2
    part = _plan(dataset, *overrides, "budget.items=6")
    assert part.items == whole.items[:6]
    assert {item["agent"] for item in part.items} == {"text_agent", "image_agent"}


@pytest.mark.parametrize(
    "override",
    [
        pytest.param("plan.wave_size=1", id="wave size"),
        pytest.param("agents.text_agent.items_per_wave=5", id="items a wave"),
        pytest.param("budget.workers=7", id="workers"),
        pytest.param("plan.seed=9", id="seed"),
    ],
)
def test_ids_do_not_depend_on_how_the_work_is_cut(override: str, dataset: Dataset) -> None:
    plain, other = _plan(dataset), _plan(dataset, override)
    assert {item["item_id"]: item for item in plain.items} == {item["item_id"]: item for item in other.items}
    assert len({item["item_id"] for item in plain.items}) == len(plain.items)


def test_the_rarest_class_takes_the_first_turn(dataset: Dataset) -> None:
    plan = _plan(dataset, "agents.text_agent=null", "plan.wave_size=3")
    assert [item["category"] for item in plan.items[:4]] == ["Mutter ö", "bolt"] * 2
    assert _plan(dataset, "agents.text_agent=null", "budget.items=1").items[0]["category"] == "Mutter ö"


def test_more_work_keeps_the_ids_of_less(dataset: Dataset) -> None:
    less, more = ({item["item_id"] for item in _plan(dataset, f"plan.at_least={n}").items} for n in (20, 30))
    assert less < more


def test_ids_name_agent_class_and_slot(dataset: Dataset) -> None:
    first = _plan(dataset).items[0]
    assert (first["item_id"], first["source_row"], first["slot"]) == ("text-7-0000", -1, 0)
