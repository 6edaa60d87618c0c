"""Train the heads of the image-text scorer on the object pictures; minutes on two cores, most of them for features.

    npm pack @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
    python -m maskwright.learning.lit --tarballs . --out models/weights/lit --seed 0

Features are kept under `--cache`, so that a run that was stopped goes on there; the heads are trained anew.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from safetensors.torch import save
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from ..data.files import write_atomically
from ..models.embeddings import MiniLM
from ..models.heads import CONFIG_NAME
from ..models.image_features import load_network
from ..models.lit import HEADS_NAME, NUM_CLASSES, HeadsConfig, LitHeads
from .lit_captions import Captions, caption_objects
from .lit_data import ASIDE_VIEWS, OWN_TONE, VIEWS, Views, load_views
from .object_names import is_held_out
from .pictures import read_object_pictures

FOLDS = 3
"""Parts of the training objects; each is scored by heads that were trained without it, to calibrate."""
CLASS_ROW_LENGTH = 5.0
"""Lengthens a row of the classifier, of 0.064 a weight, to the spread of features, about 0.4."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What decides the heads."""

    seed: int = 0
    steps: int = 600
    batch: int = 256
    rate: float = 1e-3
    warmup: int = 30
    weight_decay: float = 0.05
    dropout: float = 0.3
    feature_noise: float = 0.3
    text_noise: float = 0.02
    temperature: float = 1 / 15
    """At the start; learned."""
    text_weight: float = 0.3
    """Of finding the images of a name, against finding the names of an image."""
    tone_weight: float = 0.3
    """Of telling a recoloured object's colour."""
    class_weight: float = 0.5
    """Of ImageNet's classes, with their classifier's rows as images."""
    class_batch: int = 300

    def rate_at(self, step: int) -> float:
        """Learning rate of one step: warm-up, then half a cosine."""
        return self.rate * min(1.0, (step + 1) / self.warmup) * (1 + math.cos(math.pi * step / self.steps)) / 2


