"""A judge of one class's pictures: hard limits, then thresholds that may follow the class's own scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ...configs.judging import InstanceLimits, ThresholdSettings, VariantSimilaritySettings
from ..protocols import Criterion, Verdict
from .limits import Bound, LimitJudge, instance_bounds
from .thresholds import judge_scores

Measures = Mapping[str, float]


class ClassJudge:
    """Judges pictures of one class at a time; stored measures give the verdict again.

    Args:
        bounds: of the measures.
        thresholds: least scores by measure.
        optional: scores that are judged only where they were measured of any picture of the class.
    """

    def __init__(
        self, bounds: Sequence[Bound], thresholds: Mapping[str, ThresholdSettings], optional: Collection[str]
    ) -> None:
        self._limits = LimitJudge(bounds)
        self._thresholds = dict(thresholds)
        self._optional = frozenset(optional)

    def judge(self, measures: Sequence[Measures], earlier: Sequence[Measures] = ()) -> list[Verdict]:
        """One verdict a picture.

        Args:
            measures: of the pictures to judge, all of one class; they count for its thresholds too.
            earlier: of the class's other pictures.
        """
        verdicts = [self._limits.judge(one).criteria for one in measures]
        for name, settings in self._thresholds.items():
            seen = [one.get(name) for one in (*earlier, *measures)]
            if name in self._optional and all(score is None for score in seen):
                continue
            judged = judge_scores(name, settings, seen[len(earlier) :], seen[: len(earlier)])
            verdicts = [_with(one, criteria) for one, criteria in zip(judged, verdicts, strict=True)]
        return [Verdict(criteria) for criteria in verdicts]


class VariantJudge(ClassJudge):
    """The I-Agent's: limits on a variant, and the proportional filter by its image-text score (InstaDA)."""

    def __init__(self, limits: InstanceLimits, similarity: VariantSimilaritySettings | None) -> None:
        thresholds = {"image_text": similarity.image_text} if similarity else {}
        super().__init__(instance_bounds(limits), thresholds, optional={"image_text"})


def _with(criterion: Criterion, criteria: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
    """One criterion a name: a hard limit that fails stands for the threshold too."""
    if any(one.name == criterion.name and one.outcome != "meet" for one in criteria):
        return criteria
    return (*(one for one in criteria if one.name != criterion.name), criterion)
