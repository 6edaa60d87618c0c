"""LayerDiffuse: the published architecture and names, the alpha's median, and the painter on a tiny SDXL."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig
from pydantic import ValidationError
from safetensors.torch import save_file
from tiny_pipelines import save_sd, save_sdxl

from maskwright.configs.layer_diffusion import LayerDiffusionSettings
from maskwright.errors import BrokenRunError, ModelNotFetchedError, PromptError, RecipeError
from maskwright.models.transparent_attention import known_names, merge_attention
from maskwright.models.transparent_vae import TransparentDecoder, load_decoder
from maskwright.tools.painting.layer_diffusion import (
    LayerDiffusionPainter,
    picture_to_painted,
    retry_seed,
    share_transparent_pipeline,
)
from maskwright.tools.protocols import Painted, PaintRequest

Shapes = Mapping[str, Sequence[int]]

DECODER_KEYS = Path(__file__).parent / "golden" / "layer_diffusion_keys.json"
"""Names and shapes of the published decoder's tensors, from the class that its authors publish with it."""
PUBLISHED_DECODER_BYTES = 208_266_320
PUBLISHED_ATTENTION_BYTES = 743_352_688
RANK = 256
TINY_WIDTH = 4
HEIGHT, WIDTH = 64, 128
CPU = torch.device("cpu")
SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
SDXL_ATTENTIONS = {
    **{f"input_blocks.{number}.1": (640, 2) for number in (4, 5)},
    **{f"input_blocks.{number}.1": (1280, 10) for number in (7, 8)},
    "middle_block.1": (1280, 10),
    **{f"output_blocks.{number}.1": (1280, 10) for number in (0, 1, 2)},
    **{f"output_blocks.{number}.1": (640, 2) for number in (3, 4, 5)},
}
"""Where SDXL's original code has attention: its name, channels and layers."""
TINY_ATTENTIONS = {
    "input_blocks.3.1": "down_blocks.1.attentions.0",
    "middle_block.1": "mid_block.attentions.0",
    "output_blocks.0.1": "up_blocks.0.attentions.0",
    "output_blocks.1.1": "up_blocks.0.attentions.1",
}
"""The same of the tiny UNet, one layer a block, with diffusers' name."""


def _attention_shapes() -> dict[str, list[int]]:
    """Names and shapes of the published attention weights: a pair of factors for each matrix of each attention."""
    shapes = {}
    for place, (channels, layers) in SDXL_ATTENTIONS.items():
        for layer in range(layers):
            for attention, context in (("attn1", channels), ("attn2", SDXL_UNET["cross_attention_dim"])):
                for matrix, width in (("to_q", channels), ("to_k", context), ("to_v", context), ("to_out.0", channels)):
                    name = f"diffusion_model.{place}.transformer_blocks.{layer}.{attention}.{matrix}.weight::lora::"
                    shapes |= {name + "0": [channels, RANK], name + "1": [RANK, width]}
    return shapes


def _num_bytes(shapes: Shapes) -> int:
    """Size of a safetensors file with these tensors in 16 bits, to the byte."""
    header, end = {}, 0
    for name in sorted(shapes):
        start, end = end, end + 2 * math.prod(shapes[name])
        header[name] = {"dtype": "F16", "shape": list(shapes[name]), "data_offsets": [start, end]}
    return 8 + math.ceil(len(json.dumps(header, separators=(",", ":"))) / 8) * 8 + end


def _random_decoder(width: int = TINY_WIDTH) -> TransparentDecoder:
    torch.manual_seed(11)
    decoder = TransparentDecoder(width).eval()
    decoder.conv_out.weight.data *= 0.2
    decoder.conv_out.bias.data.fill_(0.5)
    return decoder


def _constant_decoder(alpha: float, *rgb: float) -> TransparentDecoder:
    decoder = _random_decoder()
    decoder.conv_out.weight.data.zero_()
    decoder.conv_out.bias.data = torch.tensor([alpha, *rgb])
    return decoder


def _save(weights: Mapping[str, torch.Tensor], path: Path) -> Path:
    save_file({name: tensor.half().contiguous() for name, tensor in weights.items()}, path)
    return path


