"""Intersection over union: by hand, against torchmetrics, and where classes are absent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from maskwright.data.label_records import UNKNOWN_LEVEL
from maskwright.evaluation.wsss_metrics import SegmentationMeter, confusion_to_iou, count_pixels


def _maps(seed: int, num_levels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = rng.integers(0, num_levels, (48, 64), dtype=np.uint8)
    true = np.where(rng.uniform(size=found.shape) < 0.6, found, rng.integers(0, num_levels, found.shape))
    true = true.astype(np.uint8)
    true[:5] = UNKNOWN_LEVEL
    return found, true


@pytest.mark.parametrize("num_levels", [2, 6, 81], ids=["one class", "tiles", "coco"])
def test_it_counts_as_torchmetrics_does(num_levels: int) -> None:
    found, true = _maps(3, num_levels)
    pair = torch.from_numpy(found).long(), torch.from_numpy(true).long()
    options = {"num_classes": num_levels, "ignore_index": UNKNOWN_LEVEL}

    counts = count_pixels(found, true, num_levels)

    assert counts.tolist() == MulticlassConfusionMatrix(**options)(*pair).tolist()
    theirs = MulticlassJaccardIndex(**options, average=None)(*pair)
    np.testing.assert_allclose(confusion_to_iou(counts), theirs.numpy(), atol=1e-6)


def test_pixels_of_all_images_count_together_and_absent_classes_are_no_part_of_the_mean() -> None:
    meter = SegmentationMeter(["Riß", "chip"])
    true, found = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    true[0], found[0, :3] = 1, 1
    meter.add(found, true)
    meter.add(np.full((2, 6), 2, np.uint8), np.zeros((2, 6), np.uint8))

    figures = meter.measure()

    assert figures.num_images == 2
    assert figures.iou == {"background": 18 / (18 + 12 + 3), "Riß": 3 / 6, "chip": None}
    assert figures.absent == ("chip",)
    assert figures.mean_iou == pytest.approx((18 / 33 + 0.5) / 2)


@pytest.mark.parametrize(
    ("found", "true", "message"),
    [
        (np.zeros((4, 6), np.uint8), np.zeros((6, 4), np.uint8), "equal sizes"),
        (np.full((4, 6), 3, np.uint8), np.zeros((4, 6), np.uint8), "level 3; expected less than 3"),
        (np.zeros((4, 6), np.uint8), np.full((4, 6), 9, np.uint8), "level 9; expected less than 3"),
    ],
    ids=["height and width swapped", "found level unknown", "true level unknown"],
)
def test_maps_that_do_not_fit_are_refused(found: np.ndarray, true: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_pixels(found, true, 3)


def test_nothing_known_is_no_figure() -> None:
    meter = SegmentationMeter(["Riß"])
    meter.add(np.zeros((4, 6), np.uint8), np.full((4, 6), UNKNOWN_LEVEL, np.uint8))
    with pytest.raises(ValueError, match="no pixel with a known truth"):
        meter.measure()
