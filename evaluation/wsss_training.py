"""Trains the two networks: one on labels, one on masks that the first one found. Equal steps for all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..data.label_records import UNKNOWN_LEVEL, ClassMapHW, LabelledImage
from ..data.records import ImageRGB
from ..errors import RecipeError
from .wsss_data import PictureCache
from .wsss_networks import SIDE_MULTIPLE, Encoder, LabelNetwork, SegmentationNetwork, image_to_pixels

HEAD_FACTOR = 10.0
"""Learning rate of layers that begin with chance weights, over that of the encoder's."""
WARM_UP = 0.1
"""Of the steps, after which the rate is highest."""
WEIGHT_DECAY = 1e-2
FIRST_ANSWER = -1.5
"""Logit of every class before anything is learned: absent, but not for sure."""
KEPT_ZOOM = 0.8
"""Least share of a side that a crop keeps; a defect at the rim may be lost, hence not less."""
MAX_GAIN, MAX_OFFSET = 0.2, 0.1
Batch = tuple[torch.Tensor, torch.Tensor]
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class WsssSettings:
    """Equal for all arms but for the seed, which counts up from its own."""

    label_steps: int = 150
    """Of the network that learns labels."""
    mask_steps: int = 150
    """Of the network that learns masks."""
    batch: int = 8
    """Pictures a step, half of them without a label where there are such."""
    size_px: int = 224
    rate: float = 1e-3
    pretrained: bool = True
    """Begin with ImageNet's weights; False: with chance ones."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size_px % SIDE_MULTIPLE or self.size_px < 2 * SIDE_MULTIPLE:
            raise RecipeError(
                f"pictures of {self.size_px!r} pixels a side; expected a multiple of {SIDE_MULTIPLE} of 32 or more"
            )
        if self.batch < 2 or min(self.label_steps, self.mask_steps) < 1:
            raise RecipeError(f"{self!r}; expected a batch of 2 or more, and at least one step of each network")


class LabelBatches:
    """Pictures with their labels, in an order that follows from the seed alone.

    Args:
        images: of an arm; one may stand there several times.
    """

    def __init__(self, images: Sequence[LabelledImage], classes: Sequence[str], pictures: PictureCache) -> None:
        self.classes, self._pictures = classes, pictures
        self._groups = _halves(images)
        self.shares = label_shares(self._groups, classes)

    def batch(self, settings: WsssSettings, step: int) -> Batch:
        """(batch, 3, S, S) float32; (batch, classes) float32, 1 where the class is shown."""
        pixels, truths = [], []
        for place in range(settings.batch):
            rng = np.random.default_rng([settings.seed, step, place])
            image = _draw(self._groups, place, rng)
            picture = self._pictures[image]
            pixels.append(image_to_pixels(augment(picture, np.zeros(picture.shape[:2], np.uint8), rng)[0]))
            truths.append(torch.tensor([float(name in image.labels) for name in self.classes]))
        return torch.stack(pixels), torch.stack(truths)


class MaskBatches:
    """Pictures with the masks that were found on them; without a label, all is background.

    Args:
        masks: (S, S) uint8 by key, of the images that have a label.
    """

    def __init__(
        self, images: Sequence[LabelledImage], masks: Mapping[LabelledImage, ClassMapHW], pictures: PictureCache
    ) -> None:
        self._pictures, self._masks = pictures, masks
        self._groups = _halves(images)
        self._empty = np.zeros((pictures.size_px, pictures.size_px), np.uint8)

    def batch(self, settings: WsssSettings, step: int) -> Batch:
        """(batch, 3, S, S) float32; (batch, S, S) int64 levels."""
        pixels, truths = [], []
        for place in range(settings.batch):
            rng = np.random.default_rng([settings.seed, step, place])
            image = _draw(self._groups, place, rng)
            picture, mask = augment(self._pictures[image], self._masks.get(image, self._empty), rng)
            pixels.append(image_to_pixels(picture))
            truths.append(torch.from_numpy(mask).long())
        return torch.stack(pixels), torch.stack(truths)

    def level_weights(self, num_levels: int) -> torch.Tensor:
        """(levels,) float32, of mean 1: the root of a level's rarity among the pixels that are drawn."""
        counts = np.zeros(num_levels)
        for group in self._groups:
            pixels = np.zeros(num_levels)
            for image in group:
                pixels += np.bincount(self._masks.get(image, self._empty).ravel(), minlength=num_levels)
            counts += pixels / pixels.sum()
        weights = np.sqrt(1 / np.maximum(counts, 1e-4))
        return torch.from_numpy((weights / weights.mean()).astype(np.float32))


