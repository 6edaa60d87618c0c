"""Arms over all seeds: means and deviations of every figure, what the run's product adds, and that in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, NamedTuple, TypeVar

from ..data.records import Findings
from .arm_plans import EQUAL_EPOCHS, EQUAL_STEPS, PlannedArm
from .arms import COPY_PASTE, OURS
from .comparison import Comparison
from .detection_metrics import ClassFigures, DetectionFigures, GroupFigures
from .detectors import Task
from .paired import PairedDifference, Spread, paired_difference, spread

TOO_LOW: Final = 0.05
"""AP of real images alone under which a difference says nothing."""
FIGURES: Final = ("ap", "ap50", "ap75")
Scope = Literal["overall", "groups", "classes"]
_Value = TypeVar("_Value")


class FigureKey(NamedTuple):
    """Which figure of a detector."""

    scope: Scope
    name: str
    """Of the frequency group, r, c or f, or of the class; empty of all classes."""
    kind: Literal["box", "mask"]
    figure: str
    """One of `FIGURES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """One detector, trained and measured."""

    label: str
    seed: int
    steps: int
    epochs: int
    seconds: float
    """Of training and measuring."""
    curve: Sequence[Mapping[str, float]]
    """Rows of the trainer, as `Trained` has them; `step` counts over the phases."""
    figures: DetectionFigures


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """An arm over its seeds."""

    plan: PlannedArm
    results: Sequence[ArmResult]
    by_seed: Mapping[FigureKey, Mapping[int, float | None]]
    """Null where the measured side has no instance."""

    def spread_of(self, key: FigureKey) -> Spread:
        return spread(self.by_seed[key].values())


@dataclass(frozen=True, slots=True)
class Difference:
    """What an arm adds to another, seed by seed."""

    arm: ArmSummary
    minus: ArmSummary

    def of(self, key: FigureKey) -> PairedDifference:
        return paired_difference(self.arm.by_seed[key], self.minus.by_seed[key])


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloSummary:
    """All arms, what ours adds to each control, and that in words."""

    arms: Sequence[ArmSummary]
    differences: Sequence[Difference]
    """Of `real + ours` by each ratio: minus real at equal steps, minus copy-paste, minus real at equal epochs."""
    verdict: Sequence[str]
    """Sentences."""
    main: FigureKey
    comparison: Comparison
    findings: Findings
    versions: Mapping[str, str]

    def as_json(self) -> dict[str, object]:
        """Numbers and nulls, never NaN."""
        comparison = self.comparison
        return {
            "verdict": list(self.verdict),
            "arms": [_arm_to_json(arm) for arm in self.arms],
            "differences": [_difference_to_json(one) for one in self.differences],
            "settings": comparison.settings.model_dump(mode="json"),
            "images": {
                "train": comparison.num_real,
                "measured": len(comparison.measured),
                "left_out": len(comparison.left_out),
            },
            "left_out": dict(comparison.left_out),
            "findings": self.findings.as_json(),
            "versions": dict(self.versions),
        }


def summarize(
    planned: Sequence[PlannedArm], results: Sequence[ArmResult], comparison: Comparison, versions: Mapping[str, str]
) -> YoloSummary:
    """Sum up all results.

    Args:
        planned: as `plan_arms` has them.
        results: of each of these by each seed.
        versions: of what trained and measured.
    """
    main, arms = main_figure(comparison.settings.task), summarize_arms(planned, results, comparison.settings.task)
    differences = list(_differences(arms))
    return YoloSummary(
        arms=arms,
        differences=differences,
        verdict=[*_judge(differences[:3], main), *_caveats(comparison)],
        main=main,
        comparison=comparison,
        findings=_gather_findings(planned, comparison),
        versions=versions,
    )


def _gather_findings(planned: Sequence[PlannedArm], comparison: Comparison) -> Findings:
    """What several arms found is told once."""
    findings = Findings()
    for one in (comparison.findings, *(plan.findings for plan in planned)):
        new = {kind: count for kind, count in one.counts.items() if kind not in findings.counts}
        findings.update(Findings(new, one.examples))
    return findings


def main_figure(task: Task) -> FigureKey:
    """AP of masks, or of boxes where no masks are measured, over all classes."""
    return FigureKey("overall", "", "mask" if task == "segment" else "box", "ap")


def summarize_arms(planned: Sequence[PlannedArm], results: Sequence[ArmResult], task: Task) -> list[ArmSummary]:
    """Each planned arm with its own results, in the plan's order."""
    return [_summarize_arm(plan, [one for one in results if one.label == plan.label], task) for plan in planned]


def _summarize_arm(plan: PlannedArm, results: Sequence[ArmResult], task: Task) -> ArmSummary:
    by_seed: dict[FigureKey, dict[int, float | None]] = {}
    for result in results:
        for key, value in _flatten(result.figures, task):
            by_seed.setdefault(key, {})[result.seed] = value
    return ArmSummary(plan, results, by_seed)


def _flatten(figures: DetectionFigures, task: Task) -> Iterator[tuple[FigureKey, float | None]]:
    sources: list[tuple[Scope, str, GroupFigures | ClassFigures]] = [("overall", "", figures.overall)]
    sources += [("groups", name, one) for name, one in figures.groups.items()]
    sources += [("classes", one.name, one) for one in figures.classes]
    for scope, name, one in sources:
        for kind, precision in (("box", one.box), ("mask", one.mask)):
            if kind == "box" or task == "segment":
                for figure in FIGURES:
                    value = None if precision is None else getattr(precision, figure)
                    yield FigureKey(scope, name, kind, figure), value  # type: ignore[arg-type]  # of two literals


def _differences(arms: Sequence[ArmSummary]) -> Iterator[Difference]:
    for ours in arms:
        if ours.plan.name == OURS:
            for name in (EQUAL_STEPS, COPY_PASTE, EQUAL_EPOCHS):
                ratio = ours.plan.ratio if name == COPY_PASTE else None
                yield Difference(ours, next(arm for arm in arms if (arm.plan.name, arm.plan.ratio) == (name, ratio)))


def _judge(differences: Sequence[Difference], main: FigureKey) -> Iterator[str]:
    """Of ours by the first ratio."""
    ours, real, what = differences[0].arm, differences[0].minus, f"{main.kind} AP"
    ours_mean, real_mean = (arm.spread_of(main).mean for arm in (ours, real))
    if ours_mean is not None and real_mean is not None:
        times = f", {ours_mean / real_mean:.2f} times" if real_mean >= TOO_LOW else " beside"
        yield f"{ours.plan.label}: {what} {ours_mean:.3f}{times} the {real_mean:.3f} of {real.plan.label}."
    for one in differences:
        yield f"Against {one.minus.plan.label}: {_say(one.of(main))}."
    if real_mean is not None and real_mean < TOO_LOW:
        yield (
            f"Real images alone have {what} {real_mean:.3f}, under {TOO_LOW}: too little for a difference to mean "
            "anything. Train longer (--steps) or at another size (--size)."
        )


def _say(difference: PairedDifference) -> str:
    if difference.mean is None:
        return "nothing can be said, there is no figure"
    if difference.deviation is None:
        return f"{difference.mean:+.3f} on one seed, which cannot tell it from noise; raise --seeds"
    told = f"{difference.mean:+.3f} ± {difference.deviation:.3f} over {difference.n} seeds, "
    if difference.answer == "no difference shown" and difference.is_beyond_deviation:
        return told + "above by more than a deviation, though 0 is inside the 95 % interval; more seeds would tell"
    return told + f"{difference.answer} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"


def _caveats(comparison: Comparison) -> Iterator[str]:
    found, split = comparison.findings, comparison.settings.split
    if names := found.examples.get("class_without_instances_to_find"):
        yield f"Not measured, since {split} has no instance of it: {', '.join(names)}."
    if names := found.examples.get("class_without_training_images"):
        yield f"In {split}, but no real image to train on shows it: {', '.join(names)}."
    if comparison.left_out:
        yield (
            f"{len(comparison.left_out)} training images were left out of every arm, since they show, or are made of, "
            "images that are held out."
        )


def _arm_to_json(arm: ArmSummary) -> dict[str, object]:
    plan = arm.plan
    return {
        "label": plan.label,
        "name": plan.name,
        "ratio": plan.ratio,
        "steps": plan.steps,
        "images": {"real": plan.num_real, "synthetic": plan.num_synthetic},
        "synthetic_instances": dict(plan.instances),
        "seeds": [one.seed for one in arm.results],
        "seconds": round(sum(one.seconds for one in arm.results), 1),
        **nest({key: asdict(arm.spread_of(key)) for key in arm.by_seed}),
    }


def _difference_to_json(one: Difference) -> dict[str, object]:
    keys = [key for key in one.arm.by_seed if key.figure != "ap75"]
    return {
        "arm": one.arm.plan.label,
        "minus": one.minus.plan.label,
        **nest({key: one.of(key).as_json() for key in keys}),
    }


def nest(by_key: Mapping[FigureKey, _Value]) -> dict[str, object]:
    """As JSON has them: overall.KIND.FIGURE, groups.NAME.KIND.FIGURE, classes.NAME.KIND.FIGURE."""
    overall: dict[str, dict[str, _Value]] = {}
    named: dict[str, dict[str, dict[str, dict[str, _Value]]]] = {"groups": {}, "classes": {}}
    for key, value in by_key.items():
        place = overall if key.scope == "overall" else named[key.scope].setdefault(key.name, {})
        place.setdefault(key.kind, {})[key.figure] = value
    return {"overall": overall, **named}
