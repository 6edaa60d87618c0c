"""Gen-n-Val's recipe: as shipped, on the embedded parts, and by settings alone on hosted ones."""

from __future__ import annotations

import base64
import io
import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from chat_server import ChatServer, Reply, says, serve_script
from model_helpers import fetched
from PIL import Image
from pydantic import ValidationError
from text_helpers import ScriptedTextPainter, draw, register, values_json

from maskwright.configs.masking import AlphaSettings, MaskerSettings
from maskwright.configs.recipe import load_recipe
from maskwright.graphs.pipeline import run_recipe
from maskwright.memory.entries import ItemResult
from maskwright.memory.ledger import Ledger
from maskwright.models.embeddings import token_count
from maskwright.tools.masking.registry import build_masker
from maskwright.tools.protocols import MaskRequest

HEIGHT, WIDTH = 48, 64
USD = 0.04
SIZE = f"{WIDTH}x{HEIGHT}"


def _speckled() -> tuple[np.ndarray, np.ndarray]:
    """(48, 64) uint8: an ellipse's alpha, and the same with specks around and pinholes in it."""
    clean = draw(0)[..., 3]
    rng = np.random.default_rng(4)
    speckled = clean.copy()
    for y, x in zip(rng.integers(1, HEIGHT - 1, 25), rng.integers(1, WIDTH - 1, 25), strict=True):
        speckled[y, x] = 255 - speckled[y, x]
    return clean, speckled


@pytest.mark.parametrize(("median_px", "is_cleaned"), [(0, False), (1, False), (5, True)])
def test_a_median_filter_takes_specks_and_pinholes_from_the_alpha(median_px: int, is_cleaned: bool) -> None:
    clean, speckled = _speckled()
    rgba = np.dstack([draw(0)[..., :3], speckled])
    masker = build_masker(MaskerSettings(alpha=AlphaSettings(median_px=median_px)), None)
    [masked] = masker.mask([MaskRequest(rgba=rgba, category="bolt")])
    components = [cv2.connectedComponents((alpha >= 128).astype(np.uint8))[0] - 1 for alpha in (masked.alpha, speckled)]
    assert components[1] > 5, "the test's picture is speckled"
    assert (components[0] == 1) is is_cleaned
    inside = cv2.erode(clean, np.ones((7, 7), np.uint8)) > 0
    assert bool(masked.alpha[inside].all()) is is_cleaned
    np.testing.assert_array_equal(rgba[..., 3], speckled)
    assert (masked.alpha.shape, masked.alpha.dtype) == ((HEIGHT, WIDTH), np.uint8)


@pytest.mark.parametrize("median_px", [-1, 2, 4, 33])
def test_the_filter_has_an_odd_side(median_px: int) -> None:
    with pytest.raises(ValidationError, match=r"median_px"):
        AlphaSettings(median_px=median_px)


def test_the_recipe_paints_as_published() -> None:
    recipe = load_recipe("gen_n_val")
    agent = recipe.agents.text_agent
    assert agent is not None
    assert recipe.agents.image_agent is None
    assert agent.layer_diffusion is not None
    painting = agent.layer_diffusion.diffusion
    assert (painting.width, painting.height) == (896, 1152)
    assert (painting.num_inference_steps, painting.guidance_scale) == (25, 7.0)
    assert (painting.scheduler, dict(painting.scheduler_options)) == (
        "DPMSolverMultistepScheduler",
        {"use_karras_sigmas": True},
    )
    assert agent.layer_diffusion.num_flips == 8
    assert (agent.masker, agent.alpha.median_px, agent.prompt_style) == ("alpha", 5, "structured")


