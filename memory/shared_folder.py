"""Chroma in a folder that several processes use by turns.

Chroma's index belongs to one process: where two keep a client open on a folder, even if only one writes at a time,
it loses entries (seen with chromadb 1.5.9). So a client lives no longer than one operation, under the folder's lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chromadb.api.client import Client
from chromadb.config import Settings
from chromadb.errors import ChromaError
from filelock import FileLock, Timeout
from langchain_chroma import Chroma
from langchain_core.embeddings import Embeddings

from ..data.files import PARTIAL_SUFFIX
from ..errors import BrokenRunError, RunFolderError
from .artifacts import breaking_the_run

DATABASE_NAME = "chroma.sqlite3"
"""Chroma's own name."""
PATIENCE_S = 1.0
"""How long to wait for another process before saying so."""

_log = logging.getLogger(__name__)


class SharedFolder:
    """The lock of a folder, and the collection behind it.

    Args:
        marker_name: NAME.json, the file that says that the folder is ours; NAME.lock lies beside it.
        holds: what it is to a user, for messages.
        if_foreign: what to do where the folder holds something else.
        if_damaged: what to do where it is damaged.
    """

    def __init__(self, folder: Path, marker_name: str, *, holds: str, if_foreign: str, if_damaged: str) -> None:
        self.folder = folder.absolute()
        self.marker_path = self.folder / marker_name
        self._holds, self._if_foreign, self._if_damaged = holds, if_foreign, if_damaged
        self._thread_lock = threading.Lock()
        self._file_lock = FileLock(self.marker_path.with_suffix(".lock"))

    def make(self, *, create: bool = True) -> None:
        """Make the folder where it is missing.

        Raises:
            RunFolderError: it holds something else; or it is missing, or empty, and not to be made.
            BrokenRunError: it cannot be made.
        """
        with breaking_the_run(self.folder):
            if not self.marker_path.exists():
                self._refuse_foreign()
                if not create:
                    raise RunFolderError(
                        f"{self.folder}: no {self._holds} here. Give the folder of one with --path, or run a recipe."
                    )
            self.folder.mkdir(parents=True, exist_ok=True)

    def _refuse_foreign(self) -> None:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        lock_name = Path(self._file_lock.lock_file).name
        if foreign := [name for name in names if name != lock_name and not name.endswith(PARTIAL_SUFFIX)]:
            raise RunFolderError(
                f"{self.folder}: holds {min(foreign)!r} and no {self.marker_path.name}; this is no {self._holds}. "
                f"{self._if_foreign}"
            )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """The folder to this thread of this process alone; others are waited for."""
        with self._thread_lock:
            with breaking_the_run(self.folder):
                try:
                    self._file_lock.acquire(timeout=PATIENCE_S)
                except Timeout:
                    _log.warning("%s: another process uses this %s; waiting for it", self.folder, self._holds)
                    self._file_lock.acquire()
            try:
                yield
            finally:
                self._file_lock.release()

    @contextmanager
    def opened(self, collection: str, embeddings: Embeddings) -> Iterator[Chroma]:
        """The collection, to this thread of this process alone.

        Raises:
            BrokenRunError: the folder is damaged, or its disk is full.
        """
        with self.exclusive():
            try:
                with self._connect() as client:
                    yield Chroma(
                        client=client,
                        collection_name=collection,
                        embedding_function=embeddings,
                        collection_configuration={"hnsw": {"space": "cosine"}},
                    )
            except ChromaError as exc:
                raise self.damaged(exc) from exc

    def _connect(self) -> Client:
        settings = Settings(is_persistent=True, persist_directory=str(self.folder), anonymized_telemetry=False)
        try:
            return Client(settings=settings)
        except AttributeError as exc:
            # The client trips over its own clean-up and hides why it could not open.
            raise self.damaged(exc.__context__ or exc) from exc

    def check_database(self) -> None:
        """Raises BrokenRunError where Chroma's file is missing."""
        if not (self.folder / DATABASE_NAME).is_file():
            raise self.damaged(f"{DATABASE_NAME} is missing")

    def damaged(self, what: object) -> BrokenRunError:
        """The error that says what is wrong, and what to do."""
        return BrokenRunError(
            f"{self.folder}: the {self._holds} cannot be used ({what}). If its disk is not full, it is damaged: "
            f"{self._if_damaged}"
        )
