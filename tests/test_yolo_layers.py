"""The layers of a YOLO's backbone: what makes them fast changes nothing but rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from maskwright.evaluation.yolo_layers import Depthwise, fuse_batch_norms
from maskwright.models.image_features import load_network

CPU = torch.device("cpu")


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize(("side", "stride"), [(5, 1), (5, 2), (3, 1), (3, 2)])
def test_a_depthwise_convolution_has_the_outputs_and_gradients_of_the_plain_one(
    side: int, stride: int, precision: str, within: float, memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    kind = Conv2dSame if stride == 2 else nn.Conv2d
    padding = 0 if stride == 2 else side // 2
    plain = kind(12, 12, side, stride=stride, padding=padding, groups=12, bias=False)
    x = torch.randn(3, 12, 9, 14).contiguous(memory_format=memory_format)
    wanted = _outputs_and_gradients(plain, x, "float32")
    found = _outputs_and_gradients(Depthwise(copy.deepcopy(plain)), x, precision)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one.float(), other, atol=within * float(other.abs().max()))


def _outputs_and_gradients(layer: nn.Module, x: torch.Tensor, precision: str) -> list[torch.Tensor]:
    own = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        found = layer(own)
    (found.float() ** 2).sum().backward()
    (weight,) = layer.parameters()
    assert own.grad is not None
    assert weight.grad is not None
    assert weight.grad.dtype == own.grad.dtype == torch.float32
    return [found.detach(), own.grad, weight.grad]


def test_fused_batch_norms_leave_the_function_as_it_was() -> None:
    network = copy.deepcopy(load_network(CPU))
    stages = nn.Sequential(nn.Sequential(network.conv_stem, network.bn1), *network.blocks)
    pixels = torch.rand(2, 3, 64, 96) * 2 - 1
    with torch.inference_mode():
        before = stages(pixels)
        fuse_batch_norms(stages)
        after = stages(pixels)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in stages.modules())
    assert torch.allclose(after, before, atol=1e-4 * float(before.abs().max()))
