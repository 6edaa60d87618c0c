"""The denoiser: a small text-conditioned UNet over 3×3-pixel patches, and the flow that it predicts.

Flow matching (Lipman et al. 2023, Liu et al. 2023): z_t = (1 - t) x + t n, from the picture at t = 0 to noise at t = 1.
The network predicts the picture x, and the loss weighs its error as one of velocity, (z - x) / t: a narrow network
then need not carry the noise of a whole patch (Li and He 2025, "Back to basics").
"""

from __future__ import annotations

import math

import torch
from diffusers import UNet2DConditionModel
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ..embeddings import TEXT_DIM
from .bank import PICTURE_SIZE

PATCH = 3
MIN_TIME = 0.05
"""Velocity is (z - x) / t; below this time t stands still in the denominator."""


def build_network() -> UNet2DConditionModel:
    """15 M parameters: 36 channels at 32×32 (a 96-pixel RGBA picture in patches), three levels, attention at 8×8."""
    channels = 4 * PATCH**2
    return UNet2DConditionModel(
        sample_size=PICTURE_SIZE // PATCH,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(96, 160, 224),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=8,
        norm_num_groups=16,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=TEXT_DIM,
    )


def to_patches(pictures: torch.Tensor) -> torch.Tensor:
    """(n, 4, 96, 96) to (n, 36, 32, 32)."""
    return pixel_unshuffle(pictures, PATCH)


def from_patches(patches: torch.Tensor) -> torch.Tensor:
    """(n, 36, 32, 32) to (n, 4, 96, 96)."""
    return pixel_shuffle(patches, PATCH)


def predict_picture(
    network: UNet2DConditionModel, noisy: torch.Tensor, time: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """The clean patches that the network sees in noisy ones.

    Args:
        noisy: (n, 36, 32, 32) float32.
        time: (n,) in [0, 1]; 1 is noise.
        text: (n, 384) of `condition_text`; zeros mean no text.
    """
    predicted: torch.Tensor = network(noisy, time * 1000, encoder_hidden_states=text[:, None], class_labels=text).sample
    return predicted.float()


def condition_text(embeddings: torch.Tensor) -> torch.Tensor:
    """Unit-length text embeddings, scaled to components of variance one."""
    return embeddings * math.sqrt(TEXT_DIM)


def velocity(noisy: torch.Tensor, picture: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Direction of the flow, noise minus picture, at (n, c, h, w) patches and (n,) times."""
    return (noisy - picture) / time.clamp_min(MIN_TIME).view(-1, 1, 1, 1)
