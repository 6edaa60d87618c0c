"""Recipes: what is refused, with which words; what a fingerprint depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskwright.configs.recipe import builtin_recipes, load_recipe
from maskwright.errors import RecipeError


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_shipped_recipe_is_valid_and_survives_yaml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    written = tmp_path / "again.yaml"
    written.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(written)) == recipe


@pytest.mark.parametrize(
    ("override", "says"),
    [
        pytest.param("plann.at_least=3", "did you mean `plan`", id="misspelt section"),
        pytest.param("plan.at_leest=3", "did you mean `at_least`", id="misspelt key"),
        pytest.param("agents.image_agent.limits.min_aera_px=3", "min_area_px", id="misspelt deep key"),
        pytest.param("plan.at_least=-1", "-1", id="out of bounds"),
        pytest.param("plan.at_least=many", "many", id="wrong type"),
        pytest.param("compose.instances_per_scene=[5, 2]", "swap", id="contradiction"),
        pytest.param("plan.at_least", "key.sub=value", id="no value"),
        pytest.param("plan.seed.deeper=1", "not a section", id="below a value"),
        pytest.param("export.formats=[coco, tfrecord]", "tfrecord", id="unknown format"),
    ],
)
def test_a_wrong_setting_is_named(override: str, says: str) -> None:
    overrides = ["plan.seed=1", override]
    with pytest.raises(RecipeError, match=says.replace(".", r"\.").replace("[", r"\[")):
        load_recipe("instances", overrides)


@pytest.mark.parametrize(
    ("text", "says"),
    [("agents: [", "not a readable YAML"), ("- a\n- b", "mapping of sections"), ("plan: {}", "`agents` is missing")],
    ids=["no YAML", "a list", "no agents"],
)
def test_a_broken_recipe_file_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(str(path))
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"did you mean `instances`.*quickstart"):
        load_recipe("instance")
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("budget.workers=7", True),
        ("budget.items=7", True),
        ("data.path=/elsewhere", True),
        ("plan.seed=7", False),
        ("compose.jpeg_quality=90", False),
        ("agents.image_agent.strength=0.5", False),
    ],
)
def test_the_fingerprint_is_of_what_decides_the_result(override: str, same: bool) -> None:
    plain, changed = load_recipe("instances"), load_recipe("instances", [override])
    assert (plain.fingerprint("data") == changed.fingerprint("data")) is same
    assert plain.fingerprint("data") != plain.fingerprint("other data")
