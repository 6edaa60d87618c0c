"""How long a YOLO training is and in which order it sees its pictures, whatever the data set's size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

MAX_ROUNDS = 100
"""Rounds of a training that is given in steps. ultralytics' defaults are made for 100 epochs."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A training in rounds: what ultralytics calls epochs, and by which it sets learning rate, warm-up and mosaic.

    A training given in epochs has one pass over the pictures as its round. One given in steps has rounds of equal
    steps, so that two data sets of different sizes are trained alike.
    """

    size: int
    """Pictures."""
    batch: int
    rounds: int
    samples_a_round: int
    steps: int

    @property
    def steps_a_round(self) -> int:
        return math.ceil(self.samples_a_round / self.batch)

    def passes_begun(self, step: int) -> int:
        """Passes over the pictures after so many steps, the last one perhaps unfinished."""
        rounds, rest = divmod(step, self.steps_a_round)
        samples = rounds * self.samples_a_round + min(rest * self.batch, self.samples_a_round)
        return math.ceil(samples / self.size)


def plan_rounds(size: int, batch: int, *, epochs: int | None, steps: int | None) -> Schedule:
    """The rounds of a training on `size` pictures; exactly one of `epochs` and `steps` is given.

    Given in steps, every batch is full, over the end of a pass where need be, and the last round may be cut short.
    """
    if epochs is not None:
        return Schedule(size, batch, epochs, size, epochs * math.ceil(size / batch))
    if steps is None:
        raise ValueError("neither epochs nor steps given; expected one of them")
    steps_a_round = math.ceil(steps / MAX_ROUNDS)
    return Schedule(size, batch, math.ceil(steps / steps_a_round), steps_a_round * batch, steps)


class EndlessOrder:
    """Indices of pictures, round by round: each pass over all of them is shuffled anew and seeded by its number.

    A sampler as torch's DataLoader takes one.
    """

    def __init__(self, size: int, samples_a_round: int, seed: int) -> None:
        self._size, self._samples_a_round, self._seed = size, samples_a_round, seed
        self._next_round = 0

    def begin_at(self, round_index: int) -> None:
        """Leave out the rounds that are done."""
        self._next_round = round_index

    def __len__(self) -> int:
        return self._samples_a_round

    def __iter__(self) -> Iterator[int]:
        """The indices of the next round."""
        first = self._next_round * self._samples_a_round
        self._next_round += 1
        number, shuffled = -1, list[int]()
        for position in range(first, first + self._samples_a_round):
            at_pass, index = divmod(position, self._size)
            if at_pass != number:
                number, shuffled = at_pass, list(range(self._size))
                Random(f"{self._seed}/{number}").shuffle(shuffled)
            yield shuffled[index]