def _unet(folder: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet")


def _factors(unet: UNet2DConditionModel, rank: int = 3) -> dict[str, torch.Tensor]:
    """Random attention weights for the tiny UNet, in the original names."""
    generator = torch.Generator().manual_seed(5)
    shapes = {name: parameter.shape for name, parameter in unet.named_parameters()}
    factors = {}
    for original, place in TINY_ATTENTIONS.items():
        for name, shape in shapes.items():
            if name.startswith(place) and ".to_" in name and name.endswith("weight"):
                key = f"diffusion_model.{name.replace(place, original)}::lora::"
                factors[key + "0"] = torch.randn(shape[0], rank, generator=generator).half()
                factors[key + "1"] = torch.randn(rank, shape[1], generator=generator).half()
    return factors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL whose autoencoder reduces a side eight times, and beside it tiny weights of LayerDiffuse."""
    folder = save_sdxl(tmp_path_factory.mktemp("Modèles ü") / "tiny xl")
    torch.manual_seed(2)
    AutoencoderKL(
        block_out_channels=[8] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.13025,
    ).save_pretrained(folder / "vae")
    _save(_random_decoder().state_dict(), folder / "decoder.safetensors")
    _save(_factors(_unet(folder)), folder / "attention.safetensors")
    return folder


def _settings(
    folder: Path, *, diffusion: Mapping[str, object] | None = None, **changes: object
) -> LayerDiffusionSettings:
    pipeline = {"model": str(folder), "num_inference_steps": 1, "width": WIDTH, "height": HEIGHT, "device": "cpu"}
    weights = {
        "attention": {"model": str(folder), "file": "attention.safetensors"},
        "decoder": {"model": str(folder), "file": "decoder.safetensors"},
    }
    quick_and_lenient = {"num_flips": 1, "max_opaque_share": 1.0, "min_visible_share": 1e-9}
    base = {"diffusion": {**pipeline, **(diffusion or {})}, **weights, **quick_and_lenient}
    return LayerDiffusionSettings.model_validate({**base, **changes})


def _request(seed: int = 0, prompt: str = "a tea pot") -> PaintRequest:
    return PaintRequest(item_id=f"tea-{seed}", seed=seed, category="tea pot", prompt=prompt, strength=1.0)


def _paint(settings: LayerDiffusionSettings, *seeds: int) -> list[Painted]:
    return LayerDiffusionPainter(settings).paint([_request(seed) for seed in seeds])


def _difference(first: Painted, second: Painted) -> int:
    return int(np.abs(first.rgba.astype(np.int16) - second.rgba.astype(np.int16)).max())


def _share(painted: Painted) -> float:
    return float((painted.rgba[..., 3] >= 128).mean())


class TestPublishedArchitecture:
    """The lists of names and shapes give the sizes of the published files to the byte, so that they are complete."""

    def test_sizes_are_counted_as_the_library_writes_them(self, folder: Path) -> None:
        shapes = {name: tensor.shape for name, tensor in TransparentDecoder(TINY_WIDTH).state_dict().items()}
        assert _num_bytes(shapes) == (folder / "decoder.safetensors").stat().st_size

    def test_the_decoder_has_the_published_names_and_shapes(self) -> None:
        published: Shapes = json.loads(DECODER_KEYS.read_text(encoding="utf-8"))
        with torch.device("meta"):
            decoder = TransparentDecoder()
        assert {name: list(tensor.shape) for name, tensor in decoder.state_dict().items()} == published
        assert _num_bytes(published) == PUBLISHED_DECODER_BYTES

    def test_the_attention_weights_fit_the_matrices_of_sdxl(self) -> None:
        published = _attention_shapes()
        assert _num_bytes(published) == PUBLISHED_ATTENTION_BYTES
        with torch.device("meta"):
            unet = UNet2DConditionModel(**SDXL_UNET)
        names = known_names(unet)
        factors = {name.removesuffix("::lora::0") for name in published if name.endswith("0")}
        reached = {names[name] for name in factors}
        assert reached == {name for name in unet.state_dict() if ".to_" in name and name.endswith("weight")}
        for name in factors:
            up, down = published[f"{name}::lora::0"], published[f"{name}::lora::1"]
            assert [up[0], down[1]] == list(unet.get_parameter(names[name]).shape)

    def test_diffusers_translates_the_names_alike(self) -> None:
        """Its own converter reads the names in the spelling of kohya's LoRAs; each pair is told by its number."""
        with torch.device("meta"):
            unet = UNet2DConditionModel(**SDXL_UNET)
        ours = sorted(name.removesuffix("::lora::0") for name in _attention_shapes() if name.endswith("0"))
        kohya = {}
        for number, name in enumerate(ours):
            spelt = name.replace("diffusion_model.", "lora_unet.").removesuffix(".weight").replace(".", "_")
            kohya |= {f"{spelt}.lora_{side}.weight": torch.full((1, 1), number) for side in ("up", "down")}
        converted = StableDiffusionXLPipeline.lora_state_dict(kohya, unet_config=unet.config)[0]
        names = known_names(unet)
        theirs = {
            int(tensor): name.removeprefix("unet.").replace("processor.", "").removesuffix("_lora.up.weight")
            for name, tensor in converted.items()
            if name.endswith("_lora.up.weight")
        }
        spelt_out = [names[name].removesuffix(".weight").removesuffix(".0") for name in ours]
        assert theirs == dict(enumerate(spelt_out))


class TestDecoder:
    @pytest.mark.parametrize(("mirrored", "quarters"), [(False, 1), (False, 2), (True, 0), (True, 3)])
    def test_the_median_over_all_flips_turns_with_its_input(self, mirrored: bool, quarters: int) -> None:
        def turn(image: torch.Tensor) -> torch.Tensor:
            return (image.flip(-1) if mirrored else image).rot90(quarters, dims=(-2, -1))

        decoder = _random_decoder()
        generator = torch.Generator().manual_seed(3)
        pixels = torch.rand(1, 3, HEIGHT, WIDTH, generator=generator)
        latents = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=generator)
        turned = decoder.decode(turn(pixels), turn(latents))
        torch.testing.assert_close(turned, turn(decoder.decode(pixels, latents)), atol=1e-5, rtol=0)
        once = decoder.decode(turn(pixels), turn(latents), num_flips=1)
        assert (once - turn(decoder.decode(pixels, latents, num_flips=1))).abs().max() > 0.01

    def test_alpha_comes_out_last_and_leaves_the_colours_alone(self) -> None:
        pixels, latents = torch.rand(2, 3, HEIGHT, WIDTH), torch.randn(2, 4, HEIGHT // 8, WIDTH // 8)
        rgba = _constant_decoder(0.5, 0.25, 0.75, 2.0).decode(pixels, latents)
        assert rgba.shape == (2, 4, HEIGHT, WIDTH)
        assert rgba[:, :, 0, 0].tolist() == [[0.25, 0.75, 1.0, 0.5]] * 2

    def test_the_latents_matter(self) -> None:
        pixels, latents = torch.rand(1, 3, HEIGHT, WIDTH), torch.randn(1, 4, HEIGHT // 8, WIDTH // 8)
        decoder = _random_decoder()
        assert (decoder.decode(pixels, latents, 1) - decoder.decode(pixels, -latents, 1)).abs().max() > 0.001

    def test_a_saved_one_is_loaded_as_wide_as_it_is(self, tmp_path: Path) -> None:
        path = _save(_random_decoder(8).state_dict(), tmp_path / "Dekoder ü.safetensors")
        loaded = load_decoder(path, CPU)
        assert loaded.conv_in.weight.shape[0] == 8
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
        assert not any(parameter.requires_grad for parameter in loaded.parameters())

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            pytest.param({"conv_in.weight": None}, "'conv_in.weight' is missing", id="first missing"),
            pytest.param({"mid_block.resnets.1.conv2.bias": None}, "'mid_block.resnets.1.conv2.bias'", id="missing"),
            pytest.param({"conv_out.bias": [3]}, "'conv_out.bias' has shape (3,), expected (4,)", id="shape"),
            pytest.param({"zz.weight": [1]}, "'zz.weight' is not expected", id="one too many"),
            pytest.param({"conv_in.weight": []}, "'conv_in.weight' has shape (), expected (32, 3, 3, 3)", id="scalar"),
        ],
    )
    def test_other_weights_are_refused(self, changes: dict[str, list[int] | None], says: str, tmp_path: Path) -> None:
        weights = dict(_random_decoder().state_dict())
        for name, shape in changes.items():
            if shape is None:
                del weights[name]
            else:
                weights[name] = torch.zeros(shape)
        path = _save(weights, tmp_path / "décodeur.safetensors")
        with pytest.raises(RecipeError) as raised:
            load_decoder(path, CPU)
        assert says in str(raised.value)
        assert "décodeur.safetensors" in str(raised.value)

    def test_a_damaged_file_is_named(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "half.safetensors"
        path.write_bytes((folder / "decoder.safetensors").read_bytes()[:1000])
        with pytest.raises(BrokenRunError, match=r"half\.safetensors.*fetch or copy"):
            load_decoder(path, CPU)


class TestAttention:
    def test_both_published_forms_change_the_weights_alike(self, folder: Path, tmp_path: Path) -> None:
        plain, by_factors, by_offsets = _unet(folder), _unet(folder), _unet(folder)
        factors = _factors(plain)
        merge_attention(by_factors, folder / "attention.safetensors", scale=0.5)
        changed = {n: p - plain.get_parameter(n) for n, p in by_factors.named_parameters()}
        offsets = {name: 2 * offset.detach() for name, offset in changed.items() if offset.any()}
        assert len(offsets) == len(factors) // 2 == 32
        q = "transformer_blocks.0.attn1.to_q.weight"
        up, down = (factors[f"diffusion_model.output_blocks.1.1.{q}::lora::{part}"].float() for part in (0, 1))
        torch.testing.assert_close(offsets[f"up_blocks.0.attentions.1.{q}"], up @ down, atol=1e-5, rtol=0)
        merge_attention(by_offsets, _save(offsets, tmp_path / "offsets.safetensors"), scale=0.5)
        for name, parameter in by_factors.named_parameters():
            torch.testing.assert_close(by_offsets.get_parameter(name), parameter, atol=5e-3, rtol=0)

    def test_a_unet_with_an_adaptation_gets_them_below_it(self, folder: Path) -> None:
        plain, adapted = _unet(folder), _unet(folder)
        adapted.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
        for unet in (plain, adapted):
            merge_attention(unet, folder / "attention.safetensors")
        name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
        assert torch.equal(adapted.get_parameter(f"{name}.base_layer.weight"), plain.get_parameter(f"{name}.weight"))

    def test_they_are_added_in_the_unets_own_format(self, folder: Path) -> None:
        unet = _unet(folder).to(torch.bfloat16)
        merge_attention(unet, folder / "attention.safetensors")
        assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}

    @pytest.mark.parametrize(
        ("key", "shape", "says"),
        [
            pytest.param("lora_unet_mid_block.lora_up.weight", [1, 1], "is no weight of this UNet", id="other names"),
            pytest.param("conv_in.weight::lora::2", [1, 1], "is no weight of this UNet", id="third factor"),
            pytest.param("conv_in.bias::lora::0", [1, 1], "'conv_in.bias' has parts ['0']", id="half a pair"),
            pytest.param("conv_in.bias", [4], "'conv_in.bias' has shape (4,), expected (16,)", id="shape"),
        ],
    )
    def test_other_weights_are_refused_and_nothing_is_changed(
        self, key: str, shape: list[int], says: str, folder: Path, tmp_path: Path
    ) -> None:
        unet, before = _unet(folder), _unet(folder).state_dict()
        path = _save(_factors(unet) | {key: torch.ones(shape)}, tmp_path / "außer.safetensors")
        with pytest.raises(RecipeError) as raised:
            merge_attention(unet, path)
        assert says in str(raised.value)
        assert key.partition("::")[0] in str(raised.value)
        assert "außer.safetensors" in str(raised.value)
        assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())

    def test_an_empty_file_is_refused(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="it is empty"):
            merge_attention(_unet(folder), _save({}, tmp_path / "empty.safetensors"))


