"""How clear and how various generated defects are: Inception Score and IC-LPIPS, by a named extractor.

The names of the published figures belong to Inception-v3 and to LPIPS on VGG. By another network the same formulas give
other numbers, so every score carries its extractor's name and scores of two extractors are never averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ..data.records import ImageRGB
from ..models.device import resolve_device
from ..models.image_features import load_network, to_input

MAX_IN_CLUSTER = 50
"""Samples of one cluster whose distances count (Ojha et al., CVPR 2021)."""


class Extractor(Protocol):
    """A network that sees what is in a picture and how alike two pictures look."""

    @property
    def name(self) -> str: ...

    def classify(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float64]:
        """(n, classes), each row sums to 1."""
        ...

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        """(n, d), such that the squared Euclidean distance of two rows is how unlike the pictures look."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationScores:
    """Of the samples of one defect of one item, or a mean of such."""

    extractor: str
    """Scores of two extractors cannot be compared."""
    num_samples: int
    inception_score: float
    """At least 1: how many kinds of pictures there seem to be."""
    ic_distance: float
    """At least 0: mean distance among samples that are nearest to the same reference."""


class Lite0Extractor:
    """EfficientNet-lite0: its ImageNet classes, and LPIPS's distance over its five stages, without LPIPS's weights.

    Raises:
        ModelNotFetchedError: of both methods, lite0 is not in the cache, or damaged there.
    """

    name = "efficientnet-lite0"

    def __init__(self, device: str = "cpu", batch_size: int = 16) -> None:
        self._device = resolve_device(device)
        self._batch_size = batch_size

    def classify(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float64]:
        network = load_network(self._device)
        with torch.inference_mode():
            parts = [network(self._inputs(images, start)).softmax(dim=1) for start in self._starts(images)]
        return torch.cat(parts).double().cpu().numpy()

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        network = load_network(self._device)
        parts = []
        with torch.inference_mode():
            for start in self._starts(images):
                stages = network.forward_intermediates(self._inputs(images, start), intermediates_only=True)
                assert isinstance(stages, list)
                parts.append(stages_to_rows(stages))
        return torch.cat(parts).cpu().numpy()

    def _starts(self, images: Sequence[ImageRGB]) -> range:
        return range(0, len(images), self._batch_size)

    def _inputs(self, images: Sequence[ImageRGB], start: int) -> torch.Tensor:
        chosen = range(start, min(start + self._batch_size, len(images)))
        return torch.stack([to_input(images[i]) for i in chosen]).to(self._device)


def stages_to_rows(stages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows whose squared distance is that of LPIPS without weights (Zhang et al., CVPR 2018).

    Args:
        stages: each (n, C, H, W); C, H and W of its own.

    Returns:
        (n, d): channels scaled to length 1 at every place, every stage counting by its mean over the places.
    """
    rows = [
        functional.normalize(stage, dim=1).flatten(1) / (stage.shape[2] * stage.shape[3]) ** 0.5 for stage in stages
    ]
    return torch.cat(rows, dim=1)


def score_generation(
    samples: Sequence[ImageRGB], references: Sequence[ImageRGB], extractor: Extractor
) -> GenerationScores:
    """Scores of the samples of one defect.

    Args:
        samples: at least one; one that reads its pictures when they are asked for keeps the memory flat.
        references: real pictures of the same defect, at least one.

    Raises:
        ValueError: no sample, or no reference.
    """
    if not len(samples) or not len(references):
        raise ValueError(f"{len(samples)} samples, {len(references)} references; expected at least one of each")
    score = inception_score(extractor.classify(samples))
    return GenerationScores(extractor.name, len(samples), score, ic_distance(samples, references, extractor))


def inception_score(probabilities: npt.NDArray[np.float64]) -> float:
    """exp of the mean divergence of each picture's classes from those of all (Salimans et al., 2016), in one split.

    Args:
        probabilities: (n, classes), each row sums to 1.
    """
    tiny = np.finfo(np.float64).tiny
    overall = np.log(np.maximum(probabilities.mean(axis=0), tiny))
    divergences = (probabilities * (np.log(np.maximum(probabilities, tiny)) - overall)).sum(axis=1)
    return float(np.exp(divergences.mean()))


def ic_distance(samples: Sequence[ImageRGB], references: Sequence[ImageRGB], extractor: Extractor) -> float:
    """Intra-cluster distance (Ojha et al., CVPR 2021): samples join their nearest reference; the mean over references
    of the mean distance of two samples there. Where fewer than two are, it is 0; of more than 50 the first 50 count.
    """
    centres = extractor.embed(references)
    nearest = [
        int(np.argmin(((centres - extractor.embed([samples[i]])) ** 2).sum(axis=1))) for i in range(len(samples))
    ]
    means = []
    for cluster in range(len(references)):
        members = [samples[i] for i, own in enumerate(nearest) if own == cluster][:MAX_IN_CLUSTER]
        means.append(_mean_distance(extractor.embed(members)) if len(members) > 1 else 0.0)
    return float(np.mean(means))


def mean_scores(scores: Sequence[GenerationScores]) -> GenerationScores:
    """Of several defects or items, each counting as much.

    Raises:
        ValueError: none, or scores of more than one extractor.
    """
    names = sorted({one.extractor for one in scores})
    if len(names) != 1:
        raise ValueError(f"scores by {names!r}; expected one extractor. Measure all samples with the same one.")
    return GenerationScores(
        names[0],
        sum(one.num_samples for one in scores),
        float(np.mean([one.inception_score for one in scores])),
        float(np.mean([one.ic_distance for one in scores])),
    )


def _mean_distance(rows: npt.NDArray[np.float32]) -> float:
    """Over all pairs: twice the variance, freed of each row's distance to itself."""
    num = len(rows)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    return float(2 * (centred**2).sum() / (num - 1))
