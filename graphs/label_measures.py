"""Measures of a prompt before it is painted, each from 0 to 10: does it name its labels, do its parts fit, can it be.

They stand in for the opinion of a language model (IAA, arXiv 2412.20439): what a writer without one can check of its
own prompt. Masks of real images are not used: users of image-level labels have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import cos, log2, radians, sin, sqrt

from ..memory.knowledge_search import DefectKnowledge
from ..tools.defects import DefectPlan
from .anomaly_planner import LOGARITHMIC
from .label_words import names, others_named

TOP = 10.0
BoxXYXY = tuple[float, float, float, float]

MAX_OVERLAP = 0.1
"""Share of the smaller one of two parts that the other may cover."""
MAX_OUTSIDE = 0.6
"""Share of a part's box that may lie outside the object's; a break at an edge has half of it there."""
MAX_COVER = 0.4
"""Share of the object that all parts together may cover."""
POINTS_OF_OVERLAP = 8.0
"""Lost by a part that another covers."""
POINTS_OF_FAMILY = 5.0
"""Lost by a part that looks like another kind of defect."""
POINTS_OF_RELIEF = 3.0
POINTS_OF_OCTAVE = 3.0
"""Lost for each doubling beyond the range of a size or an elongation."""
POINTS_OF_SHARE = 10.0
"""Lost for each unit beyond the range of a share."""
POINTS_OF_PLACE = 3.0
RARE_PLACE = 0.02
"""Weight of a place where such a defect is not found; an even one is 0.11."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a prompt, and the points that it costs."""

    points: float
    reason: str
    part: str = ""
    """The label that it is about; empty: the whole."""


def find_presence_faults(text: str, labels: Sequence[str], classes: Iterable[str]) -> list[Fault]:
    """Labels that the text does not name share all points; another class that it names costs half of them."""
    unnamed = [label for label in labels if not names(text, label)]
    missing = [Fault(TOP / len(labels), f"does not name {label!r}", label) for label in unnamed]
    return missing + [Fault(TOP / 2, f"names {other!r}, too") for other in others_named(text, labels, classes)]


def find_coherence_faults(plans: Sequence[DefectPlan]) -> list[Fault]:
    """Parts that overlap, lie outside the object, or cover too much of it together."""
    faults = []
    boxes = [to_box(plan) for plan in plans]
    for index, (plan, box) in enumerate(zip(plans, boxes, strict=True)):
        if (outside := outside_share(box)) > MAX_OUTSIDE:
            reason = f"{plan.defect} lies {outside:.0%} outside the object"
            faults.append(Fault(POINTS_OF_OVERLAP * outside, reason, plan.defect))
        for other, other_box in zip(plans[:index], boxes, strict=False):
            if (share := overlap_share(box, other_box)) > MAX_OVERLAP:
                reason = f"{plan.defect} and {other.defect} overlap by {share:.0%}"
                faults.append(Fault(max(2.5, POINTS_OF_OVERLAP * share), reason, plan.defect))
    if (cover := sum(plan.size_ratio**2 for plan in plans)) > MAX_COVER:
        largest = max(plans, key=lambda plan: plan.size_ratio)
        faults.append(Fault(TOP * cover, f"the parts cover {cover:.0%} of the object", largest.defect))
    return faults


def find_plausibility_faults(plan: DefectPlan, knowledge: DefectKnowledge) -> list[Fault]:
    """How far a planned defect is from what is known of such ones; what is not known costs nothing."""
    faults = []

    def lose(points: float, reason: str) -> None:
        faults.append(Fault(points, f"{plan.defect}: {reason}", plan.defect))

    if knowledge.families and plan.family not in knowledge.families:
        lose(POINTS_OF_FAMILY, f"looks like {plan.family}, such ones like {' or '.join(knowledge.families)}")
    if knowledge.relief and plan.relief not in knowledge.relief:
        lose(POINTS_OF_RELIEF, f"is {plan.relief}, such ones are {' or '.join(knowledge.relief)}")
    for name, (low, high) in knowledge.ranges.items():
        value = float(getattr(plan, name))
        if name != "orientation_deg" and (points := _beyond(name, value, low, high)):
            lose(points, f"{name} {value:.3g}, such ones {low:.3g} to {high:.3g}")
    if knowledge.place_weights and _weight_of_place(plan, knowledge) < RARE_PLACE:
        lose(POINTS_OF_PLACE, "such ones are not found at this place")
    return faults


def to_points(faults: Iterable[Fault]) -> float:
    """What is left of `TOP`, at least 0."""
    return round(max(0.0, TOP - sum(fault.points for fault in faults)), 2)


def to_box(plan: DefectPlan) -> BoxXYXY:
    """The box around a plan's ellipse, in units of the object's box taken as a square."""
    length = plan.size_ratio * sqrt(plan.elongation) / 2
    width = plan.size_ratio / sqrt(plan.elongation) / 2
    angle = radians(plan.orientation_deg)
    half_x = sqrt((length * cos(angle)) ** 2 + (width * sin(angle)) ** 2)
    half_y = sqrt((length * sin(angle)) ** 2 + (width * cos(angle)) ** 2)
    x, y = plan.centre_xy
    return (x - half_x, y - half_y, x + half_x, y + half_y)


def overlap_share(first: BoxXYXY, second: BoxXYXY) -> float:
    """Of the smaller box, what both share; in [0, 1]."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min(_area(first), _area(second))
    return max(0.0, width) * max(0.0, height) / smaller if smaller else 0.0


def outside_share(box: BoxXYXY) -> float:
    """Of a box, what lies outside the unit square; in [0, 1]."""
    area = _area(box)
    return 1 - overlap_share(box, (0.0, 0.0, 1.0, 1.0)) * min(area, 1.0) / area if area else 0.0


def _area(box: BoxXYXY) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _beyond(name: str, value: float, low: float, high: float) -> float:
    """Points lost by a parameter outside its range."""
    nearest = min(max(value, low), high)
    if name in LOGARITHMIC:
        return POINTS_OF_OCTAVE * abs(log2(value / nearest)) if value > 0 and nearest > 0 else TOP
    return POINTS_OF_SHARE * abs(value - nearest)


def _weight_of_place(plan: DefectPlan, knowledge: DefectKnowledge) -> float:
    column, row = (min(2, int(3 * share)) for share in plan.centre_xy)
    return knowledge.place_weights[3 * row + column]
