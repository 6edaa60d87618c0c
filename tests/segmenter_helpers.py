"""Tiny Segment Anything checkpoints with random weights, and what every masker with a network must keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    CLIPTokenizer,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    Sam3TrackerVideoConfig,
    Sam3VideoConfig,
    Sam3VideoModel,
    Sam3ViTConfig,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SamProcessor,
)

from maskwright.tools.protocols import Masked, Masker, MaskRequest

HEIGHT, WIDTH = 48, 64
DECODER = {
    "hidden_size": 16,
    "mlp_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
    "iou_head_depth": 2,
}
MEMORY = {
    "memory_attention_hidden_size": 16,
    "memory_attention_num_layers": 1,
    "memory_attention_num_attention_heads": 1,
    "memory_attention_downsample_rate": 1,
    "memory_attention_feed_forward_hidden_size": 16,
    "memory_attention_rope_feat_sizes": [4, 4],
    "memory_encoder_hidden_size": 16,
    "memory_encoder_output_channels": 8,
    "mask_downsampler_embed_dim": 16,
    "memory_fuser_embed_dim": 16,
    "memory_fuser_intermediate_dim": 16,
    "memory_fuser_num_layers": 1,
}


def _save_sam(folder: Path) -> None:
    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "mlp_dim": 32,
        "num_pos_feats": 8,
        "global_attn_indexes": [1],
        "window_size": 4,
    }
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    config = SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER)
    SamModel(config).save_pretrained(folder)
    square = {"height": 64, "width": 64}
    processor = SamImageProcessor(
        size={"longest_edge": 64},
        pad_size=square,
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    SamProcessor(processor).save_pretrained(folder)


def _save_sam2(folder: Path, *, video: bool) -> None:
    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[64, 64],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        blocks_per_stage=[1, 1, 2, 1],
        window_size_per_stage=[4, 4, 4, 4],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4],
        num_query_pool_stages=3,
    )
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 16,
    }
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER)
    if video:
        parts = (config.vision_config, config.prompt_encoder_config, config.mask_decoder_config)
        names = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        Sam2VideoModel(
            Sam2VideoConfig(image_size=64, **dict(zip(names, parts, strict=True)), **MEMORY)
        ).save_pretrained(folder)
    else:
        Sam2Model(config).save_pretrained(folder)
    sizes = {"size": {"height": 64, "width": 64}, "mask_size": {"height": 16, "width": 16}}
    Sam2Processor(Sam2ImageProcessor(**sizes)).save_pretrained(folder)


def _save_sam3(folder: Path, *, video: bool) -> None:
    backbone = Sam3ViTConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=28,
    )
    vision = {
        "backbone_config": backbone,
        "fpn_hidden_size": 16,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    text = {
        "vocab_size": 60,
        "hidden_size": 16,
        "intermediate_size": 32,
        "projection_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    layer = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_layers": 1}
    config = Sam3Config(
        vision_config=vision,
        text_config=text,
        geometry_encoder_config=layer,
        detr_encoder_config=layer,
        detr_decoder_config={**layer, "num_queries": 5},
        mask_decoder_config={"hidden_size": 16, "num_attention_heads": 2},
    )
    if video:
        prompt = {"hidden_size": 16, "image_size": 56, "patch_size": 14, "mask_input_channels": 4}
        tracker = Sam3TrackerVideoConfig(
            vision_config=config.vision_config,
            prompt_encoder_config=prompt,
            mask_decoder_config=DECODER,
            image_size=56,
            **MEMORY,
        )
        Sam3VideoModel(Sam3VideoConfig(detector_config=config, tracker_config=tracker)).save_pretrained(folder)
    else:
        Sam3Model(config).save_pretrained(folder)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[])
    sizes = {"size": {"height": 56, "width": 56}, "mask_size": {"height": 16, "width": 16}}
    Sam3Processor(Sam3ImageProcessor(**sizes), tokenizer).save_pretrained(folder)


BUILDERS: dict[str, Callable[[Path], None]] = {
    "sam": _save_sam,
    "sam2": partial(_save_sam2, video=False),
    "sam2_video": partial(_save_sam2, video=True),
    "sam3": partial(_save_sam3, video=False),
    "sam3_video": partial(_save_sam3, video=True),
}


def save_checkpoint(kind: str, root: Path) -> Path:
    """A folder as `save_pretrained` writes it. The kinds `…_video` hold SAM 2 and 3 as they are published."""
    torch.manual_seed(0)
    BUILDERS[kind](root / kind)
    return root / kind


def picture_request(
    seed: int = 0,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    category: str = "red_apple",
    box_xyxy: tuple[float, float, float, float] | None = None,
) -> MaskRequest:
    """Noise that grows brighter to the right, so that where one looks matters."""
    rng = np.random.default_rng(seed)
    rgba = rng.integers(0, 128, (*size, 4)) + np.linspace(0, 127, size[1]).astype(np.int64)[:, None]
    rgba[..., 3] = 255
    return MaskRequest(rgba=rgba.astype(np.uint8), category=category, box_xyxy=box_xyxy)


REQUESTS = [
    picture_request(1),
    picture_request(2, (40, 30), "bolt", (3.0, 4.0, 20.0, 30.0)),
    picture_request(3, (64, 48)),
]


def check_alone_and_together(masker: Masker, requests: Sequence[MaskRequest] = REQUESTS) -> list[Masked]:
    together = masker.mask(requests)
    for request, masked in zip(requests, together, strict=True):
        [alone] = masker.mask([request])
        assert masked.alpha.shape == request.rgba.shape[:2]
        assert masked.alpha.dtype == np.uint8
        assert 0 <= masked.score <= 1
        assert (np.abs(alone.alpha.astype(int) - masked.alpha) > 1).mean() < 0.01
        assert alone.score == pytest.approx(masked.score, abs=1e-4)
        assert alone.num_instances == masked.num_instances
    return together
