"""Who learns from which labelled image and which ones measure, decided once per data set and recorded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from ..errors import DatasetError, ImageDecodeError
from .anomaly_splits import LeakGuard, SplitShares, split_anomalies, without_test_copies
from .files import write_atomically
from .images import read_image
from .label_anomalies import labels_to_anomalies
from .label_draw import draw_stratified
from .label_records import LabelDataset, LabelledImage, LabelSplit, Side
from .records import Findings

PROTOCOL: Final = "image labels"
_Sides = Mapping[Side, tuple[LabelledImage, ...]]


class _SplitFile(msgspec.Struct, forbid_unknown_fields=True):
    """A split on disk: the keys of each side."""

    protocol: Literal["image labels"]
    format: str
    seed: int
    sides: dict[Side, list[str]]
    digests: dict[Side, str]
    """Hex sha256 of each side's keys, sizes and labels."""
    apart: bool = False


def split_labels(dataset: LabelDataset, *, held_out: float, test: float, seed: int, apart: bool = False) -> LabelSplit:
    """Share out a data set's images.

    An item of an anomaly data set is shared out by `split_anomalies`: normal and reference images train, validation
    is held out. Of others, what the data set calls val or test is the test side; where it calls nothing so, a share.
    Shares follow from names and seed, so an image keeps its side when others join or leave; except that each class
    with two images or more is kept on both sides of a draw as far as images with several classes allow it.

    Args:
        held_out: of the training images, in [0, 1).
        test: of all images, in [0, 1), where the data set sets none aside; of an item, of its good images.
        apart: keep photographs of one object together; of an item of an anomaly data set only.

    Returns:
        Sides by key. A class without a training image is counted in the data set's findings: `class_not_in_train`.

    Raises:
        DatasetError: `apart` for another format, or no labelled image is left to learn from.
        ValueError: a share is not in [0, 1).
    """
    if not (0 <= held_out < 1 and 0 <= test < 1):
        raise ValueError(f"shares are {held_out!r} held out and {test!r} for test; expected each in [0, 1)")
    if dataset.format == "mvtec":
        sides = _split_item(dataset, held_out, test, seed, apart)
    elif apart:
        raise DatasetError(
            f"{str(dataset.root)!r} is of format {dataset.format}; objects are kept apart in an item of an anomaly "
            "data set only. Leave `apart` out, or name val and test in the data set itself."
        )
    else:
        sides = _split_by_name(dataset, held_out, test, seed)
    split = LabelSplit(seed, sides, apart)
    _check_train(dataset, split)
    return split


def _split_item(dataset: LabelDataset, held_out: float, test: float, seed: int, apart: bool) -> _Sides:
    anomalies = labels_to_anomalies(dataset)
    [item] = anomalies.items
    shares = SplitShares(validation=held_out, normal_validation=held_out, normal_test=test)
    split = split_anomalies(anomalies, item, shares=shares, seed=seed, apart=apart)
    image_of_key = {one.key: one for one in dataset.images}
    learned = [*split.of("normal"), *split.of("reference")]
    records = {"train": learned, "held_out": split.of("validation"), "test": split.of("test")}
    return {side: _sorted([image_of_key[one.key] for one in records[side]]) for side in get_args(Side)}


def _split_by_name(dataset: LabelDataset, held_out: float, test: float, seed: int) -> _Sides:
    tested = [one for one in dataset.images if one.image.split != "train"]
    learned = [one for one in dataset.images if one.image.split == "train"]
    if not tested:
        tested, learned = draw_stratified(learned, test, f"{seed}\0test")
    drawn, kept = draw_stratified(learned, held_out, f"{seed}\0held out")
    return {"train": _sorted(kept), "held_out": _sorted(drawn), "test": _sorted(tested)}


def _sorted(images: Sequence[LabelledImage]) -> tuple[LabelledImage, ...]:
    return tuple(sorted(images, key=lambda one: one.key))


def _check_train(dataset: LabelDataset, split: LabelSplit) -> None:
    counts = Counter(label for one in split.of("train") for label in one.labels)
    if not counts:
        raise DatasetError(
            f"{str(dataset.root)!r}: no labelled image is left to learn from; {len(split.of('train'))} without a label "
            f"train, {len(split.of('held_out'))} are held out, {len(split.of('test'))} measure. Label more images, or "
            "lower the shares."
        )
    for name in dataset.classes:
        if not counts[name]:
            dataset.findings.add("class_not_in_train", f"{name!r} has images on other sides only; add some")


def keep_decodable(split: LabelSplit, findings: Findings) -> LabelSplit:
    """A split without images that cannot be decoded; counted as `unreadable_image`. All are decoded, one at a time."""

    def decodes(one: LabelledImage) -> bool:
        try:
            read_image(one.image)
        except ImageDecodeError as exc:
            findings.add("unreadable_image", f"{exc}; it is left out, save it anew")
            return False
        return True

    return replace(split, sides={side: tuple(filter(decodes, images)) for side, images in split.sides.items()})


def drop_label_copies(split: LabelSplit, guard: LeakGuard, findings: Findings) -> LabelSplit:
    """Leave out of the other sides what is also on the test side; counted as `copy_of_test_image`."""
    return replace(split, sides=without_test_copies(split.sides, guard, findings))


def save_label_split(split: LabelSplit, dataset: LabelDataset, path: Path) -> None:
    """Record a split as JSON."""
    keys: dict[Side, list[str]] = {side: [one.key for one in split.of(side)] for side in get_args(Side)}
    digests: dict[Side, str] = {side: _digest(split.of(side)) for side in get_args(Side)}
    content = _SplitFile(PROTOCOL, dataset.format, split.seed, keys, digests, split.apart)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def load_label_split(path: Path, dataset: LabelDataset) -> LabelSplit:
    """Read a recorded split; images that it does not name are on no side.

    Raises:
        DatasetError: not a split of labels, one that names an image twice, or one of another data set: it names an
            image that is not there, or that had another size or other labels.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_SplitFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise DatasetError(f"{str(path)!r} is not a recorded split of labels: {exc}. Make the split again.") from exc
    image_of_key = {one.key: one for one in dataset.images}
    sides: dict[Side, tuple[LabelledImage, ...]] = {}
    for side in get_args(Side):
        keys = content.sides.get(side, [])
        if unknown := [key for key in keys if key not in image_of_key]:
            raise DatasetError(_other_data(path, dataset, f"{unknown[0]!r} is on two sides, or not in it"))
        sides[side] = tuple(image_of_key.pop(key) for key in dict.fromkeys(keys))
        if content.digests.get(side) != _digest(sides[side]):
            raise DatasetError(_other_data(path, dataset, f"sizes or labels of its side {side!r} are others"))
    return LabelSplit(content.seed, sides, content.apart)


def _other_data(path: Path, dataset: LabelDataset, why: str) -> str:
    return (
        f"{str(path)!r} is no split of {str(dataset.root)!r}: {why}. Give the data set that was split, as it was, or "
        "make the split again."
    )


def _digest(images: Sequence[LabelledImage]) -> str:
    entries = [(one.key, one.image.width, one.image.height, sorted(one.labels)) for one in images]
    return hashlib.sha256(msgspec.json.encode(entries)).hexdigest()
