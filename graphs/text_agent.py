"""The T-Agent: prompts written, painted, judged and rethought (InstaDA, arXiv 2509.02973), with a memory.

recall ─> write_prompts ─> paint ─> mask ─> measure ─> validate ─> conclude ─┬─ enough ────> finish_accepted
                             ^                                               ├─ rethink ───> revise_prompt ─┐
                             └───────────────────────────────────────────────│──────────────────────────────┘
                                                                             ├─ held ──────> finish_held
                                                                             ├─ exhausted ─> finish_exhausted
                                                         any node, unrecovered ─> finish_failed

`validate` is the validation agent, a graph of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypedDict

import numpy as np
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..data.records import ImageRGBA
from ..errors import EmptyMaskError
from ..memory.entries import Attempt, Ending, Round, Writing
from ..tools.judging.painted import measure_painted, painted_hash
from ..tools.protocols import MaskRequest, PaintRequest
from .items import (
    OUTAGES,
    digest_to_int,
    failed,
    frequent_reasons,
    image_seed,
    mean_scores,
    missed_limit,
    recover,
)
from .pictures import picture_to_png
from .pool import LIKENESSES
from .services import TextAgentServices
from .state import Recollection, TextAgentState
from .tracing import trace_round
from .validating import ending_of, is_promising, is_waiting
from .validation_agent import build_validation_graph
from .writing import DiversityElements, Feedback, Memory, Written

Services = Runtime[TextAgentServices]
TextAgentGraph = CompiledStateGraph[TextAgentState, TextAgentServices, TextAgentState, TextAgentState]

MORE_VARIED = frozenset({"pool_distance_bits under", "image_image over"})
"""Failures that ask for more departure from the painter's start; every other one asks for less."""
COMPOSITIONS = 8
MAX_CAPTIONS = 2


class RecallUpdate(TypedDict):
    recalled: Recollection
    strength: float


class WriteUpdate(TypedDict):
    writing: Writing


class PaintUpdate(TypedDict):
    candidates: list[Attempt]
    images_usd: float


class CandidatesUpdate(TypedDict):
    candidates: list[Attempt]


class ConcludeUpdate(TypedDict):
    attempts: list[Attempt]
    rounds: list[Round]


class ReviseUpdate(TypedDict):
    round: int
    strength: float
    writing: Writing


class FinishUpdate(TypedDict):
    ending: Ending


def recall(state: TextAgentState, runtime: Services) -> RecallUpdate:
    """What worked for this class and what did not; where something worked well, start as it did."""
    recalled = runtime.context.memory.recall(state["item"]["category"])
    strength = recalled["strength"]
    return {"recalled": recalled, "strength": state["strength"] if strength is None else strength}


def write_prompts(state: TextAgentState, runtime: Services) -> WriteUpdate:
    """A prompt of other elements than the items before had, different from what memory holds."""
    services, item = runtime.context, state["item"]
    memory = _memory_of(state["recalled"])
    elements = services.elements.of(item["category_id"], item["category"], services.usage)
    for turn in range(services.settings.max_rewrites + 1):
        chosen = choose_elements(elements, item["item_id"], turn)
        written = services.writer.write(item["category"], chosen, memory, services.usage)
        cosine = services.memory.nearest_cosine(item["category"], written.prompt)
        if services.memory.is_novel(cosine):
            return {"writing": _to_writing(written, chosen, cosine, ())}
    return {"writing": _compose_novel(elements, item["category"], item["item_id"], services)}


def _compose_novel(elements: DiversityElements, category: str, item_id: str, services: TextAgentServices) -> Writing:
    """Where the writer only repeats what memory holds: elements in a row, the most novel of a few combinations."""
    found = []
    for turn in range(COMPOSITIONS):
        chosen = choose_elements(elements, item_id, turn)
        written = services.writer.compose(chosen)
        found.append((services.memory.nearest_cosine(category, written.prompt), turn, chosen, written))
        if services.memory.is_novel(found[-1][0]):
            break
    cosine, _, chosen, written = min(found, key=lambda one: one[:2])
    return _to_writing(written, chosen, cosine, ())


def paint(state: TextAgentState, runtime: Services) -> PaintUpdate:
    services, item = runtime.context, state["item"]
    requests = [
        PaintRequest(
            item_id=item["item_id"],
            seed=image_seed(services.run_seed, item["item_id"], state["round"], index),
            category=item["category"],
            prompt=state["writing"]["prompt"],
            strength=state["strength"],
        )
        for index in range(services.settings.images_per_prompt)
    ]
    painted = services.paint(requests)
    candidates: list[Attempt] = []
    for index, (request, image) in enumerate(zip(requests, painted, strict=True)):
        key = services.artifacts.put_image(image.rgba)
        candidates.append(
            {
                "round": state["round"],
                "index": index,
                "seed": request.seed,
                "strength": request.strength,
                "artifact": key,
                "painted": key,
                "parameters": dict(image.parameters),
                "truncated_sides": [],
                "measures": {},
                "criteria": [failed("painted", image.flaw)] if image.flaw else [],
                "accepted": False,
            }
        )
    return {"candidates": candidates, "images_usd": sum(image.usd for image in painted)}


