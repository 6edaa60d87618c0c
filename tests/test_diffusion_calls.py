"""What goes into a diffusers pipeline and what comes out of it, without a model."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from maskwright.configs.diffusion import DiffusionSettings
from maskwright.errors import RecipeError
from maskwright.tools.painting.diffusion import call_arguments, picture_to_painted
from maskwright.tools.painting.pipelines import choose_dtype


@pytest.mark.parametrize(
    ("pipeline_class", "changes", "expected"),
    [
        pytest.param(
            diffusers.StableDiffusionXLPipeline,
            {"guidance_scale": 5, "negative_prompt": "x", "width": 1024},
            {"guidance_scale": 5, "negative_prompt": "x", "width": 1024},
            id="SDXL",
        ),
        pytest.param(diffusers.SanaSprintPipeline, {}, {}, id="what is null is the pipeline's"),
        pytest.param(diffusers.FluxPipeline, {"guidance_scale": 3.5}, {"guidance_scale": 3.5}, id="Flux, distilled"),
        pytest.param(
            diffusers.FluxPipeline,
            {"guidance_scale": 3.5, "negative_prompt": "x"},
            {"true_cfg_scale": 3.5, "negative_prompt": "x"},
            id="Flux, classifier-free",
        ),
        pytest.param(
            diffusers.QwenImagePipeline,
            {"guidance_scale": 4},
            {"true_cfg_scale": 4, "negative_prompt": " "},
            id="Qwen-Image wants a negative prompt",
        ),
        pytest.param(
            diffusers.QwenImagePipeline,
            {"negative_prompt": "x"},
            {"negative_prompt": "x"},
            id="Qwen-Image's own guidance",
        ),
    ],
)
def test_settings_take_the_names_that_a_pipeline_has_for_them(
    pipeline_class: type, changes: dict[str, object], expected: dict[str, object]
) -> None:
    assert call_arguments(pipeline_class, DiffusionSettings.model_validate({"model": "m", **changes})) == expected


@pytest.mark.parametrize(
    ("pipeline_class", "changes", "says"),
    [
        (diffusers.Flux2KleinPipeline, {"negative_prompt": "x"}, "Flux2KleinPipeline takes no 'negative_prompt'"),
        (diffusers.SanaSprintPipeline, {"negative_prompt": "x"}, "SanaSprintPipeline takes no 'negative_prompt'"),
        (diffusers.FluxPipeline, {"negative_prompt": "x"}, "no effect on FluxPipeline at true_cfg_scale 1"),
        (diffusers.DDPMPipeline, {}, "DDPMPipeline takes no 'prompt'"),
    ],
    ids=["klein", "Sana Sprint", "Flux without guidance", "no text to image"],
)
def test_a_setting_without_effect_is_refused(pipeline_class: type, changes: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        call_arguments(pipeline_class, DiffusionSettings.model_validate({"model": "m", **changes}))


def test_a_negative_prompt_without_guidance_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="no effect at guidance_scale 0"):
        DiffusionSettings(model="m", negative_prompt="x", guidance_scale=0)


PICTURE = np.full((48, 64, 3), 0.5)


@pytest.mark.parametrize(
    ("picture", "is_blanked", "flaw"),
    [
        pytest.param(PICTURE, False, "", id="fine"),
        pytest.param(np.where(np.arange(64)[None, :, None] == 3, np.nan, PICTURE), False, "not finite", id="one NaN"),
        pytest.param(PICTURE + np.inf, False, "not finite", id="infinite"),
        pytest.param(PICTURE * 0.02, False, "black", id="nearly black"),
        pytest.param(PICTURE * 0, True, "safety checker", id="blanked"),
    ],
)
def test_what_is_no_picture_has_a_flaw_and_no_error(picture: np.ndarray, is_blanked: bool, flaw: str) -> None:
    painted = picture_to_painted(picture, {}, is_blanked)
    assert flaw in painted.flaw
    assert bool(painted.flaw) == bool(flaw)
    assert painted.rgba.shape == (48, 64, 4)
    assert (painted.rgba[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("device", "has_bf16", "expected"),
    [
        pytest.param("cpu", True, torch.float32, id="CPU"),
        pytest.param("mps", True, torch.float32, id="Apple"),
        pytest.param("cuda", True, torch.bfloat16, id="GPU"),
        pytest.param("cuda", False, torch.float16, id="old GPU"),
    ],
)
def test_auto_takes_what_the_device_is_good_at(
    device: str, has_bf16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert choose_dtype("auto", torch.device(device)) is expected
