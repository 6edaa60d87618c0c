"""Notes in Chroma, in a folder of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from pydantic import ValidationError

from ..data.files import remove_partials
from ..errors import InputError, RunFolderError
from .artifacts import write_or_stop
from .knowledge_notes import ORIGINS, Note, Provenance, StoredNote
from .shared_folder import SharedFolder

COLLECTION = "maskwright-knowledge"
MARKER_NAME = "knowledge.json"
FORMAT_VERSION = 1

FloatMatrix = npt.NDArray[np.float32]


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What says that a folder is a knowledge base."""

    knowledge: int
    """Version of the format."""
    embeddings: str
    """Name of the embeddings that it was made with."""
    shipped: tuple[str, ...] = ()
    """Ids of the shipped notes that it was ever given: one that was removed stays away."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """All notes at one moment."""

    notes: tuple[StoredNote, ...]
    """Most trusted origin first, then by kind, name and id."""
    unit_vectors: FloatMatrix
    """(n, d), a row a note, of length 1."""


class KnowledgeFolder:
    """Chroma in a folder.

    Args:
        folder: made when missing.
        embeddings_name: of `embeddings`; a knowledge base keeps to those that it was made with.

    Raises:
        RunFolderError: the folder holds something else, or a newer format.
        InputError: it was made with other embeddings.
        BrokenRunError: it is damaged, or not writable.
    """

    def __init__(self, folder: Path, embeddings: Embeddings, embeddings_name: str) -> None:
        self.folder = folder.absolute()
        self.embeddings = embeddings
        self._shared = SharedFolder(
            folder,
            MARKER_NAME,
            holds="knowledge base",
            if_foreign="Name an empty or a new folder.",
            if_damaged="move the folder away; shipped notes come back by themselves, add your own again",
        )
        self._shared.make()
        with self._shared.exclusive():
            self._settle(embeddings_name)

    def _settle(self, embeddings_name: str) -> None:
        remove_partials(self.folder, deep=False)
        path = self.folder / MARKER_NAME
        if not path.exists():
            write_or_stop(path, msgspec.json.encode(Marker(FORMAT_VERSION, embeddings_name)))
        marker = self._marker()
        if marker.knowledge != FORMAT_VERSION:
            raise RunFolderError(
                f"{self.folder}: this knowledge base has format {marker.knowledge}, expected {FORMAT_VERSION}. "
                "Use the maskwright that wrote it, or name another folder."
            )
        if marker.embeddings != embeddings_name:
            raise InputError(
                f"{self.folder}: this knowledge base was made with the embeddings {marker.embeddings!r}, not "
                f"{embeddings_name!r}. Name another folder and add your notes to it."
            )
        if marker.shipped:
            self._shared.check_database()

    def read(self) -> Shelf:
        """All notes, in an order that depends on them alone."""
        with self._shared.opened(COLLECTION, self.embeddings) as vectors:
            found = vectors.get(include=["metadatas", "embeddings"])
        notes = [self._decode(metadata["note"]) for metadata in found["metadatas"]]
        order = sorted(range(len(notes)), key=lambda row: _sort_key(notes[row]))
        if not notes:
            return Shelf((), np.zeros((0, 0), np.float32))
        rows = np.asarray(found["embeddings"], dtype=np.float32)[order]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return Shelf(tuple(notes[row] for row in order), rows / np.maximum(lengths, 1e-12))

    def change(self, put: Mapping[str, StoredNote], remove: Sequence[str] = ()) -> None:
        """Write notes by id and take others out; an id that is in neither place stays as it is."""
        with self._shared.opened(COLLECTION, self.embeddings) as vectors:
            if gone := [note_id for note_id in remove if note_id not in put]:
                vectors.delete(gone)
            if put:
                vectors.add_documents([_document_of(note_id, stored) for note_id, stored in put.items()])

    def shipped_ids(self) -> tuple[str, ...]:
        """Of the shipped notes that it was ever given."""
        return self._marker().shipped

    def note_shipped(self, note_ids: Sequence[str]) -> None:
        """Remember which shipped notes it was given."""
        with self._shared.exclusive():
            marker = msgspec.structs.replace(self._marker(), shipped=tuple(note_ids))
            write_or_stop(self.folder / MARKER_NAME, msgspec.json.encode(marker))

    def _marker(self) -> Marker:
        try:
            return msgspec.json.decode((self.folder / MARKER_NAME).read_bytes(), type=Marker)
        except (OSError, msgspec.DecodeError) as exc:
            raise self._shared.damaged(f"{MARKER_NAME}: {exc}") from exc

    def _decode(self, text: object) -> StoredNote:
        try:
            entry = msgspec.json.decode(str(text), type=_Entry)
            return StoredNote(Note.model_validate(entry.note), entry.provenance)
        except (msgspec.DecodeError, ValidationError) as exc:
            raise self._shared.damaged(exc) from exc


class _Entry(msgspec.Struct, frozen=True):
    note: dict[str, object]
    provenance: Provenance


def _document_of(note_id: str, stored: StoredNote) -> Document:
    """The digest is the text, so that a long note is found by more than its beginning; the note is JSON beside it."""
    entry = _Entry(stored.note.model_dump(mode="json", exclude_defaults=True), stored.provenance)
    metadata = {"note": msgspec.json.encode(entry).decode()}
    return Document(id=note_id, page_content=stored.note.digest_text, metadata=metadata)


def _sort_key(stored: StoredNote) -> tuple[int, str, str, str]:
    return (ORIGINS.index(stored.provenance.origin), stored.note.kind, stored.note.name, stored.note_id)
