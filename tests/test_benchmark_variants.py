"""The benchmark of the I-Agent's filter: what it plants, and how it counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from maskwright.configs.judging import InstanceLimits
from maskwright.tools.judging.measures import measure_instance

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "variants.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_variants", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def cutout(seed: int = 0) -> np.ndarray:
    """(48, 64, 4) uint8: smooth noise inside an ellipse."""
    rng = np.random.default_rng(seed)
    rgb = np.kron(rng.integers(20, 230, (12, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    y, x = np.mgrid[-1:1:48j, -1:1:64j]
    return np.dstack([rgb, np.where(x**2 + y**2 < 1, 255, 0).astype(np.uint8)])


@pytest.mark.parametrize(
    ("kind", "size_hw", "is_equal"),
    [
        ("the source", (48, 64), True),
        ("flipped", (48, 64), False),
        ("recompressed", (48, 64), False),
        ("shifted", (48, 64), False),
        ("enlarged", (49, 66), False),
    ],
)
def test_copies_are_of_the_same_object(bench: ModuleType, kind: str, size_hw: tuple[int, int], is_equal: bool) -> None:
    source = cutout()
    before = source.copy()
    copy = bench.COPIES[kind](source)
    assert copy.shape[:2] == size_hw
    assert np.array_equal(copy, source) is is_equal
    assert np.array_equal(source, before)
    assert (copy[..., 3] > 127).mean() == pytest.approx((source[..., 3] > 127).mean(), abs=0.06)


def test_every_copy_is_planted(bench: ModuleType) -> None:
    assert set(bench.COPIES) == {"the source", "flipped", "recompressed", "shifted", "enlarged"}


def test_shift_moves_by_two_pixels(bench: ModuleType) -> None:
    source = cutout()
    assert np.array_equal(bench.shift(source)[2:, 2:], source[:-2, :-2])


@pytest.mark.parametrize(
    ("index", "same_class", "expected"),
    [(0, True, 2), (0, False, 1), (1, True, None), (1, False, 2), (2, True, 0), (2, False, 1)],
)
def test_stranger_is_the_next_of_its_kind(
    bench: ModuleType, index: int, same_class: bool, expected: int | None
) -> None:
    sources = [bench.Cutout(str(i), cutout(i), name, 0.0) for i, name in enumerate(("cup", "tie", "cup"))]
    found = bench.find_stranger(sources, index, same_class=same_class)
    assert found is (None if expected is None else sources[expected].rgba)


@pytest.mark.parametrize(
    ("likeness", "expected"),
    [(0.99, {"source_likeness over"}), (0.2, {"source_likeness under"}), (0.8, set())],
    ids=["copy", "stranger", "variant"],
)
def test_refusals_name_the_side(bench: ModuleType, likeness: float, expected: set[str]) -> None:
    measures = {**measure_instance(cutout(1), cutout(0), ()), "truncation": 0.0, "source_likeness": likeness}
    limits = InstanceLimits(min_source_likeness=0.4, max_source_likeness=0.97)
    assert bench.refusals(measures, limits) == expected
    assert bench.share_refused([measures, measures], limits) == float(bool(expected))


def test_the_source_itself_is_refused_as_a_copy(bench: ModuleType) -> None:
    measures = {**measure_instance(cutout(), cutout(), ()), "truncation": 0.0}
    assert bench.refusals(measures, InstanceLimits()) & bench.COPY_REASONS == {"source_difference under"}
