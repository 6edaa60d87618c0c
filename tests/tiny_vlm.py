"""Vision-language checkpoints of two published families, a few thousand random weights each, saved as an owner does."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import torch
from langchain_core.messages import HumanMessage
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

CONTEXT_TOKENS = 1024
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for block in m.content %}{% if block.type == 'image' %}PICTURE{% else %}{{ block.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
}


def save_qwen2_vl(folder: Path) -> Path:
    """A Qwen2-VL: pictures keep their shape, and their places in the prompt are counted in three dimensions."""
    torch.manual_seed(0)
    tokenizer = _tokenizer("vision_start", "vision_end", "image_pad", "video_pad")
    sizes = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    pixels = {"shortest_edge": 64, "longest_edge": 64 * 64}
    Qwen2VLProcessor(
        Qwen2VLImageProcessor(**sizes, size=pixels),
        tokenizer,
        Qwen2VLVideoProcessor(**sizes, size=pixels),
        chat_template=_TEMPLATE.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>"),
    ).save_pretrained(folder)
    marks = ("vision_start", "vision_end", "image", "video")
    config = Qwen2VLConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 1,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "initializer_range": 0.3,
        },
        **{f"{mark}_token_id": _mark_id(tokenizer, mark) for mark in marks},
    )
    return _save(Qwen2VLForConditionalGeneration(config), tokenizer, folder)


def save_idefics3(folder: Path) -> Path:
    """An Idefics3, SmolVLM's family: a picture is cut into squares that are looked at one by one."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 32}, max_image_size={"longest_edge": 16}),
        tokenizer,
        image_seq_len=4,
        chat_template=_TEMPLATE.replace("PICTURE", "<image>"),
    ).save_pretrained(folder)
    config = Idefics3Config(
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "initializer_range": 0.3,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    return _save(Idefics3ForConditionalGeneration(config), tokenizer, folder)


SAVED: dict[str, Callable[[Path], Path]] = {"qwen2_vl": save_qwen2_vl, "idefics3": save_idefics3}


def _tokenizer(*marks: str) -> Qwen2Tokenizer:
    """One token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    names = [f"<|{mark}|>" for mark in ("im_start", "im_end", *marks)]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    return tokenizer


def _mark_id(tokenizer: Qwen2Tokenizer, mark: str) -> int:
    name = f"{mark}_pad" if mark in ("image", "video") else mark
    return int(tokenizer.convert_tokens_to_ids(f"<|{name}|>"))


def _save(model: torch.nn.Module, tokenizer: Qwen2Tokenizer, folder: Path) -> Path:
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.repetition_penalty = 1.3  # as Qwen's own files recommend one; a schema would choke on it
    model.save_pretrained(folder)
    return folder


def encode(picture: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """The bytes of a picture's file."""
    stream = io.BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


def to_data_url(picture: Image.Image, file_format: str = "PNG", **options: object) -> str:
    """A picture as it travels in a message."""
    payload = base64.b64encode(encode(picture, file_format, **options)).decode()
    return f"data:image/{file_format.lower()};base64,{payload}"


def ask_about(*pictures: Image.Image, question: str = "What is this?") -> HumanMessage:
    """A question after its pictures."""
    blocks = [{"type": "image_url", "image_url": {"url": to_data_url(picture)}} for picture in pictures]
    return HumanMessage([*blocks, {"type": "text", "text": question}])
