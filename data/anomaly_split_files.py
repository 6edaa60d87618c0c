"""Splits of anomaly data on disk: who learned from which photograph stays known."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import msgspec

from ..errors import DatasetError
from .anomaly_records import AnomalyDataset, AnomalyRecord
from .anomaly_splits import PROTOCOL, AnomalySplit, Side
from .files import write_atomically


class _SplitFile(msgspec.Struct, forbid_unknown_fields=True):
    """A split on disk: the files of each side, by their paths from the item's folder on."""

    protocol: Literal["AnomalyDiffusion"]
    item: str
    seed: int
    sides: dict[Side, list[str]]
    apart: bool = False


def save_split(split: AnomalySplit, path: Path) -> None:
    """Record a split as JSON."""
    sides: dict[Side, list[str]] = {side: [one.key for one in records] for side, records in split.sides.items()}
    content = msgspec.json.encode(_SplitFile(PROTOCOL, split.item, split.seed, sides, split.apart))
    write_atomically(path, msgspec.json.format(content, indent=1) + b"\n")


def load_split(path: Path, dataset: AnomalyDataset) -> AnomalySplit:
    """Read a recorded split.

    Raises:
        DatasetError: not a split, one that names an image twice, or one of another data set: it names an image that
            is not there. Images that it does not name are on no side.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_SplitFile)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise DatasetError(f"{str(path)!r} is not a recorded split: {exc}. Make the split again.") from exc
    record_of_key = {one.key: one for one in dataset.of_item(content.item)}
    sides: dict[Side, tuple[AnomalyRecord, ...]] = {}
    for side in get_args(Side):
        keys = content.sides.get(side, [])
        if unknown := [key for key in keys if key not in record_of_key]:
            raise DatasetError(
                f"{str(path)!r}: {unknown[0]!r} is on two sides, or not in {str(dataset.root)!r}; expected the data "
                "set that was split. Give that one, or make the split again."
            )
        sides[side] = tuple(record_of_key.pop(key) for key in dict.fromkeys(keys))
    return AnomalySplit(content.item, content.seed, sides, content.apart)