def mask(state: TextAgentState, runtime: Services) -> CandidatesUpdate:
    """Find the object in every picture that is one."""
    services, candidates = runtime.context, state["candidates"]
    whole = [candidate for candidate in candidates if not candidate["criteria"]]
    pictures = [services.artifacts.get_image(candidate["painted"]) for candidate in whole]
    found = services.mask([MaskRequest(rgba=rgba, category=state["item"]["category"]) for rgba in pictures])
    masked: dict[int, Attempt] = {}
    for candidate, rgba, one in zip(whole, pictures, found, strict=True):
        cut_out = np.dstack([rgba[..., :3], one.alpha])
        measures = {"mask_score": one.score}
        if one.num_instances is not None:
            measures["num_instances"] = float(one.num_instances)
        key = services.artifacts.put_image(cut_out)
        masked[candidate["index"]] = {**candidate, "artifact": key, "measures": measures}
    return {"candidates": [masked.get(candidate["index"], candidate) for candidate in candidates]}


def measure(state: TextAgentState, runtime: Services) -> CandidatesUpdate:
    """Measures of every cut-out, and its likeness to the class's name and to the class's real instances."""
    services, item = runtime.context, state["item"]
    hashes = [*services.pool_hashes.get(item["category_id"], ())]
    hashes += [_hash(services, attempt) for attempt in state["attempts"] if attempt["accepted"]]
    measured: list[Attempt] = []
    visible: list[ImageRGBA] = []
    for candidate in state["candidates"]:
        if candidate["criteria"]:
            measured.append(candidate)
            continue
        rgba = services.artifacts.get_image(candidate["artifact"])
        try:
            measures = measure_painted(rgba, hashes)
        except EmptyMaskError as exc:
            measured.append({**candidate, "criteria": [failed("mask", str(exc))]})
            continue
        hashes.append(painted_hash(rgba))
        visible.append(rgba)
        measured.append({**candidate, "measures": {**candidate["measures"], **measures}})
    scores = iter(services.score([(rgba, item["category"]) for rgba in visible]))
    return {
        "candidates": [
            one if one["criteria"] else {**one, "measures": {**one["measures"], **next(scores)}} for one in measured
        ]
    }


def conclude(state: TextAgentState, runtime: Services) -> ConcludeUpdate:
    """Put down the round: its images with their verdicts, and what the writer is told of them."""
    services, attempts = runtime.context, state["candidates"]
    told = _to_round(state, attempts)
    trace_round(
        state["item"]["category"], told, (str(services.artifacts.path(attempt["artifact"])) for attempt in attempts)
    )
    return {"attempts": attempts, "rounds": [told]}


def route_verdict(state: TextAgentState, runtime: Services) -> Literal["enough", "rethink", "held", "exhausted"]:
    """Kept share decides; the budget ends the loop, and what was kept by then stays (Prompt Rethink)."""
    settings, last = runtime.context.settings, state["rounds"][-1]
    is_enough = last["num_kept"] >= settings.min_yield * last["num_painted"]
    if not is_enough and state["round"] < settings.max_rounds:
        return "rethink"
    if any(is_waiting(attempt) for attempt in state["attempts"]):
        return "held"
    return "enough" if any(attempt["accepted"] for attempt in state["attempts"]) else "exhausted"


def revise_prompt(state: TextAgentState, runtime: Services) -> ReviseUpdate:
    """Rethink the prompt from what became of its pictures, and how far the painter departs from its start."""
    services, item, last = runtime.context, state["item"], state["rounds"][-1]
    captions = _caption_rejected(state, services)
    elements = services.elements.of(item["category_id"], item["category"], services.usage)
    chosen = choose_elements(elements, item["item_id"], 100 * state["round"])
    written = services.writer.revise(
        item["category"],
        last["prompt"],
        chosen,
        Feedback(last["scores"], last["reasons"], captions),
        _memory_of(state["recalled"]),
        services.usage,
    )
    cosine = services.memory.nearest_cosine(item["category"], written.prompt)
    return {
        "round": state["round"] + 1,
        "strength": _next_strength(state, services),
        "writing": _to_writing(written, chosen, cosine, captions),
    }


