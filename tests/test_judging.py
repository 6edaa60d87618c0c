"""Measures and limits: each number means what its name says, and the judge fails closed."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from maskwright.configs.judging import InstanceLimits
from maskwright.data.records import ImageRGBA
from maskwright.errors import EmptyMaskError
from maskwright.tools.judging.limits import LimitJudge, instance_bounds
from maskwright.tools.judging.measures import border_share, hash_distance, measure_instance, perceptual_hash

GOOD = {
    "area_px": 900.0,
    "largest_component": 1.0,
    "components": 1.0,
    "truncation": 0.0,
    "sharpness": 50.0,
    "contrast": 0.2,
    "source_difference": 0.1,
    "pool_distance_bits": 20.0,
}


def _sample(seed: int = 0) -> ImageRGBA:
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    rgba = np.full((48, 64, 4), 255, dtype=np.uint8)
    rgba[..., :3] = cv2.resize(pixels, (64, 48), interpolation=cv2.INTER_CUBIC)
    return rgba


def test_a_copy_does_not_differ_and_is_its_own_duplicate() -> None:
    sample = _sample()
    measures = measure_instance(sample, sample, [perceptual_hash(sample)])
    assert measures["source_difference"] == 0
    assert measures["pool_distance_bits"] == 0
    assert measures["area_px"] == 48 * 64
    assert measures["components"] == 1


def test_another_object_is_far_from_the_pool() -> None:
    measures = measure_instance(_sample(1), _sample(2), [perceptual_hash(_sample(seed)) for seed in (2, 3, 4)])
    assert measures["pool_distance_bits"] > 10
    assert measures["source_difference"] > 0.1


def test_blur_lowers_sharpness_and_grey_lowers_contrast() -> None:
    sample = _sample()
    blurred, flat = sample.copy(), sample.copy()
    blurred[..., :3] = cv2.GaussianBlur(sample[..., :3], (0, 0), 4)
    flat[..., :3] = 128
    plain = measure_instance(sample, sample, [])
    assert measure_instance(blurred, sample, [])["sharpness"] < plain["sharpness"] / 2
    assert measure_instance(flat, sample, [])["contrast"] == 0
    assert plain["pool_distance_bits"] == 64


def test_fragments_are_counted_and_dust_is_not() -> None:
    sample = _sample()
    sample[..., 3] = 0
    sample[4:24, 4:24, 3] = sample[30:40, 40:60, 3] = 255
    sample[45, 62, 3] = 255
    measures = measure_instance(sample, sample, [])
    assert measures["components"] == 2
    assert measures["largest_component"] == pytest.approx(400 / 601)


def test_an_invisible_sample_is_a_bad_sample() -> None:
    sample = _sample()
    sample[..., 3] = 127
    with pytest.raises(EmptyMaskError):
        measure_instance(sample, _sample(), [])


@pytest.mark.parametrize(
    ("box", "share", "sides"),
    [
        pytest.param((20, 10, 8, 6), 0.0, (), id="inside"),
        pytest.param((0, 10, 8, 6), 6 / 28, ("left",), id="left"),
        pytest.param((56, 40, 8, 8), 0.5, ("right", "bottom"), id="corner"),
    ],
)
def test_truncation_is_the_share_of_the_box_outline_that_the_border_cuts(
    box: tuple[int, int, int, int], share: float, sides: tuple[str, ...]
) -> None:
    x, y, w, h = box
    mask = np.zeros((48, 64), dtype=np.bool_)
    mask[y : y + h, x : x + w] = True
    assert border_share(box, mask) == (pytest.approx(share), sides)


def test_hash_distance_counts_bits_up_to_the_sign_bit() -> None:
    assert hash_distance(0b1011, [0b1111, 0b0000]) == 1
    assert hash_distance(2**64 - 1, [0]) == 64
    assert hash_distance(5, []) == 64


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        ("area_px", 10),
        ("largest_component", 0.2),
        ("components", 40),
        ("truncation", 0.99),
        ("sharpness", 0.1),
        ("contrast", 0.001),
        ("source_difference", 0.001),
        ("source_difference", 0.9),
        ("pool_distance_bits", 1),
        ("sharpness", math.nan),
    ],
)
def test_one_measure_out_of_bounds_rejects_and_is_named(measure: str, value: float) -> None:
    judge = LimitJudge(instance_bounds(InstanceLimits()))
    assert judge.judge(GOOD).accepted
    verdict = judge.judge({**GOOD, measure: value})
    assert not verdict.accepted
    assert [criterion.name for criterion in verdict.rejections] == [measure]
    assert measure in verdict.rejections[0].reason


def test_a_measure_that_is_missing_fails() -> None:
    judge = LimitJudge(instance_bounds(InstanceLimits()))
    assert not judge.judge({name: value for name, value in GOOD.items() if name != "contrast"}).accepted
    assert not judge.judge({}).accepted
