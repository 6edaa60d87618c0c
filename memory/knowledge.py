"""Knowledge of defects: notes that ship, the user's own, and what was measured on references."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings

from ..errors import InputError
from .knowledge_files import read_notes, shipped_notes
from .knowledge_measured import Measured, measured_note
from .knowledge_notes import Provenance, StoredNote
from .knowledge_search import (
    EVEN_WEIGHTS,
    DefectKnowledge,
    FoundNote,
    Why,
    best_named,
    holds_for,
    merge,
)
from .knowledge_store import FloatMatrix, KnowledgeFolder
from .prompt_history import EMBEDDED_NAME

DEFAULT_TOP_K = 4
NUM_GUESSED = 2
"""Nearest notes that stand in for a defect that no note names."""
MIN_MATERIAL_COSINE = 0.3
"""Of an item's name to the nearest note on a material; below it nothing is said of the material."""

IsTest = Callable[[str], bool]
"""Whether a sha256 is that of a test file or of its pixels."""


def none_is_test(sha256: str) -> bool:  # noqa: ARG001
    """Where there is no test set."""
    return False


@dataclass(frozen=True, slots=True)
class Added:
    """What became of notes that were added."""

    added: tuple[str, ...]
    """Ids of new notes."""
    unchanged: tuple[str, ...]
    """Ids that were there already."""
    replaced: tuple[str, ...]
    """Ids of notes that their source no longer has."""


class KnowledgeBase:
    """Notes and how to find them. It sees what stood there when it was opened, and what it wrote itself.

    Args:
        is_test: refuses what comes from test files; every note passes through it.
    """

    def __init__(self, folder: KnowledgeFolder, is_test: IsTest = none_is_test) -> None:
        self._folder = folder
        self._is_test = is_test
        self._shelf = folder.read()

    @property
    def notes(self) -> tuple[StoredNote, ...]:
        """Most trusted origin first (measured, own, shipped), then by kind, name and id."""
        return self._shelf.notes

    @property
    def fingerprint(self) -> str:
        """Of all notes, for the provenance of a run."""
        return hashlib.sha256("\n".join(stored.note_id for stored in self.notes).encode()).hexdigest()[:16]

    def add(self, paths: Iterable[Path]) -> Added:
        """Read notes from files or folders; what a file said when it was added before goes.

        Raises:
            InputError: a file is no note (file and line are named), or is a test file.
            BrokenRunError: the knowledge base is damaged, or its disk is full.
        """
        return self.put(read_notes(paths))

    def add_measured(self, item: str, defect: str, measured: Measured, sha256s: Sequence[str]) -> Added:
        """Note what was measured on an item's references; an earlier measurement of the same goes.

        Args:
            sha256s: of each picture, so that its origin can be checked at any time.

        Raises:
            InputError: a picture is a test file's.
        """
        provenance = Provenance("measured", f"references of {defect!r} on {item!r}", tuple(sha256s))
        return self.put([StoredNote(measured_note(item, defect, measured), provenance)])

    def put(self, notes: Sequence[StoredNote]) -> Added:
        """Write notes; others from the same sources go."""
        self._refuse_test(notes)
        self._shelf = self._folder.read()
        known = {stored.note_id: stored for stored in self.notes}
        given = {stored.note_id: stored for stored in reversed(notes)}
        sources = {(stored.provenance.origin, stored.provenance.source) for stored in notes}
        gone = [
            note_id
            for note_id, stored in known.items()
            if note_id not in given and (stored.provenance.origin, stored.provenance.source) in sources
        ]
        changed = {note_id: stored for note_id, stored in given.items() if _is_newer(stored, known.get(note_id))}
        if changed or gone:
            self._folder.change(changed, gone)
            self._shelf = self._folder.read()
        new = sorted(given.keys() - known.keys())
        return Added(tuple(new), tuple(sorted(given.keys() & known.keys())), tuple(sorted(gone)))

    def remove(self, note_ids: Iterable[str]) -> list[StoredNote]:
        """Take notes out and return them; a shipped one stays away. An unknown id is left alone."""
        wanted = set(note_ids)
        gone = [stored for stored in self.notes if stored.note_id in wanted]
        if gone:
            self._folder.change({}, [stored.note_id for stored in gone])
            self._shelf = self._folder.read()
        return gone

    def search(
        self, item: str, defect: str, top_k: int = DEFAULT_TOP_K, material: str = "", *, measured: bool = True
    ) -> DefectKnowledge:
        """What is known of a defect on an item.

        A note speaks of the defect if one of its names stands in `defect`, word by word. Where none does, the nearest
        by embedding stand in, and `is_guess` says so.

        Args:
            item: as the data set calls it; its words, or else their meaning, tell the material.
            top_k: most notes in `notes` and `text`; tendencies are those of all that name the defect.
            material: what the item is made of, if its name does not say.
            measured: whether notes that were measured on real defects count.
        """
        made_of = self._material(material or item)
        material_name = made_of.note.name if made_of else ""
        usable = [
            one
            for one in self.notes
            if one.note.kind == "defect"
            and holds_for(one.note, item)
            and (measured or one.provenance.origin != "measured")
        ]
        named = _fitting(best_named(usable, defect), material_name)
        is_guess = not any(stored.note.families for stored in named)
        with_looks = [one for one in usable if one.note.families]
        guessed = self._nearest(defect, with_looks, NUM_GUESSED) if is_guess else []
        said = merge([*named, *guessed], material_name)
        groups: list[tuple[Why, list[StoredNote]]] = [
            ("name", named),
            ("near", guessed),
            ("material", [made_of] if made_of else []),
            ("near", [one for one in usable if one not in named and one not in guessed]),
        ]
        cosines = self._cosines(f"{defect} on {item}")
        shown = [
            FoundNote(stored, cosines[stored.note_id], why)
            for why, notes in groups
            for stored in sorted(notes, key=lambda stored: -cosines[stored.note_id])
        ][:top_k]
        return DefectKnowledge(
            item=item,
            defect=defect,
            material=material_name,
            is_guess=is_guess,
            families=said.families,
            ranges=said.ranges.given(),
            relief=said.relief,
            tone=said.tone,
            colours_rgb=said.colours_rgb,
            place_weights=said.place_weights or EVEN_WEIGHTS,
            shapes=said.shapes,
            text="\n\n".join(f"{row.stored.note.name}: {row.stored.note.text}" for row in shown),
            notes=tuple(shown),
        )

    def _material(self, words: str) -> StoredNote | None:
        materials = [stored for stored in self.notes if stored.note.kind == "material"]
        if named := best_named(materials, words):
            return named[0]
        nearest = self._nearest(words, materials, 1, MIN_MATERIAL_COSINE)
        return nearest[0] if nearest else None

    def _nearest(self, words: str, notes: Sequence[StoredNote], count: int, least: float = -1) -> list[StoredNote]:
        cosines = self._cosines(words)
        ordered = sorted(notes, key=lambda stored: -cosines[stored.note_id])
        return [stored for stored in ordered[:count] if cosines[stored.note_id] >= least]

    def _cosines(self, words: str) -> dict[str, float]:
        """Of all notes to some words, by id."""
        if not self.notes:
            return {}
        query: FloatMatrix = np.asarray(self._folder.embeddings.embed_query(words.replace("_", " ")), dtype=np.float32)
        cosines = self._shelf.unit_vectors @ (query / max(float(np.linalg.norm(query)), 1e-12))
        return {stored.note_id: float(cosine) for stored, cosine in zip(self.notes, cosines, strict=True)}

    def _refuse_test(self, notes: Iterable[StoredNote]) -> None:
        for stored in notes:
            leaked = [sha256 for sha256 in stored.provenance.sha256s if self._is_test(sha256)]
            if leaked:
                raise InputError(
                    f"{stored.provenance.source}: {len(leaked)} of {len(stored.provenance.sha256s)} files are test "
                    f"files (sha256 {leaked[0]!r}); knowledge comes from references and from your own notes only"
                )


