"""The T-Agent's judge: hard limits, then the class's own thresholds for the two likenesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...configs.judging import PaintedLimits, SimilaritySettings
from ..protocols import Criterion, Verdict
from .limits import LimitJudge, painted_bounds
from .thresholds import judge_scores

Measures = Mapping[str, float]


class PaintedJudge:
    """Judges painted pictures of one class at a time; stored measures give the verdict again."""

    def __init__(self, limits: PaintedLimits, similarity: SimilaritySettings) -> None:
        self._limits = LimitJudge(painted_bounds(limits))
        self._thresholds = {"image_text": similarity.image_text, "image_image": similarity.image_image}

    def judge(self, measures: Sequence[Measures], earlier: Sequence[Measures] = ()) -> list[Verdict]:
        """One verdict a picture.

        Args:
            measures: of the pictures to judge, all of one class; they count for its thresholds too.
            earlier: of the class's other pictures. `image_image` is judged where the class has real crops: where it
                was measured of any picture.
        """
        verdicts = [self._limits.judge(one).criteria for one in measures]
        for name, settings in self._thresholds.items():
            seen = [one.get(name) for one in (*earlier, *measures)]
            if name == "image_image" and all(score is None for score in seen):
                continue
            judged = judge_scores(name, settings, seen[len(earlier) :], seen[: len(earlier)])
            verdicts = [_with(one, criteria) for one, criteria in zip(judged, verdicts, strict=True)]
        return [Verdict(criteria) for criteria in verdicts]


def _with(criterion: Criterion, criteria: tuple[Criterion, ...]) -> tuple[Criterion, ...]:
    """One criterion a name: a hard limit that fails stands for the threshold too."""
    if any(one.name == criterion.name and one.outcome != "meet" for one in criteria):
        return criteria
    return (*(one for one in criteria if one.name != criterion.name), criterion)
