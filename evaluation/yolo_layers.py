"""Layers of a backbone, made faster for training on CPUs. Of ultralytics they know nothing."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.functional import conv2d, pad
from torch.nn.grad import conv2d_weight
from torch.nn.utils.fusion import fuse_conv_bn_eval

_SIDE, _BLOCK = 5, 3
_STARTS = (0, _SIDE - _BLOCK)
_PADDING = _SIDE // 2


def fuse_batch_norms(part: nn.Module) -> None:
    """Take each batch norm into the convolution before it, in place: the same function in two thirds of the time.

    Args:
        part: in evaluation mode, and not to learn any more.
    """
    for parent in list(part.modules()):
        for (name, layer), (norm_name, norm) in itertools.pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, norm))
                setattr(parent, norm_name, norm.act)


class Depthwise(nn.Module):
    """A depthwise convolution whose gradients do not take several times as long as they need to.

    On CPUs, those in bfloat16 take four times as long as in float32, and that of a 5 x 5 kernel as long as eight of a
    3 x 3 one. Elsewhere it is the convolution that it wraps.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        """
        Args:
            convolution: depthwise, without a bias or dilation, its output of the input's size by its stride.
        """
        super().__init__()
        self.convolution = convolution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.convolution
        if x.device.type != "cpu":
            return inner(x)  # type: ignore[no-any-return]
        if inner.kernel_size == (_SIDE, _SIDE) and inner.stride == (1, 1):
            return _Convolution5x5.apply(x, inner.weight)  # type: ignore[no-any-return]
        if not torch.is_autocast_enabled("cpu"):
            return inner(x)  # type: ignore[no-any-return]
        with torch.autocast("cpu", enabled=False):
            return inner(x.float())  # type: ignore[no-any-return]


class _Convolution5x5(torch.autograd.Function):
    """Depthwise; in bfloat16 where autocast is on."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return conv2d(x, weight, padding=_PADDING, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        of_x = conv2d(gradient, weight.flip(2, 3), padding=_PADDING, groups=len(weight))
        return of_x, _gradient_of_kernel(x, weight, gradient)


def _gradient_of_kernel(x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Put together from four blocks of 3 x 3, which overlap in a row and a column."""
    padded, found = pad(x, [_PADDING] * 4), torch.empty_like(weight)
    height, width = (side + _BLOCK - 1 for side in x.shape[2:])
    for top in _STARTS:
        for left in _STARTS:
            seen = padded[:, :, top : top + height, left : left + width]
            block = found[:, :, top : top + _BLOCK, left : left + _BLOCK]
            block.copy_(conv2d_weight(seen, block.shape, gradient, groups=len(weight)))  # type: ignore[no-untyped-call]
    return found
