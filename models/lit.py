"""How well a text names what an image shows: locked image and text features, and small trained heads between them.

The recipe is LiT's (Zhai et al. 2022) at a tiny scale: EfficientNet-lite0 and MiniLM stay as they are.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import normalize

from ..data.masks import mask_to_bbox
from ..data.records import ImageRGB, ImageRGBA
from . import image_features
from .device import resolve_device
from .embeddings import TEXT_DIM, MiniLM
from .fetch import locate_model
from .heads import read_head
from .image_features import IMAGE_DIM, load_network

MARGIN_RATIO = 0.06
"""Grey left on each side of a cut-out, of its longer side."""
HEADS_NAME = "heads.safetensors"
NUM_CLASSES = 1000
"""Classes of ImageNet, which the locked network's classifier knows."""
NAME_WEIGHT = 10.0
"""Brings embedded class names to the spread of the features beside them."""

_NAME = "lit"
_lock = threading.Lock()


class HeadsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of the heads."""

    hidden: int = 512
    joint: int = 256


class LitHeads(nn.Module):
    """The trained part: an image head, a text head, and the calibration of their cosine.

    Buffers, saved with the weights:
        feature_mean, feature_std: (1280,) of the training views.
        class_names: (1000, 384) embedded names of ImageNet's classes.
        calibration: (2,) slope and offset, so that sigmoid(slope * cosine + offset) is a probability.
    """

    feature_mean: torch.Tensor
    feature_std: torch.Tensor
    class_names: torch.Tensor
    calibration: torch.Tensor

    def __init__(self, config: HeadsConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.image = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(IMAGE_DIM + TEXT_DIM, config.hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(config.hidden, config.joint),
        )
        self.text = nn.Linear(TEXT_DIM, config.joint)
        self.register_buffer("feature_mean", torch.zeros(IMAGE_DIM))
        self.register_buffer("feature_std", torch.ones(IMAGE_DIM))
        self.register_buffer("class_names", torch.zeros(NUM_CLASSES, TEXT_DIM))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def embed_images(self, features: torch.Tensor, class_logits: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
        """Images in the common space.

        Args:
            features: (n, 1280) float32, pooled.
            class_logits: (n, 1000) float32, the locked classifier's.
            noise: standard deviations of noise on the features, for training.

        Returns:
            (n, joint) float32, unit length.
        """
        standard = (features - self.feature_mean) / self.feature_std
        if noise:
            standard = standard + noise * torch.randn_like(standard)
        names = class_logits.softmax(dim=-1) @ self.class_names
        return normalize(self.image(torch.cat([standard, NAME_WEIGHT * names], dim=-1)), dim=-1)

    def embed_texts(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(n, 384) float32, unit length, to (n, joint) float32, unit length."""
        return normalize(self.text(embeddings), dim=-1)


class LitScorer:
    """Scores and ranks names for images. All instances share one model a process and device; thread-safe.

    It knows the objects of its training pictures best, then what ImageNet has a class for; on photographs of other
    things (a person, a surfboard) and on cut-outs below some 64 pixels its opinion is worth little. Figures by class
    are in its model card.
    """

    def __init__(self, device: str = "cpu", batch_size: int = 32) -> None:
        self.device = device
        self.batch_size = batch_size
        self._text = MiniLM(device, batch_size)

    def score(
        self, images: Sequence[ImageRGB | ImageRGBA | Image.Image], texts: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        """The probability that a text names what an image shows, where right and wrong names are equally many.

        It was calibrated on objects that the heads had not seen, each with its own name and with any other object's.
        On the objects of the training it is too low for right names: it doubts rather than believes.

        Args:
            images: each (H, W, 3) or (H, W, 4) uint8, sRGB, straight alpha, or a PIL image. One with alpha is
                cropped to its visible pixels and laid on mid grey.
            texts: names, such as "dog" or "a photo of a red apple".

        Returns:
            (images, texts) float32 in [0, 1].

        Raises:
            SampleError: an array is no such image.
            EmptyMaskError: an image has no visible pixel.
            ModelNotFetchedError: lite0 or MiniLM is not in the cache.
            BrokenRunError: no such device, or the heads are damaged.
        """
        return np.asarray(self._logits(images, texts).sigmoid().numpy())

    def rank(self, images: Sequence[ImageRGB | ImageRGBA | Image.Image], names: Sequence[str]) -> npt.NDArray[np.int64]:
        """(images, names) int64: for each image the indices of all names, the best first. Raises as `score` does."""
        order = self._logits(images, names).argsort(dim=1, descending=True, stable=True)
        return np.asarray(order.numpy())

    def _logits(self, images: Sequence[ImageRGB | ImageRGBA | Image.Image], texts: Sequence[str]) -> torch.Tensor:
        device = resolve_device(self.device)
        heads = load_heads(device)
        arrays = [np.array(_with_bands(i)) if isinstance(i, Image.Image) else i for i in images]
        features = torch.from_numpy(pool_features(arrays, self.device, self.batch_size)).to(device)
        embeddings = torch.from_numpy(self._text.embed(texts)).to(device)
        with torch.inference_mode():
            seen = heads.embed_images(features, load_network(device).classifier(features))
            slope, offset = heads.calibration
            logits: torch.Tensor = slope * seen @ heads.embed_texts(embeddings).T + offset
        return logits.cpu()


def _with_bands(image: Image.Image) -> Image.Image:
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def crop_to_alpha(rgba: ImageRGBA, margin_ratio: float = MARGIN_RATIO) -> ImageRGBA:
    """Cut an image to its visible pixels and leave a transparent margin.

    Args:
        rgba: (h, w, 4) uint8, straight alpha.
        margin_ratio: of the longer side, on every side.

    Raises:
        EmptyMaskError: no pixel is visible.
    """
    x, y, width, height = mask_to_bbox(rgba[..., 3] > 0)
    margin = round(max(width, height) * margin_ratio)
    return np.pad(rgba[y : y + height, x : x + width], ((margin, margin), (margin, margin), (0, 0)))


def pool_features(
    images: Sequence[ImageRGB | ImageRGBA], device: str = "cpu", batch_size: int = 32
) -> npt.NDArray[np.float32]:
    """What the locked network's classifier gets to see of an image; one with alpha is cropped to it first.

    Unlike `Lite0.embed` it keeps the rows' lengths, which the classifier needs.

    Returns:
        (n, 1280) float32.

    Raises:
        SampleError: an array is no image.
        EmptyMaskError: an image has no visible pixel.
        ModelNotFetchedError: lite0 is not in the cache.
        BrokenRunError: no such device.
    """
    return image_features.pool_features([_without_border(image) for image in images], device, batch_size)


def _without_border(image: ImageRGB | ImageRGBA) -> ImageRGB | ImageRGBA:
    return crop_to_alpha(image) if image.ndim == 3 and image.shape[2] == 4 else image


def load_heads(device: torch.device) -> LitHeads:
    """The trained heads, in evaluation mode; one a process and device.

    Raises:
        ModelNotFetchedError: this installation lacks them.
        BrokenRunError: they are damaged.
    """
    with _lock:
        return _load(locate_model(_NAME), device)


@functools.cache
def _load(folder: Path, device: torch.device) -> LitHeads:
    return read_head(folder, HEADS_NAME, HeadsConfig, LitHeads, device)
