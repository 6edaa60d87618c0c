"""The layered painter on a tiny Qwen-Image-Layered, loaded by our settings as a user's is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipelines import save_qwen_layered, save_sd

from maskwright.configs.diffusion import LayeredSettings
from maskwright.errors import RecipeError
from maskwright.tools.painting.diffusion import DiffusionPainter
from maskwright.tools.painting.layered import LayeredPainter
from maskwright.tools.painting.pipelines import share_pipeline
from maskwright.tools.protocols import Painted, PaintRequest, TextPainter


class ScriptedPainter:
    """Paints noise by the seed; negative seeds are flawed."""

    name, revision, max_tokens = "scripted", "1", 12

    def __init__(self) -> None:
        self.num_painted = 0

    def count_tokens(self, prompt: str) -> int:
        return len(prompt)

    def knows(self, category: str) -> bool:
        return category == "cat"

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        self.num_painted += len(requests)
        return [self._paint(request) for request in requests]

    def _paint(self, request: PaintRequest) -> Painted:
        rgba = np.random.default_rng(abs(request.seed)).integers(0, 255, (48, 64, 4)).astype(np.uint8)
        rgba[..., 3] = 255
        return Painted(rgba, {"painter's": 1.0}, usd=0.25, flaw="black" if request.seed < 0 else "")


class ScriptedScorer:
    """Gives the images that it is shown the scores of a script, and remembers them."""

    name, revision = "scripted", "1"

    def __init__(self, *scores: float) -> None:
        self.scores = scores
        self.images: list[np.ndarray] = []
        self.texts: list[str] = []

    def score(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        self.images, self.texts = list(images), list(texts)
        return np.array([self.scores[: len(images)]], dtype=np.float32).T

    def knows(self, category: str) -> bool:
        return True


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen_layered(tmp_path_factory.mktemp("Schichten ü"))


def settings_of(model: Path, **changes: object) -> LayeredSettings:
    small = {"painter": "scripted", "layers": 1, "num_inference_steps": 1, "true_cfg_scale": 1, "device": "cpu"}
    return LayeredSettings.model_validate({"model": str(model), **small, **changes})


def request_of(seed: int) -> PaintRequest:
    return PaintRequest(item_id="item", seed=seed, category="cat", prompt="a photo of a cat", strength=1.0)


@pytest.fixture
def alpha(model: Path) -> Callable[..., LayeredSettings]:
    """Makes a model whose layers all have this alpha, of -1 to 1, and gives its settings."""

    def change(value: float, layers: int = 1) -> LayeredSettings:
        settings = settings_of(model, layers=layers, scheduler_options={"shift": 2.0})
        layer = share_pipeline(settings).pipeline.vae.decoder.conv_out
        with torch.no_grad():
            layer.weight[3].zero_()
            layer.bias[3] = value
        return settings

    return change


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.9), 1), ((0.9, 0.1), 0), ((float("nan"), 0.1), 1)], ids=["second", "first", "NaN"]
)
def test_the_object_is_the_layer_that_the_scorer_likes(
    scores: tuple[float, ...], best: int, alpha: Callable[..., LayeredSettings]
) -> None:
    scorer = ScriptedScorer(*scores)
    [painted] = LayeredPainter(alpha(0.5, layers=2), ScriptedPainter(), scorer).paint([request_of(1)])
    assert scorer.texts == ["cat"]
    assert len(scorer.images) == 2
    assert not np.array_equal(*scorer.images)
    assert np.array_equal(painted.rgba, scorer.images[best])
    assert painted.rgba.shape == (544, 736, 4), "of the picture's shape, at about 640 pixels squared"
    assert painted.rgba.dtype == np.uint8
    assert (painted.rgba[..., 3] == 191).all()
    score = round(float(np.float32(scores[best])), 4)
    assert painted.parameters == {"painter's": 1.0, "layers": 2, "visible_layers": 2, "layer_score": score}
    assert (painted.usd, painted.flaw) == (0.25, "")


@pytest.mark.parametrize(
    ("value", "flaw"),
    [pytest.param(-1.0, "no layer has a visible pixel", id="empty"), pytest.param(float("nan"), "finite", id="NaN")],
)
def test_layers_that_show_nothing_are_a_flaw(value: float, flaw: str, alpha: Callable[..., LayeredSettings]) -> None:
    scorer = ScriptedScorer()
    [painted] = LayeredPainter(alpha(value), ScriptedPainter(), scorer).paint([request_of(1)])
    assert flaw in painted.flaw
    assert painted.rgba.shape == (48, 64, 4)
    assert (painted.rgba[..., 3] == 255).all()
    assert not scorer.texts, "there was nothing to score"


def test_a_request_is_its_cutout_alone_and_in_any_batch(alpha: Callable[..., LayeredSettings]) -> None:
    painter = LayeredPainter(alpha(0.5), ScriptedPainter(), ScriptedScorer(0.5))
    first, flawed, second = painter.paint([request_of(1), request_of(-1), request_of(2)])
    [alone] = painter.paint([request_of(2)])
    assert np.abs(alone.rgba.astype(int) - second.rgba).max() <= 1
    assert np.abs(first.rgba.astype(int) - second.rgba).max() > 5
    assert flawed.flaw == "black"
    assert flawed.rgba.shape == (48, 64, 4), "a picture that is none is not decomposed"


def test_guidance_and_its_negative_prompt_reach_the_pixels(model: Path) -> None:
    seen = []
    for changes in ({}, {"true_cfg_scale": 9.0}, {"true_cfg_scale": 9.0, "negative_prompt": "blurry"}):
        scorer = ScriptedScorer(1.0, 0.0)
        LayeredPainter(settings_of(model, **changes), ScriptedPainter(), scorer).paint([request_of(1)])
        seen.append(scorer.images[0].astype(int))
    assert np.abs(seen[0] - seen[1]).max() > 1
    assert np.abs(seen[1] - seen[2]).max() > 1


def test_a_user_s_two_models_work_together(model: Path, tmp_path: Path) -> None:
    small = {"model": str(save_sd(tmp_path / "sd")), "width": 64, "height": 48, "num_inference_steps": 1}
    settings = settings_of(model, painter="diffusion", diffusion=small)
    assert settings.diffusion is not None
    painter: TextPainter = LayeredPainter(settings, DiffusionPainter(settings.diffusion), ScriptedScorer(0.5, 0.2))
    [painted] = painter.paint([request_of(3)])
    assert painted.flaw == ""
    assert painted.parameters["pipeline"] == "StableDiffusionPipeline"
    assert 0 < painted.rgba[..., 3].mean() < 255
    assert painter.revision.startswith("diffusion sd@")
    assert f" / {model.name}@" in painter.revision
    assert (painter.max_tokens, painter.count_tokens("cat"), painter.knows("anything")) == (77, 5, True)


def test_a_model_of_another_kind_is_refused_before_anything_is_painted(tmp_path: Path) -> None:
    inner = ScriptedPainter()
    with pytest.raises(RecipeError, match="is a StableDiffusionPipeline; expected a QwenImageLayeredPipeline"):
        LayeredPainter(settings_of(save_sd(tmp_path / "sd")), inner, ScriptedScorer()).paint([request_of(1)])
    assert inner.num_painted == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"painter": "diffusion"}, "needs its settings under `diffusion`"),
        ({"negative_prompt": ""}, "negative_prompt"),
        ({"resolution": 512}, "resolution"),
        ({"layer": 3}, "layer"),
    ],
    ids=["painter without settings", "no negative prompt", "resolution", "unknown key"],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        settings_of(Path("model"), **changes)
