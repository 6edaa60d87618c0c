"""Items of one wave side by side: what they ask of a device at the same step becomes one batch, in item order.

Every item runs in a thread of its own and waits at a device call until each of its companions waits too or has ended.
Who belongs to a batch therefore depends on the items alone, never on how fast a thread or a language model was. One
batch runs at a time: that is the lease of the device.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ..errors import BrokenRunError, InputError, ModelOutageError

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class StopEvent(Protocol):
    """Set when nothing new shall start; a `threading.Event` is one."""

    def is_set(self) -> bool: ...


@dataclass(slots=True)
class Meter:
    """What one item has had of the device."""

    seconds: float = 0.0


@dataclass(slots=True)
class _Call:
    """One item's part of a batch."""

    run: Callable[[Sequence[object]], Sequence[object]]
    requests: Sequence[object]
    answers: Sequence[object] | None = None
    error: BaseException | None = None
    seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        return self.answers is not None or self.error is not None


@dataclass(slots=True)
class Lockstep:
    """The meeting point of the items that run side by side."""

    num_items: int
    _condition: threading.Condition = field(default_factory=threading.Condition)
    _waiting: dict[int, _Call] = field(default_factory=dict)
    _num_ended: int = 0

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """An item's presence: when it ends, for whatever reason, its companions stop waiting for it."""
        try:
            yield
        finally:
            with self._condition:
                self._num_ended += 1
                self._run_if_all_wait()

    def call(
        self, place: int, run: Callable[[Sequence[object]], Sequence[object]], requests: Sequence[object]
    ) -> _Call:
        """Wait for the companions, then have the answers. `place` is the item's in the wave; it orders the batch."""
        with self._condition:
            call = _Call(run, requests)
            self._waiting[place] = call
            self._run_if_all_wait()
            while not call.is_done:
                self._condition.wait()
            return call

    def _run_if_all_wait(self) -> None:
        """The last one to arrive runs the batches of all; the others sleep meanwhile."""
        if not self._waiting or len(self._waiting) + self._num_ended < self.num_items:
            return
        calls = [self._waiting[place] for place in sorted(self._waiting)]
        self._waiting.clear()
        for run in dict.fromkeys(call.run for call in calls):
            _run_together(run, [call for call in calls if call.run == run])
        self._condition.notify_all()


HITS_ALL = (BrokenRunError, InputError, ModelOutageError, MemoryError)
"""What no smaller batch would mend."""


def _run_together(run: Callable[[Sequence[object]], Sequence[object]], calls: Sequence[_Call]) -> None:
    """One batch for all; where something breaks it, one batch each, so that a bad item breaks alone."""
    started = time.perf_counter()
    try:
        answers = run([request for call in calls for request in call.requests])
    except BaseException as exc:  # noqa: BLE001  it is raised again in the thread of every item that it concerns
        if len(calls) == 1 or isinstance(exc, HITS_ALL) or not isinstance(exc, Exception):
            for call in calls:
                call.error = exc
        else:
            for call in calls:
                _run_together(run, [call])
        return
    seconds = time.perf_counter() - started
    position = 0
    for call in calls:
        call.answers = answers[position : position + len(call.requests)]
        call.seconds = seconds * len(call.requests) / max(1, len(answers))
        position += len(call.requests)


@dataclass(frozen=True, slots=True)
class Batched(Generic[RequestT, AnswerT]):
    """A batch function as one item sees it: it answers the item's own requests, its companions' with them."""

    run: Callable[[Sequence[RequestT]], Sequence[AnswerT]]
    lockstep: Lockstep
    place: int
    meter: Meter

    def __call__(self, requests: Sequence[RequestT]) -> Sequence[AnswerT]:
        call = self.lockstep.call(self.place, self.run, requests)  # type: ignore[arg-type]  # one call, one type
        if call.error is not None:
            raise call.error
        self.meter.seconds += call.seconds
        return call.answers  # type: ignore[return-value]


def run_in_lockstep(
    work: Callable[[ItemT, Lockstep, int], ResultT], items: Sequence[ItemT], batch_items: int, stop: StopEvent
) -> Iterator[ResultT]:
    """Run items side by side, `batch_items` at a time; results in item order.

    Args:
        work: gets an item, its meeting point and its place there.
        stop: once set, no further group starts; the one in flight is finished.
    """
    for first in range(0, len(items), batch_items):
        if stop.is_set():
            return
        group = items[first : first + batch_items]
        lockstep = Lockstep(len(group))

        def take_part(place: int, group: Sequence[ItemT] = group, lockstep: Lockstep = lockstep) -> ResultT:
            with lockstep.taking_part():
                return work(group[place], lockstep, place)

        with ThreadPoolExecutor(len(group), thread_name_prefix="maskwright") as pool:
            # In the caller's context, so that a trace shows the items below the run.
            futures = [pool.submit(copy_context().run, take_part, place) for place in range(len(group))]
            yield from (future.result() for future in futures)
