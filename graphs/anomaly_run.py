"""The anomaly run: samples of each defect made until there are enough, exported in MVTec's layout.

read ─> make_wave ⟲ ─┬─ finished ─> export ─> report
                     ├─ empty ─────────────────^
                     └─ stopped ───────────────^
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..configs.recipe import Recipe
from ..data.anomaly_split_files import save_split
from ..data.files import remove_partials
from ..memory.artifacts import ArtifactStore
from ..memory.entries import FINISHED, WorkItem
from ..memory.ledger import Ledger
from .anomaly_agent import AnomalyGraph, build_anomaly_agent_graph
from .anomaly_crew import AnomalyCrew
from .anomaly_data import AnomalySource
from .anomaly_instances import export_instances
from .anomaly_outputs import export_samples, finish_anomalies
from .anomaly_state import AnomalyResult, AnomalyRunState
from .costs import Ledgered
from .record import RunRecord
from .services import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyRunServices:
    """What the anomaly run's nodes need; the tallies are filled as the run goes, from the ledger."""

    recipe: Recipe
    folder: Path
    source: AnomalySource
    crew: AnomalyCrew
    artifacts: ArtifactStore
    items: Ledger[AnomalyResult]
    progress: Progress
    stop: threading.Event
    record: RunRecord
    costs: Ledgered
    accepted: Counter[str] = field(default_factory=Counter)
    """Samples by defect."""
    tried: Counter[str] = field(default_factory=Counter)
    """Items by defect."""
    endings: Counter[str] = field(default_factory=Counter)
    turns: list[int] = field(default_factory=list)
    """Edits of each accepted item."""


Services = Runtime[AnomalyRunServices]
AnomalyRunGraph = CompiledStateGraph[AnomalyRunState, AnomalyRunServices, AnomalyRunState, AnomalyRunState]


class ReadUpdate(TypedDict):
    num_open: int


class WaveUpdate(TypedDict):
    wave: int
    num_accepted: int
    num_open: int
    stopped: bool
    spent: str


class NoUpdate(TypedDict):
    pass


def read(state: AnomalyRunState, runtime: Services) -> ReadUpdate:
    """Record the sides before anything is spent, and clear what a killed writer left."""
    services = runtime.context
    with services.record.timed("read"):
        save_split(services.source.split, services.folder / "split.json")
        remove_partials(services.folder, deep=False)
        services.artifacts.remove_partials()
        services.items.remove_partials()
    settings = services.crew.settings
    services.progress.start("make", settings.count * len(services.source.defects))
    return {"num_open": len(plan_wave(services))}


def plan_wave(services: AnomalyRunServices) -> list[WorkItem]:
    """The next items: of each defect as many as samples are missing, while it may be tried; by turns."""
    settings, source = services.crew.settings, services.source
    most = round(settings.count * settings.max_tries_ratio)
    by_defect: list[list[WorkItem]] = []
    for number, defect in enumerate(source.defects, start=1):
        first = services.tried[defect]
        missing = min(settings.count - services.accepted[defect], most - first)
        by_defect.append([_to_item(source, defect, number, first + turn) for turn in range(max(0, missing))])
    longest = max(map(len, by_defect), default=0)
    turns = [items[turn] for turn in range(longest) for items in by_defect if turn < len(items)]
    budget = services.recipe.budget.items
    left = len(turns) if budget is None else max(0, budget - services.tried.total())
    return turns[: min(services.recipe.plan.wave_size, left)]


def _to_item(source: AnomalySource, defect: str, number: int, slot: int) -> WorkItem:
    return {
        "item_id": f"anomaly-{number}-{slot:05d}",
        "agent": "anomaly_agent",
        "category_id": number,
        "category": defect,
        "source_row": (slot + number * 7919) % len(source.normals),
        "slot": slot,
    }


