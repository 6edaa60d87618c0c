"""How far a run's verdicts can be trusted: people looked at a random share of its images, and this counts.

An image is drawn for the audit before its verdict is known, at the same share whether it was kept or not, so plain
counts estimate precision and recall without weights. Images on which two judges disagreed go to a person anyway and
are never drawn: with two judges the figures are those of the images on which they agree.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from ..memory.entries import Attempt, CriterionResult, ItemResult, review_id
from ..memory.reviews import ReviewBook

Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of `n` images with its Wilson score interval of 95 %; without an image nothing is known."""

    value: float | None
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A verdict against a person's: how often both would keep an image, one of them, neither."""

    both_keep: int
    """True positives."""
    only_judge_keeps: int
    """False positives: bad images in the data set."""
    only_person_keeps: int
    """False negatives: good images lost."""
    neither_keeps: int

    @property
    def n(self) -> int:
        return self.both_keep + self.only_judge_keeps + self.only_person_keeps + self.neither_keeps

    @property
    def precision(self) -> Rate:
        """Of what the judge keeps, how much a person would keep."""
        return to_rate(self.both_keep, self.both_keep + self.only_judge_keeps)

    @property
    def recall(self) -> Rate:
        """Of what a person would keep, how much the judge keeps."""
        return to_rate(self.both_keep, self.both_keep + self.only_person_keeps)

    def as_json(self) -> dict[str, object]:
        """The counts, and both rates as [value, low, high]; a rate of nothing is null."""
        rates = {"precision": self.precision, "recall": self.recall}
        return asdict(self) | {
            name: [round(one, 4) for one in (rate.value, rate.low, rate.high)] if rate.value is not None else None
            for name, rate in rates.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Agreement of the run's verdicts with people.

    Attributes:
        overall: of measures and judges together.
        classes: the same by class, by name.
        judges: of each vision judge alone, over the images that it was shown: those that met all measures.
    """

    overall: Agreement
    classes: dict[str, Agreement]
    judges: dict[str, Agreement]

    def as_json(self) -> dict[str, object]:
        """As run.json states it."""
        return {
            "overall": self.overall.as_json(),
            "classes": {name: one.as_json() for name, one in self.classes.items()},
            "judges": {name: one.as_json() for name, one in self.judges.items()},
        }


@dataclass(frozen=True, slots=True)
class Audited:
    """An image of the audit that a person has decided on."""

    agent: str
    category: str
    attempt: Attempt
    keep: bool
    """The person's verdict."""


def read_audited(results: Iterable[ItemResult], book: ReviewBook) -> Iterator[Audited]:
    """The decided images of an audit, also those whose verdict the run has not taken in yet.

    Args:
        results: entries of the run's ledger.
        book: its RUN/reviews.
    """
    for result in results:
        item = result["item"]
        for attempt in result["attempts"]:
            if attempt.get("held") != "audit":
                continue
            review = attempt.get("review") or book.read(review_id(item["item_id"], attempt))
            if review is not None:
                yield Audited(item["agent"], item["category"], attempt, review["keep"])


def audit(samples: Iterable[Audited]) -> Audit:
    """Count verdicts against people's; memory grows with classes and judges, not with images."""
    overall = _Counts()
    classes: defaultdict[str, _Counts] = defaultdict(_Counts)
    judges: defaultdict[str, _Counts] = defaultdict(_Counts)
    for sample in samples:
        kept = accepts_all(sample.attempt)
        overall.add(kept, sample.keep)
        classes[sample.category].add(kept, sample.keep)
        for opinion in sample.attempt.get("opinions", ()):
            judges[opinion["judge"]].add(meets_all(opinion["criteria"]), sample.keep)
    return Audit(overall=overall.agreement(), classes=_by_name(classes), judges=_by_name(judges))


def accepts_all(attempt: Attempt) -> bool:
    """Whether measures and judges together would keep an image, whatever a person says."""
    return meets_all(attempt["criteria"])


def meets_all(criteria: Iterable[CriterionResult]) -> bool:
    """Whether there are criteria, and all are met."""
    outcomes = {criterion["outcome"] for criterion in criteria}
    return outcomes == {"meet"}


def to_rate(count: int, n: int) -> Rate:
    """`count` of `n` as a share, with Wilson's interval (E. B. Wilson, JASA 22, 1927), which holds near 0 and 1."""
    if n == 0:
        return Rate(None, 0.0, 1.0, 0)
    share, z2 = count / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the interval touches 0 and 1 exactly; sums of floats do not quite.
    low = 0.0 if count == 0 else max(0.0, centre - half)
    high = 1.0 if count == n else min(1.0, centre + half)
    return Rate(share, low, high, n)


class _Counts:
    """Pairs of (judge keeps, person keeps)."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys([(True, True), (True, False), (False, True), (False, False)], 0)

    def add(self, judge_keeps: bool, person_keeps: bool) -> None:
        self._counts[judge_keeps, person_keeps] += 1

    def agreement(self) -> Agreement:
        return Agreement(
            both_keep=self._counts[True, True],
            only_judge_keeps=self._counts[True, False],
            only_person_keeps=self._counts[False, True],
            neither_keeps=self._counts[False, False],
        )


def _by_name(counts: Mapping[str, _Counts]) -> dict[str, Agreement]:
    return {name: counts[name].agreement() for name in sorted(counts)}
