"""Defects by diffusers pipelines: tiny ones of the published classes, saved and loaded as a user's are; and by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from diffusers import FluxFillPipeline, FluxPipeline, FluxTransformer2DModel
from pydantic import ValidationError
from tiny_pipelines import save_flux, save_sd, save_sdxl

from maskwright.configs.anomaly import DefectPainterSettings, InpaintingEditSettings
from maskwright.configs.diffusion import DiffusionSettings
from maskwright.data.records import ImageRGB
from maskwright.errors import ModelNotFetchedError, PromptError, RecipeError, SampleError
from maskwright.tools.defects import DefectPainter, DefectPlan, Edited, EditRequest
from maskwright.tools.painting import conditioned_pipelines
from maskwright.tools.painting.conditioned import ConditionedPainter
from maskwright.tools.painting.conditioned_calls import prepare_start, start_arguments
from maskwright.tools.painting.conditioned_pipelines import Task, find_conditioned_class
from maskwright.tools.painting.defect_inpainting import DefectInpaintingPainter
from maskwright.tools.painting.defect_registry import build_defect_painter
from maskwright.tools.painting.pipelines import share_pipeline
from maskwright.tools.painting.plan_region import plan_to_region
from maskwright.tools.protocols import Painted, PaintRequest, SourceView

HEIGHT, WIDTH = 48, 64


def _save_fill(folder: Path) -> Path:
    """A FLUX.1 Fill: its transformer also reads the masked picture and the mask."""
    base = FluxPipeline.from_pretrained(save_flux(folder.with_name("flux of fill")))
    torch.manual_seed(8)
    config = {**dict(base.transformer.config), "in_channels": 48, "out_channels": 16, "guidance_embeds": True}
    parts = base.components | {"transformer": FluxTransformer2DModel.from_config(config)}
    taken = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "transformer")
    FluxFillPipeline(**{name: parts[name] for name in taken}).save_pretrained(folder)
    return folder


SAVERS: dict[str, Callable[[Path], Path]] = {
    "sd": save_sd,
    "sdxl": save_sdxl,
    "flux": save_flux,
    "fill": _save_fill,
}
PIPELINES = [
    pytest.param("sd", {}, "StableDiffusionInpaintPipeline", id="SD"),
    pytest.param("sdxl", {}, "StableDiffusionXLInpaintPipeline", id="SDXL"),
    pytest.param("fill", {}, "FluxFillPipeline", id="FLUX Fill"),
    pytest.param("sdxl", {"task": "image_to_image"}, "StableDiffusionXLImg2ImgPipeline", id="SDXL without a mask"),
    pytest.param("flux", {"task": "image_to_image"}, "FluxImg2ImgPipeline", id="FLUX without a mask"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Modelle ü")
    for name, save in SAVERS.items():
        save(folder / name)
    return folder


def _painter(models: Path, name: str, **changes: Any) -> DefectInpaintingPainter:
    values: dict[str, Any] = {
        "side_px": 64,
        "num_inference_steps": 2,
        "min_crop_px": 64,
        "context_ratio": 0.5,
        "device": "cpu",
    }
    return DefectInpaintingPainter(InpaintingEditSettings(model=str(models / name), **(values | changes)))


def _image(height: int = HEIGHT, width: int = WIDTH, *, is_grey: bool = False) -> ImageRGB:
    down, across = np.mgrid[:height, :width]
    ramp = np.dstack([across * 255 // width, down * 255 // height, np.full_like(down, 90)]).astype(np.uint8)
    return np.repeat(ramp[..., :1], 3, axis=2) if is_grey else ramp


def _request(seed: int = 1, image: ImageRGB | None = None, **plan: Any) -> EditRequest:
    values: dict[str, Any] = {"defect": "Fleck ü", "family": "stain", "centre_xy": (0.4, 0.5), "size_ratio": 0.2} | plan
    rgb = _image() if image is None else image
    return EditRequest(
        item_id=f"item-{seed}",
        seed=seed,
        plan=DefectPlan(**values),
        image_rgb=rgb,
        foreground_hw=np.ones(rgb.shape[:2], np.bool_),
        prompt="add a dark stain",
    )


def _difference(first: Edited, second: Edited) -> int:
    return int(np.abs(first.rgb.astype(int) - second.rgb.astype(int)).max())


@pytest.mark.parametrize(("name", "changes", "pipeline"), PIPELINES)
def test_an_edit_stays_in_its_region_and_is_the_same_in_any_batch(
    name: str, changes: dict[str, Any], pipeline: str, models: Path
) -> None:
    painter: DefectPainter = _painter(models, name, **changes)
    requests = [
        _request(1),
        _request(2, centre_xy=(0.9, 0.1)),
        _request(3, image=_image(64, 48)),
        _request(4, severity=1.0, family="scratch", elongation=5.0),
    ]
    together = painter.paint(requests)
    for request, edited in zip(requests, together, strict=True):
        assert edited.flaw == ""
        assert edited.parameters["pipeline"] == pipeline
        assert edited.mask_hw is not None
        assert edited.mask_hw.any()
        assert not edited.mask_hw[~plan_to_region(request, 0.25).mask_hw].any()
        np.testing.assert_array_equal(edited.rgb[~edited.mask_hw], request.image_rgb[~edited.mask_hw])
        assert (edited.rgb[edited.mask_hw] != request.image_rgb[edited.mask_hw]).any()
    alone = [painter.paint([request])[0] for request in requests]
    assert max(_difference(one, other) for one, other in zip(alone, together, strict=True)) <= 1


def test_seed_and_prompt_reach_the_pixels(models: Path) -> None:
    painter = _painter(models, "sdxl", num_inference_steps=4, guidance_scale=9.0)
    plain, other_seed, other_words = painter.paint(
        [_request(1), _request(2), replace(_request(1), prompt="something else, and longer")]
    )
    assert _difference(plain, other_seed) > 1
    assert _difference(plain, other_words) > 1


def test_grey_images_stay_grey(models: Path) -> None:
    [edited] = _painter(models, "sdxl").paint([_request(image=_image(is_grey=True))])
    assert edited.flaw == ""
    np.testing.assert_array_equal(edited.rgb.min(axis=2), edited.rgb.max(axis=2))


@pytest.mark.parametrize(
    ("severity", "strength"), [(0.0, 0.6), (0.5, 0.8), (0.52, 0.8), (1.0, 1.0)], ids=["least", "mean", "near", "most"]
)
def test_severity_is_strength(severity: float, strength: float, models: Path) -> None:
    painter = _painter(models, "sd", num_inference_steps=10, strength=(0.6, 1.0))
    [edited] = painter.paint([_request(severity=severity)])
    assert edited.parameters["strength"] == pytest.approx(strength)


class _Crops:
    """Stands for the pipeline: records what it is shown, and paints it all one colour at twice the size."""

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw
        self.requests: list[PaintRequest] = []

    def paint(self, _: ConditionedPainter, requests: list[PaintRequest]) -> list[Painted]:
        self.requests += requests
        shapes = [request.view.rgb.shape[:2] for request in requests if request.view]
        return [Painted(np.full((2 * h, 2 * w, 4), (10, 20, 30, 255), np.uint8), {}, flaw=self.flaw) for h, w in shapes]


@pytest.fixture
def crops(monkeypatch: pytest.MonkeyPatch) -> _Crops:
    fake = _Crops()
    monkeypatch.setattr(ConditionedPainter, "paint", lambda painter, requests: fake.paint(painter, requests))
    return fake


@pytest.mark.parametrize(
    ("plan", "changes", "crop_px"),
    [
        pytest.param({}, {"min_crop_px": 16}, "76x76", id="region and context"),
        pytest.param({}, {"context_ratio": 0.0, "min_crop_px": 16}, "38x38", id="region alone"),
        pytest.param({}, {"min_crop_px": 100}, "100x96", id="least side, shortened to the image"),
        pytest.param({"centre_xy": (1.0, 1.0)}, {}, "64x64", id="moved into the image"),
    ],
)
def test_the_model_sees_the_region_and_its_surroundings(
    plan: dict[str, Any], changes: dict[str, Any], crop_px: str, crops: _Crops, models: Path
) -> None:
    image = np.full((96, 128, 3), (200, 150, 100), np.uint8)
    request = _request(image=image, **plan)
    [edited] = _painter(models, "sd", **changes).paint([request])
    [asked] = crops.requests
    assert asked.view is not None
    assert edited.parameters["crop_px"] == crop_px
    assert asked.view.rgb.shape[:2] == tuple(map(int, reversed(crop_px.split("x"))))
    assert (asked.prompt, asked.seed, asked.item_id) == (request.prompt, request.seed, request.item_id)
    region = plan_to_region(request, 0.25)
    assert asked.view.mask_hw.sum() == region.mask_hw.sum(), "the whole region is in the crop"
    np.testing.assert_array_equal(edited.rgb[region.alpha_hw == 1], [[10, 20, 30]] * int((region.alpha_hw == 1).sum()))
    np.testing.assert_array_equal(edited.rgb[~region.mask_hw], image[~region.mask_hw])
    steps = cv2.absdiff(edited.rgb[:, 1:], edited.rgb[:, :-1]).max()
    assert steps < 120, "it fades out"


def test_a_bad_plan_or_picture_is_a_flaw_of_its_own_request(
    crops: _Crops, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, off = _request(1), _request(2, centre_xy=(1.5, 0.5))
    first, second, third = _painter(models, "sd").paint([off, good, off])
    assert [edited.flaw for edited in (first, third)] == [first.flaw] * 2
    assert "outside the object" in first.flaw
    assert second.flaw == ""
    assert len(crops.requests) == 1
    monkeypatch.setattr(crops, "flaw", "values that are not finite")
    [broken] = _painter(models, "sd").paint([good])
    assert broken.flaw == "values that are not finite"
    np.testing.assert_array_equal(broken.rgb, good.image_rgb)
    assert broken.mask_hw is not None
    assert not broken.mask_hw.any()


def test_what_a_safety_checker_blanks_is_a_flaw(tmp_path: Path) -> None:
    save_sd(tmp_path / "sd", blanks_all=True)
    [edited] = _painter(tmp_path, "sd").paint([_request()])
    assert edited.flaw == "blanked by the model's safety checker"


def test_weights_are_shared_with_other_painters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_sdxl(tmp_path / "sdxl")
    share_pipeline(DiffusionSettings(model=str(tmp_path / "sdxl"), device="cpu"))
    monkeypatch.setattr("maskwright.tools.painting.pipelines.load_pipeline", None)
    for batch_size in (1, 2):
        painter = _painter(tmp_path, "sdxl", batch_size=batch_size)
        assert painter.paint([_request()])[0].flaw == ""
    assert painter.revision.startswith("sdxl@")


@pytest.mark.parametrize(
    ("task", "pipeline", "taken"),
    [
        ("inpainting", "FluxKontextInpaintPipeline", {"image", "mask_image", "strength", "height", "width"}),
        ("inpainting", "QwenImageEditInpaintPipeline", {"image", "mask_image", "strength", "height", "width"}),
        ("image_to_image", "FluxKontextPipeline", {"image", "height", "width"}),
        ("image_to_image", "QwenImageEditPlusPipeline", {"image", "height", "width"}),
    ],
)
def test_larger_editors_get_what_they_take(task: Task, pipeline: str, taken: set[str], models: Path) -> None:
    """By their signatures alone: no tiny weights of these are made here."""
    settings = InpaintingEditSettings(model=str(models / "flux"), pipeline=pipeline, task=task)
    view = SourceView(_image(), np.ones((HEIGHT, WIDTH), np.bool_))
    request = PaintRequest(item_id="item-1", seed=1, category="Fleck ü", strength=0.7, view=view)
    start = prepare_start(request, side_px=64, stride=16, change="instance")
    assert set(start_arguments(find_conditioned_class(settings, task), [start], settings)) == taken


@pytest.mark.parametrize(
    ("request_", "changes", "error", "says"),
    [
        pytest.param(replace(_request(), prompt=" "), {}, PromptError, "'item-1'.*empty", id="no prompt"),
        pytest.param(_request(image=_image(2, 400)), {}, SampleError, "'item-1'.*256 by 2", id="narrow once resized"),
        pytest.param(
            _request(), {"pipeline": "StableDiffusionPipeline"}, RecipeError, "takes none", id="takes no mask"
        ),
        pytest.param(_request(), {"model": "owner/absent"}, ModelNotFetchedError, "models fetch", id="not fetched"),
    ],
)
def test_what_cannot_be_painted_is_found_before_the_weights_are_loaded(
    request_: EditRequest,
    changes: dict[str, Any],
    error: type[Exception],
    says: str,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(conditioned_pipelines, "share_pipeline", None)
    values: dict[str, Any] = {"model": str(models / "sd"), "side_px": 64, "device": "cpu"} | changes
    with pytest.raises(error, match=says):
        DefectInpaintingPainter(InpaintingEditSettings(**values)).paint([request_])


def test_strengths_that_fall_are_refused() -> None:
    with pytest.raises(ValidationError, match="expected the smaller value first"):
        InpaintingEditSettings(model="m", strength=(0.9, 0.5))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "procedural"),
        ({"painter": "hosted", "hosted": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}}, "hosted"),
        ({"painter": "inpainting", "inpainting": {"model": "owner/absent"}}, "inpainting"),
    ],
)
def test_painters_are_known_by_name(settings: dict[str, Any], name: str) -> None:
    assert build_defect_painter(DefectPainterSettings(**settings)).name == name


@pytest.mark.parametrize(
    ("painter", "says"),
    [
        ("inpaint", r"did you mean 'inpainting'\?; known: hosted, inpainting, procedural. Set .*anomaly_agent.painter"),
        ("hosted", "set at least `agents.anomaly_agent.hosted.model`"),
        ("inpainting", "set at least `agents.anomaly_agent.inpainting.model`"),
    ],
)
def test_a_painter_that_is_not_there_says_what_to_set(painter: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        build_defect_painter(DefectPainterSettings(painter=painter))
