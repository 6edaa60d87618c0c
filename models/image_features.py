"""Image features by EfficientNet-lite0, for likeness, duplicates and diversity; offline once fetched."""

from __future__ import annotations

import functools
import pickle
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from timm.models import efficientnet

from ..errors import ModelNotFetchedError, SampleError
from .device import resolve_device, run_in_batches
from .fetch import locate_model

IMAGE_DIM = 1280
SIDE = 224
"""Pixels a side that the network was trained for."""
GREY = 127
"""What stands behind transparency and beside an image that is not square: the network's zero."""

_NAME = "lite0"
_lock = threading.Lock()


class Lite0:
    """EfficientNet-lite0 without its classifier. All instances share one network a process and device; thread-safe."""

    def __init__(self, device: str = "cpu", batch_size: int = 32) -> None:
        self.name = _NAME
        self.device = device
        self.batch_size = batch_size

    def embed(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Features to compare by their dot product; the whole image counts, at its own aspect ratio.

        Args:
            images: each (H, W, 3) or (H, W, 4) uint8, sRGB, straight alpha; sizes may differ.

        Returns:
            (n, 1280) float32, each row of length 1; equal across batch sizes within 1e-5.

        Raises:
            SampleError: an array is no such image.
            ModelNotFetchedError: lite0 is not in the cache, or damaged there.
            BrokenRunError: no such device.
        """
        features = pool_features(images, self.device, self.batch_size)
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        unit: npt.NDArray[np.float32] = features / lengths.clip(min=np.float32(1e-12))
        return unit


def pool_features(
    images: Sequence[npt.NDArray[np.uint8]], device: str = "cpu", batch_size: int = 32
) -> npt.NDArray[np.float32]:
    """What `Lite0.embed` scales to length 1: the network's features before its classifier, (n, 1280) float32."""
    if not images:
        return np.zeros((0, IMAGE_DIM), dtype=np.float32)
    place = resolve_device(device)
    network = load_network(place)

    def run(batch: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        pixels = torch.stack([to_input(image) for image in batch])
        pixels = pixels.to(place, memory_format=torch.channels_last)  # twice as fast on a CPU
        with torch.inference_mode():
            features = network.forward_head(network.forward_features(pixels), pre_logits=True)
        return list(features.float().cpu().numpy())

    return np.stack(run_in_batches(run, images, batch_size))


def to_input(image: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Scale an image into a grey square.

    Args:
        image: (H, W, 3) or (H, W, 4) uint8, sRGB, straight alpha.

    Returns:
        (3, 224, 224) float32 in [-1, 1].

    Raises:
        SampleError: the array is no such image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in image.shape:
        raise SampleError(
            f"image of shape {image.shape} and {image.dtype} has no features; expected (H, W, 3) or (H, W, 4) uint8"
        )
    picture = Image.fromarray(image)
    scale = SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (SIDE, SIDE), (GREY, GREY, GREY))
    mask = picture.getchannel("A") if picture.mode == "RGBA" else None
    square.paste(picture.convert("RGB"), ((SIDE - width) // 2, (SIDE - height) // 2), mask)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def load_network(device: torch.device) -> efficientnet.EfficientNet:
    """The network with its ImageNet classifier, in evaluation mode; one a process and device.

    Raises:
        ModelNotFetchedError: lite0 is not in the cache, or damaged there.
    """
    with _lock:
        return _load(locate_model(_NAME), device)


@functools.cache
def _load(path: Path, device: torch.device) -> efficientnet.EfficientNet:
    network: efficientnet.EfficientNet = efficientnet.tf_efficientnet_lite0(pretrained=False)
    names = network.state_dict().keys()
    try:
        # The file has the same layers in the same order under other names (`_bn0` for `bn1`).
        tensors = torch.load(path, map_location="cpu", weights_only=True).values()
        network.load_state_dict(dict(zip(names, tensors, strict=True)))
    except (RuntimeError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, OSError) as exc:
        raise ModelNotFetchedError(
            f"the weights {str(path)!r} cannot be loaded ({exc}). "
            f"Run `maskwright models fetch {_NAME}`: it compares every byte and replaces what is damaged."
        ) from exc
    return network.eval().requires_grad_(False).to(device)
