"""The anomaly agent's five tools (AnomalyAgent, arXiv 2604.07900): what a legal call does to the state.

Every edit starts from the normal image, never from an earlier edit; judges see the edited picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypedDict, cast

import numpy as np

from ..data.records import ImageRGB, MaskHW
from ..errors import SampleError
from ..tools.defects import Edited, EditRequest
from ..tools.masking.difference import changed_outside
from ..tools.masking.half_height import end_at_half_height
from .anomaly_planner import json_to_plan, plan_to_json, plan_to_prompt
from .anomaly_rules import passes, total_of
from .anomaly_services import AnomalyServices
from .anomaly_state import AnomalyState, Call, EditEntry, PlanJson
from .items import image_seed

MAX_KNOWLEDGE_CHARS = 4000
CHANGEABLE = frozenset(
    {"family", "centre_xy", "size_ratio", "elongation", "orientation_deg", "irregularity", "severity", "relief"}
    | {"colour_rgb"}
)
"""Parameters of the plan that a call of image_generation may give anew."""


class ToolUpdate(TypedDict, total=False):
    """What a tool changes in the state, and what it answers."""

    plan: PlanJson
    edits: list[EditEntry]
    knowledge: str
    is_masked: bool
    images_usd: float
    answer: dict[str, object]


def generate_prompt(state: AnomalyState, call: Call, services: AnomalyServices) -> ToolUpdate:
    """PG: a first plan of the defect, by its name or by what is known of it, and the edit prompt made of it."""
    item = state["item"]
    found = services.look_up(item["category"]) if services.settings.plan_by == "knowledge" else None
    known = None if found is None or found.is_guess else found
    plan = services.drawer.draw(item["category"], _seed(state, services, 0), known)
    return {
        "plan": plan_to_json(plan),
        "answer": {"plan": plan_to_json(plan), "prompt": plan_to_prompt(plan, services.item_name)},
    }


def generate_image(state: AnomalyState, call: Call, services: AnomalyServices) -> ToolUpdate:
    """IG: an edit of the normal image by the plan, changed first where the call, or the last review, asks for it."""
    turn = len(state["edits"]) + 1
    seed = _seed(state, services, turn)
    plan = json_to_plan(_changed(state["plan"], call))
    if state["edits"] and not call["arguments"]:
        knowledge = services.look_up(state["item"]["category"]) if state.get("knowledge") else None
        plan = services.drawer.refine(plan, state["edits"][-1].get("review", ""), seed, knowledge)
    original = _read_source(state, services)
    request = EditRequest(
        item_id=state["item"]["item_id"],
        seed=seed,
        plan=plan,
        image_rgb=original,
        foreground_hw=services.find_foreground(original),
        prompt=plan_to_prompt(plan, services.item_name),
        outline=services.settings.outline,
    )
    [edited] = services.paint([request])
    mask = services.find_mask(request, edited)
    entry: EditEntry = {
        "turn": turn,
        "seed": seed,
        "plan": plan_to_json(plan),
        "prompt": request.prompt,
        "artifact": services.artifacts.put_image(edited.rgb),
        "mask": services.artifacts.put_image(_to_picture(mask)) if mask.any() else "",
        "parameters": dict(edited.parameters),
        "flaw": edited.flaw,
    }
    return {
        "plan": entry["plan"],
        "edits": [*state["edits"], entry],
        "images_usd": edited.usd,
        "answer": {"turn": turn, "image": entry["artifact"], "flaw": edited.flaw},
    }


def evaluate_quality(state: AnomalyState, call: Call, services: AnomalyServices) -> ToolUpdate:
    """QE: location and quality of the last edit, each 0 to 5, with a review."""
    *earlier, last = state["edits"]
    original = _read_source(state, services)
    plan = json_to_plan(last["plan"])
    request = EditRequest(
        item_id=state["item"]["item_id"],
        seed=last["seed"],
        plan=plan,
        image_rgb=original,
        foreground_hw=services.find_foreground(original),
        prompt=last["prompt"],
        outline=services.settings.outline,
    )
    mask = _read_mask(last, original, services)
    edited = Edited(services.artifacts.get_image(last["artifact"]), mask, last["parameters"], flaw=last["flaw"])
    quality = services.judge.judge(request, edited, mask)
    judged: EditEntry = {
        **last,
        "location": round(quality.location, 3),
        "quality": round(quality.quality, 3),
        "review": quality.review,
        "measures": {name: round(float(value), 5) for name, value in quality.measures.items()},
    }
    return {
        "edits": [*earlier, judged],
        "answer": {
            "location": judged["location"],
            "quality": judged["quality"],
            "review": quality.review,
            "passes": passes(judged),
        },
    }


def retrieve_knowledge(state: AnomalyState, call: Call, services: AnomalyServices) -> ToolUpdate:
    """KR: what such a defect physically looks like."""
    found = services.look_up(state["item"]["category"])
    ranges = {name: list(interval) for name, interval in found.ranges.items()}
    text = found.text[:MAX_KNOWLEDGE_CHARS]
    answer = {"families": list(found.families), "ranges": ranges, "is_guess": found.is_guess, "text": text}
    return {"knowledge": json.dumps(answer, ensure_ascii=False), "answer": answer}


def generate_mask(state: AnomalyState, call: Call, services: AnomalyServices) -> ToolUpdate:
    """MG: the final mask of the edit, and the proof that the rest of the image is as it was.

    Raises:
        SampleError: nothing was changed, or pixels outside the mask were.
    """
    *earlier, last = state["edits"]
    original, edited = _read_source(state, services), services.artifacts.get_image(last["artifact"])[..., :3]
    mask = _read_mask(last, original, services)
    if not mask.any():
        raise SampleError("the edit changed nothing that could be masked")
    outside = changed_outside(original, edited, mask, tolerance=services.tolerance_levels)
    if outside > services.max_changed_outside:
        raise SampleError(
            f"{outside:.1%} of the pixels outside the mask changed, expected at most {services.max_changed_outside:.1%}"
        )
    if services.settings.outline == "half_height":
        outlined = end_at_half_height(original, edited, mask)
        last = {**last, "mask": services.artifacts.put_image(_to_picture(outlined))}
    return {
        "edits": [*earlier, last],
        "is_masked": True,
        "answer": {"mask": last["mask"], "changed_outside": round(outside, 6)},
    }


TOOLS: dict[str, Callable[[AnomalyState, Call, AnomalyServices], ToolUpdate]] = {
    "prompt_generation": generate_prompt,
    "image_generation": generate_image,
    "quality_evaluation": evaluate_quality,
    "knowledge_retrieval": retrieve_knowledge,
    "mask_generation": generate_mask,
}


def best_of(edits: list[EditEntry]) -> EditEntry | None:
    """The passing edit, which is the last; None where none passed."""
    return max(edits, key=total_of) if edits and passes(edits[-1]) else None


def _changed(plan: PlanJson, call: Call) -> PlanJson:
    """The plan with what the call gives anew; what it must not change is left out."""
    given = {name: value for name, value in call["arguments"].items() if name in CHANGEABLE}
    return cast("PlanJson", {**plan, **given})


def _seed(state: AnomalyState, services: AnomalyServices, turn: int) -> int:
    return image_seed(services.run_seed, state["item"]["item_id"], turn, 0)


def _read_source(state: AnomalyState, services: AnomalyServices) -> ImageRGB:
    return services.artifacts.get_image(state["source"])[..., :3]


def _read_mask(edit: EditEntry, original: ImageRGB, services: AnomalyServices) -> MaskHW:
    if not edit["mask"]:
        return np.zeros(original.shape[:2], np.bool_)
    return np.asarray(services.artifacts.get_image(edit["mask"])[..., 0] > 127)


def _to_picture(mask_hw: MaskHW) -> ImageRGB:
    return np.repeat(mask_hw[..., None].astype(np.uint8) * 255, 3, axis=2)
