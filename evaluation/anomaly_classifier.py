"""Which defect is it? ResNet34 trained on made-up defects, told apart on real ones (AnomalyDiffusion's protocol)."""

from __future__ import annotations

import copy
import pickle
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet34

from ..data.anomaly_records import AnomalyRecord
from ..data.files import write_atomically
from ..errors import DatasetError, ModelNotFetchedError
from ..models.device import resolve_device
from .anomaly_evaluation import AnomalyRun, ChosenBy, Progress, Silence, deviation, result_path, save_summary
from .anomaly_samplers import read_square
from .anomaly_training import augment
from .anomaly_unet import image_to_input

RATE_DROPS = (0.8, 0.9)
"""Shares of the epochs after which the learning rate falls to a fifth (AnomalyDiffusion)."""
RATE_FACTOR = 0.2
MEAN_RGB, STD_RGB = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, which torchvision's weights were trained with."""
WEIGHTS_FILE = "resnet34-b627a593.pth"
"""torchvision's ImageNet weights of ResNet34."""
Beginning = Literal["ImageNet", "nothing"]
"""What a classifier began with; accuracies of the two cannot be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierTraining:
    """What decides the classifier, beside what it is shown."""

    epochs: int = 30
    batch: int = 8
    size_px: int = 256
    rate: float = 1e-4
    seed: int = 0
    weights_path: Path | None = None
    """torchvision's ImageNet weights, see `WEIGHTS_FILE`; None: it learns from nothing."""

    @property
    def began_with(self) -> Beginning:
        return "ImageNet" if self.weights_path else "nothing"

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
    began_with: Beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationSummary:
    """How often a defect is told on the test side, each in [0, 1], over the seeds."""

    mean: float
    deviation: float
    num_seeds: int
    num_defects: int
    began_with: Beginning
    chosen_by: ChosenBy


def evaluate_classification(
    run: AnomalyRun,
    training: ClassifierTraining,
    *,
    seeds: int = 3,
    device: str = "auto",
    progress: Progress | None = None,
) -> ClassificationSummary:
    """Train on the run's samples, choose the epoch on the validation side's defects, measure on the test side's.

    After a kill the classifier that it was at is begun again, earlier ones are not. Results lie in RUN/evaluation/.

    Args:
        training: its seed counts up.
        progress: hears of the stages `classifiers` and `epochs`.

    Raises:
        DatasetError: fewer than two defects, or none on the test side.
        ModelNotFetchedError: the weights' file is missing or damaged.
    """
    progress = progress or Silence()
    validation, test = ([one for one in side if not one.is_good] for side in (run.validation, run.test))
    if len(run.defects) < 2 or not test:
        raise DatasetError(f"defects {run.defects!r}, {len(test)} test images; expected two defects and test images")
    progress.start("classifiers", seeds)
    accuracies = []
    for seed in range(training.seed, training.seed + seeds):
        settings = replace(training, seed=seed)
        what = asdict(settings) | {"weights_path": str(settings.weights_path)}
        path = result_path(run, "classification", what, run.samples, validation, test)
        if not path.is_file():
            progress.start("epochs", training.epochs)
            classifier = train_classifier(
                run.samples,
                validation,
                settings,
                device=resolve_device(device),
                on_epoch=lambda: progress.advance("epochs"),
            )
            accuracy = measure_accuracy(classifier, test, size_px=training.size_px)
            content = {"seed": seed, "accuracy": accuracy, "epoch": classifier.epoch}
            write_atomically(path, orjson.dumps(content, option=orjson.OPT_INDENT_2))
        accuracies.append(float(orjson.loads(path.read_bytes())["accuracy"]))
        progress.advance("classifiers")
    summary = ClassificationSummary(
        mean=statistics.fmean(accuracies),
        deviation=deviation(accuracies),
        num_seeds=seeds,
        num_defects=len(run.defects),
        began_with=training.began_with,
        chosen_by="validation" if validation else "last epoch",
    )
    save_summary(run, "classification", asdict(summary))
    return summary


def find_imagenet_weights() -> Path | None:
    """ResNet34's, where torch hub's cache (`TORCH_HOME`) has them."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    return path if path.is_file() else None


def train_classifier(
    records: Sequence[AnomalyRecord],
    validation: Sequence[AnomalyRecord],
    training: ClassifierTraining,
    *,
    device: torch.device,
    on_epoch: Callable[[], None] = lambda: None,
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
    best, chosen, highest = network.state_dict(), training.epochs, -1.0
    for epoch in range(training.epochs):
        for group in optimizer.param_groups:
            group["lr"] = training.rate_at(epoch)
        _take_epoch(network, records, defects, training, optimizer, epoch)
        now = DefectClassifier(network, defects, epoch + 1, training.began_with)
        accuracy = measure_accuracy(now, validation, size_px=training.size_px) if validation else float(epoch)
        if accuracy > highest:
            best, chosen, highest = copy.deepcopy(network.state_dict()), epoch + 1, accuracy
        on_epoch()
    network.load_state_dict(best)
    return DefectClassifier(network.eval().requires_grad_(False), defects, chosen, training.began_with)


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
