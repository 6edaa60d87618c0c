"""Prompts in Chroma, in a folder that several runs may share.

Chroma's index belongs to one process: where two keep a client open on a folder, even if only one writes at a time,
it loses entries (seen with chromadb 1.5.9). So a client lives no longer than one operation, under the folder's lock.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
from chromadb.api.client import Client
from chromadb.base_types import Where
from chromadb.config import Settings
from chromadb.errors import ChromaError
from filelock import FileLock, Timeout
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from ..data.files import PARTIAL_SUFFIX, remove_partials
from ..errors import BrokenRunError, RecipeError, RunFolderError
from .artifacts import breaking_the_run, write_or_stop
from .prompt_store import FloatMatrix, PromptTable, Scope, Stored, stored_of

COLLECTION = "maskwright-prompts"
MARKER_NAME = "memory.json"
LOCK_NAME = "memory.lock"
DATABASE_NAME = "chroma.sqlite3"
"""Chroma's own name."""

FORMAT_VERSION = 1
BATCH_SIZE = 1000
"""Records that are written in one transaction; Chroma takes at most 5461."""

PATIENCE_S = 1.0
"""How long to wait for another process before saying so."""

_log = logging.getLogger(__name__)


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

    def __init__(self, vectors: Chroma, embeddings: Embeddings, marker_path: Path) -> None:
        super().__init__(vectors, embeddings)
        self._marker_path = marker_path

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
        return _read_marker(self._marker_path).sequence

    def reserve(self, count: int) -> int:
        marker = _read_marker(self._marker_path)
        _write_marker(self._marker_path, msgspec.structs.replace(marker, sequence=marker.sequence + count))
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
        self._thread_lock = threading.Lock()
        self._file_lock = FileLock(self.folder / LOCK_NAME)
        with breaking_the_run(self.folder):
            _refuse_foreign(self.folder, create=create)
            self.folder.mkdir(parents=True, exist_ok=True)
        with self._exclusive():
            self._settle(embeddings_name)
        with self.opened():
            pass

    def _settle(self, embeddings_name: str) -> None:
        path = self.folder / MARKER_NAME
        remove_partials(self.folder, deep=False)
        if not path.exists():
            _write_marker(path, Marker(FORMAT_VERSION, embeddings_name, 0))
        marker = _read_marker(path)
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
        if marker.sequence and not (self.folder / DATABASE_NAME).is_file():
            raise _damaged(self.folder, f"{DATABASE_NAME} is missing")

    @contextmanager
    def opened(self) -> Iterator[ChromaTable]:
        """The table, to this thread of this process alone.

        Raises:
            BrokenRunError: the folder is damaged, or its disk is full.
        """
        with self._exclusive(), _failures_explained(self.folder), _connect(self.folder) as client:
            vectors = Chroma(
                client=client,
                collection_name=COLLECTION,
                embedding_function=self.embeddings,
                collection_configuration={"hnsw": {"space": "cosine"}},
            )
            yield ChromaTable(vectors, self.embeddings, self.folder / MARKER_NAME)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._thread_lock:
            with breaking_the_run(self.folder):
                try:
                    self._file_lock.acquire(timeout=PATIENCE_S)
                except Timeout:
                    _log.warning("%s: another process uses this memory; waiting for it", self.folder)
                    self._file_lock.acquire()
            try:
                yield
            finally:
                self._file_lock.release()


def _connect(folder: Path) -> Client:
    settings = Settings(is_persistent=True, persist_directory=str(folder), anonymized_telemetry=False)
    try:
        return Client(settings=settings)
    except AttributeError as exc:
        # The client trips over its own clean-up and hides why it could not open.
        raise _damaged(folder, exc.__context__ or exc) from exc


@contextmanager
def _failures_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except ChromaError as exc:
        raise _damaged(folder, exc) from exc


def _damaged(folder: Path, what: object) -> BrokenRunError:
    return BrokenRunError(
        f"{folder}: the prompt memory cannot be used ({what}). If its disk is not full, it is damaged: move the folder "
        "away, or name another in `memory.path`; prompts are then remembered anew"
    )


def _refuse_foreign(folder: Path, *, create: bool) -> None:
    if (folder / MARKER_NAME).exists():
        return
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    foreign = [name for name in names if name != LOCK_NAME and not name.endswith(PARTIAL_SUFFIX)]
    if foreign:
        raise RunFolderError(
            f"{folder}: holds {min(foreign)!r} and no {MARKER_NAME}; this is no prompt memory. "
            "Name an empty or a new folder in `memory.path`."
        )
    if not create:
        raise RunFolderError(f"{folder}: no prompt memory here. Give the folder of one with --path, or run a recipe.")


def _read_marker(path: Path) -> Marker:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Marker)
    except (OSError, msgspec.DecodeError) as exc:
        raise _damaged(path.parent, f"{path.name}: {exc}") from exc


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
