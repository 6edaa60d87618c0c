"""Calls that belong together share one batch, and stay calls of their own for callbacks, caches and errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from langchain_core.messages import BaseMessage

from .generation import Piece, Request

Prompts = Sequence[list[BaseMessage]]
Answers = Mapping[Request, Piece]


class SharedBatch:
    """Prompts that are answered together by whichever of their calls comes first; the others wait for it."""

    def __init__(self, prompts: Prompts) -> None:
        self._prompts = prompts
        self._lock = threading.Lock()
        self._answers: Answers | None = None

    def answers(self, answer: Callable[[Prompts], Answers]) -> Answers:
        """Answers of all prompts; `answer` runs once, unless it raises."""
        with self._lock:
            if self._answers is None:
                self._answers = answer(self._prompts)
            return self._answers


_CURRENT: ContextVar[tuple[object, SharedBatch] | None] = ContextVar("maskwright_shared_batch", default=None)


@contextmanager
def share_batch(owner: object, prompts: Prompts) -> Iterator[None]:
    """Inside, and in the threads and tasks that start there, calls of `owner` share a batch; one prompt needs none."""
    if len(prompts) < 2:
        yield
        return
    token = _CURRENT.set((owner, SharedBatch(prompts)))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def shared_batch(owner: object) -> SharedBatch | None:
    """The batch that a call of `owner` belongs to."""
    current = _CURRENT.get()
    return current[1] if current and current[0] is owner else None
