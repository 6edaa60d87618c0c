"""Train the network that finds anomalies, and score pictures with it.

Every picture of every step follows from the seed and the step alone. A stopped training goes on from its last
checkpoint and ends, on a CPU, with the same weights as one that was not stopped.
"""

from __future__ import annotations

import json
import logging
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ..data.anomaly_records import AnomalyRecord
from ..data.files import write_atomically
from ..data.records import ImageRGB, MaskHW
from ..errors import RecipeError, RunFolderError
from .anomaly_metrics import AnomalyMeter, AnomalyMetrics, ScoresHW
from .anomaly_samplers import DefectSampler, read_square
from .anomaly_unet import LEAST_SIDE_PX, AnomalyUNet, focal_loss, image_to_input, logits_to_scores

logger = logging.getLogger(__name__)

RATE_DROPS = (0.8, 0.9)
"""Shares of the steps after which the learning rate falls to a fifth (DRAEM)."""
RATE_FACTOR = 0.2
KEPT_ZOOM = 0.8
"""Least share of a picture's side that augmentation keeps."""
MAX_GAIN, MAX_OFFSET = 0.15, 0.08
Precision = Literal["float32", "bfloat16"]
_SETTINGS = "settings"


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
    rate: float = 1e-3
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
        """Learning rate of one step, counted from 0."""
        return self.rate * RATE_FACTOR ** sum(step >= share * self.steps for share in RATE_DROPS)


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
    defects: DefectSampler, normals: DefectSampler, training: UNetTraining, folder: Path, *, device: torch.device
) -> AnomalyUNet:
    """The network of the last step, in evaluation mode.

    Args:
        defects, normals: pictures of `training.size_px` a side.
        folder: of the checkpoints; what another training left there is refused, one of this training goes on.

    Raises:
        RunFolderError: the folder holds checkpoints of other settings.
        SampleError: a picture cannot be used.
    """
    network = _new_network(training)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU
    optimizer = torch.optim.Adam(network.parameters(), training.rate)
    done = _restore(network, optimizer, training, folder)
    network.train()
    for step in range(done, training.steps):
        for group in optimizer.param_groups:
            group["lr"] = training.rate_at(step)
        pixels, masks = make_batch(defects, normals, training, step)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
            logits = network(pixels.to(device, memory_format=torch.channels_last))
        loss = focal_loss(logits.float(), masks.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % training.save_every == 0 or step + 1 == training.steps:
            if not math.isfinite(loss.item()):
                raise RecipeError(f"the loss is {loss.item()} at step {step + 1}; expected a number. Lower `rate`.")
            _save(network, optimizer, training, folder, step + 1)
            logger.info("step %d of %d: loss %.5f", step + 1, training.steps, loss.item())
    return network.eval().requires_grad_(False)


def make_batch(
    defects: DefectSampler, normals: DefectSampler, training: UNetTraining, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What one step learns from: normal and defect in turns.

    Returns:
        (batch, in_channels, S, S) float32 in [0, 1]; (batch, S, S) int64, 1 on defects.
    """
    pixels, masks = [], []
    for place in range(training.batch):
        rng = np.random.default_rng([training.seed, step, place])
        image_rgb, mask_hw = augment(*(defects if place % 2 else normals).sample(rng), rng)
        pixels.append(image_to_input(image_rgb, training.in_channels))
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
        pixels = torch.stack([image_to_input(image.copy(), network.in_channels) for image, _ in squares])
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


def _save(
    network: AnomalyUNet, optimizer: torch.optim.Optimizer, training: UNetTraining, folder: Path, step: int
) -> None:
    """The weights come last: where they lie, the optimizer's state lies beside them."""
    buffer = BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    state_path, path = folder / f"{step:08d}.pt", folder / f"{step:08d}.safetensors"
    write_atomically(state_path, buffer.getvalue())
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_atomically(path, save(weights, metadata={_SETTINGS: json.dumps(asdict(training), sort_keys=True)}))
    for old in _checkpoints(folder):
        if old != path:
            old.unlink()
            old.with_suffix(".pt").unlink(missing_ok=True)


def _restore(network: AnomalyUNet, optimizer: torch.optim.Optimizer, training: UNetTraining, folder: Path) -> int:
    """Load the newest checkpoint; how many steps it has done, 0 without one."""
    paths = _checkpoints(folder)
    if not paths:
        return 0
    path = paths[-1]
    try:
        with safe_open(path, framework="pt") as file:
            settings = (file.metadata() or {}).get(_SETTINGS)
        if settings != json.dumps(asdict(training), sort_keys=True):
            raise RunFolderError(
                f"{str(path)!r} is of a training by {settings}; expected {asdict(training)!r}. Choose another folder."
            )
        network.load_state_dict(load_file(path))
        optimizer.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
    except (SafetensorError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as exc:
        raise RunFolderError(f"checkpoint {str(path)!r} cannot be read ({exc}); remove it to begin anew") from exc
    return int(path.stem)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.safetensors") if path.stem.isdigit())
