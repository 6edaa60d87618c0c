"""What a round of instances brought: average precision with and without them, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from .paired import PairedDifference, paired_difference

Verdict = Literal["gained", "lost", "unknown"]
BySeed = Mapping[int, float | None]
"""Average precision in [0, 1] by seed of the training; None where the split has no instance to measure on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """Of one class, or over all: the same trainings with and without the synthetic instances."""

    with_synthetic: BySeed
    real_alone: BySeed


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """What was measured of a run's product."""

    overall: ArmFigures
    classes: Mapping[str, ArmFigures]
    """By class name; a class that is absent was not measured."""


class GainMeter(Protocol):
    """Trains and measures on a run's product, always on the same split and by the same seeds."""

    def measure(self, run_folder: Path, round_number: int) -> RoundFigures:
        """Figures of the data set in RUN_FOLDER/dataset; a killed call goes on when it is made again.

        Args:
            round_number: from 1.

        Raises:
            InputError: the product cannot be measured, as without a validation split.
            BrokenRunError: the training cannot go on; the same call resumes it.
        """
        ...


def overall_gain(this: RoundFigures, before: RoundFigures | None) -> PairedDifference:
    """What a round added to the figures of the round before it; None: to those of the real data alone."""
    return _gain(this.overall, before.overall if before else None)


def class_gains(this: RoundFigures, before: RoundFigures | None) -> dict[str, PairedDifference]:
    """The same of each class; one that was not measured both times is left out."""
    if before is None:
        return {name: _gain(figures, None) for name, figures in this.classes.items()}
    return {name: _gain(this.classes[name], before.classes[name]) for name in this.classes if name in before.classes}


def _gain(this: ArmFigures, before: ArmFigures | None) -> PairedDifference:
    return paired_difference(this.with_synthetic, before.with_synthetic if before else this.real_alone)


def judge_gain(gain: PairedDifference) -> Verdict:
    """Beyond the noise is a mean farther from 0 than the deviation of the differences; one seed has none."""
    if gain.is_beyond_deviation:
        return "gained"
    if gain.mean is not None and gain.deviation is not None and -gain.mean > gain.deviation:
        return "lost"
    return "unknown"
