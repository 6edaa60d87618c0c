"""A multi-label classifier of whole pictures: a frozen network, and a head that finds a class at any place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ...data.records import ImageRGB
from .label_calibration import LabelClassifierReport
from .label_features import Backbone, Look

COMPONENTS = 64
"""Directions of most variance that are kept of what stands at a place."""
_HIDDEN = 32
_CLIP_PLACE, _CLIP_POOLED = 10.0, 5.0
"""Deviations from the mean, beyond which a feature tells nothing more."""
_OUTSIDE = -1e4
_BATCH = 32


@dataclass(frozen=True, slots=True)
class Packed:
    """Pictures as the head reads them; those with fewer places are padded."""

    places: torch.Tensor
    """(n, P, COMPONENTS), float16 where they are kept for training."""
    valid: torch.Tensor
    """(n, P) bool."""
    pooled: torch.Tensor
    """(n, G) float32."""

    def take(self, rows: torch.Tensor) -> Packed:
        """Some pictures, as they are kept."""
        return Packed(self.places[rows], self.valid[rows], self.pooled[rows])


class LabelHead(nn.Module):
    """Logits by multiple-instance learning: a smooth maximum over places, plus the picture's pooled features.

    The smooth maximum is log-sum-exp with a learned sharpness for each class (Pinheiro & Collobert, CVPR 2015).
    Frozen parts, as buffers: the scales of features and the calibration.
    """

    place_mean: torch.Tensor
    place_std: torch.Tensor
    place_axes: torch.Tensor
    pooled_mean: torch.Tensor
    pooled_std: torch.Tensor
    slope: torch.Tensor
    offset: torch.Tensor

    def __init__(self, num_places: int, num_pooled: int, num_classes: int) -> None:
        """
        Args:
            num_places, num_pooled: lengths of the features of a place and of a picture.
        """
        super().__init__()
        self.place = nn.Sequential(nn.Linear(COMPONENTS, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, num_classes))
        self.whole = nn.Linear(num_pooled, num_classes)
        self.sharpness = nn.Parameter(torch.zeros(num_classes))
        for name, shape in {
            "place_mean": (num_places,),
            "place_std": (num_places,),
            "place_axes": (num_places, COMPONENTS),
            "pooled_mean": (num_pooled,),
            "pooled_std": (num_pooled,),
            "slope": (num_classes,),
            "offset": (num_classes,),
        }.items():
            self.register_buffer(name, torch.zeros(shape))

    def draw(self, generator: torch.Generator) -> None:
        """Set the parameters anew, as `nn.Linear` draws them; what sums over a whole picture begins with nothing."""
        for layer in self.place:
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator)
                nn.init.uniform_(layer.bias, -bound, bound, generator)
        for parameter in (self.whole.weight, self.whole.bias, self.sharpness):
            nn.init.zeros_(parameter)

    def project(self, places: torch.Tensor) -> torch.Tensor:
        """(P, C) features of places to (P, COMPONENTS) of unit deviation."""
        return ((places - self.place_mean) / self.place_std).clamp(-_CLIP_PLACE, _CLIP_PLACE) @ self.place_axes

    def forward(self, packed: Packed) -> torch.Tensor:
        """(n, classes) logits, not calibrated."""
        logits = self.place(packed.places.float()).masked_fill(~packed.valid[..., None], _OUTSIDE)
        sharpness = functional.softplus(self.sharpness) + 0.5
        num_places = packed.valid.sum(dim=1, keepdim=True).float()
        smooth_maximum = (torch.logsumexp(logits * sharpness, dim=1) - num_places.log()) / sharpness
        pooled = ((packed.pooled - self.pooled_mean) / self.pooled_std).clamp(-_CLIP_POOLED, _CLIP_POOLED)
        whole: torch.Tensor = self.whole(pooled)
        return smooth_maximum + whole

    def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities of logits, (n, classes)."""
        return torch.sigmoid(logits * self.slope + self.offset)


def pack(looks: Iterable[Look], head: LabelHead, dtype: torch.dtype = torch.float32) -> Packed:
    """Project the places of each picture, and pad to the most places."""
    with torch.no_grad():
        projected = [Look(head.project(one.places).to(dtype), one.pooled) for one in looks]
    most = max(len(one.places) for one in projected)
    padded = torch.zeros(len(projected), most, COMPONENTS, dtype=dtype)
    valid = torch.zeros(len(projected), most, dtype=torch.bool)
    for row, one in enumerate(projected):
        padded[row, : len(one.places)] = one.places
        valid[row, : len(one.places)] = True
    return Packed(padded, valid, torch.stack([one.pooled for one in projected]))


def logits_of(head: LabelHead, packed: Packed) -> torch.Tensor:
    """(n, classes) float32, some pictures at a time."""
    with torch.inference_mode():
        rows = torch.arange(len(packed.valid))
        return torch.cat([head(packed.take(some)) for some in torch.split(rows, _BATCH)])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedLabelClassifier:
    """Finds the user's classes in pictures; see `tools.labels.LabelClassifier`."""

    name: str
    revision: str
    classes: tuple[str, ...]
    report: LabelClassifierReport
    backbone: Backbone
    head: LabelHead
    image_px: int

    def score(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        """(n, classes) float32 in [0, 1]: calibrated probabilities; equal across batch sizes within 1e-5.

        Args:
            images: each (H, W, 3) uint8, sRGB; sizes may differ.
        """
        if not images:
            return np.zeros((0, len(self.classes)), dtype=np.float32)
        with torch.inference_mode():
            packed = pack(self.backbone.look(images, self.image_px), self.head)
            probabilities = self.head.calibrated(logits_of(self.head, packed))
        scores: npt.NDArray[np.float32] = probabilities.numpy()
        return scores
