"""The embedded judge of defects: measures, scaled to the rubric of a judge that looks.

The weakest criterion decides: a scratch of the right size in the right place that nobody can see is no scratch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ...data.records import MaskHW
from ..defects import DefectPlan, Edited, EditRequest, Quality
from ..protocols import ImageEmbedder
from .defect_measures import (
    MIN_LOG_SPREAD,
    OUTSIDE_LEVELS,
    DefectStandard,
    check_frames,
    measure_defect,
    measure_likeness,
)

RAISE_SEVERITY = "raise severity"
LOWER_SEVERITY = "lower severity"
MOVE_ONTO_OBJECT = "move onto the object"
KEEP_TO_PLAN = "keep to the planned place"
SMALLER = "make it smaller"
LARGER = "make it larger"
SOFTER_EDGE = "soften the edge"
KEEP_THE_REST = "leave the rest unchanged"
MORE_LIKE_REFERENCES = "make it more like the references"
HINTS = (
    RAISE_SEVERITY,
    LOWER_SEVERITY,
    MOVE_ONTO_OBJECT,
    KEEP_TO_PLAN,
    SMALLER,
    LARGER,
    SOFTER_EDGE,
    KEEP_THE_REST,
    MORE_LIKE_REFERENCES,
)
"""What a review may tell a planner to do, in these words."""

TOP = 5.0
GOOD = 0.75
"""Least score of a criterion that the review says nothing of."""
LEAST_CONTRAST = 0.045
"""What a defect on a plain surface needs: twice the colour difference that a person just notices (CIE76 over 100)."""
UNSEEN_SHARE = 0.4
"""Of the contrast that a defect needs: what scores 0."""
NOTHING = 0.005
"""Contrast below which nothing was changed."""
EVERYTHING_SHARE = 0.9
"""Of the image's pixels, changed."""
GLARING = (0.35, 0.8)
"""Contrast that is too much for the least and the greatest severity; material that is gone may show black."""
GLARING_MARGIN = 1.3
OFF_OBJECT, ON_OBJECT = 0.5, 0.95
"""Shares of the defect on the object that score 0 and 1."""
NEAR_PLAN, FAR_FROM_PLAN = 0.05, 0.4
"""Of the object's diagonal, beyond the defect's own size: what scores 1 and 0.5."""
SOFT, HARD = 0.36, 0.48
"""Sharpness of an outline as a lens makes it, and as scissors do."""
QUIET_EDGE, LOUD_EDGE = 4.0, 12.0
"""Gradient along an outline over that beside it: as at any defect, and as nowhere in a photograph of one surface."""
KEPT_SHARE, LOST_SHARE = 0.01, 0.3
"""Of the pixels outside, changed: what scores 1 and 0."""
LIKENESS_GAINS = (-0.5, 0.5)
"""Way from the normal surface towards a real defect that scores 0 and 1; features are noisy: staying put is half."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """One criterion."""

    score: float
    """In [0, 1]."""
    advice: str
    """What to do about it, beginning with one of `HINTS`; said where the score is below `GOOD`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredQualityJudge:
    """A `QualityJudge` that measures. Equal edits get equal scores; no network, no chat model."""

    standards: Mapping[str, DefectStandard] = field(default_factory=dict)
    """By defect, what references taught; where one has none, its size is held against the plan."""
    embedder: ImageEmbedder | None = None
    """The one that the standards were learnt with; None: likeness is not measured."""

    @property
    def name(self) -> str:
        return "measured"

    def judge(self, request: EditRequest, edited: Edited, mask_hw: MaskHW) -> Quality:
        """Scores of one edit, each that of its weakest criterion.

        A score below half of the scale pulls the other one down with it, since a sum over 5 shall not come from one
        of them alone: what nobody sees is nowhere, and what lies beside the object is no good defect of it.

        Args:
            mask_hw: (H, W) bool, what was changed; may be empty.

        Raises:
            ImageSizeError: images and masks are not of one size.
            EmptyMaskError: the request's foreground is empty.
        """
        if rejected := reject_outright(request, edited, mask_hw):
            return rejected
        measures = measure_defect(request, edited, mask_hw)
        if measures["contrast"] < NOTHING:
            return _worthless(f"{RAISE_SEVERITY}: contrast {measures['contrast']:.3f} is nothing", measures)
        standard = self.standards.get(request.plan.defect)
        if self.embedder is not None and standard is not None and standard.features.size:
            measures |= measure_likeness(request.image_rgb, edited.rgb, mask_hw, standard, self.embedder)
        places = _judge_place(measures)
        looks = _judge_looks(measures, request.plan, standard)
        place, look = (min(finding.score for finding in findings) for findings in (places, looks))
        return Quality(
            location=TOP * place * min(1.0, 2 * look),
            quality=TOP * look * min(1.0, 2 * place),
            review="; ".join(finding.advice for finding in (*places, *looks) if finding.score < GOOD),
            measures=measures,
        )