def finish_accepted(state: TextAgentState) -> FinishUpdate:
    return {"ending": "accepted"}


def finish_held(state: TextAgentState) -> FinishUpdate:
    """Until a person has decided; what was kept without them counts already."""
    return {"ending": "held"}


def finish_exhausted(state: TextAgentState) -> FinishUpdate:
    """Without a picture that passed, unless an earlier round kept one, or a person is asked about one."""
    return {"ending": ending_of(state["attempts"])}


def finish_failed(state: TextAgentState) -> FinishUpdate:
    return {"ending": "failed"}


def build_text_agent_graph() -> TextAgentGraph:
    """The T-Agent for one work item; its context is `TextAgentServices`."""
    graph = StateGraph(TextAgentState, context_schema=TextAgentServices)
    graph.set_node_defaults(error_handler=recover)  # type: ignore[arg-type, unused-ignore]  # the stubs lack NodeError
    for asker in (write_prompts, paint, revise_prompt):
        graph.add_node(asker.__name__, asker, retry_policy=OUTAGES)
    for node in (recall, mask, measure, conclude, finish_accepted, finish_held, finish_exhausted, finish_failed):
        graph.add_node(node.__name__, node)
    graph.add_node("validate", build_validation_graph())
    graph.add_edge(START, "recall")
    for first, second in (("recall", "write_prompts"), ("write_prompts", "paint"), ("paint", "mask")):
        graph.add_edge(first, second)
    for first, second in (("mask", "measure"), ("measure", "validate"), ("validate", "conclude")):
        graph.add_edge(first, second)
    graph.add_conditional_edges(
        "conclude",
        route_verdict,
        {
            "enough": "finish_accepted",
            "rethink": "revise_prompt",
            "held": "finish_held",
            "exhausted": "finish_exhausted",
        },
    )
    graph.add_edge("revise_prompt", "paint")
    for ending in ("finish_accepted", "finish_held", "finish_exhausted", "finish_failed"):
        graph.add_edge(ending, END)
    return graph.compile()


def choose_elements(elements: DiversityElements, item_id: str, turn: int) -> list[str]:
    """One kind, one look and one view, drawn by the item's id and the turn."""
    lists = (elements.kinds, elements.looks, elements.views)
    return [values[digest_to_int(f"{item_id}\0{turn}\0{axis}") % len(values)] for axis, values in enumerate(lists)]


def _memory_of(recalled: Recollection) -> Memory:
    return Memory(recalled["good"], recalled["bad"])


def _to_writing(written: Written, elements: list[str], cosine: float, captions: tuple[str, ...] | list[str]) -> Writing:
    writing: Writing = {
        "prompt": written.prompt,
        "elements": elements,
        "rung": written.rung,
        "template": written.version,
        "shortened": written.shortened,
        "novelty": round(1 - cosine, 4),
        "captions": list(captions),
    }
    if written.fields:
        writing["fields"] = dict(written.fields)
    return writing


def _to_round(state: TextAgentState, attempts: list[Attempt]) -> Round:
    """What the writer, the memory and the report need of a round."""
    return {
        **state["writing"],
        "round": state["round"],
        "strength": state["strength"],
        "num_painted": len(attempts),
        "num_kept": sum(is_promising(attempt) for attempt in attempts),
        "scores": mean_scores(attempts, LIKENESSES),
        "reasons": frequent_reasons(attempts),
    }


def _next_strength(state: TextAgentState, services: TextAgentServices) -> float:
    settings = services.settings
    last = [attempt for attempt in state["attempts"] if attempt["round"] == state["round"]]
    unmet = Counter(missed_limit(c) for a in last for c in a["criteria"] if c["outcome"] != "meet")
    wants_more = bool(unmet) and unmet.most_common(1)[0][0] in MORE_VARIED
    step = settings.strength_step if wants_more else -settings.strength_step
    return round(min(settings.max_strength, max(settings.min_strength, state["strength"] + step)), 6)


def _hash(services: TextAgentServices, attempt: Attempt) -> int:
    return painted_hash(services.artifacts.get_image(attempt["artifact"]))


def _caption_rejected(state: TextAgentState, services: TextAgentServices) -> list[str]:
    """What a vision model sees in the pictures that were rejected, where there is such a model."""
    if services.captioner is None:
        return []
    last = [a for a in state["attempts"] if a["round"] == state["round"] and not a["accepted"]]
    captions = []
    for attempt in last[:MAX_CAPTIONS]:
        picture = services.artifacts.get_image(attempt["painted"])
        captions.append(services.captioner.caption(picture_to_png(picture), services.usage))
    return captions
