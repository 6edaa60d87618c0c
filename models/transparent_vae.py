"""LayerDiffuse's transparent decoder: what shows through in a latent, found by a UNet (Zhang & Agrawala 2024).

Written against the architecture and the state-dict names of the published weights, arXiv 2402.17113.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_blocks import (
    AttnDownBlock2D,
    AttnUpBlock2D,
    DownBlock2D,
    UNetMidBlock2D,
    UpBlock2D,
)
from torch import nn

from ..errors import RecipeError
from .weight_files import read_weights

LATENT_CHANNELS = 4
LATENT_STRIDE = 8
"""Pixels a side of one latent."""
NUM_FLIPS = 8
"""Flips and rotations of a picture by a quarter turn."""
BASE_WIDTH = 32
"""Channels of the published decoder's first block."""

_WIDTH_FACTORS = (1, 1, 2, 4, 8, 16, 16)
_FIRST_ATTENTION = 4
_LATENT_BLOCK = 3
_NUM_LAYERS = 2
_NUM_GROUPS = 4
_HEAD_WIDTH = 8
_BLOCK_OPTIONS = {"temb_channels": None, "resnet_eps": 1e-5, "resnet_groups": _NUM_GROUPS}


class TransparentDecoder(nn.Module):
    """Finds alpha and foreground of a picture from its pixels and the latent that it was decoded from.

    Args:
        base_width: channels of the first block, a multiple of 4; the deeper ones are multiples of it.
    """

    def __init__(self, base_width: int = BASE_WIDTH) -> None:
        super().__init__()
        widths = [base_width * factor for factor in _WIDTH_FACTORS]
        self.conv_in = nn.Conv2d(3, widths[0], kernel_size=3, padding=1)
        self.latent_conv_in = nn.Conv2d(LATENT_CHANNELS, widths[_LATENT_BLOCK - 1], kernel_size=1)
        self.down_blocks = nn.ModuleList(_down_block(widths, index) for index in range(len(widths)))
        self.mid_block = UNetMidBlock2D(widths[-1], **_BLOCK_OPTIONS, attention_head_dim=_HEAD_WIDTH)
        self.up_blocks = nn.ModuleList(_up_block(widths, index) for index in reversed(range(len(widths))))
        self.conv_norm_out = nn.GroupNorm(_NUM_GROUPS, widths[0], eps=1e-5)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[0], 4, kernel_size=3, padding=1)

    def forward(self, pixels: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """One look.

        Args:
            pixels: (n, 3, H, W) float, sRGB in [0, 1], as the pipeline's VAE decodes the latents; H and W are
                multiples of 64.
            latents: (n, 4, H / 8, W / 8) float, as that VAE takes them: divided by its scaling factor.

        Returns:
            (n, 4, H, W) float, alpha first, then RGB; may overshoot [0, 1].
        """
        hidden = self.conv_in(pixels)
        skips = [hidden]
        for index, block in enumerate(self.down_blocks):
            if index == _LATENT_BLOCK:
                hidden = hidden + self.latent_conv_in(latents)
            hidden, outputs = block(hidden)
            skips.extend(outputs)
        hidden = self.mid_block(hidden)
        for block in self.up_blocks:
            hidden = block(hidden, tuple(skips[-_NUM_LAYERS - 1 :]))
            del skips[-_NUM_LAYERS - 1 :]
        output: torch.Tensor = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return output

    @torch.inference_mode()
    def decode(self, pixels: torch.Tensor, latents: torch.Tensor, num_flips: int = NUM_FLIPS) -> torch.Tensor:
        """The median over the first `num_flips` flips and rotations; over all eight it turns with its input.

        Args:
            pixels, latents: as `forward` takes them; each picture is looked at alone.

        Returns:
            (n, 4, H, W) float in [0, 1], RGB and straight alpha.
        """
        pictures = []
        for picture, latent in zip(pixels, latents, strict=True):
            looks = [
                _turn_back(self(_turn(picture[None], view), _turn(latent[None], view)).clamp(0, 1), view)
                for view in range(num_flips)
            ]
            pictures.append(torch.cat(looks).median(dim=0).values)
        return torch.stack(pictures).roll(-1, dims=1)


def _down_block(widths: list[int], index: int) -> nn.Module:
    is_last = index == len(widths) - 1
    sizes = {"in_channels": widths[max(index - 1, 0)], "out_channels": widths[index], "num_layers": _NUM_LAYERS}
    block: nn.Module
    if index < _FIRST_ATTENTION:
        block = DownBlock2D(**sizes, **_BLOCK_OPTIONS, add_downsample=not is_last)
    else:
        kind = None if is_last else "conv"
        block = AttnDownBlock2D(**sizes, **_BLOCK_OPTIONS, attention_head_dim=_HEAD_WIDTH, downsample_type=kind)
    return block


def _up_block(widths: list[int], index: int) -> nn.Module:
    """The block that takes what the down block of the same index gave on."""
    sizes = {
        "in_channels": widths[max(index - 1, 0)],
        "prev_output_channel": widths[min(index + 1, len(widths) - 1)],
        "out_channels": widths[index],
        "num_layers": _NUM_LAYERS + 1,
    }
    block: nn.Module
    if index < _FIRST_ATTENTION:
        block = UpBlock2D(**sizes, **_BLOCK_OPTIONS, add_upsample=index > 0)
    else:
        block = AttnUpBlock2D(**sizes, **_BLOCK_OPTIONS, attention_head_dim=_HEAD_WIDTH)
    return block


def _turn(image: torch.Tensor, view: int) -> torch.Tensor:
    """One of the eight views of an (n, c, h, w) image; the last four are mirrored."""
    mirrored = image.flip(-1) if view >= 4 else image
    return mirrored.rot90(view % 4, dims=(-2, -1))


def _turn_back(image: torch.Tensor, view: int) -> torch.Tensor:
    upright = image.rot90(-(view % 4), dims=(-2, -1))
    return upright.flip(-1) if view >= 4 else upright


def load_decoder(path: Path, device: torch.device) -> TransparentDecoder:
    """The decoder in a safetensors file, as wide as the file says, in float32 and evaluation mode.

    Raises:
        RecipeError: the file holds other weights; the message names the first that differs.
        BrokenRunError: it cannot be read.
    """
    weights = read_weights(path)
    with torch.device("meta"):
        decoder = TransparentDecoder(_base_width(weights))
    if difference := _first_difference(decoder.state_dict(), weights):
        raise RecipeError(
            f"{str(path)!r} holds no transparent decoder for SDXL: {difference}. "
            "Set `decoder.file` to the published one, such as vae_transparent_decoder.safetensors."
        )
    decoder.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return decoder.eval().requires_grad_(False).to(device)


def _base_width(weights: dict[str, torch.Tensor]) -> int:
    shape = weights["conv_in.weight"].shape if "conv_in.weight" in weights else ()
    return shape[0] if len(shape) == 4 and shape[0] and shape[0] % _NUM_GROUPS == 0 else BASE_WIDTH


def _first_difference(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> str:
    for name, tensor in expected.items():
        if name not in got:
            return f"{name!r} is missing"
        if got[name].shape != tensor.shape:
            return f"{name!r} has shape {tuple(got[name].shape)}, expected {tuple(tensor.shape)}"
    return next((f"{name!r} is not expected" for name in got if name not in expected), "")
