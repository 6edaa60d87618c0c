"""Painters that start from a crop, on tiny pipelines of the published classes, loaded as a user's are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import save_controlnet, save_flux, save_ip_adapter, save_lora, save_sd, save_sdxl, save_z_image

from maskwright.configs.conditioning import EdgeGuidedSettings, InpaintingSettings
from maskwright.configs.diffusion import DiffusionSettings
from maskwright.errors import EmptyMaskError, ModelNotFetchedError, PromptError, RecipeError, SampleError
from maskwright.tools.painting import conditioned_pipelines
from maskwright.tools.painting.conditioned import ConditionedPainter, EdgeGuidedPainter, InpaintingPainter
from maskwright.tools.painting.conditioned_calls import prepare_start, start_arguments
from maskwright.tools.painting.conditioned_pipelines import find_conditioned_class, share_conditioned_pipeline
from maskwright.tools.painting.edges import EdgeDetector, edges_to_control
from maskwright.tools.painting.pipeline_index import find_stride
from maskwright.tools.painting.pipelines import share_pipeline
from maskwright.tools.protocols import Painted, PaintRequest, SourcePainter, SourceView

SAVERS: dict[str, Callable[[Path], Path]] = {
    "sd": save_sd,
    "sdxl": save_sdxl,
    "flux": save_flux,
    "z_image": save_z_image,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models, their ControlNets, and an IP-Adapter of `sd`."""
    folder = tmp_path_factory.mktemp("Modelle ü")
    for name, save in SAVERS.items():
        save(folder / name)
    for name in (*SAVERS, "union"):
        save_controlnet(folder / f"control_{name}", name)
    save_ip_adapter(folder / "adapter")
    save_lora(folder / "lora")
    return folder


