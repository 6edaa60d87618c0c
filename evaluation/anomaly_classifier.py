"""Which defect is it? ResNet34 trained on made-up defects, told apart on real ones (AnomalyDiffusion's protocol)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet34

from ..data.anomaly_records import AnomalyRecord
from ..errors import ModelNotFetchedError
from .anomaly_samplers import read_square
from .anomaly_training import RATE_DROPS, RATE_FACTOR, augment
from .anomaly_unet import image_to_input

MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, which torchvision's weights were trained with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierTraining:
    """What decides the classifier, beside what it is shown."""

    epochs: int = 30
    batch: int = 8
    size_px: int = 256
    rate: float = 1e-4
    seed: int = 0
    weights_path: Path | None = None
    """torchvision's ImageNet weights, such as resnet34-b627a593.pth; None: it learns from nothing."""

    def rate_at(self, epoch: int) -> float:
        """Learning rate of one epoch, counted from 0."""
        return self.rate * RATE_FACTOR ** sum(epoch >= share * self.epochs for share in RATE_DROPS)


@dataclass(frozen=True, slots=True)
class DefectClassifier:
    """A trained network and the names of its classes."""

    network: nn.Module
    defects: tuple[str, ...]
    epoch: int
    """Whose weights these are, from 1."""
    began_with: str
    """`ImageNet` or `nothing`: accuracies of the two cannot be compared."""


def train_classifier(
    records: Sequence[AnomalyRecord],
    validation: Sequence[AnomalyRecord],
    training: ClassifierTraining,
    *,
    device: torch.device,
) -> DefectClassifier:
    """A classifier of the defects in `records`.

    Args:
        validation: chooses the epoch, the earliest of the best; empty: the last one. Never test images.

    Raises:
        ValueError: fewer than two defects, a good image, or a defect in `validation` that is not learned.
        ModelNotFetchedError: the weights' file is missing or damaged.
        ImageDecodeError, EmptyMaskError: a picture or its mask cannot be used.
    """
    defects = tuple(sorted({one.defect for one in records if not one.is_good}))
    unknown = sorted({one.defect for one in (*records, *validation)} - set(defects))
    if len(defects) < 2 or unknown:
        raise ValueError(f"defects {defects!r}, others {unknown!r}; expected two defects or more and no others")
    network = _new_network(len(defects), training).to(device)
    optimizer = torch.optim.Adam(network.parameters(), training.rate)
    began_with = "ImageNet" if training.weights_path else "nothing"
    best, chosen, highest = network.state_dict(), training.epochs, -1.0
    for epoch in range(training.epochs):
        for group in optimizer.param_groups:
            group["lr"] = training.rate_at(epoch)
        _take_epoch(network, records, defects, training, optimizer, epoch)
        now = DefectClassifier(network, defects, epoch + 1, began_with)
        accuracy = measure_accuracy(now, validation, size_px=training.size_px) if validation else float(epoch)
        if accuracy > highest:
            best, chosen, highest = copy.deepcopy(network.state_dict()), epoch + 1, accuracy
    network.load_state_dict(best)
    return DefectClassifier(network.eval().requires_grad_(False), defects, chosen, began_with)


def measure_accuracy(
    classifier: DefectClassifier, records: Sequence[AnomalyRecord], *, size_px: int, batch: int = 8
) -> float:
    """Share of pictures whose defect is told, in [0, 1].

    Raises:
        ValueError: no picture.
    """
    if not records:
        raise ValueError("no picture to classify; expected at least one. Look at the split's sides.")
    network = classifier.network.eval()
    device = next(network.parameters()).device
    num_right = 0
    for start in range(0, len(records), batch):
        chunk = records[start : start + batch]
        pixels = torch.stack([_normalized(read_square(one, size_px)[0].copy()) for one in chunk])
        with torch.inference_mode():
            found = network(pixels.to(device)).argmax(dim=1).tolist()
        num_right += sum(classifier.defects[i] == one.defect for i, one in zip(found, chunk, strict=True))
    return num_right / len(records)


def _take_epoch(
    network: nn.Module,
    records: Sequence[AnomalyRecord],
    defects: tuple[str, ...],
    training: ClassifierTraining,
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> None:
    """Every picture once, in an order that follows from seed and epoch; a last lone one is left out."""
    network.train()
    device = next(network.parameters()).device
    order = np.random.default_rng([training.seed, epoch]).permutation(len(records))
    for start in range(0, len(order), training.batch):
        chosen = order[start : start + training.batch]
        if len(chosen) < 2:  # batch normalization needs two
            break
        pixels = torch.stack([_learned(records[i], training, epoch, int(i)) for i in chosen])
        truth = torch.tensor([defects.index(records[i].defect) for i in chosen])
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(network(pixels.to(device)), truth.to(device)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _learned(record: AnomalyRecord, training: ClassifierTraining, epoch: int, place: int) -> torch.Tensor:
    rng = np.random.default_rng([training.seed, epoch, place])
    return _normalized(augment(*read_square(record, training.size_px), rng)[0])


def _normalized(image_rgb: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN_RGB, STD_RGB))
    return (image_to_input(image_rgb, 3) - mean) / std


def _new_network(num_classes: int, training: ClassifierTraining) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network: nn.Module = resnet34(weights=None)
        if training.weights_path:
            _load_weights(network, training.weights_path)
        network.fc = nn.Linear(512, num_classes)
    return network


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:
        raise ModelNotFetchedError(
            f"{str(path)!r} is no ResNet34 of torchvision ({exc}); give its ImageNet weights, or none"
        ) from exc
