"""How many invalid pictures are left after validation without a vision model? Labelled samples, embedded judge.

Half of the samples are valid, the other half is spoilt on purpose in eight ways, in equal shares
(`validity_samples.py`); a quarter starts from instances of the quickstart photographs, the rest is painted by
`embedded:sprites` (`validity_wholes.py`). A label is how a sample was made. The judge is the T-Agent's: measures,
limits, `embedded:lit` on the class's name and on the 29 others, and `embedded:wholeness`, each picture on its own,
without real crops.

default            what recipes have
without rivals     the same without comparing a picture's class with the data set's other classes
without wholeness  the same without the learned judge of wholeness
without both       measures, limits and the class's own name alone

Limits were set on seeds 1000 and 1001 of `--classes tuning`; the figures are of 30 other classes and other seeds.
What flatters them: the scorer was trained on the bank's pictures, from which painted samples start; wrong names are
drawn at random, so that they are seldom near ones; and a scorer that doubts all photographs rejects their spoilt ones
too, so look at the figures of painted samples alone.
Run: maskwright models fetch minilm lite0 && python benchmarks/validity.py [--samples 600] [--seeds 3] [--save FOLDER]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from validity_samples import SPOILERS, VALID, Sample, make_samples
from validity_wholes import REPORT_CLASSES, TUNING_CLASSES

from maskwright.configs.judging import PaintedLimits, SimilaritySettings
from maskwright.errors import EmptyMaskError
from maskwright.tools.judging.painted import measure_painted
from maskwright.tools.judging.painted_judge import PaintedJudge
from maskwright.tools.judging.registry import build_text_scorer, build_wholeness
from maskwright.tools.judging.similarity import rival_lead
from maskwright.tools.protocols import Criterion, CutOutScorer, TextScorer, Verdict

CLASSES = {"report": REPORT_CLASSES, "tuning": TUNING_CLASSES}
DEFAULT = SimilaritySettings()
JUDGES = {
    "default": PaintedJudge(PaintedLimits(), DEFAULT),
    "without rivals": PaintedJudge(PaintedLimits(), SimilaritySettings(rival_margin=None)),
    "without wholeness": PaintedJudge(PaintedLimits(), SimilaritySettings(wholeness=None)),
    "without both": PaintedJudge(PaintedLimits(), SimilaritySettings(wholeness=None, rival_margin=None)),
}
BATCH = 64
EMPTY = Verdict((Criterion("mask", "fail", 0.0, "nothing is visible"),))

Measures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one set of samples under one judge; shares in [0, 1], not a number where there is nothing to share."""

    before: float
    """Invalid share of all samples."""
    after: float
    """Invalid share of what was kept; 1 - precision."""
    after_of: Mapping[str, float]
    """The same by origin."""
    recall: float
    """Share of the valid that was kept."""
    kept_of: Mapping[str, float]
    """By origin, of the valid."""
    caught: Mapping[str, float]
    """By kind, of the invalid."""


def measure_samples(
    samples: Sequence[Sample], scorer: TextScorer, wholeness: CutOutScorer | None = None, rivals: Sequence[str] = ()
) -> list[Measures | None]:
    """As the T-Agent measures, with an empty pool; None for a sample without a visible pixel.

    Args:
        rivals: all classes that the samples' data set would have.
    """
    measured: list[Measures | None] = []
    for start in track(range(0, len(samples), BATCH), description="measure and score"):
        batch = samples[start : start + BATCH]
        found = [_measure(sample) for sample in batch]
        seen = [sample for sample, one in zip(batch, found, strict=True) if one is not None]
        names = sorted({*(sample.category for sample in seen), *rivals})
        rows = scorer.score([sample.rgba for sample in seen], names) if seen else np.zeros((0, 0), np.float32)
        scores = [{"image_text": float(row[names.index(one.category)])} for one, row in zip(seen, rows, strict=True)]
        if rivals:
            leads = [rival_lead(row, names, one.category) for one, row in zip(seen, rows, strict=True)]
            scores = [{**one, "rival_lead": lead or 0.0} for one, lead in zip(scores, leads, strict=True)]
        if wholeness is not None:
            whole = wholeness.score([sample.rgba for sample in seen])
            scores = [{**one, "wholeness": float(share)} for one, share in zip(scores, whole, strict=True)]
        own = iter(scores)
        measured += [None if one is None else {**one, **next(own)} for one in found]
    return measured


def _measure(sample: Sample) -> dict[str, float] | None:
    try:
        return measure_painted(sample.rgba, ())
    except EmptyMaskError:
        return None


def judge_samples(measured: Sequence[Measures | None], judge: PaintedJudge) -> list[Verdict]:
    return [EMPTY if one is None else judge.judge([one])[0] for one in measured]


