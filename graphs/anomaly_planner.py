"""The embedded planner of defects: plans drawn from what a family is like, narrowed by what was looked up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import cast

import numpy as np

from ..memory.knowledge_notes import Shape
from ..memory.knowledge_search import DefectKnowledge
from ..tools.defects import DefectPlan, Family, Relief
from ..tools.judging.defect_quality import (
    LARGER,
    LOWER_SEVERITY,
    MOVE_ONTO_OBJECT,
    RAISE_SEVERITY,
    SMALLER,
    SOFTER_EDGE,
    hints_of,
)
from .anomaly_state import PlanJson

Interval = tuple[float, float]
STEP = 1.35
"""Factor by which a hint raises or lowers what it names."""
SHAPE_SPREAD, DIRECTION_SPREAD_DEG, PLACE_SPREAD = 0.15, 5.0, 0.05
"""Deviations from a defect that was seen: of the logarithm of size, elongation, contrast; degrees; of the side."""


@dataclass(frozen=True, slots=True)
class FamilyPrior:
    """What defects of a family are like on any surface."""

    words: tuple[str, ...]
    """In names of such defects."""
    relief: Relief
    ranges: Mapping[str, Interval]


PRIORS: dict[Family, FamilyPrior] = {
    "scratch": FamilyPrior(("scratch", "score", "scuff", "graze"), "removed",
        {"size_ratio": (0.02, 0.12), "elongation": (8, 40), "irregularity": (0.0, 0.4)}),
    "crack": FamilyPrior(("crack", "fissure", "fracture", "split"), "removed",
        {"size_ratio": (0.03, 0.12), "elongation": (15, 100), "irregularity": (0.4, 1.0)}),
    "hole": FamilyPrior(("hole", "pore", "pit", "puncture", "cavity", "void"), "removed",
        {"size_ratio": (0.02, 0.12), "elongation": (1, 1.8), "irregularity": (0.1, 0.6)}),
    "chip": FamilyPrior(("chip", "break", "broken", "spall", "flake", "notch"), "removed",
        {"size_ratio": (0.06, 0.3), "elongation": (1, 2.5), "irregularity": (0.4, 1.0)}),
    "stain": FamilyPrior(("stain", "spot", "blot", "mark", "oil", "liquid", "glue"), "flat",
        {"size_ratio": (0.05, 0.3), "elongation": (1, 2.5), "irregularity": (0.2, 0.8)}),
    "dent": FamilyPrior(("dent", "bent", "squeeze", "bump", "press"), "removed",
        {"size_ratio": (0.05, 0.25), "elongation": (1, 2.5), "irregularity": (0.0, 0.4)}),
    "contamination": FamilyPrior(("contamination", "dirt", "dust", "particle", "foreign", "burr"), "added",
        {"size_ratio": (0.02, 0.15), "elongation": (1, 3), "irregularity": (0.4, 1.0)}),
    "missing_part": FamilyPrior(("missing", "cut", "lack", "incomplete"), "removed",
        {"size_ratio": (0.08, 0.35), "elongation": (1, 2), "irregularity": (0.2, 0.7)}),
    "thread": FamilyPrior(("thread", "fray", "fibre", "fiber", "hair", "lint"), "added",
        {"size_ratio": (0.03, 0.15), "elongation": (8, 40), "irregularity": (0.3, 0.9)}),
    "discolouration": FamilyPrior(("color", "colour", "fade", "burn", "rust", "corrosion", "oxid"), "flat",
        {"size_ratio": (0.08, 0.4), "elongation": (1, 2.5), "irregularity": (0.2, 0.8)}),
}  # fmt: skip
"""Shares of an object's side, from common handling and casting faults; wide on purpose."""
LOGARITHMIC = ("size_ratio", "elongation")
"""Parameters of which a doubling counts the same everywhere."""
ANY_NAME: Family = "contamination"
"""Of a defect whose name says nothing."""