def _make_wave(graph: AnomalyGraph, state: AnomalyRunState, services: AnomalyRunServices) -> WaveUpdate:
    """Make a wave of items; in the ledger, finished ones are not made again, and failed ones go on."""
    wave = plan_wave(services)
    with services.record.timed("make"):
        stored = {item["item_id"]: services.items.read(item["item_id"]) for item in wave}
        todo = [item for item in wave if not _is_finished(stored[item["item_id"]])]
        failed = {item_id: result for item_id, result in stored.items() if result and not _is_finished(result)}
        for result in services.crew.make(graph, todo, failed):
            services.items.write(result["item"]["item_id"], result)
            stored[result["item"]["item_id"]] = result
        for item in wave:
            if (made := stored[item["item_id"]]) is not None:
                _tally(services, made)
    return {
        "wave": state["wave"] + 1,
        "num_accepted": services.accepted.total(),
        "num_open": len(plan_wave(services)),
        "stopped": services.stop.is_set(),
        "spent": _why_spent(services),
    }


def _is_finished(result: AnomalyResult | None) -> bool:
    return result is not None and result["ending"] in FINISHED


def _tally(services: AnomalyRunServices, result: AnomalyResult) -> None:
    defect = result["item"]["category"]
    services.tried[defect] += 1
    services.endings[result["ending"]] += 1
    services.costs.add(result["cost"])
    if result["ending"] == "accepted":
        services.accepted[defect] += 1
        services.turns.append(len(result["edits"]))
        services.progress.advance("make", "accepted")


def _why_spent(services: AnomalyRunServices) -> str:
    budget = services.recipe.budget
    if budget.items is not None and services.tried.total() >= budget.items:
        return f"budget.items={budget.items} are made"
    return services.costs.exhausted(budget)


def route_wave(state: AnomalyRunState) -> Literal["more", "finished", "stopped", "empty"]:
    if state["stopped"]:
        return "stopped"
    if state["num_open"] and not state["spent"]:
        return "more"
    return "finished" if state["num_accepted"] else "empty"


def export(state: AnomalyRunState, runtime: Services) -> NoUpdate:
    """Write the samples with the normal images as MVTec AD is laid out, and as instances for a detector."""
    services = runtime.context
    with services.record.timed("export"):
        services.progress.start("export", services.accepted.total())
        export_samples(
            services.folder, services.source, accepted_results(services), services.artifacts, services.crew.settings
        )
        if services.crew.settings.instances:
            data = Path(str(services.recipe.data.path))
            wanted = services.recipe.export
            export_instances(services.folder, data, services.source.item, wanted.formats, originals=wanted.originals)
        services.progress.advance("export", count=services.accepted.total())
    return {}


def report(state: AnomalyRunState, runtime: Services) -> NoUpdate:
    """Write run.json, provenance and the pictures."""
    services = runtime.context
    tallies = {
        "accepted": dict(services.accepted),
        "tried": dict(services.tried),
        "endings": dict(services.endings),
        "mean_turns": round(sum(services.turns) / len(services.turns), 3) if services.turns else 0.0,
    }
    finish_anomalies(
        services.record,
        services.recipe,
        services.source,
        tallies,
        services.costs,
        stopped=state["stopped"],
        spent=state["spent"],
    )
    return {}


def accepted_results(services: AnomalyRunServices) -> Iterator[AnomalyResult]:
    """Accepted items, by defect and slot."""
    for number, defect in enumerate(services.source.defects, start=1):
        for slot in range(services.tried[defect]):
            result = services.items.read(f"anomaly-{number}-{slot:05d}")
            if result is not None and result["ending"] == "accepted":
                yield result


def build_anomaly_run_graph() -> AnomalyRunGraph:
    """The whole run; its context is `AnomalyRunServices`, and the agent's graph is its subgraph."""
    agent = build_anomaly_agent_graph()

    def make_wave(state: AnomalyRunState, runtime: Services) -> WaveUpdate:
        return _make_wave(agent, state, runtime.context)

    graph = StateGraph(AnomalyRunState, context_schema=AnomalyRunServices)
    for node in (read, make_wave, export, report):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "read")
    graph.add_edge("read", "make_wave")
    graph.add_conditional_edges(
        "make_wave",
        route_wave,
        {"more": "make_wave", "finished": "export", "stopped": "report", "empty": "report"},
    )
    graph.add_edge("export", "report")
    graph.add_edge("report", END)
    return graph.compile()
