"""Tables of labels: a CSV whose first column names images, below the folder that it lies in.

Labels stand in one column `labels`, or in one column a class that holds 0 or 1. A column `split` says train, val or
test. In the table that `save_label_folder` writes, what else it tells of an image is no class.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import DatasetError
from .images import refuse_unsafe_name
from .label_drafts import LabelDraft, ReadLabels, refuse_contradictions
from .label_folders import SPLIT_OF_FOLDER
from .records import Findings, ImageRecord

OWN_COLUMNS: Final = ("file", "split", "source", "background", "prompt", "original")
"""First columns of the table that `save_label_folder` writes; those of the classes follow."""
TABLE_NAME: Final = "labels.csv"
_LABELS, _SPLIT = "labels", "split"
_IS_SET: Final = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}


@dataclass(frozen=True, slots=True)
class LabelTable:
    """A table as it stands."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    """Line number, and as many cells as the header has, stripped."""

    @property
    def is_own(self) -> bool:
        return self.header[: len(OWN_COLUMNS)] == OWN_COLUMNS

    @property
    def class_columns(self) -> dict[int, str]:
        """Column of each class, where each has one."""
        if self.is_own:
            return dict(list(enumerate(self.header))[len(OWN_COLUMNS) :])
        named = {_LABELS, _SPLIT}
        return {at: name for at, name in enumerate(self.header) if at and name.lower() not in named}

    def column(self, name: str) -> int | None:
        """Of a name, in any case; the first column is the image's, whatever its name."""
        end = len(OWN_COLUMNS) if self.is_own else len(self.header)
        return next((at for at in range(1, end) if self.header[at].lower() == name), None)


def read_table_labels(path: Path) -> ReadLabels:
    """Read a CSV, or the one in a folder.

    In a `labels` column `;` separates; where no cell has one, white space does. Findings: `listed_twice`.

    Raises:
        DatasetError: not a table, a name that leaves the folder, an unknown split, a cell that is neither 0 nor 1, or
            an image that is listed twice with other labels or another split.
    """
    table = read_table(_table_of(path))
    root, findings = table.path.parent, Findings()
    labels_of_row, classes = _labels(table)
    split_column = table.column(_SPLIT)
    drafts: dict[str, LabelDraft] = {}
    contradictions: list[str] = []
    for (line, cells), labels in zip(table.rows, labels_of_row, strict=True):
        source = f"{table.path}, line {line}"
        refuse_unsafe_name(root, cells[0], source=source)
        name = posixpath.normpath(cells[0])
        split = "train" if split_column is None else _split(cells[split_column], source)
        draft = LabelDraft(ImageRecord(0, name, str(root), 0, 0, split), labels)
        first = drafts.setdefault(name, draft)
        if first != draft:
            contradictions.append(f"line {line} lists {name!r} again, as {_told(draft)}, earlier as {_told(first)}")
        elif first is not draft:
            findings.add("listed_twice", f"{name!r}, line {line}")
    refuse_contradictions(contradictions, table.path)
    return ReadLabels(root, "csv", classes, tuple(drafts.values()), findings)


def read_table(path: Path) -> LabelTable:
    """Read a CSV as it stands; empty lines are left out.

    Raises:
        DatasetError: not UTF-8 or not CSV, no column beside the file's, a name of a column twice, a line of another
            length.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = tuple(cell.strip() for cell in next(reader, []))
            rows = [(reader.line_num, tuple(cell.strip() for cell in row)) for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise DatasetError(f"{str(path)!r} is not readable as a table: {exc}. Save it as CSV in UTF-8.") from exc
    table = LabelTable(path, header, tuple(rows))
    classes = list(table.class_columns.values())
    if len(header) < 2 or "" in classes or len({*classes}) < len(classes):
        raise DatasetError(
            f"{str(path)!r} has the columns {', '.join(map(repr, header))}; expected the image's file first, then "
            "`labels` or one column a class, each of its own name, separated by commas. Correct the first line."
        )
    for line, cells in rows:
        if len(cells) != len(header):
            raise DatasetError(
                f"{str(path)!r}, line {line}: {len(cells)} cells, expected {len(header)} as in the first line. "
                "Put names with commas in quotes."
            )
    return table


def _table_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    if (path / TABLE_NAME).is_file():
        return path / TABLE_NAME
    found = sorted(path.glob("*.csv"))
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise DatasetError(f"{str(path)!r} has the tables {names}; expected one, or {TABLE_NAME}. Name the file.")
    return found[0]


def _labels(table: LabelTable) -> tuple[list[frozenset[str]], tuple[str, ...]]:
    """Labels of each row, and the classes: sorted, or in the order of their columns."""
    at = None if table.is_own else table.column(_LABELS)
    if at is None:
        columns = table.class_columns
        return [_from_columns(cells, columns, table.path, line) for line, cells in table.rows], tuple(columns.values())
    texts = [cells[at] for _, cells in table.rows]
    separator = ";" if any(";" in text for text in texts) else None
    found = [frozenset(filter(None, (one.strip() for one in text.split(separator)))) for text in texts]
    return found, tuple(sorted(frozenset().union(*found)))


def _from_columns(cells: Sequence[str], columns: Mapping[int, str], path: Path, line: int) -> frozenset[str]:
    labels = set()
    for at, name in columns.items():
        is_set = _IS_SET.get(cells[at].lower())
        if is_set is None:
            raise DatasetError(
                f"{str(path)!r}, line {line}: {cells[at]!r} in the column {name!r}; expected 0 or 1. Correct it, or "
                "put the names of classes in a column called `labels`."
            )
        if is_set:
            labels.add(name)
    return frozenset(labels)


def _split(cell: str, source: str) -> str:
    split = SPLIT_OF_FOLDER.get(cell.lower())
    if split is None:
        raise DatasetError(f"{source}: split {cell!r}; expected train, val or test. Correct it.")
    return split


def _told(draft: LabelDraft) -> str:
    labels = ", ".join(map(repr, sorted(draft.labels))) or "no class"
    return f"{labels} in {draft.image.split}"
