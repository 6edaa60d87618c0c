"""Metrics of anomaly detection, against scikit-learn, brute force and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label
from sklearn.metrics import average_precision_score, roc_auc_score

from maskwright.data.records import MaskHW
from maskwright.errors import ImageSizeError
from maskwright.evaluation.anomaly_metrics import PRO_FPR_LIMIT, AnomalyMeter, Detection, ScoresHW, detection

HEIGHT, WIDTH = 48, 64


def mask_of(*boxes: tuple[int, int, int, int]) -> MaskHW:
    """(48, 64) with rectangles (top, left, height, width)."""
    mask_hw = np.zeros((HEIGHT, WIDTH), np.bool_)
    for top, left, height, width in boxes:
        mask_hw[top : top + height, left : left + width] = True
    return mask_hw


def noisy_scores(mask_hw: MaskHW, rng: np.random.Generator) -> ScoresHW:
    """Log-odds of a deviation of 2, shifted by 2 on the defect; the sigmoid makes scores of them."""
    log_odds = rng.normal(0, 2, mask_hw.shape) + 2 * mask_hw
    return (1 / (1 + np.exp(-log_odds))).astype(np.float32)


def images(num: int) -> list[tuple[ScoresHW, MaskHW]]:
    rng = np.random.default_rng(5)
    masks = [mask_of() if i % 3 == 0 else mask_of((i, 2 * i, 8, 12), (36, 50, 3, 2)) for i in range(num)]
    return [(noisy_scores(mask_hw, rng), mask_hw) for mask_hw in masks]


def meter_of(pairs: list[tuple[ScoresHW, MaskHW]]) -> AnomalyMeter:
    meter = AnomalyMeter()
    for scores_hw, mask_hw in pairs:
        meter.add(scores_hw, mask_hw, float(scores_hw.max()))
    return meter


def brute_force_pro(pairs: list[tuple[ScoresHW, MaskHW]]) -> float:
    """Threshold by threshold, as the metric is defined."""
    scores = np.stack([one for one, _ in pairs])
    masks = np.stack([one for _, one in pairs])
    regions = [(i, label(mask, connectivity=2) == number) for i, mask in enumerate(masks)
               for number in range(1, int(label(mask, connectivity=2).max()) + 1)]  # fmt: skip
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores)[::-1]:
        fpr = float((scores[~masks] >= threshold).mean())
        points.append((fpr, float(np.mean([(scores[i][region] >= threshold).mean() for i, region in regions]))))
    fprs, overlaps = np.array(points).T
    grid = np.unique([*fprs[fprs <= PRO_FPR_LIMIT], PRO_FPR_LIMIT])
    return float(np.trapezoid(np.interp(grid, fprs, overlaps), grid)) / PRO_FPR_LIMIT


def test_streamed_pixels_are_measured_as_scikit_learn_measures_all_at_once() -> None:
    pairs = images(9)
    found = meter_of(pairs).measure()
    labels = np.concatenate([mask.ravel() for _, mask in pairs])
    scores = np.concatenate([one.ravel() for one, _ in pairs])
    assert found.pixel is not None
    assert found.pixel.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert found.pixel.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-4)
    best = max(_f1(labels, scores >= threshold) for threshold in np.quantile(scores, np.linspace(0, 1, 2000)))
    assert found.pixel.f1_max == pytest.approx(best, abs=2e-3)


def _f1(labels: MaskHW, called: MaskHW) -> float:
    return float(2 * (labels & called).sum() / (labels.sum() + called.sum()))


def test_pro_counts_regions_alike_whatever_their_area() -> None:
    pairs = images(3)
    # Coarse scores keep the brute force short.
    coarse = [((scores * 60).round().astype(np.float32) / 60, mask) for scores, mask in pairs]
    assert meter_of(coarse).measure().pro == pytest.approx(brute_force_pro(coarse), abs=1e-3)


def test_images_are_measured_exactly() -> None:
    meter = AnomalyMeter()
    truth = [False, True, True, False, True]
    scores = [0.1, 0.9, 0.3, 0.3000001, 0.3000002]
    for is_anomalous, score in zip(truth, scores, strict=True):
        meter.add(
            np.full((HEIGHT, WIDTH), 0.5, np.float32), mask_of((4, 4, 9, 9)) if is_anomalous else mask_of(), score
        )
    found = meter.measure()
    assert (found.num_images, found.num_anomalous) == (5, 3)
    assert found.image is not None
    assert found.image.auroc == pytest.approx(roc_auc_score(truth, scores))
    assert found.image.ap == pytest.approx(average_precision_score(truth, scores))


@pytest.mark.parametrize(
    ("low", "high", "auroc"),
    [
        pytest.param(0.0, 1.0, 1.0, id="certain and right"),
        pytest.param(1.0, 0.0, 0.0, id="certain and wrong"),
        pytest.param(0.9999, 0.99999, 1.0, id="near one"),
        pytest.param(1e-6, 1e-5, 1.0, id="near zero"),
        pytest.param(0.5, 0.5, 0.5, id="no idea"),
    ],
)
def test_saturated_networks_are_told_apart(low: float, high: float, auroc: float) -> None:
    mask_hw = mask_of((10, 20, 7, 11))
    meter = AnomalyMeter()
    meter.add(np.where(mask_hw, high, low).astype(np.float32), mask_hw, high)
    found = meter.measure()
    assert found.pixel is not None
    assert found.pixel.auroc == pytest.approx(auroc)
    assert found.pro is not None
    # No idea: the line from (0, 0) to (1, 1) encloses 0.3 / 2 of the part up to 0.3.
    assert found.pro == pytest.approx({1.0: 1.0, 0.0: 0.0, 0.5: 0.15}[auroc])


@pytest.mark.parametrize(
    "boxes", [pytest.param([], id="only good"), pytest.param([(0, 0, HEIGHT, WIDTH)], id="only defect")]
)
def test_one_class_alone_measures_nothing(boxes: list[tuple[int, int, int, int]]) -> None:
    meter = AnomalyMeter()
    meter.add(np.full((HEIGHT, WIDTH), 0.25, np.float32), mask_of(*boxes), 0.25)
    found = meter.measure()
    assert (found.image, found.pixel, found.pro) == (None, None, None)


def test_memory_does_not_grow_with_the_pixels() -> None:
    meter = meter_of(images(2))
    before = meter._normal.nbytes + meter._defect.nbytes + meter._regions.nbytes
    for scores_hw, mask_hw in images(9):
        meter.add(scores_hw, mask_hw, 0.5)
    assert meter._normal.nbytes + meter._defect.nbytes + meter._regions.nbytes == before


def test_weights_are_repetitions() -> None:
    labels, scores, weights = [False, True, True], [1.0, 1.0, 2.0], [3, 2, 4]
    repeated = [np.repeat(one, weights) for one in (labels, scores)]
    assert detection(labels, scores, weights) == detection(*repeated, np.ones(9, np.int64))  # type: ignore[arg-type]
    assert isinstance(detection(labels, scores, weights), Detection)


@pytest.mark.parametrize(
    ("scores", "image_score", "error"),
    [
        pytest.param(np.zeros((WIDTH, HEIGHT), np.float32), 0.5, ImageSizeError, id="turned"),
        pytest.param(np.full((HEIGHT, WIDTH), 1.5, np.float32), 0.5, ValueError, id="over one"),
        pytest.param(np.full((HEIGHT, WIDTH), np.nan, np.float32), 0.5, ValueError, id="not a number"),
        pytest.param(np.zeros((HEIGHT, WIDTH), np.float32), float("inf"), ValueError, id="infinite image score"),
    ],
)
def test_scores_that_are_none_are_refused(scores: ScoresHW, image_score: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        AnomalyMeter().add(scores, mask_of((1, 1, 5, 5)), image_score)
