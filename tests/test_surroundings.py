"""A pasted instance in the light of its new surroundings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from arm_helpers import BOLT, Photo, Thing, write_dataset
from run_helpers import QUICK

from maskwright.configs.compose import ComposeSettings
from maskwright.data.export import save_dataset
from maskwright.data.load import load_dataset
from maskwright.data.records import Findings
from maskwright.graphs.pipeline import run_recipe
from maskwright.tools.composing.harmonization import HardPaste
from maskwright.tools.composing.placement import UNKNOWN_SIDE, SizeStatistics
from maskwright.tools.composing.scene import CutOut, compose_scene
from maskwright.tools.composing.surroundings import MAX_GAIN, mean_around, relight

HW = (40, 60)


def test_the_mean_is_of_the_ring_alone() -> None:
    image = np.full((*HW, 3), (10, 20, 30), np.uint8)
    mask = np.zeros(HW, bool)
    mask[10:20, 30:36] = True
    image[mask] = 250
    image[:, :15] = 200  # beyond the ring
    assert mean_around(image, mask) == pytest.approx((10, 20, 30))
    mask[:10] = True  # at the border, with a hole
    mask[5:8, 5:8] = False
    assert mean_around(image, mask) is not None


@pytest.mark.parametrize("value", [True, False], ids=["no ring", "no mask"])
def test_nothing_is_around(value: bool) -> None:
    assert mean_around(np.zeros((*HW, 3), np.uint8), np.full(HW, value)) is None


def test_contrast_stays_and_gain_is_bounded() -> None:
    mark = np.dstack([np.full((4, 6, 3), (60, 30, 90), np.uint8), np.full((4, 6), 77, np.uint8)])
    lit = relight(mark, (119, 119, 119), (59, 119, 239))
    assert lit[0, 0].tolist() == [30, 30, 180, 77]
    assert relight(mark, (0, 0, 0), (200, 200, 200))[0, 0, :3].tolist() == [240, 30 * MAX_GAIN, 255]


@pytest.mark.parametrize(("light", "level"), [("own", 60), ("surroundings", 90)])
def test_a_mark_keeps_its_contrast_in_a_scene(light: str, level: int) -> None:
    mark = np.dstack([np.full((12, 10, 3), 60, np.uint8), np.full((12, 10), 255, np.uint8)])
    cutout = CutOut("a", 1, mark, (), 0.2, (119.0, 119.0, 119.0))
    settings = ComposeSettings(light=light, size="source")  # type: ignore[arg-type]
    background = np.full((*HW, 3), 179, np.uint8)
    rng = np.random.default_rng(0)
    scene = compose_scene(background, (), [cutout], SizeStatistics({}, UNKNOWN_SIDE), settings, HardPaste(), rng)
    assert set(np.unique(scene.image_rgb)) == {level, 179}


def test_the_recipe_surface_knows_what_was_around_its_sources(tmp_path: Path) -> None:
    photos = [Photo(f"fläche {number}.png", [Thing(BOLT, (20, 10, 6, 9))], noise=True) for number in range(4)]
    save_dataset(write_dataset(tmp_path / "b", photos), tmp_path / "d", "coco", findings=Findings())
    outcome = run_recipe("surface", data=tmp_path / "d", out=tmp_path / "lauf", overrides=QUICK)
    assert outcome.exit_code == 0
    entries = [path.read_bytes() for path in (tmp_path / "lauf/items").rglob("*") if path.is_file()]
    assert all(b'"surround_rgb":[' in entry for entry in entries)
    assert entries
    assert len(load_dataset(tmp_path / "lauf/dataset/coco").images) > 4