def reject_outright(request: EditRequest, edited: Edited, mask_hw: MaskHW) -> Quality | None:
    """A quality of 0 for what no judge needs to see: a flawed edit, and one of nothing or everything.

    Raises:
        ImageSizeError: images and masks are not of one size.
    """
    if edited.flaw:
        return _worthless(f"this is no edit: {edited.flaw}", {})
    check_frames(request, edited, mask_hw)
    change = cv2.absdiff(request.image_rgb, edited.rgb).max(axis=2)
    share = float(np.mean(change > OUTSIDE_LEVELS))
    if share >= EVERYTHING_SHARE:
        return _worthless(
            f"{SMALLER}: the edit changed {share:.0%} of the image; {KEEP_THE_REST}", {"changed_share": share}
        )
    if not mask_hw.any() or not change[mask_hw].any():
        return _worthless(f"{RAISE_SEVERITY}: the edit changed nothing", {"changed_share": share})
    return None


def hints_of(review: str) -> frozenset[str]:
    """Those of `HINTS` that a review gives."""
    said = review.casefold()
    return frozenset(hint for hint in HINTS if hint in said)


def _worthless(review: str, measures: Mapping[str, float]) -> Quality:
    return Quality(0.0, 0.0, review, measures)


def _judge_place(measures: Mapping[str, float]) -> Sequence[_Finding]:
    on_object = measures["on_object"]
    beyond = max(0.0, measures["off_plan"] - measures["size_ratio"] / 2)
    return (
        _Finding(
            _ramp(on_object, OFF_OBJECT, ON_OBJECT),
            f"{MOVE_ONTO_OBJECT}: only {on_object:.0%} of the defect lies on it",
        ),
        _Finding(
            0.5 + 0.5 * _ramp(beyond, FAR_FROM_PLAN, NEAR_PLAN),
            f"{KEEP_TO_PLAN}: the defect is {measures['off_plan']:.2f} of the object's diagonal away from it",
        ),
    )


def _judge_looks(
    measures: Mapping[str, float], plan: DefectPlan, standard: DefectStandard | None
) -> Sequence[_Finding]:
    outside = measures["outside_share"]
    findings = [
        *_judge_contrast(measures["contrast"], measures["texture"], plan.severity),
        _judge_seam(measures["outline_sharpness"], measures["edge_gradient"]),
        _judge_size(measures["size_ratio"], plan, standard),
        _Finding(_ramp(outside, LOST_SHARE, KEPT_SHARE), f"{KEEP_THE_REST}: {outside:.0%} of the other pixels changed"),
    ]
    if "likeness_gain" in measures:
        gain = measures["likeness_gain"]
        advice = f"{MORE_LIKE_REFERENCES}: it went {gain:.2f} of the way from the plain surface to a real one"
        findings.append(_Finding(_ramp(gain, *LIKENESS_GAINS), advice))
    return findings


def _judge_contrast(contrast: float, texture: float, severity: float) -> Sequence[_Finding]:
    """Whether it can be seen against the surface's own texture, and whether it glares."""
    needed = LEAST_CONTRAST + texture
    most = GLARING[0] + severity * (GLARING[1] - GLARING[0])
    return (
        _Finding(
            _ramp(contrast, UNSEEN_SHARE * needed, needed),
            f"{RAISE_SEVERITY}: contrast {contrast:.2f} is under {needed:.2f}",
        ),
        _Finding(
            _ramp(contrast, GLARING_MARGIN * most, most),
            f"{LOWER_SEVERITY}: contrast {contrast:.2f} is over {most:.2f}",
        ),
    )


def _judge_seam(sharpness: float, edge_gradient: float) -> _Finding:
    """A seam is hard and loud: a hard outline in a rough surface is lost, a loud soft one is a deep defect."""
    hard = _ramp(sharpness, SOFT, HARD)
    loud = _ramp(np.log(max(edge_gradient, 1.0)), np.log(QUIET_EDGE), np.log(LOUD_EDGE))
    advice = f"{SOFTER_EDGE}: the outline is {edge_gradient:.1f} times as steep as its surroundings, in one pixel"
    return _Finding(1 - hard * loud, advice)


def _judge_size(ratio: float, plan: DefectPlan, standard: DefectStandard | None) -> _Finding:
    """Log-normal around the references' sizes or the planned one; within one deviation all are as good."""
    log_mean = standard.log_size_mean if standard else float(np.log(plan.size_ratio))
    spread = standard.log_size_spread if standard else MIN_LOG_SPREAD
    deviation = (float(np.log(ratio)) - log_mean) / spread
    hint = SMALLER if deviation > 0 else LARGER
    usual = "references have" if standard else "was planned"
    advice = f"{hint}: {ratio:.3f} of the object's side, where {np.exp(log_mean):.3f} {usual}"
    return _Finding(float(np.exp(-0.5 * max(0.0, abs(deviation) - 1) ** 2)), advice)


def _ramp(value: float, zero: float, one: float) -> float:
    """0 at and beyond `zero`, 1 at and beyond `one`, a line between; they may stand either way."""
    return float(np.clip((value - zero) / (one - zero), 0, 1))
