"""Choice of sources: spread over photographs and sizes, from the training split alone, given up when they fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from table_helpers import Rectangle, build_dataset

from maskwright.configs.image_agent import SourceSettings
from maskwright.configs.recipe import load_recipe
from maskwright.data.coco import load_coco
from maskwright.data.images import read_image
from maskwright.data.masks import segmentation_to_mask
from maskwright.data.records import Category, Dataset
from maskwright.data.splits import set_val_aside
from maskwright.errors import ImageDecodeError
from maskwright.graphs.pool import Pool
from maskwright.graphs.sources import DatasetSources, choose_source, rank_sources
from maskwright.graphs.work import plan_work
from maskwright.memory.entries import Ending, ItemResult, Source, no_cost

BOLT = Category(1, "bolt")


def _rank(rectangles: Sequence[Rectangle], splits: Sequence[str], **settings: int) -> list[int]:
    dataset = build_dataset([BOLT], splits, rectangles)
    return rank_sources(dataset, 1, SourceSettings(**{"min_area_px": 64, **settings}), min_area_px=1)


@pytest.mark.parametrize(
    ("rectangles", "expected"),
    [
        pytest.param(
            [Rectangle(1, 0, 100, 100), Rectangle(1, 0, 90, 90), Rectangle(1, 1, 80, 80), Rectangle(1, 2, 70, 70)],
            [0, 2, 3, 1],
            id="one of each photograph, then the second",
        ),
        pytest.param(
            [Rectangle(1, 0, 130, 130), Rectangle(1, 1, 140, 140), Rectangle(1, 2, 20, 20), Rectangle(1, 3, 40, 40)],
            [1, 3, 2, 0],
            id="one of each size, then the second",
        ),
        pytest.param(
            [Rectangle(1, 0, 100, 100), Rectangle(1, 0, 90, 90), Rectangle(1, 0, 20, 20)],
            [0, 2, 1],
            id="sizes alternate inside a photograph",
        ),
        pytest.param([Rectangle(1, 0, 30, 30), Rectangle(1, 0, 30, 30)], [0, 1], id="equals keep their order"),
    ],
)
def test_neighbours_differ_in_photograph_and_size(rectangles: list[Rectangle], expected: list[int]) -> None:
    assert _rank(rectangles, ["train"] * 4) == expected


def test_truncated_and_small_sources_wait_for_the_better_ones() -> None:
    whole, cut, small = Rectangle(1, 0, 40, 40), Rectangle(1, 1, 200, 200, x=0), Rectangle(1, 2, 5, 5)
    assert _rank([small, cut, whole], ["train"] * 3) == [2, 1, 0]
    assert _rank([small, cut, whole], ["train"] * 3, min_per_class=1) == [2]


def test_many_sources_are_each_ranked_once_and_spread() -> None:
    rng = np.random.default_rng(3)
    sides = rng.integers(10, 300, 20_000).tolist()
    photographs = rng.integers(0, 500, 20_000).tolist()
    rectangles = [Rectangle(1, at, side, side) for at, side in zip(photographs, sides, strict=True)]
    ranked = _rank(rectangles, ["train"] * 500)
    assert sorted(ranked) == list(range(20_000))
    assert {photographs[row] for row in ranked[:500]} == set(range(500))
    assert all(photographs[a] != photographs[b] for a, b in pairwise(ranked[:15_000]))


@pytest.mark.parametrize(
    ("retired", "slot", "chosen"),
    [
        pytest.param(set(), 5, 20, id="planned"),
        pytest.param({10, 30}, 0, 20, id="others are retired"),
        pytest.param({20}, 0, 30, id="the next living one"),
        pytest.param({20, 30}, 0, 40, id="past another retired one"),
        pytest.param({20}, 1, 40, id="the next slot goes further"),
        pytest.param({20}, 3, 30, id="slots go round"),
        pytest.param({10, 20, 30, 40}, 0, None, id="none is left"),
    ],
)
def test_a_retired_source_is_replaced(retired: set[int], slot: int, chosen: int | None) -> None:
    assert choose_source(20, (10, 20, 30, 40), retired, slot) == chosen


def _result(row: int, ending: Ending, *, used: int | None = None, unreadable: str = "") -> ItemResult:
    """An item planned for a row, which started from `used` where that is given."""
    source: Source | None = {
        "artifact": "a",
        "file_name": "bild ü.png",
        "annotation_id": 1,
        "licence": "",
        "truncation": 0.0,
        "truncated_sides": [],
        "side_ratio": 0.1,
    }
    if source is not None and used is not None:
        source["row"] = used
    instance = {"instance_id": "i", "artifact": "a", "phash": "0", "truncated_sides": [], "round": 1, "index": 0}
    return {
        "item": {
            "item_id": "i",
            "agent": "image_agent",
            "category_id": 1,
            "category": "bolt",
            "source_row": row,
            "slot": 0,
        },
        "ending": ending,
        "reason": "",
        "source": None if unreadable else source,
        "unreadable_image": unreadable,
        "painter": {},
        "attempts": [],
        "instances": [instance] if ending == "accepted" else [],  # type: ignore[list-item]
        "rounds": [],
        "cost": no_cost(),
        "seconds": 0.0,
    }


@pytest.mark.parametrize(
    ("results", "retired"),
    [
        pytest.param([_result(5, "exhausted")], set(), id="once"),
        pytest.param([_result(5, "exhausted")] * 2, {5}, id="twice"),
        pytest.param(
            [_result(5, "exhausted"), _result(5, "accepted"), _result(5, "exhausted")], set(), id="accepted in between"
        ),
        pytest.param([_result(5, "exhausted"), _result(5, "failed"), _result(5, "held")], set(), id="no verdict"),
        pytest.param([_result(5, "exhausted"), _result(6, "exhausted")], set(), id="two sources"),
        pytest.param([_result(5, "exhausted", used=9)] * 2, {9}, id="the substitute, not the planned one"),
        pytest.param([_result(5, "exhausted", unreadable="bild ü.png")], {5}, id="photograph does not decode"),
        pytest.param([_result(-1, "exhausted")] * 3, set(), id="from words"),
    ],
)
def test_the_pool_retires_what_keeps_failing(results: list[ItemResult], retired: set[int]) -> None:
    pool = Pool()
    for result in results:
        pool.add(result)
    assert pool.retired(1, 2) == retired
    assert pool.retired(2, 1) == frozenset()


def _load(folder: Path) -> Dataset:
    return load_coco({"train": folder / "annotations/instances_train.json"}, {"train": folder / "images/train"})


def _plan_splits(dataset: Dataset) -> set[str]:
    work = plan_work(dataset, load_recipe("instances", ["plan.at_least=30"]), lambda _: True)
    rows = [row for rows in work.sources.values() for row in rows]
    assert {item["source_row"] for item in work.items} == set(rows)
    return {dataset.images[int(dataset.annotations.image_index[row])].split for row in rows}


def test_sources_come_from_train_alone(photographs: Path) -> None:
    dataset = set_val_aside(_load(photographs), 0.4)
    assert set(dataset.splits) == {"train", "val"}
    assert _plan_splits(dataset) == {"train"}
    images = [replace(image, split="test") for image in dataset.images[:3]]
    assert _plan_splits(replace(dataset, images=[*images, *_load(photographs).images[3:]])) == {"train"}


def test_a_photograph_that_two_splits_list_stays_in_the_first(photographs: Path) -> None:
    annotations, folder = photographs / "annotations/instances_train.json", photographs / "images/train"
    dataset = load_coco({"train": annotations, "val": annotations}, {"train": folder, "val": folder})
    assert dataset.splits == ("train",)
    assert dataset.findings.counts["val_shares_train_images"] == len(dataset.images) == 6
    assert len(dataset.annotations) == 14
    assert "bild 1 ü.png" in dataset.findings.examples["val_shares_train_images"][0]


@pytest.mark.parametrize(
    ("row", "padding_ratio", "frame"),
    [
        pytest.param(0, 0.0, (10, 29, 4, 16), id="bare"),
        pytest.param(0, 0.5, (0, 39, 0, 26), id="clipped at the border"),
        pytest.param(1, 0.25, (5, 34, 21, 43), id="in the middle"),
        pytest.param(0, 9.0, (0, 48, 0, 64), id="the whole photograph"),
    ],
)
def test_a_view_shows_the_source_in_its_surroundings(
    row: int, padding_ratio: float, frame: tuple[int, int, int, int], photographs: Path
) -> None:
    dataset = _load(photographs)
    top, bottom, left, right = frame
    view = DatasetSources(dataset).view(row, padding_ratio)
    mask = segmentation_to_mask(dataset.annotations[row].segmentation, 48, 64)
    assert np.array_equal(view.rgb, read_image(dataset.images[0])[top:bottom, left:right])
    assert np.array_equal(view.mask_hw, mask[top:bottom, left:right])
    assert view.mask_hw.sum() == mask.sum()


def test_a_view_of_a_damaged_photograph_says_which(photographs: Path) -> None:
    dataset = _load(photographs)
    path = photographs / "images/train/bild 1 ü.png"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ImageDecodeError, match=r"bild 1 ü\.png"):
        DatasetSources(dataset).view(0, 0.25)
