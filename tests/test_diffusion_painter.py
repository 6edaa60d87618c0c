"""The diffusion painter on tiny pipelines of the published classes, loaded by our settings as a user's are."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from tiny_pipelines import save_lora, save_sd, save_sdxl, save_z_image

from maskwright.configs.diffusion import DiffusionSettings, LoraSettings
from maskwright.errors import BrokenRunError, ModelNotFetchedError, PromptError, RecipeError
from maskwright.tools.painting import pipelines
from maskwright.tools.painting.diffusion import DiffusionPainter
from maskwright.tools.painting.pipelines import load_pipeline, share_pipeline
from maskwright.tools.protocols import Painted, PaintRequest, TextPainter

SAVERS: dict[str, Callable[[Path], Path]] = {"sd": save_sd, "sdxl": save_sdxl, "z_image": save_z_image}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny models, and `lora`, an adaptation of `sdxl`."""
    folder = tmp_path_factory.mktemp("Modelle ü")
    for name, save in SAVERS.items():
        save(folder / name)
    save_lora(folder / "lora")
    save_lora(folder / "lora for another", width=32)
    return folder


def settings_of(model: Path, **changes: object) -> DiffusionSettings:
    small = {"width": 64, "height": 48, "num_inference_steps": 2, "guidance_scale": 3.0, "device": "cpu"}
    return DiffusionSettings.model_validate({"model": str(model), **small, **changes})


def requests_of(*seeds: int, prompt: str = "a photo of a cat") -> list[PaintRequest]:
    return [PaintRequest(item_id=f"item-{s}", seed=s, category="cat", prompt=prompt, strength=1.0) for s in seeds]


def paint(model: Path, *seeds: int, prompt: str = "a photo of a cat", **changes: object) -> list[Painted]:
    return DiffusionPainter(settings_of(model, **changes)).paint(requests_of(*seeds, prompt=prompt))


def difference(first: Painted, second: Painted) -> int:
    return int(np.abs(first.rgba.astype(int) - second.rgba.astype(int)).max())


@pytest.mark.parametrize(
    ("name", "pipeline", "scheduler"),
    [
        ("sd", "StableDiffusionPipeline", "DDIMScheduler"),
        ("sdxl", "StableDiffusionXLPipeline", "EulerDiscreteScheduler"),
        ("z_image", "ZImagePipeline", "FlowMatchEulerDiscreteScheduler"),
    ],
)
def test_a_request_is_its_picture_alone_and_in_any_batch(
    name: str, pipeline: str, scheduler: str, models: Path
) -> None:
    painter: TextPainter = DiffusionPainter(settings_of(models / name, batch_size=2))
    requests = [*requests_of(1, 2), *requests_of(1, prompt="a much longer prompt about something else")]
    together = painter.paint(requests)
    for painted in together:
        assert painted.rgba.shape == (48, 64, 4)
        assert painted.rgba.dtype == np.uint8
        assert (painted.rgba[..., 3] == 255).all()
        assert painted.flaw == ""
        assert painted.parameters == {
            "pipeline": pipeline,
            "scheduler": scheduler,
            "dtype": "float32",
            "num_inference_steps": 2,
            "guidance_scale": 3.0,
            "tokens_cut": 0,
        }
    alone = [painter.paint([request])[0] for request in requests]
    assert max(difference(one, other) for one, other in zip(alone, together, strict=True)) <= 1
    assert difference(together[0], together[1]) > 20, "another seed"
    assert difference(together[0], together[2]) > 5, "another prompt"


CHANGES = [
    pytest.param("sd", {"negative_prompt": "blurry"}, id="negative prompt, SD"),
    pytest.param("sdxl", {"negative_prompt": "blurry"}, id="negative prompt, SDXL"),
    pytest.param("z_image", {"negative_prompt": "blurry"}, id="negative prompt, Z-Image"),
    pytest.param("sd", {"guidance_scale": 9.0}, id="guidance"),
    pytest.param("z_image", {"num_inference_steps": 4}, id="steps"),
    pytest.param("sd", {"scheduler": "LCMScheduler"}, id="scheduler that draws noise"),
    pytest.param("sdxl", {"scheduler": "DPMSolverMultistepScheduler"}, id="scheduler"),
    pytest.param("sdxl", {"scheduler_options": {"timestep_spacing": "trailing"}}, id="scheduler option"),
    pytest.param("sdxl", {"loras": [{"model": "lora"}]}, id="LoRA"),
]


