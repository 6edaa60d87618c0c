"""Which detectors are trained to compare arms, on what, and for how many steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ..data.records import Findings
from ..data.splits import dataset_digest
from ..errors import RecipeError
from .arms import ARM_NAMES, OURS, REAL, Arm, ArmName
from .comparison import Comparison

EQUAL_EPOCHS: Final = "real, equal epochs"
EQUAL_STEPS: Final = "real, equal steps"


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """A part of a training; the second begins with the weights of the first."""

    data_yaml: Path
    data_id: str
    """Of all that decides its pictures and labels."""
    num_images: int
    """That a pass shows, some perhaps more than once."""
    steps: int
    real_repeats: float = 1.0
    """Times that a pass shows a real image with an instance, in the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArm:
    """What a detector is trained on, and for how long."""

    name: str
    ratio: float | None
    """Most synthetic images for each real one; None of real arms, and where the settings have none."""
    phases: Sequence[PlannedPhase]
    num_real: int
    num_synthetic: int
    instances: Mapping[str, int]
    """Synthetic or pasted ones by class."""
    findings: Findings
    """Of building it."""

    @property
    def label(self) -> str:
        return self.name if self.ratio is None else f"{self.name}, ratio {self.ratio:g}"

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)


def plan_arms(comparison: Comparison, ratios: Sequence[float] = ()) -> list[PlannedArm]:
    """Real images at equal epochs and at equal steps, then copy-paste and ours at each ratio.

    At equal epochs, every real image is seen as often as in `ours` of the first ratio.

    Args:
        ratios: None given: the settings' own.

    Raises:
        RecipeError: a ratio is not above 0.
        InputError, BrokenRunError: as `Comparison.arms` raises them.
    """
    if odd := [ratio for ratio in ratios if not 0 < ratio < math.inf]:
        raise RecipeError(f"ratio {odd[0]!r}; expected synthetic images for each real one, such as 0.5 or 2.")
    wanted = dict.fromkeys(ratios or (comparison.settings.mixing.ratio,))
    first, *others = [_plan_built(comparison, ratio) for ratio in wanted]
    real, pasted, ours = first
    real_steps = sum(phase.steps * phase.real_repeats * real.num_real / phase.num_images for phase in ours.phases)
    [whole] = real.phases
    short = replace(whole, steps=max(1, round(real_steps)))
    return [
        replace(real, name=EQUAL_EPOCHS, phases=[short]),
        replace(real, name=EQUAL_STEPS),
        pasted,
        ours,
        *(arm for built in others for arm in built[1:]),
    ]


def plan_pair(comparison: Comparison) -> tuple[PlannedArm, PlannedArm]:
    """Real images at equal steps, and `real + ours` by the settings' own ratio; copy-paste is not made.

    Raises:
        InputError, BrokenRunError: as `Comparison.arms` raises them.
    """
    real, ours = _plan_built(comparison, comparison.settings.mixing.ratio, (REAL, OURS))
    return replace(real, name=EQUAL_STEPS), ours


def _plan_built(comparison: Comparison, ratio: float | None, names: Sequence[ArmName] = ARM_NAMES) -> list[PlannedArm]:
    arms, key = comparison.arms(ratio, names)
    [real_phase] = arms[0].phases
    num_real, real_id = arms[0].num_real, f"{REAL} {dataset_digest(comparison.real)}"
    return [
        PlannedArm(
            name=arm.name,
            ratio=None if arm.name == REAL else ratio,
            phases=[
                PlannedPhase(data_yaml, real_id, num_real, steps)
                if data_yaml == real_phase.data_yaml
                else PlannedPhase(data_yaml, f"{arm.name} {key}", _pass_length(arm), steps, arm.real_repeats)
                for data_yaml, steps in _share_steps(arm, comparison.settings.steps)
            ],
            num_real=arm.num_real,
            num_synthetic=arm.num_synthetic,
            instances=arm.instances,
            findings=arm.findings,
        )
        for arm in arms
    ]


def _pass_length(arm: Arm) -> int:
    return arm.num_real + arm.num_synthetic + arm.num_repeats


def _share_steps(arm: Arm, steps: int) -> Iterator[tuple[Path, int]]:
    """The data of each phase that gets a step; together they get all."""
    share, done = 0.0, 0
    for phase in arm.phases:
        share += phase.share
        if (end := round(share * steps)) > done:
            yield phase.data_yaml, end - done
            done = end
