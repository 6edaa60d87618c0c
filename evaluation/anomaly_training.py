"""Train the network that finds anomalies, and score pictures with it.

Every picture of every step follows from the seed and the step alone. A stopped training goes on from its last
checkpoint and ends, on a CPU, with the same weights as one that was not stopped.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch

from ..data.anomaly_records import AnomalyRecord
from ..data.records import ImageRGB, MaskHW
from ..errors import RecipeError
from .anomaly_checkpoints import Checkpoints
from .anomaly_metrics import AnomalyMeter, AnomalyMetrics, ScoresHW
from .anomaly_samplers import Curriculum, DefectSampler, read_square
from .anomaly_unet import LEAST_SIDE_PX, AnomalyUNet, focal_loss, image_to_contrast, logits_to_scores

logger = logging.getLogger(__name__)

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises; it falls over the others."""
KEPT_ZOOM = 0.8
"""Least share of a picture's side that augmentation keeps."""
MAX_GAIN, MAX_OFFSET = 0.15, 0.08
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetTraining:
    """What decides the network, beside what it is shown."""

    steps: int
    batch: int = 8
    """Pictures a step, an even number: half of them are normal."""
    size_px: int = 256
    seed: int = 0
    in_channels: int = 3
    width: int = 16
    rate: float = 3e-3
    """Highest learning rate."""
    precision: Precision = "float32"
    """Of activations; weights, loss and scores are always float32. bfloat16 halves a step on CPUs that have AMX."""
    save_every: int = 250
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "size_px", "width", "save_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)!r}; expected at least 1. Correct the settings.")
        if self.batch % 2:
            raise RecipeError(f"batch is {self.batch!r}; expected an even number, half of it is normal. Add one.")
        if self.size_px % LEAST_SIDE_PX:
            raise RecipeError(f"size_px is {self.size_px!r}; expected a multiple of {LEAST_SIDE_PX}, such as 256.")
        if self.precision not in get_args(Precision):
            raise RecipeError(f"precision is {self.precision!r}; expected one of {', '.join(get_args(Precision))}.")

    def rate_at(self, step: int) -> float:
        """Learning rate of one step, counted from 0: up in a line, down in half a cosine (Smith & Topin, 2018)."""
        share = (step + 1) / self.steps
        if share < WARM_UP:
            return self.rate * share / WARM_UP
        return self.rate * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2


@dataclass(frozen=True, slots=True)
class Scored:
    """One picture as the network sees it."""

    record: AnomalyRecord
    scores_hw: ScoresHW
    """(S, S) float32 in [0, 1]."""
    mask_hw: MaskHW
    """(S, S) bool, the true defect."""
    image_score: float
    """In [0, 1]."""


def train_unet(
    defects: DefectSampler | Curriculum,
    normals: DefectSampler,
    training: UNetTraining,
    folder: Path,
    *,
    device: torch.device,
    validate: Callable[[AnomalyUNet], float] | None = None,
    on_steps: Callable[[int], None] = lambda _: None,
) -> AnomalyUNet:
    """The network of the last step, or of the best checkpoint where `validate` tells; in evaluation mode.

    Args:
        defects, normals: pictures of `training.size_px` a side.
        folder: of the checkpoints; what another training left there is refused, one of this training goes on.
        validate: how good a network in evaluation mode is, more is better. It is asked at each checkpoint, and the
            earliest of the best counts. It must not know test images.
        on_steps: is told how many steps were just done: 1 after each, and at first those of an earlier call.

    Raises:
        RunFolderError: the folder holds checkpoints of other settings.
        SampleError: a picture cannot be used.
    """
    network = _new_network(training)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
    optimizer = torch.optim.Adam(network.parameters(), training.rate)
    checkpoints = Checkpoints(folder, asdict(training))
    done = checkpoints.restore(network, optimizer)
    on_steps(done)
    if validate and done and not checkpoints.has_best():
        checkpoints.offer_best(network, validate(network.eval()))
    for step in range(done, training.steps):
        loss = _take_step(network.train(), optimizer, make_batch(defects, normals, training, step), training, step)
        on_steps(1)
        if (step + 1) % training.save_every == 0 or step + 1 == training.steps:
            if not math.isfinite(loss.item()):
                raise RecipeError(f"the loss is {loss.item()} at step {step + 1}; expected a number. Lower `rate`.")
            if validate:
                checkpoints.offer_best(network, validate(network.eval()))
            checkpoints.save_newest(network, optimizer, step + 1)
            logger.info("step %d of %d: loss %.5f", step + 1, training.steps, loss.item())
    if validate:
        checkpoints.restore_best(network)
    return network.eval().requires_grad_(False)


