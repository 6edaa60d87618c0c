"""A LangGraph application of its own that has our T-Agent as a subgraph.

It takes a shopping list of classes, has one prompt of each painted, judged and rethought, and collects the cut-outs
that were accepted. Offline, on the embedded models (about half a minute a class on two cores):

    maskwright models fetch smollm2 minilm lite0
    python examples/text_agent_as_subgraph.py apple bicycle --out pictures

The subgraph shares the keys `category`, `out`, `ending`, `reason` and `instances` with its parent, and takes its
context from it: a recipe, and settings above it.
"""

from __future__ import annotations

import argparse
import json
import operator
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from maskwright.serving.studio import AcceptedInstance, StudioContext, text_agent


class ShoppingState(TypedDict, total=False):
    """What the application knows."""

    wanted: list[str]
    """Classes still to be had; written by the caller, shortened by `take_next`."""
    pictures: str
    """Folder where the pictures go; written by the caller."""
    category: str
    out: str
    """Written by `take_next` for the T-Agent."""
    ending: str
    reason: str
    instances: list[AcceptedInstance]
    """Written by the T-Agent."""
    bought: Annotated[list[str], operator.add]
    """A line a picture or failure; appended by `collect`."""


def take_next(state: ShoppingState) -> ShoppingState:
    category, *rest = state["wanted"]
    return {"category": category, "wanted": rest, "out": str(Path(state["pictures"], category))}


def collect(state: ShoppingState) -> ShoppingState:
    lines = [f"{state['category']}  {instance['path']}" for instance in state["instances"]]
    return {"bought": lines or [f"{state['category']}  {state['ending']}: {state['reason']}"]}


def route_list(state: ShoppingState) -> Literal["more", "done"]:
    return "more" if state["wanted"] else "done"


def build_shopping_graph() -> CompiledStateGraph[ShoppingState, StudioContext, ShoppingState, ShoppingState]:
    """take_next ─> text_agent ─> collect ⟲"""
    graph = StateGraph(ShoppingState, context_schema=StudioContext)
    graph.add_node("take_next", take_next)
    graph.add_node("text_agent", text_agent())
    graph.add_node("collect", collect)
    graph.add_edge(START, "take_next")
    graph.add_edge("take_next", "text_agent")
    graph.add_edge("text_agent", "collect")
    graph.add_conditional_edges("collect", route_list, {"more": "take_next", "done": END})
    return graph.compile()


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect pictures of classes, cut out.")
    parser.add_argument("classes", nargs="+", metavar="CLASS", help="such as apple")
    parser.add_argument("--out", required=True, help="folder to make; each class gets its own in it")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="a setting, key.sub=value")
    given = parser.parse_args()
    memory = f"memory.path={json.dumps(str(Path(given.out, 'memory')))}"
    context = StudioContext(recipe="quickstart", overrides=[memory, *given.overrides])
    state = build_shopping_graph().invoke({"wanted": given.classes, "pictures": given.out}, context=context)
    print(*state["bought"], sep="\n")


if __name__ == "__main__":
    main()
