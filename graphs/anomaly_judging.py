"""A judge of defects that knows what a defect of this name looks like: what contradicts it cannot pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..data.records import MaskHW
from ..memory.knowledge_search import DefectKnowledge
from ..tools.defects import Edited, EditRequest, Quality, QualityJudge
from ..tools.judging.defect_measures import size_ratio
from ..tools.judging.defect_quality import LARGER, SMALLER

LOOK_UP = "look up what such a defect looks like"
"""The review of a plan of another kind of defect; whoever plans finds the kind in the knowledge."""
TOLERANCE = 1.5
"""Factor beyond the known sizes that is still taken for one of them."""
CAPPED = 1.0
"""Most quality of an edit that contradicts what is known."""


@dataclass(frozen=True, slots=True)
class InformedQualityJudge:
    """Another judge's scores, capped where kind or size contradict the notes that name the defect."""

    judge_looks: QualityJudge
    look_up: Callable[[str], DefectKnowledge]

    @property
    def name(self) -> str:
        return f"informed {self.judge_looks.name}"

    def judge(self, request: EditRequest, edited: Edited, mask_hw: MaskHW) -> Quality:
        """Scores of one edit; raises what the other judge does."""
        quality = self.judge_looks.judge(request, edited, mask_hw)
        known = self.look_up(request.plan.defect)
        fault = "" if known.is_guess else find_contradiction(request, mask_hw, known)
        if not fault:
            return quality
        review = "; ".join(filter(None, (fault, quality.review)))
        location, looks = min(quality.location, 5.0 - CAPPED), min(quality.quality, CAPPED)
        return replace(quality, location=location, quality=looks, review=review)


def find_contradiction(request: EditRequest, mask_hw: MaskHW, known: DefectKnowledge) -> str:
    """What of an edit contradicts what is known of its defect, as a review says it; empty: nothing."""
    plan = request.plan
    if known.families and plan.family not in known.families:
        return f"{LOOK_UP}: {plan.defect} is {' or '.join(known.families)}, not {plan.family}"
    if "size_ratio" not in known.ranges or not mask_hw.any():
        return ""
    low, high = known.ranges["size_ratio"]
    found = size_ratio(mask_hw, request.foreground_hw)
    if found > high * TOLERANCE:
        return f"{SMALLER}: {found:.3f} of the object's side, where such defects have at most {high:g}"
    if found < low / TOLERANCE:
        return f"{LARGER}: {found:.3f} of the object's side, where such defects have at least {low:g}"
    return ""
