"""Sides of labelled images: what is drawn, what is recorded, and that nothing measured is learned."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from anomaly_folders import picture, write_item, write_picture
from label_folders import write_class_folders, write_pictures, write_text

from maskwright.data.anomaly_splits import LeakGuard
from maskwright.data.images import read_image
from maskwright.data.label_draw import draw_stratified
from maskwright.data.label_records import LabelDataset, LabelledImage, LabelSplit, count_labels
from maskwright.data.label_sources import load_labels
from maskwright.data.label_splits import (
    drop_label_copies,
    keep_decodable,
    load_label_split,
    save_label_split,
    split_labels,
)
from maskwright.data.records import Findings, ImageRecord
from maskwright.errors import DatasetError, LeakError


def split_of(dataset: LabelDataset, *, held_out: float = 0.25, test: float = 0.3, seed: int = 0) -> LabelSplit:
    return split_labels(dataset, held_out=held_out, test=test, seed=seed)


def images_of(*labels: str) -> list[LabelledImage]:
    """One image for each text, whose words are its labels."""
    return [
        LabelledImage(image=ImageRecord(i, f"{i:04d}.png", "/nowhere", 64, 48), labels=frozenset(text.split()))
        for i, text in enumerate(labels)
    ]


@pytest.mark.parametrize("salt", [str(i) for i in range(12)])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(
    "labels",
    [
        ["a", "a", "", ""],
        ["a"] * 20 + ["b", "b"],
        ["a b", "a", "b", "a c", "c", "d"],
        ["a b c", "a b c", "a"],
        [*"ab" * 5, "a b", "c a", "c b", ""],
    ],
)
def test_each_class_of_two_images_is_on_both_sides(labels: list[str], share: float, salt: str) -> None:
    images = images_of(*labels)
    drawn, left = draw_stratified(images, share, salt)
    assert sorted([*drawn, *left], key=lambda one: one.key) == images
    total = Counter(label for one in images for label in one.labels or {""})
    sides = [Counter(label for one in side for label in one.labels or {""}) for side in (drawn, left)]
    assert all(side[name] for name, num in total.items() if num > 1 for side in sides)


def test_a_class_is_kept_before_it_is_drawn() -> None:
    """Three classes, each on two of three images, cannot all be on both sides."""
    for salt in map(str, range(12)):
        _, left = draw_stratified(images_of("a b", "b c", "a c"), 0.9, salt)
        assert {label for one in left for label in one.labels} == {"a", "b", "c"}


def test_a_share_is_about_as_large_as_asked_and_an_image_keeps_its_side() -> None:
    images = images_of(*["a", "b", "a b", ""] * 250)
    drawn, _ = draw_stratified(images, 0.3, "x")
    assert 260 < len(drawn) < 340
    fewer, _ = draw_stratified(images[:900], 0.3, "x")
    assert fewer == [one for one in drawn if one in images[:900]]
    assert draw_stratified(images, 0, "x") == ([], images)
    assert draw_stratified(images, 0.3, "y")[0] != drawn


@pytest.mark.parametrize(
    ("counts", "test", "expected"),
    [
        ({"train/a": 8, "val/a": 3}, 0.5, 3),
        ({"train/a": 8, "test/a": 2, "val/a": 3}, 0.5, 5),
        ({"a": 8}, 0.0, 0),
    ],
    ids=["val is test", "val and test are test", "none"],
)
def test_what_the_data_set_sets_aside_measures(
    tmp_path: Path, counts: dict[str, int], test: float, expected: int
) -> None:
    split = split_of(load_labels(write_class_folders(tmp_path, counts)), test=test)
    assert len(split.of("test")) == expected
    assert len(split.of("train")) + len(split.of("held_out")) == 8
    assert split.of("held_out")


def test_sides_are_disjoint_and_follow_from_seed_and_names(tmp_path: Path) -> None:
    dataset = load_labels(write_class_folders(tmp_path, {"Riß": 9, "Loch": 6, "good": 10}))
    split, again, other = split_of(dataset), split_of(dataset), split_of(dataset, seed=1)
    assert split == again
    assert split.of("test") != other.of("test")
    keys = [one.key for images in split.sides.values() for one in images]
    assert sorted(keys) == [one.key for one in dataset.images]
    for side in ("train", "held_out", "test"):
        assert min(count_labels(split.sides[side], dataset.classes).values()) > 0
        assert any(not one.labels for one in split.sides[side])


def test_an_item_is_shared_out_as_anomalies_are(tmp_path: Path) -> None:
    """The first third by name is learned from, and a quarter of it held out."""
    item = write_item(tmp_path, num_good=10, num_test_good=2, defects={"Riß": 15, "Loch": 6})
    split = split_of(load_labels(item))
    counts = {side: count_labels(split.sides[side], ("Riß", "Loch")) for side in ("train", "held_out", "test")}
    assert counts == {
        "train": {"Riß": 4, "Loch": 1},
        "held_out": {"Riß": 1, "Loch": 1},
        "test": {"Riß": 10, "Loch": 4},
    }
    learned = [one.path.name for side in ("train", "held_out") for one in split.sides[side] if one.labels == {"Riß"}]
    assert sorted(learned) == [f"{i:03d}.png" for i in range(5)]
    good = {side: sum(not one.labels for one in split.sides[side]) for side in ("train", "held_out", "test")}
    assert good == {"train": 8, "held_out": 2, "test": 2}


def test_apart_is_for_items_only(tmp_path: Path) -> None:
    dataset = load_labels(write_class_folders(tmp_path / "data", {"a": 4}))
    with pytest.raises(DatasetError, match="is of format folders"):
        split_labels(dataset, held_out=0.2, test=0.2, seed=0, apart=True)
    item = load_labels(write_item(tmp_path, defects={"Riß": 6}))
    assert split_labels(item, held_out=0.2, test=0.2, seed=0, apart=True).apart


@pytest.mark.parametrize(("held_out", "test"), [(-0.1, 0.0), (0.0, 1.0)])
def test_a_share_is_below_one(tmp_path: Path, held_out: float, test: float) -> None:
    dataset = load_labels(write_class_folders(tmp_path, {"a": 4}))
    with pytest.raises(ValueError, match="expected each in"):
        split_of(dataset, held_out=held_out, test=test)


def test_classes_that_nobody_can_learn_are_named(tmp_path: Path) -> None:
    dataset = load_labels(write_class_folders(tmp_path / "a", {"train/a": 2, "val/b": 1}))
    split_of(dataset)
    assert dataset.findings.examples["class_not_in_train"] == ["'b' has images on other sides only; add some"]
    only_tested = load_labels(write_class_folders(tmp_path / "b", {"train/good": 2, "val/b": 1}))
    with pytest.raises(DatasetError, match="no labelled image is left to learn from"):
        split_of(only_tested, held_out=0)


@pytest.mark.parametrize("make", ["item", "folders"])
def test_a_recorded_split_reads_back(tmp_path: Path, make: str) -> None:
    root = (
        write_item(tmp_path, defects={"Riß": 6})
        if make == "item"
        else write_class_folders(tmp_path / "ü", {"a": 5, "good": 4})
    )
    dataset, path = load_labels(root), tmp_path / "out" / "split.json"
    split = split_of(dataset)
    save_label_split(split, dataset, path)
    assert load_label_split(path, load_labels(root)) == split
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["sides"]["test"] == [one.key for one in split.of("test")]
    assert len(content["digests"]["train"]) == 64


def _unknown_image(content: dict[str, dict[str, list[str]]]) -> None:
    content["sides"]["test"].append("a/999.png")


def _on_two_sides(content: dict[str, dict[str, list[str]]]) -> None:
    content["sides"]["test"].append(content["sides"]["train"][0])


def _other_digest(content: dict[str, dict[str, object]]) -> None:
    content["digests"]["train"] = "0" * 64


def _other_protocol(content: dict[str, object]) -> None:
    content["protocol"] = "AnomalyDiffusion"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_unknown_image, "999.*on two sides, or not in it"),
        (_on_two_sides, "on two sides"),
        (_other_digest, "sizes or labels of its side 'train' are others"),
        (_other_protocol, "not a recorded split of labels"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(tmp_path: Path, change: Callable[..., None], said: str) -> None:
    dataset = load_labels(write_class_folders(tmp_path / "data", {"a": 5, "good": 4}))
    path = tmp_path / "split.json"
    save_label_split(split_of(dataset), dataset, path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=said):
        load_label_split(path, dataset)


def test_the_split_of_other_labels_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    write_pictures(tmp_path, [f"{i}.png" for i in range(4)])
    write_text(table, "file,labels\n0.png,x\n1.png,x\n2.png,y\n3.png,y\n")
    dataset, path = load_labels(table), tmp_path / "split.json"
    save_label_split(split_of(dataset), dataset, path)
    write_text(table, "file,labels\n0.png,x\n1.png,x y\n2.png,y\n3.png,y\n")
    with pytest.raises(DatasetError, match=r"labels of its side .* are others"):
        load_label_split(path, load_labels(table))


def test_nothing_from_the_test_side_is_let_pass(tmp_path: Path) -> None:
    dataset = load_labels(write_class_folders(tmp_path, {"a": 6, "good": 6}))
    split = split_of(dataset)
    guard = LeakGuard.of(split.of("test"))
    assert guard.admit(split.of("train"), consumer="classifier") == list(split.of("train"))
    assert guard.checked == {"classifier": len(split.of("train"))}
    with pytest.raises(LeakError, match="would reach classifier"):
        guard.admit(split.of("test")[:1], consumer="classifier")
    with pytest.raises(LeakError, match="'background 3'"):
        guard.check_pixels({"background 3": read_image(split.of("test")[0].image)}, consumer="painter")


def test_copies_of_test_images_are_an_error_or_left_out(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"train/a": 4, "test/a": 1, "test/b": 1})
    copy = write_picture(root / "train" / "a" / "Kopie ü.bmp", picture(5))
    split = split_of(load_labels(root), held_out=0)
    guard, findings = LeakGuard.of(split.of("test")), Findings()
    with pytest.raises(LeakError, match=r"Kopie ü\.bmp.*is test image 'test/a/000\.png'"):
        guard.admit(split.of("train"), consumer="classifier")
    cleaned = drop_label_copies(split, guard, findings)
    assert findings.examples == {"copy_of_test_image": [f"'train/a/{copy.name}', taken from train"]}
    assert (len(cleaned.of("train")), cleaned.of("test")) == (4, split.of("test"))
    guard.admit(cleaned.of("train"), consumer="classifier")


def test_what_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"a": 6})
    broken = root / "a" / "003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    split, findings = split_of(load_labels(root)), Findings()
    kept = keep_decodable(split, findings)
    assert findings.counts == {"unreadable_image": 1}
    left = {one.key for images in kept.sides.values() for one in images}
    assert left == {one.key for images in split.sides.values() for one in images} - {"a/003.png"}
    assert replace(split, sides=kept.sides) == kept
