"""Names as VOC's are, of four digits, an underscore and six digits, which fit 32 bits when they are read as numbers."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Final, Literal

_VOC_NAME = re.compile(r"(1\d{3}|20[01]\d)_\d{6}", re.ASCII)
FIRST_AND_LAST: Final = {"real": (2020_000000, 2099_999999), "synthetic": (2100_000000, 2146_999999)}
"""Numbers that are given; VOC's own, 2007 to 2012, lie below."""


def free_name(key: str, source: Literal["real", "synthetic"], taken: set[str]) -> str:
    """A name that no image has yet, which it then has.

    A real image that is called as VOC's are keeps its name. Others are numbered by the hash of their keys, so that a
    name stays when other images join or leave; where two would meet, the later one gets the next free number.
    """
    stem = PurePosixPath(key).stem
    if source == "real" and _VOC_NAME.fullmatch(stem) and stem not in taken:
        taken.add(stem)
        return stem
    first, last = FIRST_AND_LAST[source]
    span = last - first + 1
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % span
    while (name := number_to_name(first + number)) in taken:
        number = (number + 1) % span
    taken.add(name)
    return name


def number_to_name(number: int) -> str:
    """2007000032 is 2007_000032."""
    return f"{number // 1_000_000:04d}_{number % 1_000_000:06d}"


def name_to_number(name: str) -> int:
    return int(name.replace("_", ""))
