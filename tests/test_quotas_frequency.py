"""LVIS's frequency groups: who belongs to which, what each is topped up to, and what `maskwright plan` shows of it."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from pydantic import ValidationError
from rich.console import Console
from table_helpers import Rectangle, build_dataset

from maskwright import console_plan
from maskwright.configs.plan import PlanSettings
from maskwright.configs.recipe import load_recipe
from maskwright.data.quotas import ClassQuota, frequency_group, plan_quotas
from maskwright.data.records import Category, Dataset, Frequency
from maskwright.graphs.pipeline import Prepared
from maskwright.graphs.work import plan_work

TARGETS: dict[Frequency, int] = {"r": 50, "c": 20, "f": 0}


def _dataset(*classes: tuple[str, int, Frequency | None], others: Sequence[str] = ()) -> Dataset:
    """Classes of (name, training images, declared frequency), one instance an image; `others` are further splits."""
    categories = [Category(number, name, "", declared) for number, (name, _, declared) in enumerate(classes, start=1)]
    splits = ["train"] * max(count for _, count, _ in classes)
    rectangles = [
        Rectangle(category.category_id, photograph)
        for category, (_, count, _) in zip(categories, classes, strict=True)
        for photograph in range(count)
    ]
    rectangles += [Rectangle(1, len(splits) + number) for number in range(len(others))]
    return build_dataset(categories, [*splits, *others], rectangles)


def _quotas(dataset: Dataset, max_per_class: int | None = None) -> list[ClassQuota]:
    return plan_quotas(
        dataset,
        by="frequency",
        at_least=1000,
        repeat_threshold=0.001,
        at_least_by_frequency=TARGETS,
        max_per_class=max_per_class,
    )


@pytest.mark.parametrize(
    ("num_images", "group"), [(0, "r"), (1, "r"), (10, "r"), (11, "c"), (100, "c"), (101, "f"), (100_000, "f")]
)
def test_groups_have_lvis_s_bounds(num_images: int, group: Frequency) -> None:
    assert frequency_group(num_images) == group


@pytest.mark.parametrize(
    ("num_images", "declared", "group", "num_new"),
    [
        pytest.param(10, None, "r", 40, id="rare by its images"),
        pytest.param(11, None, "c", 9, id="common by its images"),
        pytest.param(101, None, "f", 0, id="frequent by its images"),
        pytest.param(3, "f", "f", 0, id="declared frequent"),
        pytest.param(12, "r", "r", 38, id="declared rare"),
        pytest.param(60, "r", "r", 0, id="rare and above its target"),
    ],
)
def test_the_group_decides_what_a_class_is_topped_up_to(
    num_images: int, declared: Frequency | None, group: Frequency, num_new: int
) -> None:
    [quota] = _quotas(_dataset(("Schraube ß", num_images, declared)))
    assert (quota.frequency, quota.num_new) == (group, num_new)


def test_images_of_val_make_no_class_more_frequent() -> None:
    [quota] = _quotas(_dataset(("bolt", 10, None), others=["val"] * 5))
    assert (quota.frequency, quota.num_images) == ("r", 10)


def test_the_most_per_class_holds_here_too() -> None:
    assert [quota.num_new for quota in _quotas(_dataset(("bolt", 4, None)), max_per_class=7)] == [7]


def test_settings_reach_the_plan() -> None:
    dataset = _dataset(("bolt", 2, None), ("nut", 12, None), ("gear", 101, None))
    overrides = ["plan.by=frequency", "plan.frequency={rare: 6, common: 15, frequent: 103}"]
    work = plan_work(dataset, load_recipe("instances", overrides), lambda _: True)
    assert [(quota.frequency, quota.num_new) for quota in work.quotas] == [("r", 4), ("c", 3), ("f", 2)]


@pytest.mark.parametrize("frequency", [{"rare": -1}, {"scarce": 3}], ids=["negative", "no such group"])
def test_wrong_targets_are_refused(frequency: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match=next(iter(frequency))):
        PlanSettings.model_validate({"frequency": frequency})


@pytest.mark.parametrize("width", [72, 80, 140])
def test_plan_shows_group_and_repeat_factor_in_narrow_terminals(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _dataset(("bolt", 1, None), ("Mutter ö", 12, None), ("[bold]gear", 120, None))
    recipe = load_recipe("instances", ["plan.by=frequency", "plan.repeat_threshold=0.1"])
    printed = io.StringIO()
    monkeypatch.setattr(console_plan, "console", Console(file=printed, width=width))
    console_plan.show_plan(Prepared(recipe, dataset, "", plan_work(dataset, recipe, lambda _: True)))
    lines = [line.split() for line in printed.getvalue().splitlines()]
    assert max(map(len, printed.getvalue().splitlines())) <= width
    assert ["bolt", "rare", "1", "1", "3.46", "49", "1"] in lines
    assert ["Mutter", "ö", "common", "12", "12", "1.00", "8", "12"] in lines
    assert ["[bold]gear", "frequent", "120", "120", "1.00", "0"] in lines
    assert "rare: 1 class; instances: 1 real, 49 new" in printed.getvalue()
    assert "frequent: 1 class; instances: 120 real, 0 new" in printed.getvalue()
