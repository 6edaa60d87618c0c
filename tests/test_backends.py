"""Every painter, masker and scorer by the name that a recipe gives it; each model has tests of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from maskwright.configs.agents import TextAgentSettings
from maskwright.configs.recipe import load_recipe
from maskwright.errors import RecipeError
from maskwright.tools.judging.registry import (
    IMAGE_EMBEDDERS,
    TEXT_SCORERS,
    build_image_embedder,
    build_text_scorer,
)
from maskwright.tools.masking.registry import MASKERS, build_masker
from maskwright.tools.registry import TEXT_PAINTERS, build_text_painter

PAINTER_SETTINGS = {
    "embedded:sprites": "",
    "diffusion": "diffusion: {model: HERE}",
    "hosted": "hosted: {model: image-1, base_url: 'http://127.0.0.1:1/v1'}",
    "layer_diffusion": "layer_diffusion: {diffusion: {model: HERE}}",
    "layered": "layered: {model: HERE, diffusion: {model: HERE}}",
}
MASKER_SETTINGS = {
    "alpha": "",
    "grabcut": "grabcut: {iterations: 2}",
    "sam": "sam: {model: HERE, choose: scorer}",
    "concept": "concept: {model: HERE}",
    "birefnet": "birefnet: {model: HERE, trust_remote_code: true}",
    "best_of": "best_of: {maskers: [alpha, grabcut]}",
}


def _recipe(folder: Path, *lines: str) -> Path:
    path = folder / "recipe.yaml"
    body = ["agents:", "  text_agent:", *(f"    {line.replace('HERE', str(folder))}" for line in lines if line)]
    path.write_text("\n".join(body), encoding="utf-8")
    return path


def test_every_name_is_tried_here() -> None:
    assert set(PAINTER_SETTINGS) == set(TEXT_PAINTERS)
    assert set(MASKER_SETTINGS) == set(MASKERS)


@pytest.mark.parametrize("name", PAINTER_SETTINGS)
def test_a_recipe_s_painter(name: str, tmp_path: Path) -> None:
    settings = load_recipe(str(_recipe(tmp_path, f"painter: '{name}'", PAINTER_SETTINGS[name]))).agents.text_agent
    assert settings is not None
    assert build_text_painter(settings).name.split("@")[0].startswith(name.split(":")[0])


@pytest.mark.parametrize("name", MASKER_SETTINGS)
def test_a_recipe_s_masker(name: str, tmp_path: Path) -> None:
    settings = load_recipe(str(_recipe(tmp_path, f"masker: {name}", MASKER_SETTINGS[name]))).agents.text_agent
    assert settings is not None
    scorer = build_text_scorer(settings.similarity.text)
    assert build_masker(settings, scorer).name.startswith(name)


@pytest.mark.parametrize("name", [*TEXT_SCORERS, *IMAGE_EMBEDDERS])
def test_a_recipe_s_scorers(name: str, tmp_path: Path) -> None:
    side = "text" if name in TEXT_SCORERS else "image"
    model = "" if name.startswith("embedded:") else ", model: HERE"
    settings = load_recipe(
        str(_recipe(tmp_path, f"similarity: {{{side}: {{name: '{name}'{model}}}}}"))
    ).agents.text_agent
    assert settings is not None
    built = (
        build_text_scorer(settings.similarity.text)
        if side == "text"
        else build_image_embedder(settings.similarity.image)
    )
    assert built.name.startswith(name)


def _build(settings: TextAgentSettings) -> None:
    build_masker(settings, build_text_scorer(settings.similarity.text))
    build_text_painter(settings)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(["painter: difusion"], "did you mean 'diffusion'", id="painter"),
        pytest.param(["painter: diffusion"], "set at least `agents.text_agent.diffusion.model`", id="no settings"),
        pytest.param(["painter: hosted"], "set at least `agents.text_agent.hosted.model`", id="no hosted settings"),
        pytest.param(["masker: sam"], "set at least `agents.text_agent.sam.model`", id="no masker settings"),
        pytest.param(["masker: grabcat"], "did you mean 'grabcut'", id="masker"),
        pytest.param(["masker: best_of", "best_of: {maskers: [alpha, best_of]}"], "cannot vote on itself", id="vote"),
        pytest.param(
            ["painter: layered", "layered: {model: HERE, painter: layered}"], "cannot paint for itself", id="layered"
        ),
    ],
)
def test_a_wrong_backend_is_said_before_anything_is_loaded(lines: list[str], message: str, tmp_path: Path) -> None:
    settings = load_recipe(str(_recipe(tmp_path, *lines))).agents.text_agent
    assert settings is not None
    with pytest.raises(RecipeError, match=re.escape(message)):
        _build(settings)


def test_a_recipe_without_agents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    path.write_text("agents: {}", encoding="utf-8")
    with pytest.raises(RecipeError, match="no agent is named"):
        load_recipe(str(path))