class TestPainter:
    def test_it_paints_cut_outs_of_the_size_asked_for(self, folder: Path) -> None:
        painter = LayerDiffusionPainter(_settings(folder, num_flips=8))
        painted = painter.paint([_request(1)])[0]
        assert painted.rgba.shape == (HEIGHT, WIDTH, 4)
        assert painted.rgba.dtype == np.uint8
        assert len(np.unique(painted.rgba[..., 3])) > 10
        assert painted.flaw == ""
        assert painted.parameters["tries"] == 1
        assert painter.knows("anything")
        assert painter.max_tokens == 77
        assert painter.count_tokens("pot") > 2
        names = r"tiny xl@\w{12} \+ attention.safetensors@\w{12}\*1 \+ decoder.safetensors@\w{12}"
        assert re.fullmatch(names, painter.revision)

    def test_a_batch_changes_nothing(self, folder: Path) -> None:
        settings = _settings(folder)
        together = _paint(settings, 1, 2, 3)
        alone = [_paint(settings, seed)[0] for seed in (1, 2, 3)]
        assert [_difference(*pair) <= 1 for pair in zip(together, alone, strict=True)] == [True] * 3
        assert _difference(together[0], together[1]) > 5

    def test_the_attention_weights_change_the_picture(self, folder: Path) -> None:
        assert _difference(_paint(_settings(folder), 1)[0], _paint(_settings(folder, attention_scale=0.1), 1)[0]) > 5

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_it_paints_in_16_bits(self, dtype: str, folder: Path) -> None:
        settings = _settings(folder, diffusion={"dtype": dtype})
        assert _paint(settings, 1)[0].flaw == ""
        vae_dtype = share_transparent_pipeline(settings).pipeline.vae.dtype
        assert vae_dtype == (torch.float32 if dtype == "float16" else torch.bfloat16)

    def test_weights_are_shared_by_settings_that_load_the_same(self, folder: Path) -> None:
        first = share_transparent_pipeline(_settings(folder))
        assert share_transparent_pipeline(_settings(folder, num_flips=2, diffusion={"guidance_scale": 3.0})) is first
        assert share_transparent_pipeline(_settings(folder, attention_scale=0.1)) is not first

    def test_an_opaque_picture_is_painted_again_with_the_next_seed(self, folder: Path) -> None:
        """The limit lies between the shares of two seeds of one request, so that the first fails and the second not."""
        once = _settings(folder, max_retries=0)
        pairs = {seed: _paint(once, seed, retry_seed(seed, 1)) for seed in range(4)}
        seed = next(seed for seed, (first, second) in pairs.items() if _share(first) > _share(second) + 0.005)
        first, second = pairs[seed]
        limit = (_share(first) + _share(second)) / 2
        painted = _paint(_settings(folder, max_opaque_share=limit, max_retries=3), seed)[0]
        assert painted.flaw == ""
        assert _difference(painted, second) <= 1
        assert painted.parameters["tries"] == 2
        assert painted.parameters["seed"] == retry_seed(seed, 1)

    def test_what_is_flawed_at_the_last_try_says_so(self, folder: Path) -> None:
        painted = _paint(_settings(folder, max_opaque_share=0.01, max_retries=1), 1, 2)
        assert [one.flaw.startswith("opaque") for one in painted] == [True, True]
        assert [one.parameters["tries"] for one in painted] == [2, 2]
        assert [one.parameters["seed"] for one in painted] == [retry_seed(1, 1), retry_seed(2, 1)]

    @pytest.mark.parametrize(
        ("rgba", "flaw"),
        [
            pytest.param((0.5, 0.5, 0.5, 1.0), "opaque: 100.0% of the picture, at most 95.0% may be", id="opaque"),
            pytest.param(
                (0.5, 0.5, 0.5, 0.1), "empty: 0.0% of the picture is visible, at least 1.0% must be", id="empty"
            ),
            pytest.param((0.0, 0.0, 0.0, 0.9), "black", id="black"),
            pytest.param((0.5, math.nan, 0.5, 0.9), "values that are not finite", id="not finite"),
            pytest.param((0.5, 0.5, 0.5, 0.9), "", id="none"),
        ],
    )
    def test_flaws_are_told_apart(self, rgba: tuple[float, ...], flaw: str, folder: Path) -> None:
        """The colour covers half of the picture, and an opaque one all of it."""
        picture = np.zeros((48, 64, 4), np.float32)
        picture[:, : 64 if rgba[3] == 1 else 32] = rgba
        settings = _settings(folder, max_opaque_share=0.95, min_visible_share=0.01)
        assert picture_to_painted(picture, {}, settings).flaw == flaw

    def test_alpha_is_straight(self, folder: Path, tmp_path: Path) -> None:
        decoder = _save(_constant_decoder(0.75, 0.25, 0.5, 1.0).state_dict(), tmp_path / "plain.safetensors")
        painted = _paint(_settings(folder, decoder={"model": str(tmp_path), "file": decoder.name}), 1)[0]
        assert np.abs(painted.rgba.astype(int) - [64, 128, 255, 191]).max() <= 1

    @pytest.mark.parametrize(("filter_px", "hole"), [(1, 0), (3, 200)])
    def test_a_speck_goes_with_the_median_filter(self, filter_px: int, hole: int, folder: Path) -> None:
        picture = np.full((48, 64, 4), 200 / 255, np.float32)
        picture[:, 40:, 3] = 0
        picture[20, 12, 3] = 0
        settings = _settings(folder, median_filter_px=filter_px)
        painted = picture_to_painted(picture, {}, settings)
        assert painted.rgba[20, 12].tolist() == [200, 200, 200, hole]
        assert painted.rgba[30, 38:42, 3].tolist() == [200, 200, 0, 0]