def count(samples: Sequence[Sample], kept: Sequence[bool]) -> Figures:
    """The figures of some samples, given which were kept."""
    valid = [sample.is_valid for sample in samples]

    def share_invalid(origins: Collection[str]) -> float:
        found = [
            not one.is_valid for one, is_kept in zip(samples, kept, strict=True) if is_kept and one.origin in origins
        ]
        return statistics.fmean(found) if found else float("nan")

    def share_kept(chosen: Sequence[bool]) -> float:
        found = [is_kept for is_kept, is_chosen in zip(kept, chosen, strict=True) if is_chosen]
        return statistics.fmean(found) if found else float("nan")

    origins = sorted({sample.origin for sample in samples})
    return Figures(
        before=1 - statistics.fmean(valid),
        after=share_invalid(origins),
        after_of={one: share_invalid([one]) for one in origins},
        recall=share_kept(valid),
        kept_of={one: share_kept([sample.is_valid and sample.origin == one for sample in samples]) for one in origins},
        caught={kind: 1 - share_kept([sample.kind == kind for sample in samples]) for kind in SPOILERS},
    )


def save_samples(samples: Sequence[Sample], folder: Path) -> None:
    """Write CLASS/keep/*.png and CLASS/reject/*.png, the layout of `maskwright optimize --agent judge --examples`.

    Raises:
        FileExistsError: the folder exists; nothing is written over.
    """
    folder.mkdir(parents=True)
    for number, sample in enumerate(samples):
        side = folder / sample.category / ("keep" if sample.is_valid else "reject")
        side.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.rgba).save(side / f"{number:04d}-{sample.kind.replace(' ', '-')}.png")


def tell(values: Sequence[float]) -> str:
    """Mean and deviation in per cent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.fmean(values):.1f} ± {100 * deviation:.1f}"


def figures_to_table(found: Mapping[str, Sequence[Figures]], title: str) -> Table:
    """A row a figure, a column a judge; mean and deviation over seeds."""
    table = Table("per cent", *found, title=title)

    def add(label: str, values: Mapping[str, Sequence[float]]) -> None:
        table.add_row(label, *(tell(values[name]) for name in found))

    add("invalid before", {name: [one.before for one in each] for name, each in found.items()})
    add("invalid after", {name: [one.after for one in each] for name, each in found.items()})
    for origin in next(iter(found.values()))[0].after_of:
        add(f"  {origin}", {name: [one.after_of[origin] for one in each] for name, each in found.items()})
    add("precision", {name: [1 - one.after for one in each] for name, each in found.items()})
    add("recall: valid ones kept", {name: [one.recall for one in each] for name, each in found.items()})
    for origin in next(iter(found.values()))[0].kept_of:
        add(f"  {origin}", {name: [one.kept_of[origin] for one in each] for name, each in found.items()})
    for kind in SPOILERS:
        add(f"caught: {kind}", {name: [one.caught[kind] for one in each] for name, each in found.items()})
    return table


def reasons_to_table(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> Table:
    """By kind, how many were rejected by each criterion; one sample may fail several."""
    table = Table("kind", "samples", "kept", "rejected by", title="default, all seeds")
    for kind in (VALID, *SPOILERS):
        own = [verdict for sample, verdict in zip(samples, verdicts, strict=True) if sample.kind == kind]
        reasons = Counter(criterion.name for verdict in own for criterion in verdict.rejections)
        told = ", ".join(f"{name} {number}" for name, number in reasons.most_common(6))
        table.add_row(kind, str(len(own)), str(sum(verdict.accepted for verdict in own)), told)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600, help="of a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--classes", choices=CLASSES, default="report")
    parser.add_argument("--save", type=Path, help="write the first seed's samples into this new folder, and stop")
    arguments = parser.parse_args()
    classes, console = CLASSES[arguments.classes], Console(width=140)
    if arguments.save:
        save_samples(make_samples(arguments.samples, classes, arguments.first_seed), arguments.save)
        console.print(f"samples: {arguments.save}")
        return
    scorer, wholeness = build_text_scorer(DEFAULT.text), build_wholeness(DEFAULT.wholeness)
    found: dict[str, list[Figures]] = {name: [] for name in JUDGES}
    everything: list[tuple[Sample, Verdict]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        samples = make_samples(arguments.samples, classes, seed)
        measured = measure_samples(samples, scorer, wholeness, classes)
        for name, judge in JUDGES.items():
            verdicts = judge_samples(measured, judge)
            found[name].append(count(samples, [verdict.accepted for verdict in verdicts]))
            if name == "default":
                everything += zip(samples, verdicts, strict=True)
    console.print(figures_to_table(found, f"{arguments.samples} samples, {arguments.seeds} seeds"))
    console.print(reasons_to_table(*zip(*everything, strict=True)))
    console.print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
