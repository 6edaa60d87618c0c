"""Whether a cut-out shows one whole object with nothing clinging to it: a locked image network and a small head."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import interpolate

from ..data.masks import MASK_ALPHA, mask_to_bbox
from ..data.records import ImageRGBA
from ..errors import SampleError
from .device import resolve_device, run_in_batches
from .fetch import locate_model
from .heads import read_head
from .image_features import GREY, IMAGE_DIM, SIDE, load_network

MARGIN_RATIO = 0.06
"""Left on each side of the object, of its longer side."""
OUTLINE_SIDE = 112
"""Pixels a side of the outline's picture; half of the other's, as there is less to see."""
STAGES = (2, 3)
"""Levels of the network whose maps are looked at by region: 40 channels at 1/8, 112 at 1/16 of the side."""
STAGE_DIM = 40 + 112
RIM_SHARE, CORE_SHARE = 0.35, 0.5
"""Of the depth at the object's deepest point: the rim reaches down to the one, the core begins at the other."""
FEATURE_DIM = 2 * IMAGE_DIM + 3 * STAGE_DIM
HEAD_NAME = "head.safetensors"

_NAME = "wholeness"
_lock = threading.Lock()

Floats = npt.NDArray[np.float32]


class HeadConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size of the head."""

    hidden: int = 16


class WholenessHead(nn.Module):
    """The trained part: standardize, one hidden layer, one logit.

    Buffers, saved with the weights:
        feature_mean, feature_std: (3016,) of the training's cut-outs.
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor

    def __init__(self, config: HeadConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(FEATURE_DIM, config.hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(config.hidden, 1),
        )
        self.register_buffer("feature_mean", torch.zeros(FEATURE_DIM))
        self.register_buffer("feature_std", torch.ones(FEATURE_DIM))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, 3016) float32 to (n,) float32, logits that the object is whole."""
        logits: torch.Tensor = self.layers((features - self.feature_mean) / self.feature_std)
        return logits.squeeze(-1)


class WholenessScorer:
    """Scores cut-outs. All instances share one head and one network a process and device; thread-safe.

    It looks for a second object, a part that is missing, and surroundings that cling to the object. It knows no
    names: a whole object of the wrong class is whole. Figures are in its model card.
    """

    def __init__(self, device: str = "cpu", batch_size: int = 32) -> None:
        self.device = device
        self.batch_size = batch_size

    def score(self, images: Sequence[ImageRGBA]) -> Floats:
        """The probability that a cut-out is one whole object, where whole and spoilt ones are equally many.

        Args:
            images: each (H, W, 4) uint8, sRGB, straight alpha, the whole frame; sizes may differ.

        Returns:
            (n,) float32 in [0, 1]; equal across batch sizes within 1e-5.

        Raises:
            SampleError: an array is no such image.
            EmptyMaskError: an image has no pixel that belongs to its mask.
            ModelNotFetchedError: lite0 is not in the cache.
            BrokenRunError: no such device, or the head is damaged.
        """
        device = resolve_device(self.device)
        features = torch.from_numpy(see_cut_outs(images, self.device, self.batch_size)).to(device)
        with torch.inference_mode():
            return np.asarray(load_head(device)(features).sigmoid().cpu().numpy())


def see_cut_outs(images: Sequence[ImageRGBA], device: str = "cpu", batch_size: int = 32) -> Floats:
    """What the head goes by.

    The object on grey and its outline alone, each as the locked network sees it; and the network's earlier maps,
    averaged over the object's rim and its core, with how far these two differ.

    Returns:
        (n, 3016) float32.

    Raises:
        SampleError, EmptyMaskError, ModelNotFetchedError, BrokenRunError: as `WholenessScorer.score`.
    """
    if not images:
        return np.zeros((0, FEATURE_DIM), np.float32)
    place = resolve_device(device)
    network = load_network(place)

    def run(batch: Sequence[ImageRGBA]) -> list[Floats]:
        views = [crop_square(rgba) for rgba in batch]
        pictures = torch.from_numpy(np.stack([draw_object(view) for view in views])).permute(0, 3, 1, 2)
        outlines = torch.from_numpy(np.stack([draw_outline(view) for view in views]))[:, None].expand(-1, 3, -1, -1)
        regions = torch.from_numpy(np.stack([find_regions(view) for view in views])).to(place)
        with torch.inference_mode():
            maps = network.forward_intermediates(
                _to_input(pictures, place), indices=list(STAGES), intermediates_only=False
            )
            rims, cores = zip(*(_average(one, regions) for one in maps[1]), strict=True)
            rim, core = torch.cat(rims, dim=1), torch.cat(cores, dim=1)
            picture = network.forward_head(maps[0], pre_logits=True)
            outline = network.forward_head(network.forward_features(_to_input(outlines, place)), pre_logits=True)
            features = torch.cat([picture, outline, rim, core, (rim - core).abs()], dim=1)
        return list(features.float().cpu().numpy())

    return np.stack(run_in_batches(run, images, batch_size))


def crop_square(rgba: ImageRGBA) -> npt.NDArray[np.uint8]:
    """A square round the object, with a margin, and where it leaves the frame.

    Args:
        rgba: (H, W, 4) uint8, straight alpha.

    Returns:
        (224, 224, 5) uint8: colour, alpha, and 255 inside the frame.

    Raises:
        SampleError: the array is no such image.
        EmptyMaskError: no pixel belongs to the mask.
    """
    if rgba.dtype != np.uint8 or rgba.ndim != 3 or rgba.shape[2] != 4 or 0 in rgba.shape:
        raise SampleError(f"image of shape {rgba.shape} and {rgba.dtype} has no outline; expected (H, W, 4) uint8")
    x, y, width, height = mask_to_bbox(rgba[..., 3] >= MASK_ALPHA)
    side = max(width, height)
    side += 2 * max(1, round(side * MARGIN_RATIO))
    left, top = x - (side - width) // 2, y - (side - height) // 2
    weighted = cv2.cvtColor(np.ascontiguousarray(rgba), cv2.COLOR_RGBA2mRGBA)
    framed = np.dstack([weighted, np.full(rgba.shape[:2], 255, np.uint8)])
    square = np.zeros((side, side, 5), np.uint8)
    part = framed[max(0, top) : top + side, max(0, left) : left + side]
    below, right = max(0, -top), max(0, -left)
    square[below : below + part.shape[0], right : right + part.shape[1]] = part
    how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (SIDE, SIDE), interpolation=how))


def draw_object(view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(224, 224, 3) uint8: the object on the network's zero. `view` is `crop_square`'s."""
    behind = (255 - view[..., 3:4].astype(np.float32)) / 255 * GREY
    return (view[..., :3] + behind).round().clip(0, 255).astype(np.uint8)


