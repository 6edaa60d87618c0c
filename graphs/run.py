"""The run: the graph that a user sees first. `make_wave` runs the agents' graphs, one an item.

read ─> plan ─> check_judges ─> paint_backgrounds ─┐
   ┌───────────────────────────────────────────────┘
   └> make_wave ⟲ ─┬─ finished ─> compose ─┬─ composed ─> export ─> report
                   ├─ empty ───────────────│───────────────────────────^
                   └─ stopped ─────────────┴─ stopped ─────────────────^
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..data.files import remove_partials
from ..memory.entries import MADE, ItemResult, WorkItem
from ..memory.ledger import Ledger
from . import validators
from .composition import make_scenes, scene_costs
from .costs import add_costs
from .crews import AgentGraphs
from .held import apply_reviews
from .image_agent import build_image_agent_graph
from .items import OUTAGES
from .outputs import export_product, finish
from .run_services import RunServices
from .state import RunState
from .text_agent import build_text_agent_graph
from .tracing import trace_agent

Services = Runtime[RunServices]
RunGraph = CompiledStateGraph[RunState, RunServices, RunState, RunState]


class PlanUpdate(TypedDict):
    num_items: int
    num_waves: int
    wave: int
    num_accepted: int
    num_scenes: int
    stopped: bool
    spent: str


class WaveUpdate(TypedDict):
    wave: int
    num_accepted: int
    stopped: bool
    spent: str


class ComposeUpdate(TypedDict):
    num_scenes: int
    stopped: bool


class NoUpdate(TypedDict):
    pass


def read(state: RunState, runtime: Services) -> NoUpdate:
    """Record the data set and its sides before anything is spent."""
    services = runtime.context
    with services.record.timed("read"):
        services.record.write_sides(services.dataset)
        for folder in (services.folder, services.folder / "dataset"):
            remove_partials(folder, deep=False)
        services.artifacts.remove_partials()
        services.items.remove_partials()
        Ledger(services.folder / "backgrounds").remove_partials()
        services.scenes.remove_partials()
        apply_reviews(services.folder)
    return {}


def check_judges(state: RunState, runtime: Services) -> NoUpdate:
    """Show the vision judges bad pictures before anything is painted; one that accepts them stops the run."""
    services = runtime.context
    with services.record.timed("check"):
        checks = validators.check_judges(
            services.validators.values(), validators.real_cut_outs(services.dataset), services.folder / "judges"
        )
    for check in checks:
        services.pool.costs.add(validators.cost_of(check))
    return {}


def paint_backgrounds(state: RunState, runtime: Services) -> NoUpdate:
    """Have the backgrounds, where they are painted too, before anything is spent on what goes into them."""
    services = runtime.context
    with services.record.timed("backgrounds"):
        services.scene_services.backgrounds.prepare(services.progress, services.stop.is_set)
    return {}


def plan(state: RunState, runtime: Services) -> PlanUpdate:
    services = runtime.context
    services.progress.start("make", len(services.work.items))
    return {
        "num_items": len(services.work.items),
        "num_waves": services.work.num_waves,
        "wave": 0,
        "num_accepted": 0,
        "num_scenes": 0,
        "stopped": False,
        "spent": "",
    }


def route_plan(state: RunState) -> Literal["work", "empty"]:
    return "work" if state["num_waves"] else "empty"


def _make_wave(graphs: AgentGraphs, state: RunState, services: RunServices) -> WaveUpdate:
    """Have a wave of items made by their agent's crew, then take the results into pool and memory in item order."""
    wave = services.work.waves[state["wave"]]
    with services.record.timed("make"):
        stored = {item["item_id"]: services.items.read(item["item_id"]) for item in wave}
        finished = {item_id for item_id, result in stored.items() if result and result["ending"] in MADE}
        needed = []
        for item in wave:
            if item["item_id"] not in finished and _is_spared(item, services):
                services.pool.num_spared += 1
                services.progress.advance("make")
                continue
            needed.append(item)
            if item["item_id"] in finished:
                services.progress.advance("make", stored[item["item_id"]]["ending"])  # type: ignore[index]
        crew = services.crews[wave[0]["agent"]]
        todo = [item for item in needed if item["item_id"] not in finished]
        keep = partial(_keep, services, dict(stored))
        with trace_agent(wave[0]["agent"], state["wave"]):
            for result in crew.make(graphs, todo, services.pool, keep) if todo else ():
                stored[result["item"]["item_id"]] = result
                services.progress.advance("make", result["ending"])
        results = [made for item in needed if (made := stored[item["item_id"]]) is not None]
        for result in results:
            services.pool.add(result)
        crew.remember(results)
    return {
        "wave": state["wave"] + 1,
        "num_accepted": len(services.pool.instances),
        "stopped": services.stop.is_set(),
        "spent": services.pool.costs.exhausted(services.recipe.budget),
    }


