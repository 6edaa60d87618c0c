"""The ledger: one JSON file an entry, whole or absent. It is its files' only reader and writer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar, cast

import orjson

from ..data.files import remove_partials
from ..errors import BrokenRunError
from .artifacts import write_or_stop

EntryT = TypeVar("EntryT", bound=Mapping[str, object])
_ENTRY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Ledger(Generic[EntryT]):
    """Entries below one folder, in 256 shards, so that any number of processes write without a lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, entry_id: str) -> Path:
        if not _ENTRY_ID.fullmatch(entry_id):
            raise ValueError(f"entry id {entry_id!r} is no safe file name; expected letters, digits, '.', '_', '-'")
        return self.folder / hashlib.sha256(entry_id.encode()).hexdigest()[:2] / f"{entry_id}.json"

    def write(self, entry_id: str, entry: EntryT) -> None:
        """Write one entry durably, arrays as lists; its artifacts must be durable already.

        Raises:
            BrokenRunError: the disk is full or not writable.
        """
        write_or_stop(self._path(entry_id), orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY))

    def read(self, entry_id: str) -> EntryT | None:
        """One entry, or None where it was never written.

        Raises:
            BrokenRunError: the file is not what we wrote.
        """
        path = self._path(entry_id)
        try:
            return cast("EntryT", orjson.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError as exc:
            raise BrokenRunError(f"{path}: not valid JSON; remove this file and run again to redo the item") from exc

    def remove(self, entry_id: str) -> None:
        self._path(entry_id).unlink(missing_ok=True)

    def ids(self) -> Iterator[str]:
        """Ids of all entries, in no order."""
        for shard in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            yield from (path.stem for path in shard.glob("*.json"))

    def remove_partials(self) -> int:
        """Remove what a killed writer left; call it only while nobody else writes."""
        return remove_partials(self.folder) if self.folder.is_dir() else 0