def train_label_network(
    batches: LabelBatches, settings: WsssSettings, *, device: torch.device, on_step: Callable[[], None] = lambda: None
) -> LabelNetwork:
    """A network that tells an arm's labels; in evaluation mode.

    Raises:
        ModelNotFetchedError: lite0 is not in the cache.
        ImageDecodeError: a picture cannot be read.
        RecipeError: the loss is no number.
    """
    network = _seeded(settings, lambda: LabelNetwork(len(batches.classes), pretrained=settings.pretrained))
    nn.init.zeros_(network.head.weight)
    nn.init.constant_(network.head.bias, FIRST_ANSWER)  # type: ignore[arg-type]  # it has one
    shares = torch.tensor(batches.shares).clamp(1e-3, 0.999)
    weights = ((1 - shares) / shares).sqrt().to(device)

    def loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weights)

    _train(network, network.encoder, batches.batch, loss, settings, settings.label_steps, device, on_step)
    return network


def train_segmentation_network(
    batches: MaskBatches,
    num_levels: int,
    settings: WsssSettings,
    *,
    device: torch.device,
    on_step: Callable[[], None] = lambda: None,
) -> SegmentationNetwork:
    """A network that draws masks as it was shown; in evaluation mode. Raises what `train_label_network` does."""
    network = _seeded(settings, lambda: SegmentationNetwork(num_levels, pretrained=settings.pretrained))
    weights = batches.level_weights(num_levels).to(device)

    def loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(logits, truth, weight=weights, ignore_index=UNKNOWN_LEVEL)

    _train(network, network.encoder, batches.batch, loss, settings, settings.mask_steps, device, on_step)
    return network


def augment(picture: ImageRGB, mask: ClassMapHW, rng: np.random.Generator) -> tuple[ImageRGB, ClassMapHW]:
    """A square picture mirrored either way, cropped and relit, and its mask."""
    side = picture.shape[0]
    rows, columns = (slice(None, None, -1 if rng.uniform() < 0.5 else 1) for _ in range(2))
    kept = max(1, round(side * float(rng.uniform(KEPT_ZOOM, 1))))
    top, left = (int(rng.integers(side - kept + 1)) for _ in range(2))
    gain, offset = 1 + rng.uniform(-MAX_GAIN, MAX_GAIN), 255 * rng.uniform(-MAX_OFFSET, MAX_OFFSET)

    def moved(array: ImageRGB | ClassMapHW, interpolation: int) -> ImageRGB | ClassMapHW:
        crop = np.ascontiguousarray(array[rows, columns][top : top + kept, left : left + kept])
        return np.asarray(cv2.resize(crop, (side, side), interpolation=interpolation), np.uint8)

    relit = np.clip(np.rint(moved(picture, cv2.INTER_LINEAR) * gain + offset), 0, 255).astype(np.uint8)
    return relit, moved(mask, cv2.INTER_NEAREST)


def label_shares(groups: Sequence[Sequence[LabelledImage]], classes: Sequence[str]) -> list[float]:
    """Of the pictures that are drawn, those that show each class; each group is drawn as often."""
    counts = [Counter(label for image in group for label in image.labels) for group in groups]
    return [
        sum(own[name] / len(group) for own, group in zip(counts, groups, strict=True)) / len(groups) for name in classes
    ]


def _halves(images: Sequence[LabelledImage]) -> list[list[LabelledImage]]:
    """Those without and with a label; what there is none of is left out."""
    groups = [[one for one in images if bool(one.labels) is labelled] for labelled in (False, True)]
    return [group for group in groups if group]


def _draw(groups: Sequence[Sequence[LabelledImage]], place: int, rng: np.random.Generator) -> LabelledImage:
    group = groups[place % len(groups)]
    return group[int(rng.integers(len(group)))]


def _train(
    network: nn.Module,
    encoder: Encoder,
    make_batch: Callable[[WsssSettings, int], Batch],
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    settings: WsssSettings,
    steps: int,
    device: torch.device,
    on_step: Callable[[], None],
) -> None:
    """Adam with one cycle of the learning rate. Statistics of ImageNet stay: batches are too small for others."""
    encoder.freeze_shallow()
    network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    own = {id(one) for one in encoder.parameters()}
    groups = [
        [one for one in encoder.parameters() if one.requires_grad],
        [one for one in network.parameters() if id(one) not in own],
    ]
    rates = [settings.rate, settings.rate * HEAD_FACTOR]
    optimizer = torch.optim.AdamW([{"params": group} for group in groups], weight_decay=WEIGHT_DECAY)
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * _rise_and_fall((step + 1) / (steps + 1))
        pixels, truth = make_batch(settings, step)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network(pixels.to(device, memory_format=torch.channels_last)), truth.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        on_step()
    if not math.isfinite(loss.item()):
        raise RecipeError(f"the loss is {loss.item()} after {steps} steps; expected a number. Lower the rate.")


def _rise_and_fall(done: float) -> float:
    """Share of the highest learning rate: linear warm-up, then half a cosine down to 0."""
    if done < WARM_UP:
        return done / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def _seeded(settings: WsssSettings, build: Callable[[], Network]) -> Network:
    """PyTorch's layers draw their weights from the global generator; it is given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return build()