def view_of(height: int = 24, width: int = 32, *, shift: int = 0) -> SourceView:
    """A bright box on a coloured ramp."""
    down, across = np.mgrid[:height, :width]
    rgb = np.dstack([across * 255 // width, down * 255 // height, np.full_like(down, 90)]).astype(np.uint8)
    mask_hw = np.zeros((height, width), bool)
    mask_hw[height // 3 : -height // 4, width // 4 + shift : width // 2 + shift] = True
    rgb[mask_hw] = (230, 210, 40)
    return SourceView(rgb, mask_hw)


def request_of(seed: int = 1, **changes: object) -> PaintRequest:
    plain = PaintRequest(
        item_id=f"item-{seed}",
        seed=seed,
        category="cat",
        prompt="a photo of a cat",
        strength=0.7,
        control_scale=1.0,
        view=view_of(),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


SMALL: dict[str, object] = {"side_px": 64, "num_inference_steps": 2, "guidance_scale": 3.0, "device": "cpu"}


def edge_guided(models: Path, name: str, control: str | None = None, **changes: object) -> EdgeGuidedPainter:
    controlnet = {"model": str(models / f"control_{control or name}"), "mode": 3 if control == "union" else None}
    settings = {"model": str(models / name), "controlnet": controlnet, **SMALL, **changes}
    return EdgeGuidedPainter(EdgeGuidedSettings.model_validate(settings))


def inpainting(models: Path, name: str, *, control: bool = False, **changes: object) -> InpaintingPainter:
    controlnet = {"model": str(models / f"control_{name}")} if control else None
    settings = {"model": str(models / name), "controlnet": controlnet, **SMALL, **changes}
    return InpaintingPainter(InpaintingSettings.model_validate(settings))


def difference(first: Painted, second: Painted) -> int:
    return int(np.abs(first.rgba.astype(int) - second.rgba.astype(int)).max())


PAINTERS = [
    pytest.param(edge_guided, "sd", {}, "StableDiffusionControlNetImg2ImgPipeline", id="edges, SD"),
    pytest.param(edge_guided, "sdxl", {}, "StableDiffusionXLControlNetImg2ImgPipeline", id="edges, SDXL"),
    pytest.param(
        edge_guided, "sdxl", {"control": "union"}, "StableDiffusionXLControlNetUnionImg2ImgPipeline", id="edges, union"
    ),
    pytest.param(edge_guided, "flux", {}, "FluxControlNetImg2ImgPipeline", id="edges, FLUX"),
    pytest.param(edge_guided, "z_image", {}, "ZImageControlNetPipeline", id="edges, Z-Image"),
    pytest.param(inpainting, "sd", {}, "StableDiffusionInpaintPipeline", id="inpainting, SD"),
    pytest.param(
        inpainting, "sd", {"control": True}, "StableDiffusionControlNetInpaintPipeline", id="inpainting, SD, edges"
    ),
    pytest.param(inpainting, "sdxl", {}, "StableDiffusionXLInpaintPipeline", id="inpainting, SDXL"),
    pytest.param(inpainting, "flux", {}, "FluxInpaintPipeline", id="inpainting, FLUX"),
    pytest.param(inpainting, "z_image", {}, "ZImageInpaintPipeline", id="inpainting, Z-Image"),
]


@pytest.mark.parametrize(("build", "name", "changes", "pipeline"), PAINTERS)
def test_a_request_is_its_picture_alone_and_in_any_batch(
    build: Callable[..., ConditionedPainter], name: str, changes: dict[str, object], pipeline: str, models: Path
) -> None:
    painter: SourcePainter = build(models, name, **changes)
    requests = [
        request_of(1),
        request_of(1, prompt="something else entirely, and longer"),
        request_of(2, view=view_of(32, 24)),
        request_of(3, view=view_of(shift=6)),
        request_of(4, strength=0.9),
    ]
    together = painter.paint(requests)
    for request, painted in zip(requests, together, strict=True):
        assert request.view is not None
        assert painted.rgba.shape == ((48, 64, 4) if request.view.rgb.shape[0] == 24 else (64, 48, 4))
        assert painted.rgba.dtype == np.uint8
        assert (painted.rgba[..., 3] == 255).all()
        assert painted.flaw == ""
        assert painted.covers_view
        assert painted.parameters["pipeline"] == pipeline
        assert painted.parameters["tokens_cut"] == 0
    alone = [painter.paint([request])[0] for request in requests]
    assert max(difference(one, other) for one, other in zip(alone, together, strict=True)) <= 1
    assert difference(together[0], together[1]) > 1, "another prompt"


@pytest.mark.parametrize("name", [*SAVERS, "union"])
def test_the_edges_guide_as_strongly_as_asked(name: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = edge_guided(models, "sdxl" if name == "union" else name, name)
    strong, weak, none = (painter.paint([request_of(control_scale=scale)])[0] for scale in (1.0, 0.3, 0.0))
    assert difference(strong, none) > difference(weak, none) / 2 > 1
    assert strong.parameters["control_scale"] == 1.0
    assert strong.parameters["edges_canny"] == 1.0
    assert strong.condition is not None
    assert strong.condition.shape == (48, 64, 3)
    assert strong.condition.dtype == np.uint8
    assert strong.condition.max() == 255
    monkeypatch.setattr(EdgeDetector, "detect", lambda _, rgb: np.zeros(rgb.shape[:2], np.float32))
    assert difference(strong, painter.paint([request_of()])[0]) > 1, "other edges"


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux"])
def test_strength_is_how_far_the_crop_is_left(name: str, models: Path) -> None:
    painter = edge_guided(models, name, num_inference_steps=10, guidance_scale=1.0)
    near, far = (painter.paint([request_of(strength=strength)])[0] for strength in (0.0, 1.0))
    assert near.parameters["strength"] == pytest.approx(0.1)
    assert far.parameters["strength"] == 1.0
    plain = painter.paint([request_of(strength=0.1)])[0]
    assert difference(near, plain) <= 1, "a step at least"
    assert difference(near, far) > 3


def test_a_pipeline_without_strength_names_none(models: Path) -> None:
    [painted] = edge_guided(models, "z_image").paint([request_of()])
    assert "strength" not in painted.parameters


@pytest.mark.parametrize("grow_ratio", [0.0, 0.25])
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_only_the_instance_changes(name: str, grow_ratio: float, models: Path) -> None:
    view = view_of(48, 64)
    [painted] = inpainting(models, name, grow_ratio=grow_ratio).paint([request_of(view=view)])
    reach = int(grow_ratio * 20)
    rows, columns = np.nonzero((painted.rgba[..., :3] != view.rgb).any(axis=2))
    box = view.box_xyxy
    assert (columns.min(), rows.min()) == (box[0] - reach, box[1] - reach)
    assert (columns.max(), rows.max()) == (box[2] - 1 + reach, box[3] - 1 + reach)
    assert painted.condition is None


@pytest.mark.parametrize("control", [False, True], ids=["free", "edges"])
def test_only_the_surroundings_change(control: bool, models: Path) -> None:
    view = view_of(48, 64)
    [painted] = inpainting(models, "sd", control=control, change="surroundings").paint([request_of(view=view)])
    assert np.array_equal(painted.rgba[..., 3] == 255, view.mask_hw)
    assert np.array_equal(painted.rgba[view.mask_hw][:, :3], view.rgb[view.mask_hw])
    assert (painted.rgba[~view.mask_hw][:, :3] != view.rgb[~view.mask_hw]).any(axis=1).mean() > 0.9
    assert (painted.condition is not None) == control
    assert painted.parameters["change"] == "surroundings"


def test_weights_are_shared_with_the_painter_from_text(models: Path) -> None:
    base = share_pipeline(DiffusionSettings.model_validate({"model": str(models / "sdxl"), "device": "cpu"}))
    painters = [edge_guided(models, "sdxl"), inpainting(models, "sdxl", control=True), inpainting(models, "sdxl")]
    shared = [share_conditioned_pipeline(p.settings, find_conditioned_class(p.settings, p.task)) for p in painters]
    assert all(each.pipeline.unet is base.pipeline.unet and each.lock is base.lock for each in shared)
    assert shared[0].pipeline.controlnet is shared[1].pipeline.controlnet
    other = edge_guided(models, "sdxl", side_px=32, edges={"canny": 0.5})
    assert share_conditioned_pipeline(other.settings, type(shared[0].pipeline)) is shared[0]


def test_the_source_can_be_a_prompt(models: Path) -> None:
    adapter = {"model": str(models / "adapter"), "weight_name": "ip-adapter.safetensors"}
    requests = [request_of(1), request_of(1, view=view_of(shift=4))]
    plain, faint, strong = (
        edge_guided(models, "sd", **changes).paint(requests)
        for changes in ({}, {"ip_adapter": {**adapter, "scale": 0.0}}, {"ip_adapter": {**adapter, "scale": 1.0}})
    )
    assert difference(plain[0], faint[0]) <= 1
    assert difference(faint[0], strong[0]) > 1
    assert strong[0].parameters["ip_adapter_scale"] == 1.0
    settings = edge_guided(models, "sd", ip_adapter={**adapter, "scale": 1.0}).settings
    share = share_conditioned_pipeline(settings, find_conditioned_class(settings, "image_to_image"))
    base = share_pipeline(DiffusionSettings.model_validate({"model": str(models / "sd"), "device": "cpu"}))
    assert share.pipeline.unet is not base.pipeline.unet, "text painters know no image prompt"


@pytest.mark.parametrize("name", SAVERS)
def test_the_stride_is_known_without_weights(name: str, models: Path) -> None:
    settings = edge_guided(models, name).settings
    pipeline = share_conditioned_pipeline(settings, find_conditioned_class(settings, "image_to_image")).pipeline
    assert find_stride(settings) == pipeline.vae_scale_factor * (2 if "transformer" in pipeline.components else 1)


def test_adaptations_and_negative_prompts_reach_the_pixels(models: Path) -> None:
    changes: list[dict[str, object]] = [{"negative_prompt": "blurry"}, {"loras": [{"model": str(models / "lora")}]}]
    request, strong = request_of(strength=1.0), {"guidance_scale": 9.0, "num_inference_steps": 4}
    [plain] = edge_guided(models, "sdxl", **strong).paint([request])
    for change in changes:
        assert difference(plain, edge_guided(models, "sdxl", **strong, **change).paint([request])[0]) > 1


def test_what_the_model_breaks_is_a_flaw(models: Path) -> None:
    painter = edge_guided(models, "sd", scheduler_options={"clip_sample": False})
    share = share_conditioned_pipeline(painter.settings, find_conditioned_class(painter.settings, painter.task))
    share.pipeline.unet.conv_out.bias.data.fill_(torch.nan)
    assert [painted.flaw for painted in painter.paint([request_of(1), request_of(2)])] == [
        "values that are not finite"
    ] * 2


def test_the_safety_checker_s_word_counts(models: Path, tmp_path: Path) -> None:
    save_sd(tmp_path / "sd", blanks_all=True)
    painter = inpainting(tmp_path, "sd", change="surroundings")
    assert painter.paint([request_of()])[0].flaw == "blanked by the model's safety checker"


THIN = SourceView(np.zeros((60, 64, 3), np.uint8), np.eye(60, 64, dtype=bool))
FULL = SourceView(np.zeros((48, 64, 3), np.uint8), np.ones((48, 64), bool))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        pytest.param({"prompt": " "}, PromptError, "'item-1'.*empty", id="no prompt"),
        pytest.param({"view": None}, SampleError, "'item-1' has no view", id="no view"),
        pytest.param({"view": view_of(8, 400)}, SampleError, "'item-1'.*400 by 8 pixels", id="narrow once resized"),
        pytest.param({"view": SourceView(FULL.rgb[:1], FULL.mask_hw[:1])}, SampleError, "64 by 1", id="one row"),
        pytest.param({"view": FULL}, SampleError, "no surroundings to change", id="instance fills its view"),
        pytest.param({"view": THIN}, EmptyMaskError, "no pixel at 16 by 16", id="thin"),
    ],
)
def test_a_bad_sample_is_found_before_the_weights_are_loaded(
    change: dict[str, object], error: type[Exception], says: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditioned_pipelines, "share_pipeline", None)
    painter = inpainting(models, "sd", change="surroundings", side_px=16)
    with pytest.raises(error, match=says):
        painter.paint([request_of(2), request_of(1, **change)])


@pytest.mark.parametrize(
    ("name", "control", "changes", "says"),
    [
        pytest.param("sdxl", "sd", {}, "does not fit.*cross_attention_dim is 32, the model's is 64", id="SD's on SDXL"),
        pytest.param("z_image", "flux", {}, "no part of ZImageTransformer2DModel", id="FLUX's on Z-Image"),
        pytest.param("sd", "flux", {}, "no part of UNet2DConditionModel", id="FLUX's on SD"),
        pytest.param("flux", "sd", {}, "ControlNetModel is no part of FluxTransformer", id="SD's on FLUX"),
        pytest.param("sd", "sd", {"controlnet": {"model": "sd/unet"}}, "expected a ControlNet", id="no ControlNet"),
        pytest.param("sdxl", "union", {"controlnet": {"model": "control_union"}}, "set `controlnet.mode`", id="mode"),
        pytest.param("sd", "sd", {"pipeline": "StableDiffusionXPipeline"}, "did you mean", id="unknown pipeline"),
        pytest.param("sd", "sd", {"pipeline": "StableDiffusionPipeline"}, "takes none of control_image", id="text's"),
        pytest.param(
            "sd", "sd", {"pipeline": "FluxControlNetPipeline"}, "needs .*transformer", id="another's pipeline"
        ),
        pytest.param(
            "sdxl", "sdxl", {"negative_prompt": "x", "guidance_scale": 1.0}, "no effect", id="negative prompt"
        ),
        pytest.param("z_image", "z_image", {"ip_adapter": "adapter"}, "takes no IP-Adapter", id="no IP-Adapter"),
        pytest.param("sdxl", "sdxl", {"ip_adapter": "adapter"}, "adapter.*does not fit", id="another's IP-Adapter"),
        pytest.param("sd", "sd", {"ip_adapter": "lora"}, "is not there; set `subfolder`", id="IP-Adapter's file"),
    ],
)
def test_what_does_not_fit_is_a_recipe_error(
    name: str, control: str, changes: dict[str, object], says: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    if "ip_adapter" in changes:
        changes = {"ip_adapter": {"model": changes["ip_adapter"], "weight_name": "ip-adapter.safetensors"}}
    with pytest.raises(RecipeError, match=says):
        edge_guided(models, name, control, **changes).paint([request_of()])


def test_a_controlnet_that_is_not_fetched_says_how(
    models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    painter = edge_guided(models, "sd", controlnet={"model": "owner/edges"})
    for use in (lambda: painter.paint([request_of()]), lambda: painter.revision):
        with pytest.raises(ModelNotFetchedError, match="maskwright models fetch owner/edges"):
            use()


def test_the_revision_names_all_that_paints(models: Path) -> None:
    parts = edge_guided(models, "sd", edges={"canny": 0.5}).revision.split(" + ")
    assert [part.partition("@")[0] for part in parts] == ["sd", "control_sd", "canny*0.5"]
    assert inpainting(models, "sd").revision.count(" + ") == 0
    reader = edge_guided(models, "sd").prompt_reader
    assert (reader.max_tokens, reader.count_tokens("cat")) == (77, 5)


@pytest.mark.parametrize(
    ("pipeline", "taken"),
    [
        ("FluxFillPipeline", {"image", "mask_image", "strength", "height", "width"}),
        ("QwenImageEditInpaintPipeline", {"image", "mask_image", "strength", "height", "width"}),
        ("Flux2KleinInpaintPipeline", {"image", "mask_image", "strength", "height", "width"}),
        ("QwenImageControlNetInpaintPipeline", {"control_image", "control_mask", "height", "width"}),
        ("ZImageControlNetInpaintPipeline", {"image", "mask_image", "control_image", "height", "width"}),
    ],
)
def test_larger_models_get_what_they_take(pipeline: str, taken: set[str], models: Path) -> None:
    """By their signatures alone: no tiny weights of these are made here."""
    start = prepare_start(request_of(), side_px=64, stride=16, change="instance")
    start = replace(start, control=edges_to_control(np.zeros(start.rgb.shape[:2], np.float32)))
    arguments = start_arguments(getattr(diffusers, pipeline), [start], inpainting(models, "sd").settings)
    assert set(arguments) == taken
