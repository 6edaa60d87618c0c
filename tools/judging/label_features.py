"""What a frozen network sees of whole pictures, place by place: small defects drown in one vector a picture."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import httpx
import numpy as np
import timm
import torch
from PIL import Image
from torch.nn import functional

from ...data.records import ImageRGB
from ...errors import ModelNotFetchedError, RecipeError
from ...models.device import resolve_device, run_in_batches
from ...models.image_features import load_network

EMBEDDED = "embedded:lite0"
LEAST_SIDE_PX = 32
"""Of a picture as the network sees it, however long and thin."""
_STAGES = 3
_BATCH = 16

Stages = Callable[[torch.Tensor], Sequence[torch.Tensor]]
"""(n, 3, H, W) pixels to feature maps (n, C_s, H_s, W_s) of the last stages, the finest first."""


class Look(NamedTuple):
    """One picture as the network sees it, float32 on the CPU."""

    places: torch.Tensor
    """(P, C): what stands at each place of the last stage but one, with the other stages brought to its grid."""
    pooled: torch.Tensor
    """(G,): mean, maximum and deviation over the picture, of every channel of every stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A frozen network that is asked for the feature maps of its last stages."""

    name: str
    digest: str
    """Of its weights."""
    stages: Stages
    mean: Sequence[float]
    std: Sequence[float]
    """What pixels in [0, 1] are normalized with."""
    device: torch.device

    def look(self, images: Sequence[ImageRGB], image_px: int) -> list[Look]:
        """Look at pictures at their own aspect ratio; those of one size are looked at together.

        Args:
            images: each (H, W, 3) uint8, sRGB; sizes may differ.
            image_px: longer side of a picture as the network sees it.

        Raises:
            BrokenRunError: the device's memory does not hold one picture.
        """
        places_of_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, image in enumerate(images):
            places_of_size[_scaled_wh(image, image_px)].append(place)
        looks: dict[int, Look] = {}
        for size_wh, places in places_of_size.items():
            pixels = [_to_pixels(images[place], size_wh) for place in places]
            looks.update(zip(places, run_in_batches(self._run, pixels, _BATCH), strict=True))
        return [looks[place] for place in range(len(images))]

    def _run(self, pixels: Sequence[torch.Tensor]) -> list[Look]:
        batch = torch.stack(list(pixels)).to(self.device, memory_format=torch.channels_last)
        mean, std = (torch.tensor(one, device=self.device)[:, None, None] for one in (self.mean, self.std))
        with torch.inference_mode():
            maps = [one.float() for one in self.stages((batch - mean) / std)]
            places, pooled = _to_places(maps).cpu(), _to_pooled(maps).cpu()
        return [Look(*one) for one in zip(places, pooled, strict=True)]


def load_backbone(name: str, device: str = "cpu") -> Backbone:
    """A frozen network.

    Args:
        name: `embedded:lite0`, or a network of timm with its published weights, which timm fetches and keeps.

    Raises:
        RecipeError: timm has no such network, or it has no feature maps.
        ModelNotFetchedError: its weights are not here and cannot be fetched.
        BrokenRunError: no such device.
    """
    place = resolve_device(device)
    if name == EMBEDDED:
        lite0 = load_network(place)
        last = list(range(len(lite0.feature_info)))[-_STAGES:]

        def stages(pixels: torch.Tensor) -> Sequence[torch.Tensor]:
            maps = lite0.forward_intermediates(pixels, indices=last, intermediates_only=True)
            return cast(list[torch.Tensor], maps)

        half = (0.5, 0.5, 0.5)
        return Backbone(
            name=name, digest=digest_tensors(lite0.state_dict()), stages=stages, mean=half, std=half, device=place
        )
    network = _load_timm(name).eval().requires_grad_(False).to(place)
    channels = network.feature_info.channels()
    settings = network.pretrained_cfg
    return Backbone(
        name=name,
        digest=digest_tensors(network.state_dict()),
        stages=lambda pixels: [_channels_first(one, num) for one, num in zip(network(pixels), channels, strict=True)][
            -_STAGES:
        ],
        mean=settings["mean"],
        std=settings["std"],
        device=place,
    )


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _FeatureInfo(Protocol):
    def channels(self) -> list[int]: ...


class _TimmFeatures(torch.nn.Module):
    """What `timm.create_model(…, features_only=True)` gives; for the type checker."""

    feature_info: _FeatureInfo
    pretrained_cfg: Mapping[str, Sequence[float]]


def _load_timm(name: str) -> _TimmFeatures:
    if not timm.is_model(name):
        raise RecipeError(
            f"unknown backbone {name!r}; expected {EMBEDDED!r} or a network of timm (`timm.list_models()`). "
            "Change `agents.label_agent.classifier.backbone`."
        )
    try:
        return cast(_TimmFeatures, timm.create_model(name, pretrained=True, features_only=True))
    except (OSError, httpx.HTTPError) as exc:
        raise ModelNotFetchedError(
            f"the weights of backbone {name!r} are not here and cannot be fetched ({exc}). Run once with a network, "
            f"or set `agents.label_agent.classifier.backbone={EMBEDDED}`."
        ) from exc
    except (RuntimeError, AttributeError) as exc:
        raise RecipeError(
            f"backbone {name!r} gives no feature maps, or has no published weights ({exc}); expected a network that "
            f"`timm.create_model(…, pretrained=True, features_only=True)` makes. Choose another, or {EMBEDDED!r}."
        ) from exc


def _channels_first(maps: torch.Tensor, channels: int) -> torch.Tensor:
    """Some networks of timm give (n, H, W, C)."""
    return maps if maps.shape[1] == channels else maps.permute(0, 3, 1, 2)


def _to_places(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """(n, P, C) on the grid of the last stage but one; of finer stages mean and maximum."""
    grid = maps[max(0, len(maps) - 2)]
    height, width = grid.shape[-2:]
    parts = []
    for one in maps:
        if one.shape[-1] > width or one.shape[-2] > height:
            parts += [
                functional.adaptive_max_pool2d(one, (height, width)),
                functional.adaptive_avg_pool2d(one, (height, width)),
            ]
        elif one is grid:
            parts.append(one)
        else:
            parts.append(functional.interpolate(one, size=(height, width), mode="bilinear"))
    return torch.cat(parts, dim=1).flatten(2).transpose(1, 2)


def _to_pooled(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """(n, G)"""
    flat = [one.flatten(2) for one in maps]
    return torch.cat([part for one in flat for part in (one.mean(2), one.amax(2), one.std(2, correction=0))], dim=1)


def _scaled_wh(image: ImageRGB, image_px: int) -> tuple[int, int]:
    height, width = image.shape[:2]
    scale = image_px / max(height, width)
    return max(LEAST_SIDE_PX, round(width * scale)), max(LEAST_SIDE_PX, round(height * scale))


def _to_pixels(image: ImageRGB, size_wh: tuple[int, int]) -> torch.Tensor:
    """(3, h, w) float32 in [0, 1]."""
    scaled = Image.fromarray(image).resize(size_wh, Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float().div_(255)
