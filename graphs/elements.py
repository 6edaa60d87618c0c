"""Diversity elements by class: asked of the planner once, kept with the run."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from ..errors import LanguageModelError
from ..memory.ledger import Ledger
from .writing import DiversityElements, Usage


class Planner(Protocol):
    """Who lists a class's elements."""

    def plan(self, category: str, usage: Usage) -> DiversityElements: ...


class ElementsLedger:
    """Elements on disk, so that a resumed run writes from the same ones; safe for threads."""

    def __init__(self, entries: Ledger[Mapping[str, object]], planner: Planner) -> None:
        self._entries = entries
        self._planner = planner
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._known: dict[int, DiversityElements] = {}
        self._owed: defaultdict[int, Usage] = defaultdict(Usage)
        """What was asked ahead, by class, until an item pays for it."""

    def plan_ahead(self, category_id: int, category: str, planner: Planner) -> None:
        """Have the elements of a class before an item wants them. A model that fails is left for the item to meet.

        Args:
            planner: asks as the store's own would.
        """
        with self._locks[category_id], suppress(LanguageModelError):
            self._have(category_id, category, planner, self._owed[category_id])

    def of(self, category_id: int, category: str, usage: Usage) -> DiversityElements:
        """The elements of a class; the first item that wants them pays for them.

        Raises:
            LanguageModelError: the planner cannot be reached, or refuses.
        """
        with self._locks[category_id]:
            usage.add_usage(self._owed.pop(category_id, Usage()))
            return self._have(category_id, category, self._planner, usage)

    def _have(self, category_id: int, category: str, planner: Planner, usage: Usage) -> DiversityElements:
        if category_id not in self._known:
            self._known[category_id] = self._read_or_ask(category_id, category, planner, usage)
        return self._known[category_id]

    def _read_or_ask(self, category_id: int, category: str, planner: Planner, usage: Usage) -> DiversityElements:
        entry_id = f"class-{category_id}"
        entry = self._entries.read(entry_id)
        if entry is not None:
            return DiversityElements.model_validate(entry)
        elements = planner.plan(category, usage)
        self._entries.write(entry_id, elements.model_dump())
        return elements