def _keep(services: RunServices, earlier: Mapping[str, ItemResult | None], result: ItemResult) -> ItemResult:
    """Make a result durable; what an earlier, failed try of the item cost was spent all the same."""
    if (failed := earlier[result["item"]["item_id"]]) is not None:
        result = {**result, "cost": add_costs(result["cost"], failed["cost"])}
    services.items.write(result["item"]["item_id"], result)
    return result


def _is_spared(item: WorkItem, services: RunServices) -> bool:
    """Whether the T-Agent has filled its share of the class already, so that the item need not be made."""
    if item["agent"] != "text_agent":
        return False
    made = services.pool.accepted_by_agent["text_agent", item["category_id"]]
    return made >= services.work.text_quota[item["category_id"]]


def route_wave(state: RunState) -> Literal["more", "finished", "stopped", "empty"]:
    if state["stopped"]:
        return "stopped"
    if state["wave"] < state["num_waves"] and not state["spent"]:
        return "more"
    return "finished" if state["num_accepted"] else "empty"


def compose(state: RunState, runtime: Services) -> ComposeUpdate:
    """Place every accepted instance in a scene."""
    services = runtime.context
    with services.record.timed("compose"):
        services.record.scene_ids = make_scenes(services.pool.instances, services.scene_services)
        if services.scene_services.judges.judges:
            for cost in scene_costs(services.scenes):
                services.pool.costs.add(cost)
    return {"num_scenes": len(services.record.scene_ids), "stopped": services.stop.is_set()}


def route_scenes(state: RunState) -> Literal["composed", "stopped"]:
    return "stopped" if state["stopped"] else "composed"


def export(state: RunState, runtime: Services) -> NoUpdate:
    """Write the bigger data set, unless this very one stands there already."""
    services = runtime.context
    with services.record.timed("export"):
        export_product(services)
    return {}


def report(state: RunState, runtime: Services) -> NoUpdate:
    """Write run.json, the data set's card and provenance, and the pictures."""
    finish(runtime.context, stopped=state["stopped"], spent=state["spent"])
    return {}


def build_run_graph() -> RunGraph:
    """The whole run; its context is `RunServices`, and the agents' graphs are its subgraphs."""
    text_agent, image_agent = build_text_agent_graph(), build_image_agent_graph()

    def make_wave(state: RunState, runtime: Services) -> WaveUpdate:
        # LangGraph finds an agent's graph in this closure and lists it in `get_subgraphs()`.
        return _make_wave(AgentGraphs(text_agent, image_agent), state, runtime.context)

    graph = StateGraph(RunState, context_schema=RunServices)
    for node in (read, plan, make_wave, export, report):
        graph.add_node(node.__name__, node)
    for asker in (check_judges, paint_backgrounds, compose):
        graph.add_node(asker.__name__, asker, retry_policy=OUTAGES)
    graph.add_edge(START, "read")
    graph.add_edge("read", "plan")
    graph.add_conditional_edges("plan", route_plan, {"work": "check_judges", "empty": "report"})
    graph.add_edge("check_judges", "paint_backgrounds")
    graph.add_edge("paint_backgrounds", "make_wave")
    graph.add_conditional_edges(
        "make_wave",
        route_wave,
        {"more": "make_wave", "finished": "compose", "stopped": "report", "empty": "report"},
    )
    graph.add_conditional_edges("compose", route_scenes, {"composed": "export", "stopped": "report"})
    graph.add_edge("export", "report")
    graph.add_edge("report", END)
    return graph.compile()