def _picture(numbers: itertools.count[int]) -> Reply:
    file = io.BytesIO()
    Image.fromarray(draw(next(numbers))).save(file, "PNG")
    content = {"created": 1, "data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]}
    return Reply(200, json.dumps(content))


def _chat(body: dict[str, Any]) -> Reply:
    """An honest planner, writer and judge in one; told apart by the schema that each request comes with."""
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    if "values" in properties:
        return says(values_json(*(f"{word} Mutter ö" for word in ("round", "flat", "tall", "small"))))
    if "subject" in properties:
        answer = {name: name.replace("_", " ") + " word" for name in properties}
        return says(json.dumps({**answer, "subject": "a single Mutter ö"}))
    return says(json.dumps(_judge(body, properties)))


def _judge(body: dict[str, Any], properties: dict[str, object]) -> dict[str, object]:
    """Keeps what `draw` drew: its objects are all of one red, and no real instance is."""
    content = body["messages"][-1]["content"]
    [url] = [block["image_url"]["url"] for block in content if block["type"] == "image_url"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))
    outcome = {"outcome": "meet" if (pixels[..., 0] > 220).mean() > 0.2 else "fail", "reason": "as it looks"}
    return {name: "a thing" if name == "description" else outcome for name in properties}


def _asked_with_image(server: ChatServer) -> list[dict[str, Any]]:
    return [body for body in server.requests if "image_url" in json.dumps(body)]


@pytest.mark.parametrize("has_judge", [False, True], ids=["no judge", "judge"])
def test_hosted_models_serve_by_settings_alone(
    has_judge: bool, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Painter, writer and judge over HTTP; only the likeness scorers, whose weights are big, are stood in for."""
    scorers = [override for override in register(monkeypatch, ScriptedTextPainter()) if "similarity" in override]
    numbers = itertools.count()
    with serve_script(_chat) as chat, serve_script(lambda _: _picture(numbers)) as images:
        hosted = {"model": "p-1", "base_url": images.base_url, "size": SIZE, "usd_per_image": USD, "concurrency": 1}
        model = {"model": "openai:m-1", "base_url": chat.base_url}
        overrides = [
            *scorers,
            "agents.text_agent.painter=hosted",
            f"agents.text_agent.hosted={json.dumps(hosted)}",
            f"llm={json.dumps({**model, 'judge': model if has_judge else None})}",
            "memory.enabled=false",
            "plan.at_least=4",
            "compose.instances_per_scene=[1,3]",
        ]
        outcome = run_recipe("gen_n_val", data=photographs, out=tmp_path / "läuft", overrides=overrides)
    assert outcome.exit_code == 0
    items: Ledger[ItemResult] = Ledger(tmp_path / "läuft" / "items")
    results = [result for item_id in sorted(items.ids()) if (result := items.read(item_id))]
    attempts = [attempt for result in results for attempt in result["attempts"]]
    assert outcome.content["accepted"] == sum(attempt["accepted"] for attempt in attempts) >= 2
    told = results[0]["rounds"][0]
    assert told["prompt"].startswith("a single Mutter ö, status word, colour")
    assert told["rung"] == "json_schema"
    assert ", ".join(told["fields"].values()) == told["prompt"]
    assert len(images.requests) == len(attempts)
    assert {request["prompt"] for request in images.requests} == {result["rounds"][0]["prompt"] for result in results}
    assert sum(result["cost"]["images_usd"] for result in results) == pytest.approx(USD * len(attempts))
    assert all(bool(attempt.get("opinions")) is has_judge for attempt in attempts)
    assert bool(_asked_with_image(chat)) is has_judge
    assert "a single Mutter ö, status word" in (tmp_path / "läuft/report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_embedded_parts_serve_without_settings(tmp_path: Path) -> None:
    for name in ("smollm2", "minilm"):
        fetched(name)
    overrides = ["plan.at_least=4", "budget.items=1", f"memory.path={tmp_path / 'gedächtnis'}", "data.path=quickstart"]
    outcome = run_recipe("gen_n_val", out=tmp_path / "run", overrides=overrides)
    painters = outcome.content["painters"]
    assert isinstance(painters, dict)
    assert painters["text_agent"]["name"] == "embedded:sprites"
    assert "maskwright models fetch stabilityai/stable-diffusion-xl-base-1.0" in painters["text_agent"]["why"]
    items: Ledger[ItemResult] = Ledger(tmp_path / "run" / "items")
    [item_id] = items.ids()
    result = items.read(item_id)
    assert result is not None
    assert result["ending"] in ("accepted", "exhausted")
    for told in result["rounds"]:
        assert told["prompt"] == ", ".join(told["fields"].values())
        assert token_count(told["prompt"]) <= 12
