"""What `painter: auto` and `masker: auto` come to, and a run of the edge-guided painter from recipe to report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from segmenter_helpers import save_checkpoint
from text_helpers import WRITER
from tiny_pipelines import save_controlnet, save_sd

from maskwright.configs.recipe import load_recipe
from maskwright.errors import RecipeError
from maskwright.graphs.choosing import choose_backends
from maskwright.graphs.pipeline import run_recipe
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import ItemResult
from maskwright.memory.ledger import Ledger

AUTO = ("agents.image_agent.painter=auto", "agents.image_agent.masker=auto")
HUB = (
    "agents.image_agent.edge_guided={model: OWNER/base, controlnet: {model: OWNER/edges}}",
    "agents.image_agent.sam={model: OWNER/sam}",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Modelle ü")
    save_sd(folder / "sd")
    save_controlnet(folder / "control", "sd")
    return folder


def _guided(models: Path) -> str:
    settings = {
        "model": str(models / "sd"),
        "controlnet": {"model": str(models / "control")},
        "side_px": 64,
        "num_inference_steps": 2,
        "device": "cpu",
    }
    return f"agents.image_agent.edge_guided={json.dumps(settings)}"


def _choose(*overrides: str) -> tuple[str, str, str]:
    chosen = choose_backends(load_recipe("instances", overrides))
    settings = chosen.recipe.agents.image_agent
    assert settings is not None
    return settings.painter, settings.masker, chosen.why.get("image_agent", "")


@pytest.mark.parametrize(
    ("overrides", "painter", "masker", "why"),
    [
        pytest.param((), "variation", "alpha", "", id="as the recipe says"),
        pytest.param(AUTO, "variation", "alpha", "no edge_guided settings", id="nothing to choose from"),
        pytest.param((*AUTO, *HUB), "variation", "alpha", "maskwright models fetch OWNER/base", id="not fetched"),
    ],
)
def test_without_weights_the_embedded_ones_work(
    overrides: tuple[str, ...], painter: str, masker: str, why: str
) -> None:
    chosen = _choose(*overrides)
    assert chosen[:2] == (painter, masker)
    assert why in chosen[2]
    assert bool(chosen[2]) is bool(why)


def test_where_the_weights_are_the_edge_guided_painter_works(models: Path, tmp_path: Path) -> None:
    painter, masker, why = _choose(*AUTO, _guided(models))
    assert (painter, masker) == ("edge_guided", "grabcut")
    assert "no sam settings" in why
    sam = save_checkpoint("sam", tmp_path)
    _, masker, _ = _choose(*AUTO, _guided(models), f"agents.image_agent.sam={json.dumps({'model': str(sam)})}")
    assert masker == "sam"


def _choose_text(*overrides: str) -> tuple[str, str, str]:
    chosen = choose_backends(load_recipe("text_agent", overrides))
    settings = chosen.recipe.agents.text_agent
    assert settings is not None
    return settings.painter, settings.masker, chosen.why.get("text_agent", "")


def _transparent(folder: Path | None) -> str:
    """Layer diffusion's settings, of weights in a folder or not fetched."""
    base, weights = (str(folder), str(folder)) if folder else ("OWNER/base", "OWNER/layers")
    settings = {
        "diffusion": {"model": base},
        "attention": {"model": weights, "file": "a.safetensors"},
        "decoder": {"model": weights, "file": "d.safetensors"},
    }
    return f"agents.text_agent.layer_diffusion={json.dumps(settings)}"


TEXT_AUTO = "agents.text_agent.painter=auto"
TEXT_MASKER = "agents.text_agent.masker=auto"
BOTH_MISSING = "lacks OWNER/base, OWNER/layers (maskwright models fetch OWNER/base OWNER/layers)"


