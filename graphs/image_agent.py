"""The I-Agent: a new instance conditioned on one of the user's own (InstaDA, arXiv 2509.02973).

cut_out ─> describe ─> paint ─> mask ─> measure ─> validate ─> conclude ─┬─ enough ────> finish_accepted
   │                     ^                                               ├─ rethink ───> revise ─┐
   │                     └───────────────────────────────────────────────│──────────────────────┘
   │                                                                     ├─ held ──────> finish_held
   └─ unusable ──────────────────────────────────────────────────────────┴─ exhausted ─> finish_exhausted
                                                             any node, unrecovered ─> finish_failed

`validate` is the validation agent, a graph of its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, TypedDict

import cv2
import numpy as np
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..data.masks import mask_to_bbox
from ..data.records import MaskHW
from ..errors import EmptyMaskError, ImageDecodeError, SampleError
from ..memory.entries import Attempt, Ending, Instance, Round, Source, WorkItem, Writing
from ..tools.cutouts import crop_to_mask
from ..tools.judging.measures import alpha_to_mask, mask_iou, measure_instance, perceptual_hash
from ..tools.naming import noun_phrase
from ..tools.protocols import MaskRequest, PaintRequest
from .items import OUTAGES, failed, frequent_reasons, image_seed, mean_scores, missed_limit, recover
from .pictures import picture_to_png
from .services import Artifacts, ImageAgentServices, Variant
from .state import ImageAgentState
from .tracing import trace_round
from .validating import ending_of, is_promising, is_waiting
from .validation_agent import build_validation_graph
from .writing import Feedback, Written

Services = Runtime[ImageAgentServices]
ImageAgentGraph = CompiledStateGraph[ImageAgentState, ImageAgentServices, ImageAgentState, ImageAgentState]

TOO_LIKE = frozenset({"source_difference under", "pool_distance_bits under", "source_likeness over", "source_iou over"})
"""Failures of a copy; every other one is that of a stranger, or of a damaged picture."""
SCORES = ("image_text", "source_likeness", "source_iou")
MAX_CONTROL_SCALE = 2.0


class CutOutUpdate(TypedDict, total=False):
    source: Source
    reason: str
    unreadable_image: str


class DescribeUpdate(TypedDict, total=False):
    writing: Writing


class PaintUpdate(TypedDict):
    candidates: list[Attempt]
    images_usd: float


class CandidatesUpdate(TypedDict):
    candidates: list[Attempt]


class ConcludeUpdate(TypedDict):
    attempts: list[Attempt]
    rounds: list[Round]


class ReviseUpdate(TypedDict, total=False):
    round: int
    strength: float
    control_scale: float
    writing: Writing


class FinishUpdate(TypedDict):
    ending: Ending


def cut_out(state: ImageAgentState, runtime: Services) -> CutOutUpdate:
    sources, row = runtime.context.sources, runtime.context.choose_source(state["item"])
    if row is None:
        return {"reason": "source unusable: every source of the class is retired"}
    try:
        source = sources.cut_out(row)
    except ImageDecodeError as exc:
        return {"reason": f"source unusable: {exc}", "unreadable_image": sources.file_name(row)}
    except SampleError as exc:
        return {"reason": f"source unusable: {exc}"}
    limit = runtime.context.settings.limits.max_truncation
    if source.truncation > limit:  # no variation can mend it, so none is paid for
        return {"reason": f"source unusable: truncation {source.truncation:.2f} is over {limit:.2f}"}
    return {
        "source": {
            "artifact": runtime.context.artifacts.put_image(source.rgba),
            "file_name": source.file_name,
            "annotation_id": source.annotation_id,
            "licence": source.licence,
            "truncation": source.truncation,
            "truncated_sides": list(source.truncated_sides),
            "side_ratio": source.side_ratio,
            "surround_rgb": source.surround_rgb,
            "row": row,
        }
    }


def route_source(state: ImageAgentState) -> Literal["usable", "unusable"]:
    return "usable" if "source" in state else "unusable"


def describe(state: ImageAgentState, runtime: Services) -> DescribeUpdate:
    """The first prompt, for painters that read one: the class, and what a vision model sees in the source."""
    services = runtime.context
    if services.writer is None:
        return {}
    category = state["item"]["category"]
    prompt, captions = services.settings.prompt.format(name=noun_phrase(category)), []
    if services.captioner is not None:
        source = services.artifacts.get_image(state["source"]["artifact"])
        captions = [services.captioner.caption(picture_to_png(source), services.usage)]
        prompt = f"{prompt}, {captions[0]}"
    return {"writing": _to_writing(services.writer.fit(prompt), captions)}


def paint(state: ImageAgentState, runtime: Services) -> PaintUpdate:
    """Paint from the source; edges that guided the painter are kept beside the picture."""
    services, item, source = runtime.context, state["item"], state["source"]
    request = PaintRequest(
        item_id=item["item_id"],
        seed=image_seed(services.run_seed, item["item_id"], state["round"], 0),
        category=item["category"],
        prompt=state["writing"]["prompt"] if "writing" in state else "",
        source_rgba=services.artifacts.get_image(source["artifact"]),
        strength=state["strength"],
        truncated_sides=tuple(source["truncated_sides"]),
        view=services.sources.view(source["row"], services.settings.padding_ratio) if services.needs_view else None,
        control_scale=state["control_scale"],
    )
    [painted] = services.paint([request])
    key = services.artifacts.put_image(painted.rgba)
    candidate: Attempt = {
        "round": state["round"],
        "index": 0,
        "seed": request.seed,
        "strength": request.strength,
        "artifact": key,
        "parameters": dict(painted.parameters),
        "truncated_sides": source["truncated_sides"] if painted.covers_view else list(painted.truncated_sides),
        "measures": {},
        "criteria": [failed("painted", painted.flaw)] if painted.flaw else [],
        "accepted": False,
    }
    if painted.covers_view:
        candidate["painted"] = key
    if painted.condition is not None:
        candidate["condition"] = services.artifacts.put_image(painted.condition)
        candidate["control_scale"] = request.control_scale
    return {"candidates": [candidate], "images_usd": painted.usd}


def mask(state: ImageAgentState, runtime: Services) -> CandidatesUpdate:
    """Find the instance where its source was, in a picture that shows it in its surroundings."""
    services, [candidate] = runtime.context, state["candidates"]
    if candidate["criteria"] or "painted" not in candidate:  # the painter's own alpha is the mask
        return {"candidates": [candidate]}
    picture = services.artifacts.get_image(candidate["painted"])
    view = services.sources.view(state["source"]["row"], services.settings.padding_ratio)
    known = _fit_mask(view.mask_hw, picture.shape[0], picture.shape[1])
    x, y, width, height = mask_to_bbox(known)
    request = MaskRequest(
        rgba=picture, category=state["item"]["category"], box_xyxy=(x, y, x + width, y + height), mask_hw=known
    )
    [found] = services.mask([request])
    measures = {"mask_score": found.score}
    if found.num_instances is not None:
        measures["num_instances"] = float(found.num_instances)
    cut = np.dstack([picture[..., :3], found.alpha])
    measures["source_iou"] = mask_iou(alpha_to_mask(cut), known)
    try:
        key = services.artifacts.put_image(crop_to_mask(cut))
    except EmptyMaskError as exc:
        return {"candidates": [{**candidate, "measures": measures, "criteria": [failed("mask", str(exc))]}]}
    return {"candidates": [{**candidate, "artifact": key, "measures": measures}]}


def measure(state: ImageAgentState, runtime: Services) -> CandidatesUpdate:
    """Measures of the variant, and its likenesses to class and source where they are asked for."""
    services, [candidate], source = runtime.context, state["candidates"], state["source"]
    if candidate["criteria"]:
        return {"candidates": [candidate]}
    rgba, source_rgba = (services.artifacts.get_image(one["artifact"]) for one in (candidate, source))
    try:
        measures = measure_instance(rgba, source_rgba, services.pool_hashes.get(state["item"]["category_id"], ()))
    except EmptyMaskError as exc:
        return {"candidates": [{**candidate, "criteria": [failed("mask", str(exc))]}]}
    measures |= {**candidate["measures"], "truncation": source["truncation"]}
    if services.score is not None:
        [scores] = services.score([Variant(rgba, source_rgba, source["artifact"], state["item"]["category"])])
        measures |= scores
    return {"candidates": [{**candidate, "measures": measures}]}


def conclude(state: ImageAgentState, runtime: Services) -> ConcludeUpdate:
    """Put down the round: its image with its verdict, and, where a prompt is read, what the writer is told of it."""
    services, [candidate] = runtime.context, state["candidates"]
    if "writing" not in state:
        return {"attempts": [candidate], "rounds": []}
    told: Round = {
        **state["writing"],
        "round": state["round"],
        "strength": state["strength"],
        "num_painted": 1,
        "num_kept": int(is_promising(candidate)),
        "scores": mean_scores([candidate], SCORES),
        "reasons": frequent_reasons([candidate]),
    }
    trace_round(state["item"]["category"], told, [str(services.artifacts.path(candidate["artifact"]))])
    return {"attempts": [candidate], "rounds": [told]}


def route_verdict(state: ImageAgentState, runtime: Services) -> Literal["enough", "rethink", "held", "exhausted"]:
    """An image that is kept, or that judges disagree on, ends the item; so does the budget."""
    last = state["attempts"][-1]
    is_open = not is_promising(last) and last.get("held") != "disagreement"
    if is_open and state["round"] < runtime.context.settings.max_rounds:
        return "rethink"
    if any(is_waiting(attempt) for attempt in state["attempts"]):
        return "held"
    return "enough" if last["accepted"] else "exhausted"


def revise(state: ImageAgentState, runtime: Services) -> ReviseUpdate:
    """Depart further from a copy, stay nearer for a stranger; where a prompt is read, it is rethought too."""
    services, settings, last = runtime.context, runtime.context.settings, state["attempts"][-1]
    unmet = [criterion for criterion in last["criteria"] if criterion["outcome"] != "meet"]
    sign = 1 if any(missed_limit(criterion) in TOO_LIKE for criterion in unmet) else -1
    strength = min(1.0, max(0.0, state["strength"] + sign * settings.strength_step))
    control_scale = min(MAX_CONTROL_SCALE, max(0.0, state["control_scale"] - sign * settings.control_step))
    update: ReviseUpdate = {
        "round": state["round"] + 1,
        "strength": round(strength, 6),
        "control_scale": round(control_scale, 6),
    }
    if services.writer is not None and settings.rewrite_prompts:
        captions = []
        if services.captioner is not None:
            picture = services.artifacts.get_image(last.get("painted", last["artifact"]))
            captions = [services.captioner.caption(picture_to_png(picture), services.usage)]
        told = state["rounds"][-1]
        written = services.writer.adjust(
            noun_phrase(state["item"]["category"]),
            told["prompt"],
            Feedback(told["scores"], told["reasons"], captions),
            services.usage,
        )
        update["writing"] = _to_writing(written, captions)
    return update


def finish_accepted(state: ImageAgentState) -> FinishUpdate:
    return {"ending": "accepted"}


def finish_held(state: ImageAgentState) -> FinishUpdate:
    """Until a person has decided."""
    return {"ending": "held"}


def finish_exhausted(state: ImageAgentState) -> FinishUpdate:
    return {"ending": ending_of(state["attempts"])}


def finish_failed(state: ImageAgentState) -> FinishUpdate:
    return {"ending": "failed"}


def build_image_agent_graph() -> ImageAgentGraph:
    """The I-Agent for one work item; its context is `ImageAgentServices`."""
    graph = StateGraph(ImageAgentState, context_schema=ImageAgentServices)
    graph.set_node_defaults(error_handler=recover)  # type: ignore[arg-type, unused-ignore]  # the stubs lack NodeError
    for asker in (describe, paint, revise):
        graph.add_node(asker.__name__, asker, retry_policy=OUTAGES)
    for node in (cut_out, mask, measure, conclude, finish_accepted, finish_held, finish_exhausted, finish_failed):
        graph.add_node(node.__name__, node)
    graph.add_node("validate", build_validation_graph())
    graph.add_edge(START, "cut_out")
    graph.add_conditional_edges("cut_out", route_source, {"usable": "describe", "unusable": "finish_exhausted"})
    for first, second in pairwise(("describe", "paint", "mask", "measure", "validate", "conclude")):
        graph.add_edge(first, second)
    graph.add_conditional_edges(
        "conclude",
        route_verdict,
        {"enough": "finish_accepted", "rethink": "revise", "held": "finish_held", "exhausted": "finish_exhausted"},
    )
    graph.add_edge("revise", "paint")
    for ending in ("finish_accepted", "finish_held", "finish_exhausted", "finish_failed"):
        graph.add_edge(ending, END)
    return graph.compile()


def to_instance(item: WorkItem, attempt: Attempt, artifacts: Artifacts) -> Instance:
    """An accepted image that is a cut-out already, of the I-Agent or of a validated folder.

    Raises:
        ImageDecodeError: its artifact is missing or damaged.
    """
    return {
        "instance_id": f"{item['item_id']}-r{attempt['round']}",
        "artifact": attempt["artifact"],
        "phash": f"{perceptual_hash(artifacts.get_image(attempt['artifact'])):016x}",
        "truncated_sides": attempt["truncated_sides"],
        "round": attempt["round"],
        "index": attempt["index"],
    }


def _to_writing(written: Written, captions: list[str]) -> Writing:
    return {
        "prompt": written.prompt,
        "elements": [],
        "rung": written.rung,
        "template": written.version,
        "shortened": written.shortened,
        "novelty": 1.0,
        "captions": captions,
    }


def _fit_mask(mask_hw: MaskHW, height: int, width: int) -> MaskHW:
    resized = cv2.resize(mask_hw.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, dtype=np.bool_)
