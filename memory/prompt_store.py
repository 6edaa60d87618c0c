"""Where prompts are kept: any LangChain vector store that looks up by id."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from .prompt_records import PromptRecord, Snapshot, decode_record, encode_record

FloatMatrix = npt.NDArray[np.float32]
MAX_RECORDS = 10_000
"""Most records that a look-up asks of a vector store that cannot filter."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record and its place in the order in which prompts were remembered, from 1."""

    record: PromptRecord
    sequence: int


@dataclass(frozen=True, slots=True)
class Scope:
    """Which records are meant; what is None does not narrow it."""

    category: str | None = None
    run_id: str | None = None
    snapshot: Snapshot | None = None

    def holds(self, stored: Stored) -> bool:
        record = stored.record
        return (
            self.category in (None, record.category)
            and self.run_id in (None, record.run_id)
            and (self.snapshot is None or self.snapshot.shows(record, stored.sequence))
        )


class PromptTable:
    """Records in a LangChain vector store.

    Its interface has no word for "all of a class", so every look-up asks for everything and sorts it out here: good
    for thousands of prompts. A table over a store that can say more overrides `select` and `embedded`.
    """

    def __init__(self, vectors: VectorStore, embeddings: Embeddings) -> None:
        self.embeddings = embeddings
        self.vectors = vectors
        self._reserved = 0

    def get(self, record_ids: Sequence[str]) -> dict[str, Stored]:
        """Records by id; an unknown id is left out."""
        found = map(stored_of, self.vectors.get_by_ids(list(record_ids)))
        return {stored.record.record_id: stored for stored in found}

    def select(self, scope: Scope) -> list[Stored]:
        """Records of a scope, in no order."""
        found = map(stored_of, self.vectors.similarity_search(scope.category or "a prompt", k=MAX_RECORDS))
        return [stored for stored in found if scope.holds(stored)]

    def embedded(self, scope: Scope) -> tuple[list[Stored], FloatMatrix]:
        """Records of a scope and, row by row, the embeddings of their prompts."""
        found = self.select(scope)
        vectors = self.embeddings.embed_documents([stored.record.prompt for stored in found])
        return found, np.asarray(vectors, dtype=np.float32)

    def add(self, stored: Sequence[Stored]) -> None:
        """Write records; one whose id is there already is replaced."""
        self.vectors.add_documents([document_of(one) for one in stored])

    def delete(self, record_ids: Sequence[str]) -> None:
        self.vectors.delete(list(record_ids))

    def last_sequence(self) -> int:
        """The highest that was reserved; 0 for none."""
        return max(self._reserved, *(stored.sequence for stored in self.select(Scope())), 0)

    def reserve(self, count: int) -> int:
        """Take `count` sequence numbers that no record had; returns the first."""
        first = self.last_sequence() + 1
        self._reserved = first + count - 1
        return first


class PromptStore(Protocol):
    """Opens a table for one operation."""

    @property
    def embeddings(self) -> Embeddings: ...

    def opened(self) -> AbstractContextManager[PromptTable]:
        """Nobody else reads or writes inside the block."""
        ...


class SingleProcessStore:
    """Any LangChain vector store, for the threads of this process."""

    def __init__(self, vectors: VectorStore, embeddings: Embeddings) -> None:
        self.embeddings = embeddings
        self._table = PromptTable(vectors, embeddings)
        self._lock = threading.Lock()

    @contextmanager
    def opened(self) -> Iterator[PromptTable]:
        with self._lock:
            yield self._table


def document_of(stored: Stored) -> Document:
    """The prompt is the text; the record is JSON beside the fields that a store may filter by."""
    record = stored.record
    return Document(
        id=record.record_id,
        page_content=record.prompt,
        metadata={
            "category": record.category,
            "run_id": record.run_id,
            "sequence": stored.sequence,
            "record": encode_record(record),
        },
    )


def stored_of(document: Document) -> Stored:
    """Undo `document_of`.

    Raises:
        BrokenRunError: the document is not ours.
    """
    return Stored(decode_record(str(document.metadata.get("record"))), int(document.metadata.get("sequence", 0)))
