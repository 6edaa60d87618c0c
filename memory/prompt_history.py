"""Prompt history: what was painted from which words, across runs, so that the next prompt is informed and different."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from langchain_core.embeddings import Embeddings

from ..configs.memory import MemorySettings
from ..errors import RecipeError
from .prompt_records import PromptRecord, Recalled, Retirement, Snapshot, encode_record, rank_prompts
from .prompt_store import FloatMatrix, PromptStore, PromptTable, Scope, Stored

EMBEDDED_NAME = "embedded:minilm"


@dataclass(frozen=True, slots=True)
class NearPrompt:
    """A remembered prompt beside a candidate."""

    record: PromptRecord
    cosine: float
    """In [-1, 1]."""


Nearest = tuple[NearPrompt, ...]
"""Nearest first."""


@dataclass(frozen=True, slots=True)
class _ClassPrompts:
    """All that is visible of a class."""

    records: tuple[PromptRecord, ...]
    unit_vectors: FloatMatrix
    """(n, d), a row a record, of length 1."""


class PromptHistory:
    """Prompts with what came of them. Safe for threads, and for processes as far as its store is.

    What a snapshot shows of a class is read once and kept, so that an item's look-ups cost no more than arithmetic.
    """

    def __init__(self, store: PromptStore, settings: MemorySettings) -> None:
        self._store = store
        self._settings = settings
        self._shown: dict[tuple[str, Snapshot], _ClassPrompts] = {}

    def snapshot(self, run_id: str) -> Snapshot:
        """What a run that begins now sees; later records of other runs do not show in it.

        A resumed run makes its `Snapshot` from the `shared_sequence` that it noted when it began.
        """
        with self._store.opened() as table:
            return Snapshot(run_id, table.last_sequence())

    def upsert(self, records: Iterable[PromptRecord]) -> int:
        """Remember records, in their order; one that is there already, unchanged, stays where it is, and retired.

        Returns:
            The highest sequence number among them, for `Snapshot.after`; 0 where there are none.

        Raises:
            BrokenRunError: the store is damaged, or its disk is full.
        """
        by_id = {record.record_id: record for record in records}
        if not by_id:
            return 0
        with self._store.opened() as table:
            known = table.get(list(by_id))
            records = [_with_retirement(record, known) for record in by_id.values()]
            new = [record for record in records if not _is_known(record, known)]
            last = max((stored.sequence for stored in known.values()), default=0)
            if new:
                first = table.reserve(len(new))
                table.add([Stored(record, first + index) for index, record in enumerate(new)])
                last = first + len(new) - 1
        self._shown.clear()
        return last

    def retire(self, record_ids: Sequence[str], reason: str, run_id: str) -> None:
        """Recommend prompts no more; they still count as known. Retired and unknown ones are left alone.

        Snapshots that were taken before do not show it.

        Raises:
            BrokenRunError: the store is damaged, or its disk is full.
        """
        with self._store.opened() as table:
            known = table.get(list(record_ids))
            if living := [stored for stored in known.values() if stored.record.retired is None]:
                retired = Retirement(reason=reason, run_id=run_id, sequence=table.reserve(1))
                table.add([replace(stored, record=replace(stored.record, retired=retired)) for stored in living])
        self._shown.clear()

    def recall(self, category: str, snapshot: Snapshot | None = None) -> Recalled:
        """The best prompts of a class and the worst with their reasons; without a snapshot, of all there is."""
        shown = self._prompts_of(category, snapshot)
        return rank_prompts(shown.records, self._settings.num_best, self._settings.num_worst)

    def nearest(self, category: str, prompt: str, k: int | None = None, snapshot: Snapshot | None = None) -> Nearest:
        """The `k` remembered prompts of a class that are most like a candidate, nearest first; ties in order of ids."""
        shown = self._prompts_of(category, snapshot)
        if not shown.records:
            return ()
        [query] = _unit_rows(self._store.embeddings.embed_documents([prompt]))
        cosines = np.clip(shown.unit_vectors @ query, -1, 1)
        order = sorted(range(len(cosines)), key=lambda row: (-cosines[row], shown.records[row].record_id))
        return tuple(
            NearPrompt(shown.records[row], float(cosines[row])) for row in order[: k or self._settings.num_nearest]
        )

    def is_novel(self, category: str, prompt: str, snapshot: Snapshot | None = None) -> bool:
        """Whether a candidate differs enough from everything that is remembered of the class."""
        return all(near.cosine <= self._settings.novelty for near in self.nearest(category, prompt, 1, snapshot))

    def records(self, category: str | None = None, run_id: str | None = None) -> list[PromptRecord]:
        """All records, of a class or a run or both, in the order in which they were remembered."""
        with self._store.opened() as table:
            found = table.select(Scope(category, run_id))
        return [stored.record for stored in sorted(found, key=lambda stored: stored.sequence)]

    def counts(self) -> Mapping[str, int]:
        """How many prompts of each class are remembered, by name."""
        return dict(sorted(Counter(record.category for record in self.records()).items()))

    def remove(self, record_ids: Sequence[str]) -> None:
        """Forget records; an unknown id is left alone."""
        with self._store.opened() as table:
            if known := list(table.get(record_ids)):
                table.delete(known)
        self._shown.clear()

    def _prompts_of(self, category: str, snapshot: Snapshot | None) -> _ClassPrompts:
        key = (category, snapshot) if snapshot is not None else None
        if key is not None and key in self._shown:
            return self._shown[key]
        with self._store.opened() as table:
            prompts = _read_class(table, Scope(category, snapshot=snapshot))
        if key is not None:
            self._shown[key] = prompts
        return prompts


class NoHistory:
    """Is asked like a `PromptHistory` and remembers nothing; for `memory.enabled: false`."""

    def snapshot(self, run_id: str) -> Snapshot:
        return Snapshot(run_id, 0)

    def upsert(self, records: Iterable[PromptRecord]) -> int:  # noqa: ARG002
        return 0

    def retire(self, record_ids: Sequence[str], reason: str, run_id: str) -> None:
        del record_ids, reason, run_id

    def records(self, category: str | None = None, run_id: str | None = None) -> list[PromptRecord]:  # noqa: ARG002
        return []

    def recall(self, category: str, snapshot: Snapshot | None = None) -> Recalled:  # noqa: ARG002
        return Recalled()

    def nearest(self, category: str, prompt: str, k: int | None = None, snapshot: Snapshot | None = None) -> Nearest:  # noqa: ARG002
        return ()

    def is_novel(self, category: str, prompt: str, snapshot: Snapshot | None = None) -> bool:  # noqa: ARG002
        return True


def open_prompt_history(settings: MemorySettings, embeddings: Embeddings | None = None) -> PromptHistory | NoHistory:
    """The history that the settings name; its folder is made, opened and found writable at once.

    Args:
        embeddings: instead of those that the settings name.

    Raises:
        RecipeError: unknown embeddings, or a memory that was made with others.
        RunFolderError: the folder holds something else.
        BrokenRunError: the folder is not writable, or the memory in it is damaged.
    """
    return _open(settings, embeddings, create=True) if settings.enabled else NoHistory()


def open_existing_history(settings: MemorySettings, embeddings: Embeddings | None = None) -> PromptHistory:
    """The history that stands in the folder, enabled or not; nothing is made.

    Raises:
        RunFolderError: there is none.
        RecipeError, BrokenRunError: as `open_prompt_history`.
    """
    return _open(settings, embeddings, create=False)


def _open(settings: MemorySettings, embeddings: Embeddings | None, *, create: bool) -> PromptHistory:
    from .chroma_store import ChromaFolder

    embeddings = embeddings or _build_embeddings(settings.embeddings)
    return PromptHistory(ChromaFolder(settings.path, embeddings, settings.embeddings, create=create), settings)


def _build_embeddings(name: str) -> Embeddings:
    if name != EMBEDDED_NAME:
        raise RecipeError(
            f"unknown embeddings {name!r}; known: {EMBEDDED_NAME}. Set `memory.embeddings` in the recipe."
        )
    from ..models.embeddings import MiniLM

    return MiniLM()


def _with_retirement(record: PromptRecord, known: Mapping[str, Stored]) -> PromptRecord:
    """A run that is replayed does not know what was retired after its record."""
    stored = known.get(record.record_id)
    return replace(record, retired=stored.record.retired) if stored and not record.retired else record


def _is_known(record: PromptRecord, known: Mapping[str, Stored]) -> bool:
    stored = known.get(record.record_id)
    return stored is not None and encode_record(stored.record) == encode_record(record)


def _read_class(table: PromptTable, scope: Scope) -> _ClassPrompts:
    stored, vectors = table.embedded(scope)
    records = tuple(_as_shown(one.record, scope.snapshot) for one in stored)
    return _ClassPrompts(records, _unit_rows(vectors))


def _as_shown(record: PromptRecord, snapshot: Snapshot | None) -> PromptRecord:
    """In use, where the snapshot does not show its retirement."""
    retired = record.retired
    if retired is None or snapshot is None or snapshot.shows(retired, retired.sequence):
        return record
    return replace(record, retired=None)


def _unit_rows(vectors: Sequence[Sequence[float]] | FloatMatrix) -> FloatMatrix:
    rows = np.asarray(vectors, dtype=np.float32)
    if not len(rows):
        return rows
    unit: FloatMatrix = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
