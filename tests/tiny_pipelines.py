"""Diffusers pipelines of the published classes, a few thousand random weights each, saved as a model's owner does."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    ControlNetModel,
    ControlNetUnionModel,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxControlNetModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImageLayeredPipeline,
    QwenImageTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImageControlNetModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BYTES = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
BYTE_LETTERS = [chr(byte) for byte in _BYTES] + [chr(256 + n) for n in range(256 - len(_BYTES))]
"""How byte-level tokenizers write the 256 bytes."""


def save_sd(folder: Path, *, blanks_all: bool | None = None) -> Path:
    """A Stable Diffusion 1.5; with a safety checker that blanks all pictures or none, or without one."""
    torch.manual_seed(0)
    with_checker = blanks_all is not None
    StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip_text_config()).eval(),
        tokenizer=_clip_tokenizer(),
        unet=_unet(32),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=_safety_checker(blanks_all) if blanks_all is not None else None,
        feature_extractor=CLIPImageProcessor(size=32, crop_size=32) if with_checker else None,
        requires_safety_checker=with_checker,
    ).save_pretrained(folder)
    return folder


def save_sdxl(folder: Path) -> Path:
    """A Stable Diffusion XL, with its two text encoders."""
    torch.manual_seed(1)
    unet = _unet(
        64, addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80
    )
    StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=CLIPTextModel(_clip_text_config()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip_text_config()).eval(),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def save_z_image(folder: Path) -> Path:
    """A Z-Image: a flow transformer that reads a conversation."""
    torch.manual_seed(2)
    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 64, 64],
    )
    # The class leaves these uninitialized for a checkpoint to fill.
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    config = Qwen3Config(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(16, shift_factor=0.1),
        text_encoder=Qwen3Model(config).eval(),
        tokenizer=_qwen_tokenizer(),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def save_qwen_layered(folder: Path) -> Path:
    """A Qwen-Image-Layered whose autoencoder reduces a side 16 times, so that 640 pixels are 20 patches."""
    torch.manual_seed(3)
    transformer = QwenImageTransformer2DModel(
        in_channels=32,
        out_channels=8,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
        use_additional_t_cond=True,
        use_layer3d_rope=True,
    )
    vae = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=8,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=0,
        temperal_downsample=[False] * 4,
        input_channels=4,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )
    tokenizer = _qwen_tokenizer()
    QwenImageLayeredPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen2_5_VLForConditionalGeneration(_qwen_vl_config()).eval(),
        tokenizer=tokenizer,
        processor=Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), CHAT_TEMPLATE),
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def _unet(cross_attention_dim: int, **options: object) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(16, 32),
        layers_per_block=1,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        cross_attention_dim=cross_attention_dim,
        norm_num_groups=8,
        **options,
    )


def _vae(latent_channels: int, **options: object) -> AutoencoderKL:
    """Reduces a side twice, as its two blocks say."""
    return AutoencoderKL(
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        latent_channels=latent_channels,
        norm_num_groups=4,
        **options,
    )


def _clip_text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=32,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def _safety_checker(blanks_all: bool) -> StableDiffusionSafetyChecker:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 16}
    checker = StableDiffusionSafetyChecker(CLIPConfig(vision_config=vision, projection_dim=16)).eval()
    # A cosine above its threshold is a concept found.
    checker.concept_embeds_weights.data.fill_(-2.0 if blanks_all else 2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    return checker


def _clip_tokenizer() -> CLIPTokenizer:
    words = [*BYTE_LETTERS, *(letter + "</w>" for letter in BYTE_LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)


def _qwen_tokenizer() -> Qwen2Tokenizer:
    """Byte-level, with a chat template and no limit but the pipeline's own."""
    vocab = {letter: number for number, letter in enumerate(BYTE_LETTERS)}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], chat_template=CHAT_TEMPLATE)
    marks = ["im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{mark}|>" for mark in marks]})
    return tokenizer


def _qwen_vl_config() -> Qwen2_5_VLConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 16}
    text = {
        **sizes,
        "vocab_size": 300,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "default", "mrope_section": [1, 1, 2]},
    }
    vision = {**sizes, "depth": 1, "num_heads": 2, "out_hidden_size": 16}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision)


def save_lora(folder: Path, *, width: int = 64) -> Path:
    """An adaptation of the tiny Stable Diffusion XL's attention; of another model's, with another width."""
    torch.manual_seed(4)
    unet = _unet(width)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))
    StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(unet))
    return folder


def save_controlnet(folder: Path, kind: str) -> Path:
    """A ControlNet of the tiny `sd`, `sdxl`, `union` (of SDXL), `flux` or `z_image`; its word counts."""
    torch.manual_seed(5)
    build = {"sd": _sd_controlnet, "sdxl": _sdxl_controlnet, "union": _union_controlnet}
    model = (build | {"flux": _flux_controlnet, "z_image": _z_image_controlnet})[kind]()
    for name, weights in model.named_parameters():
        if "controlnet" in name or "after_proj" in name or "before_proj" in name:
            torch.nn.init.normal_(weights, std=0.3)  # zero, as training begins
    model.save_pretrained(folder)
    return folder


def save_flux(folder: Path) -> Path:
    """A FLUX.1: two text encoders, and latents packed two by two."""
    torch.manual_seed(6)
    t5 = T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    tokenizer = _qwen_tokenizer()
    tokenizer.model_max_length = 512
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4, shift_factor=0.1),
        text_encoder=CLIPTextModel(_clip_text_config()).eval(),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=tokenizer,
        transformer=FluxTransformer2DModel(guidance_embeds=False, **_FLUX),
    ).save_pretrained(folder)
    return folder


def save_ip_adapter(folder: Path) -> Path:
    """An IP-Adapter of the tiny Stable Diffusion, with its image encoder."""
    torch.manual_seed(7)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=16,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    weights = {
        "image_proj.proj.weight": torch.randn(4 * 32, 16),
        "image_proj.proj.bias": torch.randn(4 * 32),
        "image_proj.norm.weight": torch.ones(32),
        "image_proj.norm.bias": torch.zeros(32),
    }
    crossed = [name for name in _unet(32).attn_processors if "attn2" in name]
    for number, name in enumerate(crossed):
        width = 16 if name.startswith("up_blocks.1") else 32
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(width, 32)
    save_file(weights, folder / "ip-adapter.safetensors")
    return folder


_FLUX = {
    "patch_size": 1,
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "pooled_projection_dim": 32,
    "axes_dims_rope": [4, 4, 8],
}
_UNET_CONTROL = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "in_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "conditioning_embedding_out_channels": (8, 16),
}
_SDXL_CONTROL = {
    "cross_attention_dim": 64,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}


def _sd_controlnet() -> ControlNetModel:
    return ControlNetModel(cross_attention_dim=32, **_UNET_CONTROL)


def _sdxl_controlnet() -> ControlNetModel:
    return ControlNetModel(**_SDXL_CONTROL, **_UNET_CONTROL)


def _union_controlnet() -> ControlNetUnionModel:
    return ControlNetUnionModel(
        **_SDXL_CONTROL, **_UNET_CONTROL, num_trans_channel=16, num_trans_head=2, num_proj_channel=16
    )


def _flux_controlnet() -> FluxControlNetModel:
    return FluxControlNetModel(guidance_embeds=False, **_FLUX)


def _z_image_controlnet() -> ZImageControlNetModel:
    return ZImageControlNetModel(
        control_layers_places=[0], control_in_dim=16, dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2
    )
