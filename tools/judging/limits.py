"""The judge by limits: every measure inside its bounds, or the sample is rejected with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...configs.agents import InstanceLimits
from ..protocols import Criterion, Verdict


class LimitJudge:
    """Judges measures by hard limits. A measure that is missing or not finite fails."""

    def __init__(self, limits: InstanceLimits) -> None:
        self._bounds: tuple[tuple[str, float, float], ...] = (
            ("area_px", limits.min_area_px, math.inf),
            ("largest_component", limits.min_largest_component, 1.0),
            ("components", 1, limits.max_components),
            ("truncation", 0.0, limits.max_truncation),
            ("sharpness", limits.min_sharpness, math.inf),
            ("contrast", limits.min_contrast, 1.0),
            ("source_difference", limits.min_source_difference, limits.max_source_difference),
            ("pool_distance_bits", limits.min_pool_distance_bits, math.inf),
        )

    def judge(self, measures: Mapping[str, float]) -> Verdict:
        return Verdict(tuple(_compare(name, measures.get(name), low, high) for name, low, high in self._bounds))


def _compare(name: str, value: float | None, low: float, high: float) -> Criterion:
    if value is None or not math.isfinite(value):
        return Criterion(name, "fail", 0.0, f"{name} was not measured")
    if value < low:
        return Criterion(name, "fail", value, f"{name} {value:.4g} is under {low:.4g}")
    if value > high:
        return Criterion(name, "fail", value, f"{name} {value:.4g} is over {high:.4g}")
    return Criterion(name, "meet", value, "")
