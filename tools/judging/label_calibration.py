"""How far a classifier's logits can be believed: folds that keep one object together, AUC, Platt's calibration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

LEAST_POSITIVES = 3
"""Images of a class below which its calibration is that of all classes together."""
_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """How well one class was learned. Out of fold: each image is seen by a head that did not learn from it."""

    train: int
    held_out: int
    """Images that show the class."""
    auc: float
    """Out of fold, train and held-out together; this one decides."""
    auc_error: float
    """Its standard error (Hanley & McNeil 1982)."""
    auc_held_out: float | None
    """Of the head that scores; too good where the held-out images show objects that train shows, too."""
    average_precision: float
    """Out of fold."""
    slope: float
    offset: float
    """Probability = sigmoid(slope * logit + offset), at the share of the real images."""
    shared: bool
    """Whether the calibration is that of all classes together, because the class has too few images."""
    brier: float
    calibration_error: float
    """Expected calibration error in ten bins; both out of fold, after calibration, at the share of the real images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelClassifierReport:
    """What is known of a trained classifier; kept beside its weights."""

    revision: str
    backbone: str
    images: tuple[int, int]
    """Train, held-out."""
    folds: int
    objects_apart: bool
    """Whether the folds kept photographs of one object together; else the figures may be too good."""
    classes: dict[str, ClassFigures]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def share_folds(shown: Bools, groups: Sequence[int], num_folds: int) -> npt.NDArray[np.int64]:
    """Share images out in folds, groups whole, so that each class is spread as evenly as it goes.

    Args:
        shown: (n, classes), True where an image shows a class.
        groups: of each image; those of one group stay together.

    Returns:
        (n,) fold of each image, 0 … num_folds - 1.
    """
    columns = np.column_stack([shown, np.ones(len(shown), dtype=np.bool_)])
    totals = columns.sum(axis=0)
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)

    def rarest(rows: list[int]) -> int:
        return min(np.flatnonzero(columns[rows].any(axis=0)).tolist(), key=lambda column: (totals[column], column))

    folds = np.zeros(len(shown), dtype=np.int64)
    filled = np.zeros((num_folds, columns.shape[1]), dtype=np.int64)
    order = sorted(members.values(), key=lambda rows: (totals[rarest(rows)], -len(rows), rows[0]))
    for rows in order:
        fold = int(np.lexsort((filled[:, -1], filled[:, rarest(rows)]))[0])
        filled[fold] += columns[rows].sum(axis=0)
        folds[rows] = fold
    return folds


def auc_within_folds(logits: Floats, shown: Bools, folds: npt.NDArray[np.int64]) -> float:
    """Of all pairs of a positive and a negative of one fold, the share that is in order; heads differ between folds.

    Returns:
        AUC in [0, 1]; 0.5 where no fold has both.
    """
    weights, areas = [], []
    for fold in np.unique(folds):
        own = folds == fold
        num = int(shown[own].sum())
        if 0 < num < own.sum():
            weights.append(num * (int(own.sum()) - num))
            areas.append(float(roc_auc_score(shown[own], logits[own])))
    return float(np.average(areas, weights=weights)) if areas else 0.5


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC (Hanley & McNeil, Radiology 143, 1982)."""
    if not positives or not negatives:
        return 0.5
    two_positives, two_negatives = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = (positives - 1) * (two_positives - auc**2) + (negatives - 1) * (two_negatives - auc**2)
    return float(np.sqrt(max(0.0, auc * (1 - auc) + spread) / (positives * negatives)))


def fit_platt(logits: Floats, shown: Bools) -> tuple[float, float]:
    """Slope and offset that make logits probabilities, with smoothed targets (Platt 1999).

    Args:
        logits: (n,).
        shown: (n,).

    Returns:
        Slope >= 0, so that a class's order is never turned round, and offset.
    """
    positives, negatives = int(shown.sum()), int((~shown).sum())
    targets = np.where(shown, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = float(logits.std()) or 1.0

    def loss(parameters: Floats) -> tuple[float, Floats]:
        scores = parameters[0] * logits / scale + parameters[1]
        error = expit(scores) - targets
        value = float((np.logaddexp(0, scores) - targets * scores).mean())
        return value, np.array([float((error * logits).mean()) / scale, float(error.mean())])

    start = np.array([1.0, np.log((positives + 1) / (negatives + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    return float(found.x[0]) / scale, float(found.x[1])


def calibrate(logits: Floats, shown: Bools) -> list[tuple[float, float, bool]]:
    """For each class slope, offset, and whether they are of all classes together.

    Args:
        logits: (n, classes), out of fold.
        shown: (n, classes).
    """
    shared = fit_platt(logits.ravel(), shown.ravel())
    return [
        (*fit_platt(own, there), False) if there.sum() >= LEAST_POSITIVES else (*shared, True)
        for own, there in zip(logits.T, shown.T, strict=True)
    ]


def prior_shift(shown: Bools, prior: float | None) -> float:
    """What to add to a class's calibrated logit where another share of the pictures shows it (Saerens et al. 2002).

    Args:
        shown: (n,), of the images that the calibration was fitted on.
        prior: the other share; None: the same.
    """
    if prior is None:
        return 0.0
    positives, negatives = int(shown.sum()), int((~shown).sum())
    return float(np.log(prior / (1 - prior)) - np.log((positives + 0.5) / (negatives + 0.5)))


def calibration_error(probabilities: Floats, shown: Bools) -> float:
    """Expected calibration error of one class, in ten bins of equal width."""
    bins = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    gaps = [abs(float((probabilities - shown)[bins == one].sum())) for one in np.unique(bins)]
    return sum(gaps) / max(1, len(shown))


def measure_class(
    logits: Floats, shown: Bools, folds: npt.NDArray[np.int64], calibration: tuple[float, float, bool], num_train: int
) -> ClassFigures:
    """Figures of one class from its out-of-fold logits; `auc_held_out` is left to the head that scores.

    Args:
        logits: (n,); the first `num_train` are of training images, the others of held-out ones.
    """
    slope, offset, shared = calibration
    probabilities = expit(slope * logits + offset)
    auc = auc_within_folds(logits, shown, folds)
    positives = int(shown.sum())
    return ClassFigures(
        train=int(shown[:num_train].sum()),
        held_out=int(shown[num_train:].sum()),
        auc=auc,
        auc_error=auc_error(auc, positives, len(shown) - positives),
        auc_held_out=None,
        average_precision=float(average_precision_score(shown, logits)),
        slope=slope,
        offset=offset,
        shared=shared,
        brier=float(np.square(probabilities - shown).mean()),
        calibration_error=calibration_error(probabilities, shown),
    )
