"""The anomaly agent: a defect made on a normal image, judged, looked up, made again (AnomalyAgent, arXiv 2604.07900).

open_image ─┬─ usable ─> decide ─┬─ call ─────> act ─> decide ⟲
            │                    ├─ accepted ─> finish_accepted
            └─ unusable ─────────┴─ exhausted ─> finish_exhausted
                             any node, unrecovered ─> finish_failed

Whoever decides, a model that calls tools or the fixed policy, the loop is the same: calls out of order are refused with
a message, every edit starts from the normal image, and the whole trajectory is kept as chat messages.
"""

from __future__ import annotations

import json
from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..errors import SampleError
from ..memory.entries import Ending
from .anomaly_rules import find_illegal
from .anomaly_schemas import find_argument_fault
from .anomaly_services import AnomalyServices
from .anomaly_state import AnomalyState, Call, EditEntry, Flag, Message, PlanJson
from .anomaly_tools import TOOLS
from .items import OUTAGES, recover

Services = Runtime[AnomalyServices]
AnomalyGraph = CompiledStateGraph[AnomalyState, AnomalyServices, AnomalyState, AnomalyState]


class OpenUpdate(TypedDict, total=False):
    source: str
    messages: list[Message]
    reason: str


class DecideUpdate(TypedDict):
    messages: list[Message]
    call: Call | None


class ActUpdate(TypedDict, total=False):
    messages: list[Message]
    plan: PlanJson
    edits: list[EditEntry]
    knowledge: str
    is_masked: bool
    images_usd: float
    flags: list[Flag]


class FinishUpdate(TypedDict):
    ending: Ending


def open_image(state: AnomalyState, runtime: Services) -> OpenUpdate:
    """The normal image, and the task in words; an item that goes on has both."""
    services, item = runtime.context, state["item"]
    if "source" in state:
        return {}
    try:
        image = services.read_image(item["source_row"])
    except SampleError as exc:
        return {"reason": f"normal image unusable: {exc}"}
    key = services.artifacts.put_image(image)
    task = f"Make a {item['category']} on this image of a {services.item_name}; change one place only. Image: {key}"
    return {"source": key, "messages": [{"role": "user", "content": task}]}


def route_image(state: AnomalyState) -> Literal["usable", "unusable"]:
    return "usable" if "source" in state else "unusable"


def decide(state: AnomalyState, runtime: Services) -> DecideUpdate:
    """Which tool comes next, by a model or by the fixed policy."""
    message, call = runtime.context.decider.decide(state, runtime.context.usage)
    return {"messages": [message], "call": call}


def route_call(state: AnomalyState, runtime: Services) -> Literal["call", "accepted", "exhausted"]:
    """A masked edit ends the item well; too many calls out of order, or nothing left to do, end it without an image."""
    if state["is_masked"]:
        return "accepted"
    is_lost = len(state["flags"]) > runtime.context.settings.max_illegal_calls
    return "call" if state.get("call") is not None and not is_lost else "exhausted"


def act(state: AnomalyState, runtime: Services) -> ActUpdate:
    """Carry out a call, or refuse it with a reason that the caller can act on."""
    call = state.get("call")
    assert call is not None
    reason = find_illegal(call["name"], state, runtime.context.settings) or find_argument_fault(call)
    if reason:
        return {"messages": [_answer(call, {"error": reason})], "flags": [{"call": call["name"], "reason": reason}]}
    update = TOOLS[call["name"]](state, call, runtime.context)
    answer = update.pop("answer")
    return {**update, "messages": [_answer(call, answer)]}  # type: ignore[typeddict-item]


def finish_accepted(state: AnomalyState) -> FinishUpdate:
    return {"ending": "accepted"}


def finish_exhausted(state: AnomalyState) -> FinishUpdate:
    return {"ending": "exhausted"}


def finish_failed(state: AnomalyState) -> FinishUpdate:
    return {"ending": "failed"}


def build_anomaly_agent_graph() -> AnomalyGraph:
    """The anomaly agent for one item; its context is `AnomalyServices`."""
    graph = StateGraph(AnomalyState, context_schema=AnomalyServices)
    graph.set_node_defaults(error_handler=recover)  # type: ignore[arg-type, unused-ignore]  # the stubs lack NodeError
    for asker in (decide, act):
        graph.add_node(asker.__name__, asker, retry_policy=OUTAGES)
    for node in (open_image, finish_accepted, finish_exhausted, finish_failed):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "open_image")
    graph.add_conditional_edges("open_image", route_image, {"usable": "decide", "unusable": "finish_exhausted"})
    graph.add_conditional_edges(
        "decide", route_call, {"call": "act", "accepted": "finish_accepted", "exhausted": "finish_exhausted"}
    )
    graph.add_edge("act", "decide")
    for ending in ("finish_accepted", "finish_exhausted", "finish_failed"):
        graph.add_edge(ending, END)
    return graph.compile()


def _answer(call: Call, content: dict[str, object]) -> Message:
    return {
        "role": "tool",
        "name": call["name"],
        "tool_call_id": call["id"],
        "content": json.dumps(content, ensure_ascii=False),
    }
