"""Thresholds that follow each class's own scores. Pure functions, so that stored scores can be judged again."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...configs.judging import ThresholdSettings
from ..protocols import Criterion


def class_threshold(settings: ThresholdSettings, scores: Sequence[float | None]) -> float:
    """The least score that a picture of a class needs.

    Args:
        settings: `fixed` is `value` whatever the scores. The others are held between `floor` and `ceiling`:
            `class_max_minus_margin` follows the best score (X-Paste, so that every class keeps something),
            `best_share` is the score of the last picture that still belongs to the best share; its ties are kept.
        scores: of all pictures of the class so far, in any order; those that are None or not finite do not count.

    Returns:
        A number of the scores' units; where an adaptive mode has no score to go by, the ceiling, or infinity without
        one.
    """
    if settings.mode == "fixed":
        return settings.value
    finite = sorted((score for score in scores if score is not None and math.isfinite(score)), reverse=True)
    if not finite:
        return math.inf if settings.ceiling is None else settings.ceiling
    if settings.mode == "class_max_minus_margin":
        threshold = finite[0] - settings.margin
    else:
        threshold = finite[_num_kept(settings.share, len(finite)) - 1]
    if settings.ceiling is not None:
        threshold = min(threshold, settings.ceiling)
    return threshold if settings.floor is None else max(threshold, settings.floor)


def judge_score(name: str, score: float | None, threshold: float) -> Criterion:
    """Judge one score. One that is None or not finite is no opinion: the outcome is abstain, which accepts nothing."""
    if score is None or not math.isfinite(score):
        return Criterion(name, "abstain", 0.0, f"{name} could not be scored")
    if score < threshold:
        return Criterion(name, "fail", score, f"{name} {score:.4g} is under {threshold:.4g}")
    return Criterion(name, "meet", score, "")


def judge_scores(
    name: str, settings: ThresholdSettings, scores: Sequence[float | None], earlier: Sequence[float | None] = ()
) -> list[Criterion]:
    """Judge pictures of one class by one score.

    Args:
        name: of the score and the criterion, such as image_text.
        settings: how the threshold comes about.
        scores: of the pictures to judge; they count for the threshold too.
        earlier: of the class's other pictures.

    Returns:
        One criterion a score, in order.
    """
    threshold = class_threshold(settings, [*earlier, *scores])
    return [judge_score(name, score, threshold) for score in scores]


def _num_kept(share: float, num_scores: int) -> int:
    # 0.07 * 100 is a hair over 7, which must not keep an eighth.
    return max(1, math.ceil(share * num_scores - 1e-9))
