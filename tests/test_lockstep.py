"""Items side by side: who shares a batch is decided by the items, and one bad item harms no other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import pytest

from maskwright.errors import BrokenRunError, ModelRequestError, PromptError
from maskwright.graphs.lockstep import Batched, Lockstep, Meter, run_in_lockstep


class Doubler:
    """Doubles numbers in batches and records them; refuses some."""

    def __init__(
        self,
        bad: frozenset[int] = frozenset(),
        broken: frozenset[int] = frozenset(),
        error: Exception | None = None,
    ) -> None:
        self.batches: list[list[int]] = []
        self.bad, self.broken, self.error = bad, broken, error or PromptError("empty")

    def run(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        if self.broken & set(numbers):
            raise BrokenRunError("no device")
        if self.bad & set(numbers):
            raise self.error
        return [2 * number for number in numbers]


def _run(
    doubler: Doubler, steps: Sequence[Sequence[int]], *, batch_items: int = 8, jitter: bool = True
) -> list[object]:
    """One item a sequence; at each step it asks for its number, and its number plus 100."""

    def work(numbers: Sequence[int], lockstep: Lockstep, place: int) -> object:
        meter = Meter()
        double = Batched(doubler.run, lockstep, place, meter)
        answers: list[int] = []
        for number in numbers:
            time.sleep(random.random() / 100)
            try:
                answers += double([number, number + 100])
            except (PromptError, ModelRequestError, RuntimeError) as exc:
                return exc
        assert meter.seconds > 0 or not numbers
        return answers

    return list(run_in_lockstep(work, steps, batch_items, threading.Event()))


def test_a_step_of_all_items_is_one_batch_in_item_order() -> None:
    doubler = Doubler()
    assert _run(doubler, [[1, 4], [2, 5], [3, 6]]) == [[2, 202, 8, 208], [4, 204, 10, 210], [6, 206, 12, 212]]
    assert doubler.batches == [[1, 101, 2, 102, 3, 103], [4, 104, 5, 105, 6, 106]]


@pytest.mark.parametrize("repeat", range(5))
def test_batches_do_not_depend_on_timing(repeat: int) -> None:
    doubler = Doubler()
    _run(doubler, [[1], [2, 20, 30], [], [3, 40]])
    assert doubler.batches == [[1, 101, 2, 102, 3, 103], [20, 120, 40, 140], [30, 130]]


@pytest.mark.parametrize(
    "error", [PromptError("empty"), ModelRequestError("refused"), RuntimeError("a defect")], ids=lambda e: str(e)
)
def test_a_bad_item_fails_alone(error: Exception) -> None:
    doubler = Doubler(bad=frozenset({2}), error=error)
    good, bad, other = _run(doubler, [[1, 4], [2, 5], [3, 6]])
    assert bad is error
    assert (good, other) == ([2, 202, 8, 208], [6, 206, 12, 212])
    assert doubler.batches[-1] == [4, 104, 6, 106]


def test_a_broken_device_breaks_all() -> None:
    with pytest.raises(BrokenRunError, match="no device"):
        _run(Doubler(broken=frozenset({3})), [[1], [2], [3]])


def test_different_functions_do_not_mix() -> None:
    first, second = Doubler(), Doubler()

    def work(number: int, lockstep: Lockstep, place: int) -> list[int]:
        doubler = first if number % 2 else second
        return list(Batched(doubler.run, lockstep, place, Meter())([number]))

    assert list(run_in_lockstep(work, [1, 2, 3, 4], 4, threading.Event())) == [[2], [4], [6], [8]]
    assert (first.batches, second.batches) == ([[1, 3]], [[2, 4]])


def test_groups_are_cut_by_size_and_stop_between() -> None:
    doubler, stop = Doubler(), threading.Event()

    def work(number: int, lockstep: Lockstep, place: int) -> list[int]:
        if number == 3:
            stop.set()
        return list(Batched(doubler.run, lockstep, place, Meter())([number]))

    assert list(run_in_lockstep(work, [1, 2, 3, 4, 5, 6], 2, stop)) == [[2], [4], [6], [8]]
    assert doubler.batches == [[1, 2], [3, 4]]