def _take_step(
    network: AnomalyUNet,
    optimizer: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor],
    training: UNetTraining,
    step: int,
) -> torch.Tensor:
    """Learn from one batch; its loss, () float32."""
    pixels, masks = batch
    device = next(network.parameters()).device
    for group in optimizer.param_groups:
        group["lr"] = training.rate_at(step)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
        logits = network(pixels.to(device, memory_format=torch.channels_last))
    loss = focal_loss(logits.float(), masks.to(device))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


def make_batch(
    defects: DefectSampler | Curriculum, normals: DefectSampler, training: UNetTraining, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one step learns from: normal and defect in turns.

    Returns:
        (batch, in_channels, S, S) float32, local contrast; (batch, S, S) int64, 1 on defects.
    """
    pixels, masks = [], []
    source = defects.at(step / training.steps) if isinstance(defects, Curriculum) else defects
    for place in range(training.batch):
        rng = np.random.default_rng([training.seed, step, place])
        image_rgb, mask_hw = augment(*(source if place % 2 else normals).sample(rng), rng)
        pixels.append(image_to_contrast(image_rgb, training.in_channels))
        masks.append(torch.from_numpy(mask_hw).long())
    return torch.stack(pixels), torch.stack(masks)


def augment(image_rgb: ImageRGB, mask_hw: MaskHW, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
    """A square picture mirrored, turned by quarters, cropped and relit; its defect may be cropped away."""
    side = image_rgb.shape[0]
    quarters, is_mirrored = int(rng.integers(4)), rng.uniform() < 0.5
    kept = max(1, round(side * float(rng.uniform(KEPT_ZOOM, 1))))
    top, left = (int(rng.integers(side - kept + 1)) for _ in range(2))
    gain, offset = 1 + rng.uniform(-MAX_GAIN, MAX_GAIN), 255 * rng.uniform(-MAX_OFFSET, MAX_OFFSET)

    def moved(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], interpolation: int) -> ImageRGB:
        crop = np.rot90(array[top : top + kept, left : left + kept], quarters)
        crop = crop[:, ::-1] if is_mirrored else crop
        scaled = cv2.resize(np.ascontiguousarray(crop), (side, side), interpolation=interpolation)
        return np.asarray(scaled, np.uint8)

    relit = np.clip(np.rint(moved(image_rgb, cv2.INTER_LINEAR) * gain + offset), 0, 255).astype(np.uint8)
    return relit, moved(mask_hw.astype(np.uint8), cv2.INTER_NEAREST).astype(np.bool_)


def score_images(
    network: AnomalyUNet, records: Sequence[AnomalyRecord], *, size_px: int, batch: int = 8
) -> Iterator[Scored]:
    """Score pictures, `batch` of them in memory at a time, on the device that the network is on.

    Raises:
        ImageDecodeError, EmptyMaskError: a picture or its mask cannot be used.
    """
    device = next(network.parameters()).device
    for start in range(0, len(records), batch):
        chunk = records[start : start + batch]
        squares = [read_square(record, size_px) for record in chunk]
        pixels = torch.stack([image_to_contrast(image.copy(), network.in_channels) for image, _ in squares])
        with torch.inference_mode():
            maps, scores = logits_to_scores(network(pixels.to(device)))
        for record, (_, mask_hw), scores_hw, score in zip(
            chunk, squares, maps.cpu().numpy(), scores.cpu(), strict=True
        ):
            yield Scored(record, np.clip(scores_hw, 0, 1), mask_hw, float(score))


def measure_unet(network: AnomalyUNet, records: Sequence[AnomalyRecord], *, size_px: int) -> AnomalyMetrics:
    """Metrics on pictures, at the size that the network was trained for; raises what `score_images` does."""
    meter = AnomalyMeter()
    for scored in score_images(network, records, size_px=size_px):
        meter.add(scored.scores_hw, scored.mask_hw, scored.image_score)
    return meter.measure()


def _new_network(training: UNetTraining) -> AnomalyUNet:
    """PyTorch's layers draw their weights from the global generator; it is given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return AnomalyUNet(training.in_channels, training.width)
