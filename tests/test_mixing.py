"""Which synthetic images are mixed in, and the settings that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from arm_helpers import BOLT, NUT, Photo, Thing, write_dataset

from maskwright.configs.evaluation import MixingSettings
from maskwright.configs.recipe import load_recipe
from maskwright.data.records import Dataset
from maskwright.errors import RecipeError
from maskwright.evaluation.mixing import choose_real, choose_synthetic, repeat_real
from maskwright.evaluation.run_product import SyntheticImage

SCENES = [SyntheticImage(f"scene-{i}.jpg", i, {BOLT: 2} if i % 2 else {BOLT: 1, NUT: 1}) for i in range(20)]


def choose(seed: int = 0, **settings: float | int | None) -> list[str]:
    chosen = choose_synthetic(SCENES, 10, MixingSettings.model_validate(settings), seed=seed)
    return [one.file_name for one in chosen]


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 20), ({"ratio": 0.5}, 5), ({"ratio": 1}, 10), ({"ratio": 7}, 20), ({"ratio": 0.5, "max_per_class": 99}, 5)],
    ids=["all", "half", "as many", "more than there are", "with room"],
)
def test_the_ratio_counts_images_for_each_real_one(settings: Mapping[str, float], count: int) -> None:
    chosen = choose(**settings)
    assert len(chosen) == count
    assert chosen == [one.file_name for one in SCENES if one.file_name in chosen]


def test_a_higher_ratio_keeps_what_a_lower_one_chose() -> None:
    assert set(choose(ratio=0.3)) < set(choose(ratio=0.8)) < set(choose())
    assert choose(ratio=0.5) == choose(ratio=0.5)
    assert choose(ratio=0.5) != choose(ratio=0.5, seed=1)
    reversed_too = choose_synthetic(SCENES[::-1], 10, MixingSettings(ratio=0.5), seed=0)
    assert [one.file_name for one in reversed_too][::-1] == choose(ratio=0.5)


@pytest.mark.parametrize("most", [1, 2, 7, 30])
def test_no_class_gets_more_than_its_cap(most: int) -> None:
    names = choose(max_per_class=most)
    totals = sum((Counter(one.instances) for one in SCENES if one.file_name in names), Counter[int]())
    assert totals[BOLT] == min(most, 30)
    assert totals[NUT] <= most


def test_nothing_left_to_mix_in_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"ratio 0\.01, .* leaves none of 20 synthetic images beside 10 real"):
        choose(ratio=0.01)


@pytest.mark.parametrize(
    "override",
    [
        *("mixing.ratio=0", "mixing.max_per_class=0", "mixing.curriculum=1", "mixing.real_share=1"),
        *("seeds=0", "steps=0", "image_px=100"),
        *("batch=0", "split=train", "max_bits=65", "min_similarity=1.1", "model=''", "epochs=3"),
    ],
)
def test_settings_have_bounds(override: str) -> None:
    with pytest.raises(RecipeError, match=f"evaluation\\.{override.split('=')[0]}"):
        load_recipe("instances", [f"evaluation.{override}"])


@pytest.mark.parametrize("recipe", ["instances", "instada", "anomaly"])
def test_evaluation_is_no_part_of_a_run_s_fingerprint(recipe: str) -> None:
    changed = load_recipe(recipe, ["evaluation.steps=7", "evaluation.mixing.ratio=2"])
    assert changed.evaluation.mixing.ratio == 2
    assert changed.fingerprint("data") == load_recipe(recipe).fingerprint("data")


def test_backgrounds_are_bounded_by_the_images_that_show_something(tmp_path: Path) -> None:
    shown = [Photo(f"bild {number}.png", [Thing(BOLT, (4, 4, 10, 10))]) for number in range(4)]
    empty = [Photo(f"leer {number}.png") for number in range(9)]
    dataset = write_dataset(tmp_path, [*shown, *empty, Photo("val ü.png", split="val")])
    kept = {most: _names(choose_real(dataset, MixingSettings(backgrounds=most), seed=0)) for most in (0, 0.5, 1, 9)}
    assert [len(names) for names in kept.values()] == [5, 7, 9, 14]
    assert kept[0] < kept[0.5] < kept[1] < kept[9]
    assert kept[0] == {"val ü.png", *(one.name for one in shown)}
    assert choose_real(dataset, MixingSettings(), seed=0) is dataset
    assert kept[0.5] != _names(choose_real(dataset, MixingSettings(backgrounds=0.5), seed=1))


@pytest.mark.parametrize(
    ("real_share", "num_synthetic", "expected"),
    [
        pytest.param(None, 20, [], id="not set"),
        pytest.param(0.5, 8, [2, 2, 2, 2], id="as many as synthetic ones"),
        pytest.param(0.5, 10, [2, 2, 3, 3], id="what is left over goes to some"),
        pytest.param(0.75, 4, [3, 3, 3, 3], id="three of four"),
        pytest.param(0.2, 8, [], id="more by themselves"),
    ],
)
def test_real_images_come_more_than_once_a_pass(
    tmp_path: Path, real_share: float | None, num_synthetic: int, expected: list[int]
) -> None:
    shown = [Photo(f"bild {number}.png", [Thing(BOLT, (4, 4, 10, 10))]) for number in range(4)]
    others = [Photo("leer.png"), Photo("val ü.png", [Thing(BOLT, (4, 4, 10, 10))], split="val")]
    dataset = write_dataset(tmp_path, [*shown, *others])
    mixing = MixingSettings(real_share=real_share)
    times = repeat_real(dataset, mixing, num_synthetic, seed=0)
    assert sorted(times.values()) == expected
    assert times.keys() <= {one.name for one in shown}
    assert repeat_real(dataset, mixing, num_synthetic, seed=0) == times


def test_without_a_real_instance_nothing_comes_again(tmp_path: Path) -> None:
    shown = Photo("val ü.png", [Thing(BOLT, (4, 4, 10, 10))], split="val")
    dataset = write_dataset(tmp_path, [Photo("leer.png"), shown])
    assert repeat_real(dataset, MixingSettings(real_share=0.5), 8, seed=0) == {}


def _names(dataset: Dataset) -> set[str]:
    return {image.file_name for image in dataset.images}
