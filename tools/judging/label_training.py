"""Train the label agent's classifier on real images, once per data set, and refuse what cannot be learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from ...configs.label_agent import LabelClassifierSettings
from ...data.images import read_image
from ...data.label_records import LabelledImage
from ...data.siblings import find_siblings
from ...errors import DatasetError
from ..labels import is_unlearned
from .label_cache import digest_teaching, load_classifier, save_classifier
from .label_calibration import (
    Bools,
    ClassFigures,
    Floats,
    LabelClassifierReport,
    calibrate,
    measure_class,
    prior_shift,
    share_folds,
)
from .label_classifier import COMPONENTS, LabelHead, Packed, TrainedLabelClassifier, logits_of, pack
from .label_features import Backbone, Look, load_backbone

FOLDS = 3
MAX_COMPARED = 2000
"""Images up to which photographs of one object are looked for; the time grows with the square."""
_SCALE_IMAGES = 64
"""Whose places the scales and directions of features are taken from."""
_READ_AT_ONCE = 32
_BATCH = 48
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 0.1
_SEED = 0


def train_label_classifier(
    train: Sequence[LabelledImage],
    held_out: Sequence[LabelledImage],
    classes: Sequence[str],
    settings: LabelClassifierSettings,
    cache: Path,
    *,
    device: str = "cpu",
    on_steps: Callable[[int], None] = lambda _: None,
) -> TrainedLabelClassifier:
    """A classifier of these classes; from the cache where it was trained before.

    A head learns from `train`. Whether a class can be learned, and its calibration (Platt 1999), are told by other
    heads out of fold on `train` and `held_out` together, photographs of one object in one fold: a few held-out images
    alone tell nothing, and a head that has seen the object in another light tells too much. Probabilities are then
    moved to `settings.prior`: of what is painted for a class far more shows it than of photographs.

    Args:
        cache: gets one folder for each data set, classes, settings and backbone.
        on_steps: is told how many training steps were just done; nothing where the cache has the classifier.

    Raises:
        DatasetError: a class that fewer than two images show, or that cannot be learned: its AUC stays below
            `min_auc` by more than its standard error.
        ImageDecodeError: an image cannot be decoded.
        RecipeError, ModelNotFetchedError, BrokenRunError: as `load_backbone`.
    """
    _refuse_scarce(train, held_out, classes)
    backbone = load_backbone(settings.backbone, device)
    revision = digest_teaching(train, held_out, classes, settings, backbone)
    found = load_classifier(cache / revision)
    head, report = found or _Teacher(backbone, settings, tuple(classes), on_steps).teach(train, held_out, revision)
    _refuse_unlearned(report, settings.min_auc)
    if found is None:
        save_classifier(cache / revision, head, report)
    return TrainedLabelClassifier(
        name=f"labels on {backbone.name}",
        revision=revision,
        classes=tuple(classes),
        report=report,
        backbone=backbone,
        head=head.eval().requires_grad_(False),
        image_px=settings.image_px,
    )


@dataclass(frozen=True, slots=True)
class _Teacher:
    backbone: Backbone
    settings: LabelClassifierSettings
    classes: tuple[str, ...]
    on_steps: Callable[[int], None]

    def teach(
        self, train: Sequence[LabelledImage], held_out: Sequence[LabelledImage], revision: str
    ) -> tuple[LabelHead, LabelClassifierReport]:
        images = [*train, *held_out]
        shown: Bools = np.array([[name in one.labels for name in self.classes] for one in images])
        head = self._scaled_head(train)
        packed = pack(self._looks(images), head, torch.float16)
        _set_pooled_scale(head, packed.pooled[: len(train)])
        groups, apart = _find_groups(images, shown)
        folds = share_folds(shown, groups, FOLDS)
        out_of_fold = self._score_out_of_fold(head, packed, shown, folds)
        taught = torch.arange(len(train))
        self._fit(head, packed.take(taught), shown[: len(train)])
        own = logits_of(head, packed).numpy().astype(np.float64)
        figures = {
            name: replace(
                measure_class(out_of_fold[:, column], shown[:, column], folds, calibration, len(train)),
                auc_held_out=_auc(own[len(train) :, column], shown[len(train) :, column]),
            )
            for column, (name, calibration) in enumerate(zip(self.classes, calibrate(out_of_fold, shown), strict=True))
        }
        self._set_calibration(head, figures, shown)
        report = LabelClassifierReport(
            revision=revision,
            backbone=self.backbone.name,
            images=(len(train), len(held_out)),
            folds=FOLDS,
            objects_apart=apart,
            classes=figures,
        )
        return head, report

    def _looks(self, images: Sequence[LabelledImage]) -> Iterator[Look]:
        for start in range(0, len(images), _READ_AT_ONCE):
            pictures = [read_image(one.image) for one in images[start : start + _READ_AT_ONCE]]
            yield from self.backbone.look(pictures, self.settings.image_px)

    def _scaled_head(self, images: Sequence[LabelledImage]) -> LabelHead:
        """A head that knows the scales of what stands at places, and its main directions (PCA, whitened)."""
        ordered = sorted(images, key=lambda one: (sorted(one.labels), one.key))
        looks = list(self._looks(ordered[:: max(1, -(-len(ordered) // _SCALE_IMAGES))]))
        places = torch.cat([one.places for one in looks])
        head = LabelHead(places.shape[1], len(looks[0].pooled), len(self.classes))
        mean, std = places.mean(0), places.std(0, correction=0) + 1e-3
        scaled = ((places - mean) / std).double()
        variances, axes = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
        kept = min(COMPONENTS, len(variances))
        directions = torch.zeros(len(mean), COMPONENTS, dtype=torch.float64)
        directions[:, :kept] = (axes * (variances.clamp(min=0) + 1e-3).rsqrt()).flip(1)[:, :kept]
        scales = {"place_mean": mean, "place_std": std, "place_axes": directions.float()}
        head.load_state_dict(scales, strict=False)
        return head

    def _score_out_of_fold(
        self, head: LabelHead, packed: Packed, shown: Bools, folds: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> Floats:
        """(n, classes) logits of heads that did not learn from the image."""
        logits = np.zeros(shown.shape)
        for fold in range(FOLDS):
            learned, seen = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if len(learned) and len(seen):
                self._fit(head, packed.take(torch.from_numpy(learned)), shown[learned])
                logits[seen] = logits_of(head, packed.take(torch.from_numpy(seen))).numpy()
        return logits

    def _fit(self, head: LabelHead, packed: Packed, shown: Bools) -> None:
        """Train a head anew. Rare label sets are drawn more often, and rare classes weigh more: half of the way each
        to balance, because either alone repeats a handful of images or lets them drown."""
        generator = torch.Generator().manual_seed(_SEED)
        head.draw(generator)
        targets = torch.from_numpy(shown).float()
        counts = Counter(map(bytes, shown))
        chances = torch.tensor([counts[bytes(row)] ** -0.5 for row in shown])
        weight = ((1 - targets).sum(0) / targets.sum(0).clamp(min=1)).sqrt()
        optimizer = torch.optim.AdamW(head.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        steps = self.settings.steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=max(2, steps))
        for _ in range(steps):
            rows = torch.multinomial(chances, _BATCH, replacement=True, generator=generator)
            logits = head(packed.take(rows))
            loss = functional.binary_cross_entropy_with_logits(logits, targets[rows], pos_weight=weight)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            self.on_steps(1)

    def _set_calibration(self, head: LabelHead, figures: dict[str, ClassFigures], shown: Bools) -> None:
        found = [figures[name] for name in self.classes]
        shifts = [prior_shift(column, self.settings.prior) for column in shown.T]
        offsets = [one.offset + shift for one, shift in zip(found, shifts, strict=True)]
        calibration = {"slope": torch.tensor([one.slope for one in found]), "offset": torch.tensor(offsets)}
        head.load_state_dict(calibration, strict=False)


def _set_pooled_scale(head: LabelHead, pooled: torch.Tensor) -> None:
    """Of all images: maxima of a few have too small a deviation, and what they did not show would drown the rest."""
    scales = {"pooled_mean": pooled.mean(0), "pooled_std": pooled.std(0, correction=0) + 1e-3}
    head.load_state_dict(scales, strict=False)


def _find_groups(images: Sequence[LabelledImage], shown: Bools) -> tuple[Sequence[int], bool]:
    """Groups of photographs of one object, and True; each image its own and False where a class has one object only."""
    alone = range(len(images))
    if len(images) > MAX_COMPARED:
        return alone, False
    groups = np.array(find_siblings([one.image for one in images]))
    num_objects = [len(set(groups[column].tolist())) for column in shown.T]
    return (groups.tolist(), True) if min(num_objects) > 1 else (alone, False)


def _auc(logits: Floats, shown: Bools) -> float | None:
    return float(roc_auc_score(shown, logits)) if 0 < shown.sum() < len(shown) else None


def _refuse_scarce(train: Sequence[LabelledImage], held_out: Sequence[LabelledImage], classes: Sequence[str]) -> None:
    if not classes:
        raise DatasetError("no class to learn; expected one at least. Label some images.")
    taught = Counter(name for one in train for name in one.labels)
    known = taught + Counter(name for one in held_out for name in one.labels)
    num = len(train) + len(held_out)
    scarce = [f"{name!r} ({known[name]} of {num})" for name in classes if not taught[name] or known[name] < 2]
    if scarce:
        raise DatasetError(
            f"too few images to learn {', '.join(scarce)}; expected two of each class, one of them on the training "
            "side. Label more, or take the class out."
        )
    if full := [repr(name) for name in classes if known[name] == num]:
        raise DatasetError(
            f"every one of {num} images shows {', '.join(full)}; expected some without, or nothing tells a picture "
            "with it from one without. Add images of other classes or of none."
        )


def _refuse_unlearned(report: LabelClassifierReport, min_auc: float) -> None:
    weak = [
        f"{name!r} (AUC {one.auc:.2f} ± {one.auc_error:.2f}, {one.train + one.held_out} images)"
        for name, one in report.classes.items()
        if is_unlearned(one.auc, one.auc_error, min_auc)
    ]
    if weak:
        raise DatasetError(
            f"the classifier of the filter cannot learn {', '.join(weak)}; expected an AUC of {min_auc} on images that "
            "it has not seen. The filter would be noise: label more images of it, look whether its labels are right, "
            "or go without by `agents.label_agent.filter=false`."
        )
