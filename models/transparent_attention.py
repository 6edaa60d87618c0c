"""LayerDiffuse's attention weights: offsets that turn an SDXL into a painter of transparent latents.

Zhang & Agrawala 2024, arXiv 2402.17113. They are published in two forms, and both are read here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import RecipeError
from .weight_files import read_weights

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_ATTENTION = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.(.+)")
_LORA_MARK = "::lora::"


@torch.no_grad()
def merge_attention(unet: UNet2DConditionModel, path: Path, scale: float = 1.0) -> None:
    """Add published offsets to a UNet's own weights, in place; nothing is changed unless all of them fit.

    Args:
        unet: of SDXL, with its weights in memory (not waiting in sequential offload).
        path: safetensors file of either form. Under diffusers' names, an offset each. Under the original names,
            `diffusion_model.NAME::lora::0` and `…::1`, of shapes (out, rank) and (rank, in): their product is it.
        scale: 1 adds the offsets as they were trained.

    Raises:
        RecipeError: the file holds other weights; the message names the first that does not fit.
        BrokenRunError: it cannot be read.
    """
    offsets = _read_offsets(path, known_names(unet))
    for name, factors in offsets.items():
        shape, expected = _product_shape(factors), tuple(unet.get_parameter(name).shape)
        if shape != expected:
            raise _misfit(path, f"the offset of {name!r} has shape {shape}, expected {expected}")
    for name, factors in offsets.items():
        parameter = unet.get_parameter(name)
        on_device = [factor.to(parameter.device, torch.float32) for factor in factors]
        offset = on_device[0] @ on_device[1] if len(on_device) == 2 else on_device[0]
        parameter.copy_(parameter.float() + scale * offset)


def known_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """What a published file may call the weights of a UNet, each with the name of its parameter.

    Every weight goes by diffusers' name, such as `mid_block.attentions.0.proj_in.weight`; those of the attention also
    by the original one, `diffusion_model.middle_block.1.proj_in.weight`.
    """
    known = {}
    for parameter, _ in unet.named_parameters():
        # An adaptation laid over the UNet moves a weight to `….base_layer.weight` and puts its own beside it.
        name = parameter.replace(".base_layer.", ".")
        known[name] = parameter
        if original := _original_name(name, unet.config["layers_per_block"]):
            known[f"diffusion_model.{original}"] = parameter
    return known


def _original_name(name: str, layers_per_block: int) -> str | None:
    """The name of an attention's weight in the original code, which counts the layers through all blocks."""
    match = _ATTENTION.fullmatch(name)
    if match is None:
        return None
    side, block, layer, rest = match.groups()
    if side == "mid":
        return f"middle_block.1.{rest}"
    number = int(block) * (layers_per_block + 1) + int(layer)
    return f"input_blocks.{number + 1}.1.{rest}" if side == "down" else f"output_blocks.{number}.1.{rest}"


def _read_offsets(path: Path, known: dict[str, str]) -> dict[str, tuple[torch.Tensor, ...]]:
    """Parameters' names, each with its offset or that one's two factors."""
    parts: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for key, tensor in read_weights(path).items():
        name, _, number = key.partition(_LORA_MARK)
        if name not in known or number not in {"", "0", "1"}:
            raise _misfit(path, f"{key!r} is no weight of this UNet")
        parts[known[name]][number] = tensor
    for name, found in parts.items():
        if set(found) not in ({""}, {"0", "1"}):
            raise _misfit(path, f"the offset of {name!r} has parts {sorted(found)}, expected '0' and '1'")
    if not parts:
        raise _misfit(path, "it is empty")
    return {name: tuple(found[number] for number in sorted(found)) for name, found in parts.items()}


def _product_shape(factors: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    if len(factors) == 1:
        return tuple(factors[0].shape)
    up, down = factors
    if up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0]:
        return (up.shape[0], down.shape[1])
    return (*up.shape, *down.shape)


def _misfit(path: Path, reason: str) -> RecipeError:
    return RecipeError(
        f"{str(path)!r} holds no attention weights of LayerDiffuse for SDXL: {reason}. Set `attention.file` to the "
        "published one, such as ld_diffusers_sdxl_attn.safetensors; a LoRA in other names goes under "
        "`diffusion.loras`, with `attention: null`."
    )