@dataclass(frozen=True, slots=True)
class PlanDrawer:
    """Draws plans by the seed; the same seed and knowledge give the same plan."""

    severity: Interval

    def draw(self, defect: str, seed: int, knowledge: DefectKnowledge | None = None) -> DefectPlan:
        """A first plan for a defect, by its name alone or by what is known of it."""
        rng = np.random.default_rng([seed, 0])
        families = knowledge.families if knowledge else ()
        family = _draw_family(families, rng) if families else family_of(defect)
        ranges = {"severity": self.severity, **PRIORS[family].ranges, **(knowledge.ranges if knowledge else {})}
        relief = knowledge.relief[0] if knowledge and knowledge.relief else PRIORS[family].relief
        colours = knowledge.colours_rgb if knowledge else ()
        plan = DefectPlan(
            defect=defect,
            family=family,
            centre_xy=_draw_place(knowledge.place_weights if knowledge else (), rng),
            size_ratio=_draw_log(ranges["size_ratio"], rng),
            elongation=_draw_log(ranges["elongation"], rng),
            orientation_deg=float(rng.uniform(*ranges.get("orientation_deg", (0.0, 180.0))) % 180),
            irregularity=float(rng.uniform(*ranges["irregularity"])),
            severity=float(rng.uniform(*ranges["severity"])),
            relief=relief,
            colour_rgb=colours[int(rng.integers(len(colours)))] if colours else None,
        )
        return _near(plan, knowledge.shapes, np.random.default_rng([seed, 3])) if knowledge else plan

    def refine(self, plan: DefectPlan, review: str, seed: int, knowledge: DefectKnowledge | None = None) -> DefectPlan:
        """A plan changed by what the review asks for and what is known; one of another kind is drawn anew."""
        if knowledge and knowledge.families and plan.family not in knowledge.families:
            return self.draw(plan.defect, seed, knowledge)
        hints = hints_of(review)
        changed = plan
        if RAISE_SEVERITY in hints:
            severity = min(1.0, changed.severity * STEP + 0.05)
            changed = replace(changed, severity=severity, contrast=_scaled(changed.contrast, STEP))
        if LOWER_SEVERITY in hints:
            severity = max(0.05, changed.severity / STEP)
            changed = replace(changed, severity=severity, contrast=_scaled(changed.contrast, 1 / STEP))
        if LARGER in hints:
            changed = replace(changed, size_ratio=min(1.0, changed.size_ratio * STEP))
        if SMALLER in hints:
            changed = replace(changed, size_ratio=changed.size_ratio / STEP)
        if SOFTER_EDGE in hints:
            changed = replace(changed, irregularity=max(0.0, changed.irregularity - 0.2))
        if MOVE_ONTO_OBJECT in hints or not hints:
            place = _draw_place(knowledge.place_weights if knowledge else (), np.random.default_rng([seed, 1]))
            changed = replace(changed, centre_xy=place)
        return _within(changed, knowledge, np.random.default_rng([seed, 2])) if knowledge else changed


def family_of(defect: str) -> Family:
    """The family whose words stand in a defect's name, the first that is named there; else `ANY_NAME`."""
    name = " ".join(re.findall(r"[^\W\d_]+", defect.lower()))
    places = {
        family: min(name.find(word) for word in prior.words if word in name)
        for family, prior in PRIORS.items()
        if any(word in name for word in prior.words)
    }
    return min(places, key=lambda family: places[family]) if places else ANY_NAME


def plan_to_json(plan: DefectPlan) -> PlanJson:
    """A plan as state and ledger keep it."""
    return {
        "defect": plan.defect,
        "family": plan.family,
        "centre_xy": [round(value, 4) for value in plan.centre_xy],
        "size_ratio": round(plan.size_ratio, 5),
        "elongation": round(plan.elongation, 3),
        "orientation_deg": round(plan.orientation_deg, 2),
        "irregularity": round(plan.irregularity, 4),
        "severity": round(plan.severity, 4),
        "relief": plan.relief,
        "colour_rgb": list(plan.colour_rgb) if plan.colour_rgb else None,
        "contrast": None if plan.contrast is None else round(plan.contrast, 4),
    }


def json_to_plan(content: PlanJson) -> DefectPlan:
    """The plan that state and ledger keep."""
    x, y = content["centre_xy"]
    colour = content["colour_rgb"]
    return DefectPlan(
        defect=content["defect"],
        family=cast("Family", content["family"]),
        centre_xy=(x, y),
        size_ratio=content["size_ratio"],
        elongation=content["elongation"],
        orientation_deg=content["orientation_deg"],
        irregularity=content["irregularity"],
        severity=content["severity"],
        relief=cast("Relief", content["relief"]),
        colour_rgb=(colour[0], colour[1], colour[2]) if colour else None,
        contrast=content.get("contrast"),
    )


