"""Prompts in Chroma, in a folder that several runs may share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
from chromadb.base_types import Where
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from ..data.files import remove_partials
from ..errors import BrokenRunError, RecipeError, RunFolderError
from .artifacts import write_or_stop
from .prompt_store import FloatMatrix, PromptTable, Scope, Stored, stored_of
from .shared_folder import SharedFolder

COLLECTION = "maskwright-prompts"
MARKER_NAME = "memory.json"

FORMAT_VERSION = 1
BATCH_SIZE = 1000
"""Records that are written in one transaction; Chroma takes at most 5461."""


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What says that a folder is a prompt memory."""

    prompt_memory: int
    """Version of the format."""
    embeddings: str
    """Name of the embeddings that it was made with."""
    sequence: int
    """The last that was given to a record."""


class ChromaTable(PromptTable):
    """Records in one open Chroma collection.

    Likeness is computed from the stored embeddings, not asked of Chroma: its index is approximate, and what it finds
    depends on the order of writing.
    """

    vectors: Chroma

    def __init__(self, vectors: Chroma, embeddings: Embeddings, shared: SharedFolder) -> None:
        super().__init__(vectors, embeddings)
        self._shared = shared

    def select(self, scope: Scope) -> list[Stored]:
        return _stored(self.vectors.get(where=where_of(scope), include=["metadatas"]))

    def embedded(self, scope: Scope) -> tuple[list[Stored], FloatMatrix]:
        found = self.vectors.get(where=where_of(scope), include=["metadatas", "embeddings"])
        return _stored(found), np.asarray(found["embeddings"], dtype=np.float32)

    def add(self, stored: Sequence[Stored]) -> None:
        for start in range(0, len(stored), BATCH_SIZE):
            super().add(stored[start : start + BATCH_SIZE])

    def delete(self, record_ids: Sequence[str]) -> None:
        for start in range(0, len(record_ids), BATCH_SIZE):
            super().delete(record_ids[start : start + BATCH_SIZE])

    def last_sequence(self) -> int:
        return _read_marker(self._shared).sequence

    def reserve(self, count: int) -> int:
        marker = _read_marker(self._shared)
        _write_marker(self._shared.marker_path, msgspec.structs.replace(marker, sequence=marker.sequence + count))
        return marker.sequence + 1


class ChromaFolder:
    """Chroma in a folder.

    Args:
        folder: made when missing, if `create`.
        embeddings_name: of `embeddings`, as recipes name them; a memory keeps to those that it was made with.

    Raises:
        RunFolderError: the folder holds something else, or is missing and not to be made.
        RecipeError: the memory was made with other embeddings.
        BrokenRunError: it is damaged, or not writable.
    """

    def __init__(self, folder: Path, embeddings: Embeddings, embeddings_name: str, *, create: bool = True) -> None:
        self.folder = folder.absolute()
        self.embeddings = embeddings
        self._shared = SharedFolder(
            folder,
            MARKER_NAME,
            holds="prompt memory",
            if_foreign="Name an empty or a new folder in `memory.path`.",
            if_damaged="move the folder away, or name another in `memory.path`; prompts are then remembered anew",
        )
        self._shared.make(create=create)
        with self._shared.exclusive():
            self._settle(embeddings_name)
        with self.opened():
            pass

    def _settle(self, embeddings_name: str) -> None:
        remove_partials(self.folder, deep=False)
        if not self._shared.marker_path.exists():
            _write_marker(self._shared.marker_path, Marker(FORMAT_VERSION, embeddings_name, 0))
        marker = _read_marker(self._shared)
        if marker.prompt_memory != FORMAT_VERSION:
            raise RunFolderError(
                f"{self.folder}: this memory has format {marker.prompt_memory}, expected {FORMAT_VERSION}. "
                "Use the maskwright that wrote it, or name another folder in `memory.path`."
            )
        if marker.embeddings != embeddings_name:
            raise RecipeError(
                f"{self.folder}: this memory was made with the embeddings {marker.embeddings!r}, the recipe names "
                f"{embeddings_name!r}. Set `memory.embeddings` to the former, or another `memory.path`."
            )
        if not os.access(self.folder, os.W_OK):
            raise BrokenRunError(f"{self.folder}: not writable; check the folder's permissions or set `memory.path`")
        if marker.sequence:
            self._shared.check_database()

    @contextmanager
    def opened(self) -> Iterator[ChromaTable]:
        """The table, to this thread of this process alone.

        Raises:
            BrokenRunError: the folder is damaged, or its disk is full.
        """
        with self._shared.opened(COLLECTION, self.embeddings) as vectors:
            yield ChromaTable(vectors, self.embeddings, self._shared)


def _read_marker(shared: SharedFolder) -> Marker:
    try:
        return msgspec.json.decode(shared.marker_path.read_bytes(), type=Marker)
    except (OSError, msgspec.DecodeError) as exc:
        raise shared.damaged(f"{MARKER_NAME}: {exc}") from exc


def _write_marker(path: Path, marker: Marker) -> None:
    write_or_stop(path, msgspec.json.encode(marker))


def where_of(scope: Scope) -> Where | None:
    """A scope in Chroma's words; None: everything."""
    terms: list[dict[str, object]] = []
    if scope.category is not None:
        terms.append({"category": scope.category})
    if scope.run_id is not None:
        terms.append({"run_id": scope.run_id})
    if (snapshot := scope.snapshot) is not None:
        own = [{"run_id": snapshot.run_id}, {"sequence": {"$lte": snapshot.own_sequence}}]
        terms.append({"$or": [{"sequence": {"$lte": snapshot.shared_sequence}}, {"$and": own}]})
    if not terms:
        return None
    return cast("Where", {"$and": terms} if len(terms) > 1 else terms[0])


def _stored(found: dict[str, list[dict[str, object]]]) -> list[Stored]:
    return [stored_of(Document(page_content="", metadata=metadata)) for metadata in found["metadatas"]]