class TestBadInput:
    def test_an_empty_prompt(self, folder: Path) -> None:
        with pytest.raises(PromptError, match="tea-0"):
            LayerDiffusionPainter(_settings(folder)).paint([_request(prompt="  ")])

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            pytest.param({"diffusion": {"width": 100}}, "width 100 is no multiple of 64", id="width"),
            pytest.param({"diffusion": {"cpu_offload": "sequential"}}, "use 'model'", id="sequential offload"),
            pytest.param({"attention": None}, "diffusion.loras", id="nothing transparent"),
            pytest.param({"median_filter_px": 4}, "is even", id="even filter"),
            pytest.param({"max_opaque_share": 0.2, "min_visible_share": 0.3}, "no picture would pass", id="shares"),
            pytest.param({"num_flips": 9}, "num_flips", id="nine flips"),
        ],
    )
    def test_settings_that_cannot_work(self, changes: dict[str, object], says: str, folder: Path) -> None:
        with pytest.raises(ValidationError, match=says):
            _settings(folder, **changes)

    def test_another_kind_of_model(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="painted with by StableDiffusionPipeline"):
            _paint(_settings(save_sd(tmp_path / "sd")), 1)

    def test_another_kind_of_autoencoder(self, folder: Path, tmp_path: Path) -> None:
        settings = _settings(folder, diffusion={"model": str(save_sdxl(tmp_path / "xl"))})
        with pytest.raises(RecipeError, match="4 channels and 2 pixels a side, expected 4 and 8"):
            _paint(settings, 1)

    def test_a_file_that_the_folder_lacks(self, folder: Path) -> None:
        settings = _settings(folder, decoder={"model": str(folder), "file": "décodeur.safetensors"})
        with pytest.raises(RecipeError, match=r"'décodeur.safetensors' is not in .*'attention.safetensors', 'decoder"):
            _paint(settings, 1)

    @pytest.mark.parametrize("has_snapshot", [False, True], ids=["nothing fetched", "file not fetched"])
    def test_what_is_not_fetched_is_named_with_the_command(
        self, has_snapshot: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        repository = tmp_path / "models--owner--name"
        if has_snapshot:
            (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
            (repository / "refs").mkdir()
            (repository / "refs" / "v1").write_text("0" * 40)
        hub = {"model": "owner/name", "revision": "v1", "file": "decoder.safetensors"}
        painter = LayerDiffusionPainter(_settings(folder, decoder=hub))
        for ask in (lambda: painter.paint([_request()]), lambda: painter.revision):
            with pytest.raises(ModelNotFetchedError, match=r"maskwright models fetch owner/name@v1"):
                ask()
