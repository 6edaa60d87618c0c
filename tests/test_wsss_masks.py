"""From maps to masks: where a network looks, what a threshold does, how edges are followed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from maskwright.data.label_records import ClassMapHW, LabelledImage
from maskwright.data.records import ImageRecord, ImageRGB
from maskwright.errors import MissingDependencyError
from maskwright.evaluation.wsss_cams import cams_to_mask, find_cams, refine
from maskwright.evaluation.wsss_networks import LabelNetwork, SegmentationNetwork
from maskwright.evaluation.wsss_pseudo import THRESHOLDS, Cams, choose_thresholds

SIDE = 48


def _image(name: str, *labels: str) -> LabelledImage:
    return LabelledImage(image=ImageRecord(0, name, "/ü", SIDE, SIDE), labels=frozenset(labels))


def _square(top: int, left: int, side: int) -> ClassMapHW:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def _network(num_classes: int) -> LabelNetwork:
    """Answers by the brightness of the last stage's cells; weights are chance, but always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LabelNetwork(num_classes, pretrained=False).eval()


def test_cams_come_by_image_and_label_and_lie_between_0_and_1() -> None:
    images = [np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for seed in range(3)]
    found = list(find_cams(_network(4), images, [[2, 0], [], [3]]))
    assert [one.shape for one in found] == [(2, SIDE, SIDE), (0, SIDE, SIDE), (1, SIDE, SIDE)]
    assert all(one.dtype == np.float32 for one in found)
    for one in (found[0][0], found[0][1], found[2][0]):
        assert one.min() >= 0
        assert one.max() == pytest.approx(1, abs=1e-6)


def test_a_mirrored_picture_has_the_mirrored_map() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    [one], [other] = find_cams(_network(2), [picture, picture[:, ::-1].copy()], [[1], [1]])
    np.testing.assert_allclose(one, other[:, ::-1], atol=1e-4)


def test_maps_without_grad_cam_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(MissingDependencyError, match=r"maskwright\[wsss\]"):
        list(find_cams(_network(2), [np.zeros((SIDE, SIDE, 3), np.uint8)], [[0]]))


@pytest.mark.parametrize(
    ("values", "thresholds", "level"),
    [
        ((0.2, 0.1), (0.3, 0.3), 0),
        ((0.6, 0.4), (0.3, 0.3), 3),
        ((0.6, 0.4), (0.5, 0.1), 1),
    ],
    ids=["below both: background", "the higher map", "the one further above its own threshold"],
)
def test_a_pixel_goes_to_the_map_furthest_above_its_threshold(
    values: tuple[float, float], thresholds: tuple[float, float], level: int
) -> None:
    cams = np.stack([np.full((4, 6), value, np.float32) for value in values])
    assert (cams_to_mask(cams, [2, 0], thresholds) == level).all()


def test_an_image_without_labels_is_background() -> None:
    mask = cams_to_mask(np.zeros((0, 4, 6), np.float32), [], [])
    assert mask.shape == (4, 6)
    assert not mask.any()


def test_refining_follows_the_edges_of_the_picture() -> None:
    true = _square(12, 16, 16)
    picture = np.repeat((60 + 120 * true)[..., None], 3, axis=2).astype(np.uint8)
    blurred = np.clip(1.3 - np.hypot(*(np.indices((SIDE, SIDE)) - np.array([20, 24])[:, None, None])) / 12, 0, 1)
    cam = blurred[None].astype(np.float32)

    def overlap(image: ImageRGB | None) -> float:
        found = cams_to_mask(cam, [0], [0.3], image)
        return float((found & true).sum() / (found | true).sum())

    assert overlap(picture) > overlap(None) + 0.05


def test_refined_probabilities_sum_to_1_and_a_flat_picture_keeps_a_clear_answer() -> None:
    scores = np.stack([np.full((48, 64), 0.9, np.float32), np.full((48, 64), 0.1, np.float32)])
    refined = refine(scores, np.full((48, 64, 3), 90, np.uint8))
    assert refined.shape == (2, 48, 64)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
    assert (refined[0] > 0.9).all()


def test_each_class_gets_the_threshold_that_fits_its_own_masks() -> None:
    classes = ["wide", "narrow", "unseen"]
    flat = {name: np.full((SIDE, SIDE, 3), 90, np.uint8) for name in ("a", "b")}

    class Pictures:
        def __getitem__(self, image: LabelledImage) -> ImageRGB:
            return flat[image.key]

    distance = np.hypot(*(np.indices((SIDE, SIDE)) - SIDE / 2))
    cam = np.clip(1 - distance / 24, 0, 1)[None].astype(np.float32)
    cases: list[tuple[Cams, ClassMapHW]] = [
        ((_image("a", "wide"), [0], cam), (distance < 22).astype(np.uint8)),
        ((_image("b", "narrow"), [1], cam), 2 * (distance < 10).astype(np.uint8)),
    ]

    chosen = choose_thresholds(cases, classes, Pictures())  # type: ignore[arg-type]  # gives squares, as the cache does

    assert chosen["wide"] < chosen["narrow"]
    assert chosen["unseen"] in (chosen["wide"], chosen["narrow"])
    assert set(chosen.values()) <= set(THRESHOLDS)


def test_without_held_out_masks_there_is_still_a_threshold() -> None:
    assert set(choose_thresholds([], ["a", "b"], None)) == {"a", "b"}  # type: ignore[arg-type]  # nothing is read


@pytest.mark.parametrize(
    ("network", "shape"),
    [(LabelNetwork(3, pretrained=False), (2, 3)), (SegmentationNetwork(4, pretrained=False), (2, 4, 48, 64))],
    ids=["labels", "masks"],
)
def test_networks_take_pictures_that_are_not_square(network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with torch.inference_mode():
        assert network.eval()(torch.zeros(2, 3, 48, 64)).shape == shape
