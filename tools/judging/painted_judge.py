"""The T-Agent's judge: hard limits, then the class's own thresholds for the two likenesses."""

from __future__ import annotations

from ...configs.judging import PaintedLimits, SimilaritySettings
from .class_judge import ClassJudge
from .limits import painted_bounds, rival_bounds, wholeness_bounds


class PaintedJudge(ClassJudge):
    """Judges painted pictures; `image_image` where the class has real crops, `wholeness` and rivals where measured."""

    def __init__(self, limits: PaintedLimits, similarity: SimilaritySettings) -> None:
        thresholds = {"image_text": similarity.image_text, "image_image": similarity.image_image}
        bounds = (
            *painted_bounds(limits),
            *wholeness_bounds(similarity.wholeness),
            *rival_bounds(similarity.rival_margin),
        )
        super().__init__(bounds, thresholds, optional={"image_image"})
