"""Tiny checkpoints of CLIP, SigLIP and DINO with random weights, saved as published ones are."""

from __future__ import annotations

import io
import string
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    BaseImageProcessor,
    BertConfig,
    BertModel,
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    GemmaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTokenizer,
)

TEXTS = ["a photo of a dog", "a photo of a very red apple", "Fahrrad ü"]
"""What SigLIP's tokenizer was trained on."""
Part = PreTrainedModel | PreTrainedTokenizerBase | BaseImageProcessor
SIDE = 32
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE = {"height": SIDE, "width": SIDE}


def _clip_parts() -> Sequence[Part]:
    pieces = [
        "<|startoftext|>",
        "<|endoftext|>",
        *string.ascii_lowercase,
        *(f"{c}</w>" for c in string.ascii_lowercase),
    ]
    text = TOWER | {"vocab_size": len(pieces), "bos_token_id": 0, "eos_token_id": 1}
    vision = TOWER | {"image_size": SIDE, "patch_size": 8}
    return (
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)),
        CLIPTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]),
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE),
    )


def _siglip_parts(folder: Path) -> Sequence[Part]:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.lower() for text in TEXTS] * 20),
        model_writer=written,
        vocab_size=30,
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=1,
        pad_id=0,
        unk_id=2,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"))
    text = TOWER | {"vocab_size": 64, "max_position_embeddings": 24, "projection_size": 16}
    vision = TOWER | {"image_size": SIDE, "patch_size": 8}
    return (
        SiglipModel(SiglipConfig(text_config=text, vision_config=vision)),
        tokenizer,
        SiglipImageProcessor(size=SIZE),
    )


def _gemma_vocabulary() -> dict[str, int]:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *string.ascii_letters]
    return {piece: number for number, piece in enumerate(pieces)}


def _fixed_siglip2_parts() -> Sequence[Part]:
    """SigLIP 2 of one image size calls itself `siglip` and has a tokenizer that keeps upper case."""
    text = TOWER | {"vocab_size": 64, "max_position_embeddings": 24, "projection_size": 16}
    vision = TOWER | {"image_size": SIDE, "patch_size": 8}
    return (
        SiglipModel(SiglipConfig(text_config=text, vision_config=vision)),
        GemmaTokenizer(vocab=_gemma_vocabulary(), merges=[]),
        SiglipImageProcessor(size=SIZE),
    )


def _naflex_siglip2_parts() -> Sequence[Part]:
    tokenizer = Siglip2Tokenizer(vocab=_gemma_vocabulary(), merges=[])
    text = TOWER | {"vocab_size": 64, "max_position_embeddings": 24, "projection_size": 16}
    vision = TOWER | {"num_patches": 16, "patch_size": 8}
    return (
        Siglip2Model(Siglip2Config(text_config=text, vision_config=vision)),
        tokenizer,
        Siglip2ImageProcessor(patch_size=8, max_num_patches=16),
    )


def _dino_parts() -> Sequence[Part]:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8)
    return Dinov2Model(config), BitImageProcessor(size={"shortest_edge": 40}, crop_size=SIZE)


def save_tiny_checkpoints(root: Path) -> None:
    """Write clip, siglip, siglip2-fixed, siglip2-naflex and dino; and bert, which is none of them."""
    torch.manual_seed(0)
    checkpoints = {
        "clip": _clip_parts(),
        "siglip": _siglip_parts(root),
        "siglip2-fixed": _fixed_siglip2_parts(),
        "siglip2-naflex": _naflex_siglip2_parts(),
        "dino": _dino_parts(),
        "bert": [BertModel(BertConfig(vocab_size=8, num_hidden_layers=1))],
    }
    for name, parts in checkpoints.items():
        for part in parts:
            if isinstance(part, PreTrainedModel):
                _spread(part)
            part.save_pretrained(root / f"{name} ö")


def _spread(network: PreTrainedModel) -> None:
    """Fresh weights are so small that all features are alike; larger ones tell images and texts apart."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    if hasattr(network, "logit_bias"):
        network.logit_bias.data.fill_(-1.0)
        network.logit_scale.data.fill_(1.0)