def open_knowledge(
    folder: Path,
    embeddings: Embeddings | None = None,
    embeddings_name: str = EMBEDDED_NAME,
    is_test: IsTest = none_is_test,
) -> KnowledgeBase:
    """The knowledge base in a folder, made when missing; it has the shipped notes, but for those that were removed.

    Args:
        embeddings: None: the embedded ones.

    Raises:
        RunFolderError: the folder holds something else.
        InputError: it was made with other embeddings.
        BrokenRunError: it is damaged, or not writable.
        ModelNotFetchedError: the embedded model is not in the cache.
    """
    if embeddings is None:
        from ..models.embeddings import MiniLM

        embeddings = MiniLM()
    store = KnowledgeFolder(folder, embeddings, embeddings_name)
    _bring_shipped(store)
    return KnowledgeBase(store, is_test)


def _bring_shipped(store: KnowledgeFolder) -> None:
    shipped = {stored.note_id: stored for stored in shipped_notes()}
    given = set(store.shipped_ids())
    if given != shipped.keys():
        new = {note_id: stored for note_id, stored in shipped.items() if note_id not in given}
        store.change(new, sorted(given - shipped.keys()))
        store.note_shipped(sorted(shipped))


def _is_newer(stored: StoredNote, known: StoredNote | None) -> bool:
    """Whether a note is to be written: one of equal content from elsewhere is not."""
    return known is None or (known.provenance.source == stored.provenance.source and known != stored)


def _fitting(notes: list[StoredNote], material: str) -> list[StoredNote]:
    """Notes for a material, or all where none is for it."""
    fitting = [stored for stored in notes if not stored.note.materials or material in stored.note.materials]
    return fitting or notes
