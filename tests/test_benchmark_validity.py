"""The benchmark of validity: every sample is what its label says, and the figures are counted as they are named."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from maskwright.data.records import ImageRGBA
from maskwright.learning.wholeness_data import HELD_OUT_CLASSES
from maskwright.tools.judging.measures import alpha_to_mask, measure_parts
from maskwright.tools.judging.painted import border_contact

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """`validity`, which imports its neighbours by their bare names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("validity")


@pytest.fixture(scope="module")
def making(bench: ModuleType) -> ModuleType:  # its import makes the neighbours importable
    return importlib.import_module("validity_samples")


def disc(seed: int = 0, height: int = 48, width: int = 64) -> ImageRGBA:
    """(48, 64, 4) uint8: coarse noise inside an ellipse."""
    rng = np.random.default_rng(seed)
    rgb = np.kron(rng.integers(20, 230, (height // 4, width // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.dstack([rgb, np.where(x**2 + y**2 < 1, 255, 0).astype(np.uint8)])


def spoil(making: ModuleType, kind: str, seed: int) -> ImageRGBA:
    """(96, 96, 4): a disc, spoilt; stock is another disc and a grey photograph."""
    other = making.Whole(disc(1), "cat", "painted")
    stock = making.Stock([other], ("cat", "cup"), [np.full((60, 80, 3), 127, np.uint8)])
    sample = making.make_sample(making.Whole(disc(), "cup", "photograph"), kind, np.random.default_rng(seed), stock)
    assert sample.rgba.shape == (96, 96, 4)
    assert sample.kind == kind
    assert sample.category == ("cat" if kind == "wrong class" else "cup")
    rgba: ImageRGBA = sample.rgba
    return rgba


@pytest.mark.parametrize("seed", range(4))
def test_valid_and_misnamed_samples_are_whole_and_inside_the_frame(making: ModuleType, seed: int) -> None:
    for kind in (making.VALID, "wrong class"):
        mask = alpha_to_mask(spoil(making, kind, seed))
        assert border_contact(mask) == 0
        assert measure_parts(mask)["components"] == 1
        height, width = (np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (1, 0))
        assert width / height == pytest.approx(64 / 48, rel=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_spoilt_samples_are_spoilt_as_their_label_says(making: ModuleType, seed: int) -> None:
    def mask(kind: str) -> np.ndarray:
        return alpha_to_mask(spoil(making, kind, seed))

    whole = spoil(making, making.VALID, seed)
    assert border_contact(mask("cut at the border")) > 0
    assert mask("empty").mean() < 0.02
    assert mask("opaque alpha").all()
    assert 0.25 < mask("fragments").sum() / alpha_to_mask(whole).sum() < 0.75
    grey = (spoil(making, "cluttered background", seed)[..., :3] == 127).all(axis=2)
    assert 0.2 < (grey & mask("cluttered background")).sum() / mask("cluttered background").sum() < 0.75
    blurred = spoil(making, "blurred", seed)
    inside = (blurred[..., 3] == 255) & (whole[..., 3] == 255)
    assert blurred[inside][:, :3].std() < 0.7 * whole[inside][:, :3].std()


def test_two_objects_are_two(making: ModuleType) -> None:
    for seed in range(6):
        mask = alpha_to_mask(spoil(making, "two objects", seed))
        height, width = (np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (1, 0))
        assert not 1.1 < width / height < 1.6


def test_pasting_beyond_the_frame_cuts(making: ModuleType) -> None:
    frame = making.empty_frame()
    making.paste(frame, np.full((10, 20, 4), 255, np.uint8), -5, 90)
    assert frame[..., 3].astype(bool).sum() == 15 * 6
    making.paste(frame, np.full((10, 20, 4), 255, np.uint8), 200, 0)
    assert frame[..., 3].astype(bool).sum() == 15 * 6


def samples_of(making: ModuleType, kinds: Sequence[str]) -> list[object]:
    return [making.Sample(disc(), "cup", kind, "painted") for kind in kinds]


def test_figures_count_what_they_name(bench: ModuleType, making: ModuleType) -> None:
    samples = samples_of(making, ["valid", "valid", "blurred", "blurred", "empty", "wrong class"])
    figures = bench.count(samples, [True, False, True, False, False, False])
    assert figures.before == pytest.approx(4 / 6)
    assert figures.after == figures.after_of["painted"] == figures.recall == figures.kept_of["painted"] == 0.5
    assert {kind: figures.caught[kind] for kind in ("blurred", "empty", "wrong class")} == {
        "blurred": 0.5,
        "empty": 1.0,
        "wrong class": 1.0,
    }


class OneName:
    """Knows one class and believes it of everything."""

    name = "one"

    def score(self, images: Sequence[ImageRGBA], texts: Sequence[str]) -> np.ndarray:
        return np.array([[0.9 if text == "cup" else 0.1 for text in texts] for _ in images], np.float32)

    def knows(self, category: str) -> bool:
        return category == "cup"


def test_the_judge_is_the_graphs_own(bench: ModuleType, making: ModuleType) -> None:
    kinds = (making.VALID, "wrong class", "empty", "opaque alpha")
    samples = [making.Sample(spoil(making, kind, 0), "cup", kind, "painted") for kind in kinds]
    samples[1] = making.Sample(samples[1].rgba, "cat", "wrong class", "painted")
    measured = bench.measure_samples(samples, OneName())
    verdicts = bench.judge_samples(measured, bench.JUDGES["default"])
    assert [verdict.accepted for verdict in verdicts] == [True, False, False, False]
    assert [one.name for one in verdicts[1].rejections] == ["image_text"]


def test_saved_samples_lie_by_class_and_label(bench: ModuleType, making: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "Prüfung"
    bench.save_samples(samples_of(making, ["valid", "two objects"]), folder)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png")) == [
        "cup/keep/0000-valid.png",
        "cup/reject/0001-two-objects.png",
    ]
    with pytest.raises(FileExistsError):
        bench.save_samples([], folder)


def test_limits_are_set_on_other_classes_than_they_are_reported_on(bench: ModuleType) -> None:
    assert not set(bench.REPORT_CLASSES) & set(bench.TUNING_CLASSES)
    assert len(bench.REPORT_CLASSES) == len(bench.TUNING_CLASSES) == 30


def test_the_quickstart_lends_whole_instances_only(bench: ModuleType) -> None:
    wholes = importlib.import_module("validity_wholes")
    found, photographs = wholes.read_quickstart(["coin", "cat", "saucer", "rocket"])
    assert {one.category for one in found} <= {"coin", "rocket"}
    assert sum(one.category == "coin" for one in found) == 24
    assert len(photographs) == 7


def test_the_judge_of_wholeness_never_saw_the_benchmarks_classes(bench: ModuleType) -> None:
    assert {*bench.REPORT_CLASSES, *bench.TUNING_CLASSES} == set(HELD_OUT_CLASSES)
