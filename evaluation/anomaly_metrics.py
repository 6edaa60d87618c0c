"""How well anomalies are found: AUROC, average precision, F1-max by image and by pixel, and PRO.

Pixels are counted in bins of their scores as the images come, so the memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from ..data.records import MaskHW
from ..errors import ImageSizeError

ScoresHW = npt.NDArray[np.float32]
"""(H, W) float32 in [0, 1], 1 where a defect is certain."""
NUM_BINS = 2**16
LOG_ODDS_LIMIT = 17.0
"""Beyond it float32 knows no more numbers below 1."""
PRO_FPR_LIMIT = 0.3
"""Share of normal pixels, called defects, up to which PRO is integrated (Bergmann et al., CVPR 2019)."""


@dataclass(frozen=True, slots=True)
class Detection:
    """How well scores tell two classes apart, each in [0, 1]."""

    auroc: float
    ap: float
    """Average precision, without interpolation, as scikit-learn has it."""
    f1_max: float
    """At the threshold that suits the test images best."""


@dataclass(frozen=True, slots=True)
class AnomalyMetrics:
    """What was measured on some test images; None where they are all of one class."""

    num_images: int
    num_anomalous: int
    image: Detection | None
    pixel: Detection | None
    pro: float | None
    """Per-region overlap, integrated to a false positive rate of 0.3 and scaled to [0, 1]."""


@dataclass(slots=True)
class AnomalyMeter:
    """Takes test images one at a time.

    Pixels whose log-odds differ by less than 0.0005 count as tied; of the images' scores none do.
    """

    _normal: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    _defect: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    _regions: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(NUM_BINS))
    """Pixels of each region over its area, so that small ones count as much as large ones."""
    _num_regions: int = 0
    _image_scores: list[float] = field(default_factory=list)
    _is_anomalous: list[bool] = field(default_factory=list)

    def add(self, scores_hw: ScoresHW, mask_hw: MaskHW, image_score: float) -> None:
        """Count one test image; it is anomalous where its mask has a pixel.

        Args:
            scores_hw: (H, W) in [0, 1].
            mask_hw: (H, W) bool, the true defect; its regions are connected over edges and corners.
            image_score: any finite number, higher for defects.

        Raises:
            ImageSizeError: scores and mask are not of one size.
            ValueError: a score is out of its range, or not finite.
        """
        if scores_hw.shape != mask_hw.shape:
            raise ImageSizeError(f"scores of shape {scores_hw.shape!r}; expected {mask_hw.shape!r}, that of the mask")
        if not (np.isfinite(image_score) and scores_hw.min() >= 0 and scores_hw.max() <= 1):
            raise ValueError(
                f"pixel scores of {scores_hw.min()} to {scores_hw.max()}, image score {image_score!r}; "
                "expected pixels in [0, 1] and a finite image score. Has the network diverged?"
            )
        bins_hw = _to_bins(scores_hw)
        self._normal += np.bincount(bins_hw[~mask_hw], minlength=NUM_BINS)
        self._defect += np.bincount(bins_hw[mask_hw], minlength=NUM_BINS)
        num_labels, labels_hw = cv2.connectedComponents(mask_hw.astype(np.uint8), connectivity=8)
        areas = np.bincount(labels_hw.ravel(), minlength=num_labels)
        self._regions += np.bincount(bins_hw[mask_hw], 1 / areas[labels_hw[mask_hw]], minlength=NUM_BINS)
        self._num_regions += num_labels - 1
        self._image_scores.append(float(image_score))
        self._is_anomalous.append(bool(mask_hw.any()))

    def measure(self) -> AnomalyMetrics:
        """Of all images so far."""
        bins = np.arange(NUM_BINS)
        return AnomalyMetrics(
            num_images=len(self._is_anomalous),
            num_anomalous=sum(self._is_anomalous),
            image=detection(self._is_anomalous, self._image_scores, [1] * len(self._is_anomalous)),
            pixel=detection(
                np.repeat([False, True], NUM_BINS), np.tile(bins, 2), np.concatenate([self._normal, self._defect])
            ),
            pro=self._pro(),
        )

    def _pro(self) -> float | None:
        num_normal = int(self._normal.sum())
        if not (self._num_regions and num_normal):
            return None
        fpr, overlap = (
            np.concatenate([[0.0], np.cumsum(counts[::-1]) / total])
            for counts, total in ((self._normal, num_normal), (self._regions, self._num_regions))
        )
        inside = fpr <= PRO_FPR_LIMIT
        at_limit = np.interp(PRO_FPR_LIMIT, fpr, overlap)
        return float(auc([*fpr[inside], PRO_FPR_LIMIT], [*overlap[inside], at_limit]) / PRO_FPR_LIMIT)


def detection(
    is_anomalous: Sequence[bool] | npt.NDArray[np.bool_],
    scores: Sequence[float] | npt.NDArray[np.int64],
    weights: Sequence[int] | npt.NDArray[np.int64],
) -> Detection | None:
    """How well scores tell what is anomalous.

    Args:
        weights: how often each score occurs; what never does is left out.

    Returns:
        None where all are of one class.
    """
    occurs = np.asarray(weights) > 0
    labels, values, counts = (np.asarray(one)[occurs] for one in (is_anomalous, scores, weights))
    if len(np.unique(labels)) < 2:
        return None
    precision, recall, _ = precision_recall_curve(labels, values, sample_weight=counts)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return Detection(
        auroc=float(roc_auc_score(labels, values, sample_weight=counts)),
        ap=float(average_precision_score(labels, values, sample_weight=counts)),
        f1_max=float(f1.max()),
    )


def _to_bins(scores_hw: ScoresHW) -> npt.NDArray[np.int64]:
    """Even in log-odds: networks put most of their pixels next to 0 and 1."""
    scores = scores_hw.astype(np.float64)
    with np.errstate(divide="ignore"):
        log_odds = np.clip(np.log(scores) - np.log1p(-scores), -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT)
    share = (log_odds + LOG_ODDS_LIMIT) / (2 * LOG_ODDS_LIMIT)
    return np.asarray(np.minimum(share * NUM_BINS, NUM_BINS - 1), np.int64)
