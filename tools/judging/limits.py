"""The judge by limits: every measure inside its bounds, or the sample is rejected with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...configs.judging import InstanceLimits, PaintedLimits, WholenessSettings
from ..protocols import Criterion, Verdict


class Bound(NamedTuple):
    """What one measure may be, both ends included."""

    measure: str
    low: float
    high: float
    where_taken: bool = False
    """Not asked of a sample for which the measure could not be taken and is absent."""


def instance_bounds(limits: InstanceLimits) -> tuple[Bound, ...]:
    """Bounds of `measure_instance`'s measures, the source's truncation, and the likenesses where they were taken."""
    return (
        Bound("area_px", limits.min_area_px, math.inf),
        Bound("largest_component", limits.min_largest_component, 1.0),
        Bound("components", 1, limits.max_components),
        Bound("truncation", 0.0, limits.max_truncation),
        Bound("sharpness", limits.min_sharpness, math.inf),
        Bound("contrast", limits.min_contrast, 1.0),
        Bound("source_difference", limits.min_source_difference, limits.max_source_difference),
        Bound("source_iou", limits.min_source_iou, limits.max_source_iou, where_taken=True),
        Bound("source_likeness", limits.min_source_likeness, limits.max_source_likeness, where_taken=True),
        Bound("pool_distance_bits", limits.min_pool_distance_bits, math.inf),
    )


def painted_bounds(limits: PaintedLimits) -> tuple[Bound, ...]:
    """Bounds of `measure_painted`'s measures; of image_image where there are real crops, and of num_instances."""
    return (
        Bound("area_share", limits.min_area_share, limits.max_area_share),
        Bound("largest_component", limits.min_largest_component, 1.0),
        Bound("components", 1, limits.max_components),
        Bound("twin_share", 0.0, limits.max_twin_share),
        Bound("rim_difference", 0.0, limits.max_rim_difference),
        Bound("border_contact", 0.0, limits.max_border_contact),
        Bound("hole_share", 0.0, limits.max_hole_share),
        Bound("edge_sharpness", limits.min_edge_sharpness, 1.0),
        Bound("alpha_softness", 0.0, limits.max_alpha_softness),
        Bound("sharpness", limits.min_sharpness, math.inf),
        Bound("focus", limits.min_focus, 1.0),
        Bound("contrast", limits.min_contrast, 1.0),
        Bound("image_image", limits.min_image_image, limits.max_image_image, where_taken=True),
        Bound("pool_distance_bits", limits.min_pool_distance_bits, math.inf),
        Bound("num_instances", 1, limits.max_num_instances, where_taken=True),
    )


def rival_bounds(margin: float | None) -> tuple[Bound, ...]:
    """The bound of `rival_lead`, for pictures of which it was taken; none where it is switched off."""
    return () if margin is None else (Bound("rival_lead", -math.inf, margin, where_taken=True),)


def wholeness_bounds(settings: WholenessSettings | None) -> tuple[Bound, ...]:
    """The bound of `wholeness`, for pictures of which it was taken; none where it is switched off."""
    return () if settings is None else (Bound("wholeness", settings.threshold, 1.0, where_taken=True),)


class LimitJudge:
    """Judges measures by hard limits. One that is not finite fails, and so does one that is missing and must be there.

    Args:
        bounds: at least one.
    """

    def __init__(self, bounds: Sequence[Bound]) -> None:
        self._bounds = tuple(bounds)

    def judge(self, measures: Mapping[str, float]) -> Verdict:
        asked = [bound for bound in self._bounds if not bound.where_taken or bound.measure in measures]
        return Verdict(tuple(_compare(bound, measures.get(bound.measure)) for bound in asked))


def _compare(bound: Bound, value: float | None) -> Criterion:
    name, low, high, _ = bound
    if value is None or not math.isfinite(value):
        return Criterion(name, "fail", 0.0, f"{name} was not measured")
    if value < low:
        return Criterion(name, "fail", value, f"{name} {value:.4g} is under {low:.4g}")
    if value > high:
        return Criterion(name, "fail", value, f"{name} {value:.4g} is over {high:.4g}")
    return Criterion(name, "meet", value, "")