@pytest.mark.parametrize(("name", "changes"), CHANGES)
def test_every_setting_reaches_the_pixels(
    name: str, changes: dict[str, object], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    [plain], changed = paint(models / name, 7), paint(models / name, 7, 8, **changes)
    assert difference(plain, changed[0]) > 1
    assert difference(changed[0], paint(models / name, 7, **changes)[0]) <= 1, "the same alone"
    assert changed[0].parameters["scheduler"] == changes.get("scheduler", plain.parameters["scheduler"])


def test_the_scale_of_an_adaptation_counts(models: Path) -> None:
    lora = LoraSettings(model=str(models / "lora" / "pytorch_lora_weights.safetensors"))
    plain, none, whole, both = (
        paint(models / "sdxl", 5, loras=loras)[0]
        for loras in ([], [{**lora.model_dump(), "scale": 0.0}], [lora], [lora, lora])
    )
    assert difference(plain, none) <= 1
    assert difference(whole, both) > 1


def test_painters_of_equal_settings_share_one_pipeline(models: Path) -> None:
    settings = settings_of(models / "sdxl")
    shared = share_pipeline(settings)
    assert share_pipeline(settings.model_copy(update={"num_inference_steps": 9, "negative_prompt": "x"})) is shared
    assert share_pipeline(settings.model_copy(update={"vae_tiling": True})) is not shared


def test_threads_that_share_a_pipeline_do_not_mix(models: Path) -> None:
    def paint_one(seed: int) -> Painted:
        return paint(models / "sd", seed, num_inference_steps=2 + seed % 3)[0]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(paint_one, range(6)))
    assert all(difference(painted, paint_one(seed)) <= 1 for seed, painted in enumerate(together))