class HeadsTrainer:
    """Trains heads on some of the objects."""

    def __init__(self, views: Views, captions: Captions, objects: torch.Tensor, settings: Training) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.objects = settings, objects
        self._features, self._tones = views.features[:, : VIEWS - ASIDE_VIEWS], views.tones
        self._captions = captions
        self._classifier = load_network(torch.device("cpu")).classifier
        self._names = captions.positives[objects].any(dim=0).nonzero().flatten()
        self.heads = LitHeads(HeadsConfig(), settings.dropout)
        seen = self._features[objects].flatten(0, 1)
        self.heads.feature_mean.copy_(seen.mean(dim=0))
        self.heads.feature_std.copy_(seen.std(dim=0) + 1e-3)
        self.heads.class_names.copy_(captions.class_names)
        self._log_scale = torch.tensor(-math.log(settings.temperature), requires_grad=True)

    def train(self) -> LitHeads:
        """Take all steps; the heads, uncalibrated, in evaluation mode."""
        parameters = [*self.heads.parameters(), self._log_scale]
        optimizer = torch.optim.AdamW(parameters, weight_decay=self.settings.weight_decay)
        self.heads.train()
        for step in range(self.settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = self.settings.rate_at(step)
            optimizer.zero_grad()
            self._loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return self.heads.eval().requires_grad_(False)

    def _loss(self) -> torch.Tensor:
        settings = self.settings
        objects = self.objects[torch.randint(len(self.objects), (settings.batch,))]
        chosen = torch.randint(self._features.shape[1], (settings.batch,))
        images = self._see(self._features[objects, chosen])
        scale = self._log_scale.exp()
        logits = scale * images @ self._read(self._captions.random_phrasing(self._names)).T
        positives = self._captions.positives[objects][:, self._names]
        loss = _matching_loss(logits, positives) + settings.text_weight * _matching_loss(logits.T, positives.T)
        tones = self._tones[objects, chosen]
        if (toned := tones != OWN_TONE).any():
            colours = self._read(self._captions.toned[objects[toned]])
            tone_logits = scale * (images[toned, None] * colours).sum(dim=-1)
            loss = loss + settings.tone_weight * cross_entropy(tone_logits, tones[toned])
        return loss + settings.class_weight * self._class_loss(scale)

    def _class_loss(self, scale: torch.Tensor) -> torch.Tensor:
        """ImageNet's classes without its images: a classifier's row points to where the features of its class lie."""
        chosen = torch.randperm(NUM_CLASSES)[: self.settings.class_batch]
        length = CLASS_ROW_LENGTH * (0.5 + torch.rand(len(chosen), 1))
        features = (self.heads.feature_mean + length * self._classifier.weight[chosen]).clamp_min(0)
        logits = scale * self._see(features) @ self._read(self._captions.class_names[chosen]).T
        return _matching_loss(logits, torch.eye(len(chosen), dtype=torch.bool))

    def _see(self, features: torch.Tensor) -> torch.Tensor:
        return self.heads.embed_images(features, self._classifier(features), self.settings.feature_noise)

    def _read(self, embeddings: torch.Tensor) -> torch.Tensor:
        noisy = embeddings + self.settings.text_noise * torch.randn_like(embeddings)
        return self.heads.embed_texts(normalize(noisy, dim=-1))


def _matching_loss(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """InfoNCE with several positives a row, each with an equal share; rows without one do not count."""
    wanted = positives.any(dim=1)
    shares = positives[wanted] / positives[wanted].sum(dim=1, keepdim=True)
    return cross_entropy(logits[wanted], shares)


def calibrate(cosines: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Slope and offset of Platt's calibration, with right and wrong pairs weighing the same in all.

    Args:
        cosines, positives: (images, names); whether a name is right.
    """
    right, wrong = cosines[positives], cosines[~positives]
    values = torch.cat([right, wrong])
    targets = torch.cat([torch.ones_like(right), torch.zeros_like(wrong)])
    shares = torch.cat([torch.full_like(right, 0.5 / len(right)), torch.full_like(wrong, 0.5 / len(wrong))])
    calibration = torch.tensor([10.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([calibration], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = calibration[0] * values + calibration[1]
        loss = binary_cross_entropy_with_logits(logits, targets, shares, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return calibration.detach()


def score_unseen(views: Views, captions: Captions, objects: torch.Tensor, settings: Training) -> torch.Tensor:
    """(objects * VIEWS, names) cosines with all names; each object's by heads that were trained on other objects."""
    cosines = torch.empty(len(objects), VIEWS, captions.positives.shape[1])
    part = torch.arange(len(objects)) % FOLDS
    for fold in range(FOLDS):
        heads = HeadsTrainer(views, captions, objects[part != fold], settings).train()
        cosines[part == fold] = cosines_with_names(heads, views.features[objects[part == fold]], captions)
        logger.info("fold %d of %d", fold + 1, FOLDS)
    return cosines.flatten(0, 1)


def cosines_with_names(heads: LitHeads, features: torch.Tensor, captions: Captions) -> torch.Tensor:
    """(..., 1280) features to (..., names) cosines with the bare names."""
    classifier = load_network(torch.device("cpu")).classifier
    with torch.inference_mode():
        return heads.embed_images(features, classifier(features)) @ heads.embed_texts(captions.names[:, 0]).T


def train(views: Views, captions: Captions, objects: torch.Tensor, settings: Training) -> LitHeads:
    """Heads trained on `objects`, calibrated on how heads like them do on objects that they have not seen."""
    unseen = score_unseen(views, captions, objects, settings)
    heads = HeadsTrainer(views, captions, objects, settings).train()
    heads.calibration.copy_(calibrate(unseen, captions.positives[objects].repeat_interleave(VIEWS, dim=0)))
    return heads


def save_heads(heads: LitHeads, out: Path) -> None:
    """Write weights, in half precision, and sizes."""
    write_atomically(out / HEADS_NAME, save({name: tensor.half() for name, tensor in heads.state_dict().items()}))
    write_atomically(out / CONFIG_NAME, msgspec.json.format(msgspec.json.encode(heads.config)))


def main(
    tarballs: Annotated[Path, typer.Option(help="Folder with both tarballs of npm pack.")],
    out: Annotated[Path, typer.Option(help="Folder of the heads.")],
    cache: Annotated[Path, typer.Option(help="Folder of the features.")] = Path("runs/lit"),
    seed: Annotated[int, typer.Option(min=0, help="Of views and heads.")] = 0,
) -> None:
    """Train the heads and write them to `out`."""
    pictures = list(read_object_pictures(tarballs))
    views = load_views(pictures, cache, seed)
    captions = caption_objects(pictures, MiniLM())
    known = torch.tensor([number for number, picture in enumerate(pictures) if not is_held_out(picture.label)])
    heads = train(views, captions, known, Training(seed=seed))
    save_heads(heads, out)
    logger.info("heads for %d objects in %s; slope and offset %s", len(known), out, heads.calibration.tolist())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.run(main)
