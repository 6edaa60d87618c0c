"""The I-Agent: a new instance conditioned on one of the user's own (InstaDA, arXiv 2509.02973).

cut_out ─> vary ─> measure ─> judge ─┬─ enough ────> finish_accepted
   │        ^                        ├─ retry ─────> revise ─┐
   │        └────────────────────────│──────────────────────┘
   └─ unusable ──────────────────────┴─ exhausted ─> finish_exhausted
                            any node, unrecovered ─> finish_failed
"""

from __future__ import annotations

import time
from typing import Literal, TypedDict, cast

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..errors import ImageDecodeError, SampleError
from ..memory.entries import Attempt, Ending, Instance, ItemResult, Source, WorkItem, no_cost
from ..tools.judging.measures import measure_instance, perceptual_hash
from ..tools.protocols import PaintRequest
from .items import image_seed, recover, with_verdict
from .services import Artifacts, ImageAgentServices
from .state import ImageAgentState
from .tracing import traced_as

Services = Runtime[ImageAgentServices]
ImageAgentGraph = CompiledStateGraph[ImageAgentState, ImageAgentServices, ImageAgentState, ImageAgentState]

MORE_VARIED = frozenset({"source_difference", "pool_distance_bits"})
"""Criteria that ask for a stronger variation when they fall short; every other one asks for a weaker one."""


class CutOutUpdate(TypedDict, total=False):
    source: Source
    reason: str
    unreadable_image: str


class CandidateUpdate(TypedDict):
    candidate: Attempt


class JudgeUpdate(TypedDict):
    attempts: list[Attempt]


class ReviseUpdate(TypedDict):
    round: int
    strength: float


class FinishUpdate(TypedDict):
    ending: Ending


def cut_out(state: ImageAgentState, runtime: Services) -> CutOutUpdate:
    sources, row = runtime.context.sources, state["item"]["source_row"]
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
        }
    }


def route_source(state: ImageAgentState) -> Literal["usable", "unusable"]:
    return "usable" if "source" in state else "unusable"


def vary(state: ImageAgentState, runtime: Services) -> CandidateUpdate:
    services, item, source = runtime.context, state["item"], state["source"]
    request = PaintRequest(
        item_id=item["item_id"],
        seed=image_seed(services.run_seed, item["item_id"], state["round"], 0),
        category=item["category"],
        source_rgba=services.artifacts.get_image(source["artifact"]),
        strength=state["strength"],
        truncated_sides=tuple(source["truncated_sides"]),
    )
    [painted] = services.painter.paint([request])
    return {
        "candidate": {
            "round": state["round"],
            "index": 0,
            "seed": request.seed,
            "strength": state["strength"],
            "artifact": services.artifacts.put_image(painted.rgba),
            "parameters": dict(painted.parameters),
            "truncated_sides": list(painted.truncated_sides),
            "measures": {},
            "criteria": [],
            "accepted": False,
        }
    }


def measure(state: ImageAgentState, runtime: Services) -> CandidateUpdate:
    services, candidate = runtime.context, state["candidate"]
    measures = measure_instance(
        services.artifacts.get_image(candidate["artifact"]),
        services.artifacts.get_image(state["source"]["artifact"]),
        services.pool_hashes.get(state["item"]["category_id"], ()),
    )
    return {"candidate": {**candidate, "measures": measures | {"truncation": state["source"]["truncation"]}}}


def judge(state: ImageAgentState, runtime: Services) -> JudgeUpdate:
    candidate = state["candidate"]
    return {"attempts": [with_verdict(candidate, runtime.context.judge.judge(candidate["measures"]))]}


def route_verdict(state: ImageAgentState, runtime: Services) -> Literal["enough", "retry", "exhausted"]:
    """An accepted image ends the item; the budget ends the loop."""
    if state["attempts"][-1]["accepted"]:
        return "enough"
    return "retry" if state["round"] < runtime.context.settings.max_rounds else "exhausted"


def revise(state: ImageAgentState, runtime: Services) -> ReviseUpdate:
    """Vary more where the sample was too near to its source or the pool, less where it was damaged."""
    last, settings = state["attempts"][-1], runtime.context.settings
    failed = {c["name"]: c["reason"] for c in last["criteria"] if c["outcome"] != "meet"}
    wants_more = any(name in MORE_VARIED and "under" in reason for name, reason in failed.items())
    step = settings.strength_step if wants_more else -settings.strength_step
    return {"round": state["round"] + 1, "strength": round(min(1.0, max(0.0, state["strength"] + step)), 6)}


def finish_accepted(state: ImageAgentState) -> FinishUpdate:
    return {"ending": "accepted"}


def finish_exhausted(state: ImageAgentState) -> FinishUpdate:
    return {"ending": "exhausted"}


def finish_failed(state: ImageAgentState) -> FinishUpdate:
    return {"ending": "failed"}


def build_image_agent_graph() -> ImageAgentGraph:
    """The I-Agent for one work item; its context is `ImageAgentServices`."""
    graph = StateGraph(ImageAgentState, context_schema=ImageAgentServices)
    graph.set_node_defaults(error_handler=recover)  # type: ignore[arg-type, unused-ignore]  # the stubs lack NodeError
    for node in (cut_out, vary, measure, judge, revise, finish_accepted, finish_exhausted, finish_failed):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "cut_out")
    graph.add_conditional_edges("cut_out", route_source, {"usable": "vary", "unusable": "finish_exhausted"})
    graph.add_edge("vary", "measure")
    graph.add_edge("measure", "judge")
    graph.add_conditional_edges(
        "judge", route_verdict, {"enough": "finish_accepted", "retry": "revise", "exhausted": "finish_exhausted"}
    )
    graph.add_edge("revise", "vary")
    for ending in ("finish_accepted", "finish_exhausted", "finish_failed"):
        graph.add_edge(ending, END)
    return graph.compile()


def make_item(graph: ImageAgentGraph, item: WorkItem, services: ImageAgentServices) -> ItemResult:
    """Run one item through the graph and state its result as the ledger keeps it."""
    started = time.perf_counter()
    state = cast(
        "ImageAgentState",
        graph.invoke(
            {"item": item, "round": 1, "strength": services.settings.strength, "attempts": []},
            context=services,
            config=traced_as(item),
        ),
    )
    attempts = state["attempts"]
    kept = [attempt for attempt in attempts if attempt["accepted"]]
    rejected = "; ".join(c["reason"] for c in attempts[-1]["criteria"] if c["reason"]) if attempts else ""
    return {
        "item": item,
        "ending": state["ending"],
        "reason": state.get("reason", "") or ("" if kept else rejected),
        "source": state.get("source"),
        "unreadable_image": state.get("unreadable_image", ""),
        "painter": {"name": services.painter.name, "revision": services.painter.revision},
        "attempts": attempts,
        "instances": [to_instance(item, attempt, services.artifacts) for attempt in kept],
        "rounds": [],
        "cost": no_cost(),
        "seconds": round(time.perf_counter() - started, 4),
    }


def to_instance(item: WorkItem, attempt: Attempt, artifacts: Artifacts) -> Instance:
    """The I-Agent's accepted image, which is a cut-out already.

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
