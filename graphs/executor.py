"""Executors hand out independent work. Threads here; a cluster later, behind the same Protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context

from .services import ItemT, ResultT


class ThreadExecutor:
    """Threads of this process. After `stop` is set nothing new starts; what has started is finished."""

    def __init__(self, workers: int, stop: threading.Event) -> None:
        self._workers = workers
        self._stop = stop

    def map(self, work: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Iterator[ResultT]:
        """Results as they are ready, in no order; an exception of `work` is raised after the rest in flight ended."""
        waiting = iter(items)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="maskwright") as pool:
            running: set[Future[ResultT]] = set()
            while True:
                while len(running) < self._workers and not self._stop.is_set():
                    item = next(waiting, None)
                    if item is None:
                        break
                    running.add(pool.submit(copy_context().run, work, item))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