def draw_outline(view: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(112, 112) uint8: the alpha, white on black; grey where the square leaves the frame."""
    outline = np.where(view[..., 4] < MASK_ALPHA, np.uint8(GREY), view[..., 3])
    return np.asarray(cv2.resize(outline, (OUTLINE_SIDE, OUTLINE_SIDE), interpolation=cv2.INTER_AREA))


def find_regions(view: npt.NDArray[np.uint8]) -> Floats:
    """(2, 224, 224) float32: 1 in the object's rim and in its core, 0 elsewhere."""
    mask = np.pad(view[..., 3] >= MASK_ALPHA, 1).astype(np.uint8)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)[1:-1, 1:-1]
    deepest = depth.max()
    rim, core = (depth > 0) & (depth <= RIM_SHARE * deepest), depth >= CORE_SHARE * deepest
    return np.stack([rim, core]).astype(np.float32)


def _to_input(pixels: torch.Tensor, place: torch.device) -> torch.Tensor:
    scaled = pixels.float().div_(127.5).sub_(1)
    return scaled.to(place, memory_format=torch.channels_last)


def _average(features: torch.Tensor, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, c) means of (n, c, h, w) features over the first and the second of (n, 2, H, W) regions."""
    weights = interpolate(regions, size=features.shape[2:], mode="area").to(features.dtype)
    weights = weights / weights.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
    rim, core = torch.einsum("nchw,nrhw->rnc", features, weights)
    return rim, core


def load_head(device: torch.device) -> WholenessHead:
    """The trained head, in evaluation mode; one a process and device.

    Raises:
        ModelNotFetchedError: this installation lacks it.
        BrokenRunError: it is damaged.
    """
    with _lock:
        return _load(locate_model(_NAME), device)


@functools.cache
def _load(folder: Path, device: torch.device) -> WholenessHead:
    return read_head(folder, HEAD_NAME, HeadConfig, WholenessHead, device)
