"""What several seeds say of two arms: means, deviations, and the differences seed by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit

Answer = Literal["better", "worse", "no difference shown", "nothing can be said"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one figure over seeds."""

    n: int
    mean: float | None
    """None of no figure."""
    deviation: float | None
    """Of the sample, with n - 1; None of fewer than two figures."""

    def __str__(self) -> str:
        return tell(self.mean, self.deviation)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """An arm minus another, each seed against itself."""

    seeds: tuple[int, ...]
    """On which both arms have a figure, ascending."""
    unpaired: tuple[int, ...]
    """The other seeds of either arm."""
    differences: tuple[float, ...]
    """In the order of `seeds`."""
    confidence: float
    mean: float | None
    """None of no pair."""
    deviation: float | None
    """Of the sample; this and the interval's ends are None of fewer than two pairs."""
    low: float | None
    """Of Student's interval of the mean."""
    high: float | None

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def wins(self) -> int:
        """Seeds on which the arm is strictly above the other."""
        return sum(one > 0 for one in self.differences)

    @property
    def answer(self) -> Answer:
        """Whether the interval lies on one side of 0; one seed has none, whatever its difference."""
        if self.low is None or self.high is None:
            return "nothing can be said"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"

    @property
    def is_beyond_deviation(self) -> bool:
        """Whether the mean is above 0 by more than the deviation of the differences; a weaker claim than `answer`."""
        return self.mean is not None and self.deviation is not None and self.mean > self.deviation

    def __str__(self) -> str:
        return tell(self.mean, self.deviation, sign="+")

    def as_json(self) -> dict[str, object]:
        return {
            "n": self.n,
            "seeds": list(self.seeds),
            "unpaired": list(self.unpaired),
            "differences": list(self.differences),
            "mean": self.mean,
            "deviation": self.deviation,
            "confidence": self.confidence,
            "interval": None if self.low is None else [self.low, self.high],
            "wins": self.wins,
            "answer": self.answer,
        }


def tell(mean: float | None, deviation: float | None, *, sign: Literal["", "+"] = "") -> str:
    """'0.312 ± 0.010'; a dash where there is no figure, and no deviation of one seed."""
    if mean is None:
        return "–"
    return f"{mean:{sign}.3f}" if deviation is None else f"{mean:{sign}.3f} ± {deviation:.3f}"


def spread(figures: Iterable[float | None]) -> Spread:
    """Mean and sample deviation of the figures that there are.

    Raises:
        ValueError: a figure is not finite.
    """
    values = [one for one in figures if one is not None]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"figures {values!r}; expected finite numbers, or None where there is none")
    return Spread(
        len(values),
        statistics.fmean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def paired_difference(
    arm: Mapping[int, float | None], other: Mapping[int, float | None], *, confidence: float = 0.95
) -> PairedDifference:
    """Compare two arms on the seeds that they share (Student's paired t).

    Args:
        arm: a figure by seed; None where a run has none.
        confidence: of the interval, in (0, 1).

    Raises:
        ValueError: a figure is not finite, or `confidence` out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; expected a share in (0, 1), such as 0.95")
    ours, theirs = ({seed: one for seed, one in each.items() if one is not None} for each in (arm, other))
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    differences = tuple(ours[seed] - theirs[seed] for seed in seeds)
    found = spread(differences)
    low = high = None
    if found.mean is not None and found.deviation is not None:
        quantile = float(stdtrit(found.n - 1, (1 + confidence) / 2))
        half = quantile * found.deviation / math.sqrt(found.n)
        low, high = found.mean - half, found.mean + half
    return PairedDifference(
        seeds=seeds,
        unpaired=tuple(sorted((arm.keys() | other.keys()) - set(seeds))),
        differences=differences,
        confidence=confidence,
        mean=found.mean,
        deviation=found.deviation,
        low=low,
        high=high,
    )
