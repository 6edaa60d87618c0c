"""Sides by AnomalyDiffusion's protocol, how they are recorded, and the guard that keeps test images out of learning."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anomaly_folders import picture, write_item, write_picture
from PIL import Image

from maskwright.data.anomaly_split_files import load_split, save_split
from maskwright.data.anomaly_splits import (
    AnomalySplit,
    LeakGuard,
    SplitShares,
    drop_test_copies,
    split_anomalies,
)
from maskwright.data.images import read_image
from maskwright.data.mvtec import load_anomalies
from maskwright.data.records import Findings
from maskwright.errors import DatasetError, LeakError

ITEM = "Rohr ü"
SHARES = SplitShares(validation=0.25, normal_validation=0.1, normal_test=0.3)


def split_of(item: Path, *, shares: SplitShares = SHARES, seed: int = 0) -> AnomalySplit:
    return split_anomalies(load_anomalies(item), ITEM, shares=shares, seed=seed)


def names(split: AnomalySplit, side: str, defect: str) -> list[str]:
    return [one.name for one in split.of(side, defect)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("num", "num_reference", "num_validation"),
    [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 1, 0), (5, 1, 0), (6, 1, 1), (12, 3, 1), (26, 6, 2)],
)
def test_the_first_third_is_for_reference(tmp_path: Path, num: int, num_reference: int, num_validation: int) -> None:
    split = split_of(write_item(tmp_path, defects={"Riß": num}))
    third = num // 3
    learned = names(split, "reference", "Riß") + names(split, "validation", "Riß")
    assert sorted(learned) == [f"{i:03d}" for i in range(third)]
    assert names(split, "test", "Riß") == [f"{i:03d}" for i in range(third, num)]
    assert (len(split.of("reference")), len(split.of("validation", "Riß"))) == (num_reference, num_validation)


@pytest.mark.parametrize(
    ("num_good", "num_test_good", "expected"),
    [
        pytest.param(10, 4, {"normal": 9, "validation": 1, "test": 4}, id="test/good is the test side's"),
        pytest.param(20, 0, {"normal": 13, "validation": 1, "test": 6}, id="without it a share is held out"),
        pytest.param(2, 0, {"normal": 1, "validation": 0, "test": 1}, id="two are one each"),
        pytest.param(1, 0, {"normal": 1, "validation": 0, "test": 0}, id="the only one is learned from"),
    ],
)
def test_good_images_are_shared_out(
    tmp_path: Path, num_good: int, num_test_good: int, expected: dict[str, int]
) -> None:
    split = split_of(write_item(tmp_path, num_good=num_good, num_test_good=num_test_good, defects={}))
    assert {side: len(split.sides[side]) for side in ("normal", "validation", "test")} == expected  # type: ignore[index]
    assert not split.of("reference")


def test_every_image_is_on_one_side_and_the_seed_decides_only_what_is_drawn(tmp_path: Path) -> None:
    item = write_item(tmp_path, num_good=20, defects={"Riß": 15, "Loch": 12})
    split, again, other = split_of(item), split_of(item), split_of(item, seed=1)
    keys = Counter(one.key for records in split.sides.values() for one in records)
    assert set(keys) == {one.key for one in load_anomalies(item).records}
    assert set(keys.values()) == {1}
    assert split == again
    assert split.of("test", "good") != other.of("test", "good")
    assert split.of("test", "Riß") == other.of("test", "Riß")


def test_nothing_is_held_out_at_share_zero(tmp_path: Path) -> None:
    none = SplitShares(validation=0, normal_validation=0, normal_test=0)
    split = split_of(write_item(tmp_path, defects={"Riß": 6}), shares=none)
    assert {side: len(records) for side, records in split.sides.items()} == {
        "normal": 4,
        "reference": 2,
        "validation": 0,
        "test": 4,
    }


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_is_below_one(share: float) -> None:
    with pytest.raises(ValueError, match="normal_test"):
        replace(SHARES, normal_test=share)


def test_a_recorded_split_reads_back(tmp_path: Path) -> None:
    item = write_item(tmp_path, defects={"Riß": 9})
    split, path = split_of(item), tmp_path / "out/split.json"
    save_split(split, path)
    assert load_split(path, load_anomalies(item)) == split
    content = json.loads(path.read_text())
    assert content["protocol"] == "AnomalyDiffusion"
    assert content["sides"]["test"][-1] == f"{ITEM}/test/Riß/008.png"


def _unknown_file(content: dict[str, object]) -> None:
    content["sides"] = {"test": [f"{ITEM}/test/Riß/999.png"]}


def _twice(content: dict[str, object]) -> None:
    content["sides"] = {"test": [f"{ITEM}/test/Riß/000.png"], "reference": [f"{ITEM}/test/Riß/000.png"]}


def _other_protocol(content: dict[str, object]) -> None:
    content["protocol"] = "Mine"


@pytest.mark.parametrize(
    ("change", "said"), [(_unknown_file, "999"), (_twice, "on two sides"), (_other_protocol, "not a recorded split")]
)
def test_a_split_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, object]], None], said: str
) -> None:
    item, path = write_item(tmp_path), tmp_path / "split.json"
    save_split(split_of(item), path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=said):
        load_split(path, load_anomalies(item))


def _same_bytes(source: Path, copy: Path) -> Path:
    copy.write_bytes(source.read_bytes())
    return copy


def _other_format(source: Path, copy: Path) -> Path:
    Image.open(source).save(copy.with_suffix(".bmp"))
    return copy.with_suffix(".bmp")


def _other_mode(source: Path, copy: Path) -> Path:
    Image.open(source).convert("RGBA").save(copy)
    return copy


def _turned_by_its_tag(source: Path, copy: Path) -> Path:
    exif = Image.Exif()
    exif[274] = 6
    Image.open(source).transpose(Image.Transpose.ROTATE_90).save(copy, exif=exif)
    return copy


@pytest.mark.parametrize("make_copy", [_same_bytes, _other_format, _other_mode, _turned_by_its_tag])
def test_the_guard_knows_copies(tmp_path: Path, make_copy: Callable[[Path, Path], Path]) -> None:
    split = split_of(write_item(tmp_path))
    guard, [tested, *_] = LeakGuard.of(split.of("test")), split.of("test", "Riß")
    copy = make_copy(tested.image_path, tmp_path / "Kopie ü.png")
    with pytest.raises(LeakError, match=r"Kopie ü.*test/Riß/000\.png.*would reach knowledge"):
        guard.check_files([copy], consumer="knowledge")
    assert not guard.checked


def test_the_guard_lets_the_other_sides_pass_and_counts_them(tmp_path: Path) -> None:
    split = split_of(write_item(tmp_path, defects={"Riß": 9}))
    guard = LeakGuard.of(split.of("test"))
    for side in ("normal", "reference", "validation"):
        assert guard.admit(split.of(side), consumer=side) == list(split.of(side))
    guard.check_pixels({"neu": picture(999)}, consumer="references")
    assert guard.checked == {"normal": 2, "reference": 2, "validation": 2, "references": 1}


def test_the_guard_refuses_test_records_and_pixels(tmp_path: Path) -> None:
    split = split_of(write_item(tmp_path))
    guard, tested = LeakGuard.of(split.of("test")), split.of("test", "Riß")
    with pytest.raises(LeakError, match="training"):
        guard.admit([*split.of("normal"), *tested], consumer="training")
    pixels = read_image(tested[0].image)
    with pytest.raises(LeakError, match="'as an array'"):
        guard.check_pixels({"as an array": pixels}, consumer="training")
    guard.check_pixels({"mirrored": np.flip(pixels, axis=1)}, consumer="training")


def test_the_guard_takes_the_frame_that_the_mask_was_drawn_in(tmp_path: Path) -> None:
    """A photograph with a half turn in its tag and a mask on its stored pixels is learned from as stored."""
    item = write_item(tmp_path)
    exif = Image.Exif()
    exif[274] = 3
    Image.fromarray(picture(7)).save(item / "test/Riß/000.png", exif=exif)
    split = split_of(item)
    guard = LeakGuard.of(split.of("test"))
    for frame in (picture(7), np.rot90(picture(7), 2)):
        with pytest.raises(LeakError, match="000"):
            guard.check_pixels({"learned": frame}, consumer="training")


def test_copies_within_a_data_set_stay_with_the_test(tmp_path: Path) -> None:
    item = write_item(tmp_path, num_good=6, num_test_good=1, defects={"Riß": 3})
    write_picture(item / "train/good/zwilling.png", read_image(load_anomalies(item, ITEM).records[-1].image))
    split = split_of(item, shares=replace(SHARES, normal_validation=0))
    guard, findings = LeakGuard.of(split.of("test")), Findings()
    cleaned = drop_test_copies(split, guard, findings)
    assert findings.examples == {"copy_of_test_image": [f"'{ITEM}/train/good/zwilling.png', taken from normal"]}
    assert len(cleaned.of("normal")) == len(split.of("normal")) - 1
    assert cleaned.of("test") == split.of("test")
    guard.admit(cleaned.of("normal"), consumer="training")
