"""Photographs of one object are found whatever the light; others are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from anomaly_folders import write_item, write_picture

from maskwright.configs.data import DataSettings
from maskwright.configs.datasets import open_dataset
from maskwright.data.anomaly_groups import count_known
from maskwright.data.anomaly_records import AnomalyRecord
from maskwright.data.anomaly_splits import AnomalySplit, SplitShares, split_anomalies
from maskwright.data.mvtec import load_anomalies
from maskwright.data.records import ImageRGB
from maskwright.data.siblings import correlation, find_siblings, sketch
from maskwright.errors import RecipeError

SHARES = SplitShares(validation=0, normal_validation=0, normal_test=0.3)


def surface(seed: int) -> ImageRGB:
    """(48, 64, 3): a texture of its own for each seed."""
    rng = np.random.default_rng(seed)
    blurred = cv2.GaussianBlur(rng.normal(0, 1, (48, 64)).astype(np.float32), (0, 0), 2)
    grey = np.clip(120 + 60 * blurred / blurred.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def relit(rgb: ImageRGB) -> ImageRGB:
    """Half as bright, and darker to the right."""
    return np.rint(rgb * np.linspace(0.7, 0.3, rgb.shape[1])[None, :, None] + 4).astype(np.uint8)


def moved(rgb: ImageRGB) -> ImageRGB:
    return np.roll(rgb, (1, -2), axis=(0, 1))


def cropped(rgb: ImageRGB) -> ImageRGB:
    return np.ascontiguousarray(rgb[1:-1, 1:-2])


@pytest.mark.parametrize("change", [relit, moved, cropped], ids=lambda change: str(change.__name__))
def test_one_object_is_found_again(change: object) -> None:
    assert callable(change)
    own = surface(0)
    assert correlation(sketch(own), sketch(change(own))) > 0.6
    assert correlation(sketch(own), sketch(change(surface(1)))) < 0.4


def test_a_blank_picture_is_like_nothing() -> None:
    blank = np.full((48, 64, 3), 90, np.uint8)
    assert correlation(sketch(blank), sketch(blank)) == correlation(sketch(blank), sketch(surface(0))) == 0


def write_tiles(folder: Path) -> Path:
    """Six surfaces, each photographed thrice; names tell nothing of which is which."""
    item = write_item(folder, num_good=4, defects={"Riß": 18})
    for number in range(18):
        surface_rgb, light = surface(number % 6), (lambda rgb: rgb, relit, moved)[number // 6]
        write_picture(item / "test" / "Riß" / f"{number:03d}.png", light(surface_rgb))
    return item


def write_good(item: Path) -> None:
    """Good photographs of the six defective surfaces, and of ten others, twice each."""
    for number in range(16):
        for light, change in enumerate((relit, moved)):
            path = item / "train" / "good" / f"{light}{number:02d}.png"
            write_picture(path, change(surface(number if number < 6 else 100 + number)))


def split_of(item: Path, *, apart: bool, shares: SplitShares = SHARES) -> AnomalySplit:
    return split_anomalies(load_anomalies(item), item.name, shares=shares, seed=0, apart=apart)


def objects(records: tuple[AnomalyRecord, ...]) -> set[int]:
    return {int(one.name) % 6 for one in records if not one.is_good}


def test_groups_are_the_objects(tmp_path: Path) -> None:
    records = [one for one in load_anomalies(write_tiles(tmp_path)).records if not one.is_good]
    groups = find_siblings([one.image for one in records])
    assert groups == [int(one.name) % 6 for one in records]
    assert find_siblings([]) == []


def test_damaged_pictures_are_alone_and_stop_nothing(tmp_path: Path) -> None:
    item = write_tiles(tmp_path)
    for number in (0, 6):
        (item / "test" / "Riß" / f"{number:03d}.png").write_bytes(
            (item / "test" / "Riß" / f"{number:03d}.png").read_bytes()[:1500]
        )
    records = [one for one in load_anomalies(item).records if not one.is_good]
    groups = find_siblings([one.image for one in records])
    assert [sum(group == other for other in groups) for group in (groups[0], groups[6], groups[1])] == [1, 1, 3]
    assert len(split_of(item, apart=True).of("test", "Riß")) + len(split_of(item, apart=True).of("reference")) == 18


def test_the_protocol_lets_objects_stand_on_both_sides(tmp_path: Path) -> None:
    split = split_of(write_tiles(tmp_path), apart=False)
    assert len(split.of("reference")) == 6
    assert count_known(split.of("reference"), split.of("test")) == 12


def test_apart_an_object_is_on_one_side(tmp_path: Path) -> None:
    split = split_of(write_tiles(tmp_path), apart=True)
    assert (len(split.of("reference")), count_known(split.of("reference"), split.of("test"))) == (6, 0)
    assert not objects(split.of("reference")) & objects(split.of("test"))
    assert len(split.of("test", "Riß")) == 12


def test_good_images_go_where_their_object_is(tmp_path: Path) -> None:
    item = write_tiles(tmp_path)
    write_good(item)
    split = split_of(item, apart=True)
    tested = {int(one.name[1:]) for one in split.of("test", "good")}
    learned = {int(one.name[1:]) for one in split.of("normal")}
    assert tested
    assert not tested & learned
    assert not tested & objects(split.of("reference"))
    assert not learned & objects(split.of("test"))
    assert len(split.of("test", "good")) == 2 * len(tested)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_what_validates_is_kept_apart_too(tmp_path: Path, share: float) -> None:
    item = write_tiles(tmp_path)
    write_good(item)
    shares = SplitShares(validation=share, normal_validation=0.25, normal_test=0.3)
    split = split_of(item, apart=True, shares=shares)
    assert split.of("test") == split_of(item, apart=True).of("test")
    assert [len(split.of(side, "Riß")) for side in ("reference", "validation")] == [3, 3]
    validated, learned = (
        {int(one.name[1:]) for one in split.of(*side)} for side in (("validation", "good"), ("normal",))
    )
    assert not validated & learned
    assert objects(split.of("validation")) <= validated
    assert objects(split.of("reference")) <= learned
    assert len(validated) > 1


def test_a_recipe_can_keep_objects_apart(tmp_path: Path) -> None:
    item = write_tiles(tmp_path)
    dataset = open_dataset(DataSettings(path=str(item), apart=True))
    defective = [one for one in dataset.images if not one.file_name.startswith("good")]
    assert len(defective) == 18
    learned, tested = (
        {int(Path(one.file_name).stem[-3:]) % 6 for one in defective if (one.split == "test") == is_tested}
        for is_tested in (False, True)
    )
    assert not learned & tested


def test_other_formats_name_their_own_sides() -> None:
    with pytest.raises(RecipeError, match="format 'coco', which names its own sides"):
        open_dataset(DataSettings(path="somewhere.json", format="coco", apart=True))