@pytest.mark.parametrize(
    ("overrides", "painter", "masker", "why"),
    [
        pytest.param([], "embedded:sprites", "alpha", "", id="as the recipe says"),
        pytest.param([TEXT_AUTO], "embedded:sprites", "alpha", "no layer_diffusion settings", id="no settings"),
        pytest.param([TEXT_AUTO, _transparent(None)], "embedded:sprites", "alpha", BOTH_MISSING, id="not fetched"),
        pytest.param([TEXT_MASKER], "embedded:sprites", "alpha", "", id="masker of a transparent painter"),
        pytest.param(
            [TEXT_MASKER, "agents.text_agent.painter=diffusion", "agents.text_agent.diffusion={model: OWNER/base}"],
            "diffusion",
            "grabcut",
            "no sam settings",
            id="masker of an opaque painter",
        ),
        pytest.param(
            [
                TEXT_MASKER,
                "agents.text_agent.painter=hosted",
                "agents.text_agent.hosted={model: x, background: opaque}",
                "agents.text_agent.sam={model: OWNER/sam}",
            ],
            "hosted",
            "grabcut",
            "maskwright models fetch OWNER/sam",
            id="masker of a hosted painter that is asked for opaque pictures",
        ),
    ],
)
def test_what_the_text_agent_works_with(overrides: list[str], painter: str, masker: str, why: str) -> None:
    chosen = _choose_text(*overrides)
    assert chosen[:2] == (painter, masker)
    assert why in chosen[2]
    assert bool(chosen[2]) is bool(why)


def test_where_the_weights_are_layer_diffusion_paints(tmp_path: Path) -> None:
    assert _choose_text(TEXT_AUTO, _transparent(tmp_path)) == (
        "layer_diffusion",
        "alpha",
        "painter layer_diffusion, since its weights are here",
    )


def test_each_agent_is_told_its_own_reason() -> None:
    image_auto = [override for override in AUTO if "painter" in override]
    chosen = choose_backends(load_recipe("instada", [TEXT_AUTO, *image_auto]))
    assert "no layer_diffusion settings" in chosen.why["text_agent"]
    assert "no edge_guided settings" in chosen.why["image_agent"]


def test_a_misspelt_folder_is_an_error_not_a_reason_for_another_painter() -> None:
    with pytest.raises(RecipeError, match="neither a folder or file here nor a Hub id"):
        _choose(*AUTO, "agents.image_agent.edge_guided={model: ./nowhere, controlnet: {model: ./no/where}}")


def test_an_opaque_painter_wants_a_masker() -> None:
    with pytest.raises(RecipeError, match="set masker to sam or grabcut"):
        _choose("agents.image_agent.painter=edge_guided")


def test_the_shipped_recipe_runs_on_the_embedded_painter(photographs: Path, tmp_path: Path) -> None:
    overrides = ["plan.at_least=14", "agents.image_agent.similarity=null", "compose.instances_per_scene=[1,3]"]
    outcome = run_recipe("image_agent", data=photographs, out=tmp_path / "run", overrides=overrides)
    painters = outcome.content["painters"]
    assert isinstance(painters, dict)
    assert outcome.exit_code == 0
    assert painters["image_agent"]["name"] == "variation"
    assert "maskwright models fetch stabilityai/stable-diffusion-xl-base-1.0" in painters["image_agent"]["why"]
    assert "is variation" not in (tmp_path / "run/recipe.yaml").read_text(encoding="utf-8")
    assert "painter: variation" in (tmp_path / "run/recipe.yaml").read_text(encoding="utf-8")


def test_a_run_of_the_edge_guided_painter(models: Path, photographs: Path, tmp_path: Path) -> None:
    """Random weights paint noise: what is proved is the way from recipe to ledger and report, not a picture."""
    loose = "{min_sharpness: 0, min_contrast: 0, min_source_iou: 0, max_source_iou: 1, max_source_difference: 1}"
    overrides = [
        *AUTO,
        _guided(models),
        f"agents.image_agent.limits={loose}",
        f"llm={WRITER}",
        "plan.at_least=4",
        "agents.image_agent.max_rounds=2",
        "compose.instances_per_scene=[1,3]",
    ]
    outcome = run_recipe("instances", data=photographs, out=tmp_path / "run", overrides=overrides)
    assert outcome.exit_code == 0
    items: Ledger[ItemResult] = Ledger(tmp_path / "run" / "items")
    artifacts = ArtifactStore(tmp_path / "run" / "artifacts")
    results = [result for item_id in sorted(items.ids()) if (result := items.read(item_id))]
    assert len(results) == 2
    for result in results:
        for attempt in result["attempts"]:
            painted = artifacts.get_image(attempt["painted"])
            assert artifacts.get_image(attempt["condition"]).shape[:2] == painted.shape[:2]
            assert max(painted.shape[:2]) == 64
            assert {"source_iou", "mask_score"} <= attempt["measures"].keys()
        assert result["rounds"][0]["prompt"].startswith("a photo of a ")
    report = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "edge_guided" in report