def plan_to_prompt(plan: DefectPlan, item: str) -> str:
    """What an image editor is asked for; one place changes, everything else stays (AnomalyAgent)."""
    x, y = plan.centre_xy
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "middle"
    row = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else "middle"
    where = "middle" if column == row else f"{row} {column}"
    look = "barely visible" if plan.severity < 0.35 else "clearly visible" if plan.severity < 0.7 else "severe"
    tone = f"{plan.tone} than around it, " if plan.tone else ""
    relief = {"flat": "level with the surface", "removed": "where material is gone", "added": "lying on the surface"}
    kind = plan.family.replace("_", " ")
    return (
        f"Add one {look} {plan.defect} ({kind}, {tone}{relief[plan.relief]}) in the {where} of the {item}, about "
        f"{100 * plan.size_ratio:.0f} % of its side. Change only this place; keep all else as it is."
    )


def _near(plan: DefectPlan, shapes: Sequence[Shape], rng: np.random.Generator) -> DefectPlan:
    """The plan with size, length, direction, place and contrast as of one defect that was seen, each a little off.

    A smoothed bootstrap (Silverman and Young, 1987): drawn one by one, a long crack would get a short one's width.
    """
    if not shapes:
        return plan
    shape = shapes[int(rng.integers(len(shapes)))]
    size, elongation, direction, x, y, contrast = rng.normal(size=6)
    return replace(
        plan,
        size_ratio=min(1.0, shape.size_ratio * exp(SHAPE_SPREAD * size)),
        elongation=max(1.0, shape.elongation * exp(SHAPE_SPREAD * elongation)),
        orientation_deg=float(shape.orientation_deg + DIRECTION_SPREAD_DEG * direction) % 180,
        centre_xy=(_clipped(shape.centre_xy[0] + PLACE_SPREAD * x), _clipped(shape.centre_xy[1] + PLACE_SPREAD * y)),
        contrast=None if shape.contrast is None else _clipped(shape.contrast * exp(SHAPE_SPREAD * contrast), -1.0),
    )


def _clipped(share: float, least: float = 0.0) -> float:
    return min(1.0, max(least, share))


def _scaled(contrast: float | None, factor: float) -> float | None:
    return None if contrast is None else _clipped(contrast * factor, -1.0)


def _draw_place(weights: Sequence[float], rng: np.random.Generator) -> tuple[float, float]:
    """A place in [0, 1] of the object's box, by the weights of its 3x3 cells."""
    cells = np.asarray(weights if len(weights) == 9 and sum(weights) > 0 else [1.0] * 9)
    cell = int(rng.choice(9, p=cells / cells.sum()))
    row, column = divmod(cell, 3)
    return (float((column + rng.uniform()) / 3), float((row + rng.uniform()) / 3))


def _draw_log(interval: Interval, rng: np.random.Generator) -> float:
    """Uniform in the logarithm: as many small ones as large ones."""
    low, high = interval
    return exp(rng.uniform(log(low), log(high)))


def _draw_family(families: Sequence[Family], rng: np.random.Generator) -> Family:
    """One of them, the first twice as often as the second, thrice as often as the third."""
    shares = 1 / np.arange(1, len(families) + 1)
    return families[int(rng.choice(len(families), p=shares / shares.sum()))]


def _within(plan: DefectPlan, knowledge: DefectKnowledge, rng: np.random.Generator) -> DefectPlan:
    """The plan with each parameter that what is known excludes drawn anew: at a bound all of them would be alike."""
    values = {
        name: _draw_log((low, high), rng) if name in LOGARITHMIC else float(rng.uniform(low, high))
        for name, (low, high) in knowledge.ranges.items()
        if name != "orientation_deg" and not low <= float(getattr(plan, name)) <= high
    }
    changed = replace(plan, **values)  # type: ignore[arg-type]  # all of them are numbers
    if knowledge.relief and plan.relief not in knowledge.relief:
        changed = replace(changed, relief=knowledge.relief[0])
    return changed
