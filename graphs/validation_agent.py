"""The validation agent: measures first, then vision judges, then a verdict (Gen-n-Val, arXiv 2506.04676).

judge_measures ─┬─ passed ───────> ask_judges ─┬─> weigh
                └─ nothing_to_see ─────────────┘

Every painter's graph has it as its node `validate`; alone it judges pictures of a folder. It fails closed: what a judge
cannot tell is not kept, and a judge that cannot be asked gives no verdict at all.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..memory.entries import Attempt, WorkItem
from .items import OUTAGES, with_verdict
from .services import ValidationServices


class ValidationInput(TypedDict):
    """What it is given; the fields are its parent's."""

    item: WorkItem
    candidates: list[Attempt]
    """Measured images; those with a criterion already are no pictures and stay rejected."""
    attempts: list[Attempt]
    """The item's earlier images; their scores count for the class's thresholds."""


class ValidationOutput(TypedDict):
    """What it gives back: never `attempts`, which its parent would append once more."""

    candidates: list[Attempt]


class ValidationState(ValidationInput):
    """State of the validation agent. `candidates` is replaced by each node."""


Services = Runtime[ValidationServices]
ValidationGraph = CompiledStateGraph[ValidationState, ValidationServices, ValidationInput, ValidationOutput]


def judge_measures(state: ValidationState, runtime: Services) -> ValidationOutput:
    """Verdicts from measures and likenesses alone: what they reject costs no model a look."""
    services, candidates = runtime.context, state["candidates"]
    whole = [candidate for candidate in candidates if not candidate["criteria"]]
    earlier = [attempt["measures"] for attempt in state["attempts"]]
    of_class = services.class_scores.get(state["item"]["category_id"], ())
    verdicts = iter(services.judge.judge([candidate["measures"] for candidate in whole], [*of_class, *earlier]))
    return {"candidates": [one if one["criteria"] else with_verdict(one, next(verdicts)) for one in candidates]}


def route_measured(state: ValidationState, runtime: Services) -> Literal["passed", "nothing_to_see"]:
    """Whether any picture is worth a look, and anybody is there to look."""
    passed = any(candidate["accepted"] for candidate in state["candidates"])
    return "passed" if passed and runtime.context.validator.judges else "nothing_to_see"


def ask_judges(state: ValidationState, runtime: Services) -> ValidationOutput:
    """Have every picture that passed looked at by each judge."""
    services, category = runtime.context, state["item"]["category"]
    seen: list[Attempt] = []
    for candidate in state["candidates"]:
        if candidate["accepted"]:
            picture = services.artifacts.get_image(candidate["artifact"])
            candidate = {**candidate, "opinions": services.validator.look(picture, category, services.usage)}
        seen.append(candidate)
    return {"candidates": seen}


def weigh(state: ValidationState, runtime: Services) -> ValidationOutput:
    """Measures and opinions together; where judges disagree, and for the audit's share, a person is asked."""
    validator = runtime.context.validator
    return {"candidates": [validator.weigh(one, state["item"]["item_id"]) for one in state["candidates"]]}


def build_validation_graph() -> ValidationGraph:
    """The validation agent for the pictures of one item; its context is `ValidationServices`."""
    graph = StateGraph(
        ValidationState,
        context_schema=ValidationServices,
        input_schema=ValidationInput,
        output_schema=ValidationOutput,
    )
    graph.add_node("judge_measures", judge_measures)
    graph.add_node("ask_judges", ask_judges, retry_policy=OUTAGES)
    graph.add_node("weigh", weigh)
    graph.add_edge(START, "judge_measures")
    graph.add_conditional_edges("judge_measures", route_measured, {"passed": "ask_judges", "nothing_to_see": "weigh"})
    graph.add_edge("ask_judges", "weigh")
    graph.add_edge("weigh", END)
    return graph.compile()