@pytest.mark.parametrize(
    ("name", "limit", "marks"), [("sd", 77, 2), ("sdxl", 77, 2), ("z_image", 512, 19)], ids=SAVERS.keys()
)
def test_tokens_are_counted_without_weights(
    name: str, limit: int, marks: int, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Letters are tokens here; around them stand the marks of a text, or of a conversation."""
    shutil.copytree(models / name, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
    painter = DiffusionPainter(settings_of(tmp_path / name))
    assert painter.max_tokens == limit
    assert painter.count_tokens("cat") == 3 + marks
    assert painter.count_tokens("x" * 1000) == 1000 + marks
    assert not caplog.records
    assert painter.knows("anything at all")


def test_a_prompt_that_is_cut_says_so(models: Path) -> None:
    [painted] = paint(models / "sd", 1, prompt="x" * 100)
    assert painted.parameters["tokens_cut"] == 100 + 2 - 77
    assert painted.flaw == ""


def test_a_model_that_overflows_paints_flaws(models: Path) -> None:
    own = {"scheduler_options": {"clip_sample": False}}
    share_pipeline(settings_of(models / "sd", **own)).pipeline.unet.conv_out.bias.data.fill_(torch.nan)
    assert [painted.flaw for painted in paint(models / "sd", 1, 2, **own)] == ["values that are not finite"] * 2


@pytest.mark.parametrize(
    ("blanks_all", "safety", "flaw"),
    [
        pytest.param(True, "reject", "blanked by the model's safety checker", id="blanks"),
        pytest.param(True, "off", "", id="not loaded"),
        pytest.param(False, "reject", "", id="lets through"),
    ],
)
def test_the_safety_checker_s_word_counts(blanks_all: bool, safety: str, flaw: str, tmp_path: Path) -> None:
    save_sd(tmp_path, blanks_all=blanks_all)
    [painted] = paint(tmp_path, 1, safety=safety)
    assert painted.flaw == flaw


@pytest.mark.parametrize("most", [0, 1, 2, 4], ids=["none fits", "one", "two", "all"])
def test_out_of_memory_halves_the_batch(
    most: int, models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(models / "sd", batch_size=4, guidance_scale=1.0)
    expected = DiffusionPainter(settings).paint(requests_of(1, 2, 3, 4))
    forward = diffusers.UNet2DConditionModel.forward

    def limited(self: object, sample: torch.Tensor, *args: object, **options: object) -> object:
        if len(sample) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, sample, *args, **options)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "forward", limited)
    painter = DiffusionPainter(settings)
    if most == 0:
        with pytest.raises(BrokenRunError, match="does not hold a batch of one"):
            painter.paint(requests_of(1, 2, 3, 4))
        return
    with caplog.at_level(logging.WARNING):
        painted = painter.paint(requests_of(1, 2, 3, 4))
    assert all(difference(one, other) <= 1 for one, other in zip(painted, expected, strict=True))
    assert [f"going on with {size}" in caplog.text for size in (2, 1)] == [most < 4, most < 2]


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        pytest.param("sd", {"scheduler": "EulerDiscretScheduler"}, "mean `EulerDiscreteScheduler`", id="scheduler"),
        pytest.param("sd", {"scheduler": "UNet2DModel"}, "no scheduler 'UNet2DModel'", id="no scheduler at all"),
        pytest.param(
            "sd", {"scheduler_options": {"spacing": "x"}}, "'spacing', did you mean `timestep_sp", id="option"
        ),
        pytest.param("sd", {"scheduler_options": {"beta_schedule": "x"}}, "DDIMScheduler refuses", id="option's value"),
        pytest.param("sd", {"pipeline": "StableDifusionPipeline"}, "mean `StableDiffusionPipeline`", id="pipeline"),
        pytest.param("sd", {"width": 65}, "refuses .*'width': 65.*divisible", id="width"),
        pytest.param("z_image", {"height": 50}, "refuses .*'height': 50.*divisible", id="height of a flow model"),
        pytest.param("z_image", {"scheduler": "DDIMScheduler"}, "ZImagePipeline with DDIMScheduler refuses", id="flow"),
        pytest.param("sdxl", {"loras": [{"model": "lora for another"}]}, "lora for another.*not fit", id="LoRA"),
        pytest.param("sdxl", {"loras": [{"model": "sdxl"}]}, r"one safetensors file, got none in .*sdxl", id="no LoRA"),
        pytest.param(
            "sdxl", {"loras": [{"model": "lora", "weight_name": "x[1].bin"}]}, r"got lora/x\[1\].bin", id="LoRA's file"
        ),
        pytest.param("lora", {}, r"no diffusers pipeline: .*model_index\.json", id="no pipeline"),
    ],
)
def test_a_setting_that_does_not_fit_is_a_recipe_error(
    name: str, changes: dict[str, object], says: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    with pytest.raises(RecipeError, match=says):
        paint(models / name, 1, **changes)


def test_a_hub_id_paints_as_its_folder_does(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "models--owner--tiny"
    shutil.copytree(models / "sd", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    painter = DiffusionPainter(settings_of(Path("owner/tiny"), revision="v1"))
    assert difference(painter.paint(requests_of(1))[0], paint(models / "sd", 1)[0]) <= 1
    assert painter.revision == f"owner/tiny@{commit}"


def test_a_model_that_is_not_fetched_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    painter = DiffusionPainter(DiffusionSettings(model="owner/tiny", revision="v1"))
    for use in (lambda: painter.paint(requests_of(1)), lambda: painter.revision, lambda: painter.count_tokens("x")):
        with pytest.raises(ModelNotFetchedError, match="maskwright models fetch owner/tiny@v1"):
            use()


NEWER_INDEX = (
    b'{"_class_name": "StableDiffusionPipeline", "tokenizer": ["transformers", "CLIPTokenizer"],'
    b' "unet": ["diffusers", "NewUNet"]}'
)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        pytest.param({"model_index.json": b"{"}, RecipeError, "index of a diffusers pipeline", id="index"),
        pytest.param(
            {"model_index.json": b'{"_class_name": "DDPMPipeline"}'}, RecipeError, "no 'prompt'", id="no text to image"
        ),
        pytest.param({"unet/diffusion_pytorch_model.safetensors": b"x" * 99}, BrokenRunError, "fetch", id="weights"),
        pytest.param({"unet/diffusion_pytorch_model.safetensors": None}, BrokenRunError, "safetensors", id="pickle"),
        pytest.param({"vae/config.json": b"[]"}, BrokenRunError, "cannot be loaded", id="settings"),
        pytest.param({"tokenizer/tokenizer.json": b"{"}, BrokenRunError, "no tokenizer", id="tokenizer"),
        pytest.param(
            {"model_index.json": NEWER_INDEX},
            BrokenRunError,
            "NewUNet",
            id="part of a newer diffusers",
        ),
    ],
)
def test_damaged_files_are_named(
    damage: dict[str, bytes | None], error: type[Exception], says: str, models: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(models / "sd", tmp_path / "sd")
    for name, content in damage.items():
        if content is None:
            (folder / name).rename(folder / f"{name}.bin")
        else:
            (folder / name).write_bytes(content)
    with pytest.raises(error, match=says):
        paint(folder, 1)


def test_a_variant_that_is_not_there_is_said(models: Path) -> None:
    with pytest.raises(BrokenRunError, match="of variant 'fp16'"):
        paint(models / "sd", 1, variant="fp16")


def test_no_prompt_no_picture(models: Path) -> None:
    with pytest.raises(PromptError, match=r"'item-2'.*' ' is empty"):
        DiffusionPainter(settings_of(models / "sd")).paint([*requests_of(1), *requests_of(2, prompt=" ")])


def test_the_index_of_a_kin_paints_from_text(models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "sd", tmp_path / "sd")
    index = (folder / "model_index.json").read_text()
    (folder / "model_index.json").write_text(index.replace("StableDiffusionPip", "StableDiffusionInpaintPip"))
    [painted] = paint(folder, 1)
    assert painted.parameters["pipeline"] == "StableDiffusionPipeline"


def test_the_revision_names_model_and_adaptations(models: Path) -> None:
    plain = DiffusionPainter(settings_of(models / "sdxl")).revision
    adapted = DiffusionPainter(settings_of(models / "sdxl", loras=[{"model": str(models / "lora"), "scale": 0.5}]))
    assert plain.startswith("sdxl@")
    assert adapted.revision.startswith(f"{plain} + lora@")
    assert adapted.revision.endswith("*0.5")


def test_numbers_of_half_the_size(models: Path) -> None:
    [whole], [half] = paint(models / "sd", 1), paint(models / "sd", 1, dtype="bfloat16")
    assert half.parameters["dtype"] == "bfloat16"
    assert half.flaw == ""
    assert 0 < difference(whole, half) < 128


@pytest.mark.parametrize(
    ("changes", "called"),
    [
        ({}, "to"),
        ({"cpu_offload": "model"}, "enable_model_cpu_offload"),
        ({"cpu_offload": "sequential"}, "enable_sequential_cpu_offload"),
    ],
    ids=["all on the GPU", "model by model", "layer by layer"],
)
def test_a_pipeline_goes_where_the_settings_say(
    changes: dict[str, object], called: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, object] = {}
    for method in ("to", "enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        hear = lambda self, device, method=method: heard.update({method: device})  # noqa: E731
        monkeypatch.setattr(diffusers.DiffusionPipeline, method, hear)
    monkeypatch.setattr(pipelines, "resolve_device", lambda name: torch.device("cuda:1"))
    load_pipeline(settings_of(models / "sd", dtype="float32", **changes))
    assert heard == {called: torch.device("cuda:1")}


def test_a_model_that_the_gpu_does_not_hold_says_what_to_do(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(self: object, device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "to", too_large)
    with pytest.raises(BrokenRunError, match=r"memory of cpu does not hold .*set `cpu_offload`"):
        load_pipeline(settings_of(models / "sd"))


def test_memory_and_speed_switches_reach_the_parts(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    switches = {"attention_slicing": True, "compile": True, "cpu_offload": "model"}
    [plain], [switched] = paint(models / "sd", 1), paint(models / "sd", 1, **switches)
    assert difference(plain, switched) <= 1
    pipeline = share_pipeline(settings_of(models / "sd", **switches)).pipeline
    assert not pipeline.vae.use_tiling
    assert load_pipeline(settings_of(models / "sd", vae_tiling=True)).vae.use_tiling
    assert compiled == ["UNet2DConditionModel"]
    assert "Sliced" in str({type(part.processor).__name__ for part in pipeline.unet.modules() if hasattr(part, "to_q")})
