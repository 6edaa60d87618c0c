"""ImageSets of Pascal VOC: which image is in which list, and what lists of one class say of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from ..errors import DatasetError
from .records import Findings

ListName = Literal["train", "val", "test", "trainval"]
"""Of these an image is in the first that has it; what only trainval lists, trains."""
Flag = Literal[1, 0, -1]
"""Shown, shown only in objects that are hard to see, not shown."""
_CLASS_LIST = re.compile(r"(?P<name>.+)_(?P<list>train|val|test|trainval)")
_FLAGS: Final[Mapping[str, Flag]] = {"1": 1, "0": 0, "-1": -1}
_Stems = dict[ListName, dict[str, None]]


@dataclass(slots=True)
class ClassLists:
    """What `ImageSets/Main/CLASS_LIST.txt` say."""

    flags: dict[str, dict[str, Flag]] = field(default_factory=dict)
    """By class and stem."""
    stems: _Stems = field(default_factory=dict)
    """Of each list, in order."""
    contradictions: list[str] = field(default_factory=list)


def read_class_lists(root: Path) -> ClassLists:
    """Read the lists of all classes; none where there are none.

    Raises:
        DatasetError: a line is no name with 1, 0 or -1.
    """
    lists = ClassLists()
    for path in sorted((root / "ImageSets" / "Main").glob("*.txt")):
        match = _CLASS_LIST.fullmatch(path.stem)
        if match is None:
            continue
        of_stem = lists.flags.setdefault(match["name"], {})
        [list_name] = [name for name in get_args(ListName) if name == match["list"]]
        stems = lists.stems.setdefault(list_name, {})
        for stem, flag in _read_flags(path):
            stems[stem] = None
            if of_stem.setdefault(stem, flag) != flag:
                told = f"{path.name} says {flag} of {stem!r}, another list of {match['name']!r} {of_stem[stem]}"
                lists.contradictions.append(told)
    return lists


def share_out_stems(root: Path, lists: ClassLists, findings: Findings) -> dict[str, str]:
    """Split of each listed image; what is alone is `train`. All XML files where nothing is listed."""
    stems = _augmented(root) or lists.stems or _plain(root / "ImageSets" / "Main")
    stems = stems or _plain(root / "ImageSets" / "Segmentation")
    if not stems:
        folder = root / "Annotations"
        return {path.relative_to(folder).with_suffix("").as_posix(): "train" for path in sorted(folder.rglob("*.xml"))}
    split_of_stem: dict[str, str] = {}
    for name in get_args(ListName):
        split = "train" if name == "trainval" or len(stems) == 1 else name
        for stem in stems.get(name, ()):
            first = split_of_stem.setdefault(stem, split)
            if first != split and name != "trainval":
                findings.add(f"{split}_shares_{first}_images", stem)
    return split_of_stem


def _augmented(root: Path) -> _Stems:
    """The lists of weakly supervised segmentation, where they are: SBD's images join VOC's for training."""
    folder = root / "ImageSets" / "Segmentation"
    if not (folder / "train_aug.txt").is_file():
        return {}
    stems: _Stems = {"train": _read_stems(folder / "train_aug.txt")}
    if (folder / "val.txt").is_file():
        stems["val"] = _read_stems(folder / "val.txt")
    return stems


def _plain(folder: Path) -> _Stems:
    names: tuple[ListName, ...] = get_args(ListName)
    return {name: _read_stems(path) for name in names if (path := folder / f"{name}.txt").is_file()}


def _read_stems(path: Path) -> dict[str, None]:
    return dict.fromkeys(_lines(path))


def _read_flags(path: Path) -> Iterator[tuple[str, Flag]]:
    for line in _lines(path):
        stem, _, text = line.rpartition(" ")
        if not stem.strip() or text not in _FLAGS:
            raise DatasetError(
                f"{str(path)!r}: line {line!r}; expected an image's name and 1 (shown), 0 (difficult) or -1 (not "
                "shown). Correct the line."
            )
        yield stem.strip(), _FLAGS[text]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise DatasetError(f"{str(path)!r}: not readable as text: {exc}. Save it as UTF-8.") from exc
    return [line.strip().replace("\t", " ") for line in lines if line.strip()]
