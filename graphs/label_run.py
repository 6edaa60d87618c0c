"""The label run: scenes of each class made until enough are admitted, exported with their labels in VOC's layout.

read ─> learn ─> make_wave ⟲ ─┬─ finished ─> check ─> export ─> report
                              ├─ empty ─────────────────────────^
                              └─ stopped ───────────────────────^
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime

from ..configs.recipe import Recipe
from ..data.files import remove_partials
from ..data.label_splits import save_label_split
from ..memory.artifacts import ArtifactStore
from ..memory.entries import FINISHED
from ..memory.ledger import Ledger
from ..memory.prompt_history import NoHistory, PromptHistory
from .costs import Ledgered
from .label_agent import LabelAgentGraph, build_label_agent_graph
from .label_crew import LabelCrew
from .label_data import ClassChoice, LabelSource, leave_out
from .label_learning import TaughtClassifier, Teaching, estimate_precision
from .label_outputs import LabelOutcome, export_labels, finish_labels
from .label_plan import LabelPlan
from .label_remembering import to_prompt_records
from .label_state import LabelItem, LabelResult
from .label_tally import LabelTally
from .record import RunRecord
from .services import Progress


class LabelRunState(TypedDict):
    """State of a label run's own graph: counters; the files on disk hold the rest."""

    wave: int
    """Written by the caller as 0; `make_wave` adds one."""
    num_admitted: int
    """Scenes admitted so far. Written by `make_wave`."""
    num_open: int
    """Items that may be made next. Written by `learn` and `make_wave`."""
    stopped: bool
    """True after Ctrl-C. Written by `make_wave`."""
    spent: str
    """Why no more is made before the quotas are full, in words. Written by `make_wave`."""


@dataclass(slots=True, kw_only=True)
class LabelRunServices:
    """What the label run's nodes need; the tally is filled as the run goes, from the ledger."""

    recipe: Recipe
    folder: Path
    source: LabelSource
    choice: ClassChoice
    make_plan: Callable[[Collection[str]], LabelPlan]
    """Of what the filter knows."""
    plan: LabelPlan
    crew: LabelCrew
    teaching: Teaching
    artifacts: ArtifactStore
    items: Ledger[LabelResult]
    memory: PromptHistory | NoHistory
    progress: Progress
    stop: threading.Event
    record: RunRecord
    costs: Ledgered
    classifier: TaughtClassifier | None = None
    """Of the filter. Written by `learn`."""
    tally: LabelTally = field(default_factory=LabelTally)
    precision: dict[str, object] = field(default_factory=dict)
    """Of the admitted labels. Written by `check`."""


Services = Runtime[LabelRunServices]
LabelRunGraph = CompiledStateGraph[LabelRunState, LabelRunServices, LabelRunState, LabelRunState]


class LearnUpdate(TypedDict):
    num_open: int


class WaveUpdate(TypedDict):
    wave: int
    num_admitted: int
    num_open: int
    stopped: bool
    spent: str


class NoUpdate(TypedDict):
    pass


def read(state: LabelRunState, runtime: Services) -> NoUpdate:
    """Record the sides before anything is spent, and clear what a killed writer left."""
    services = runtime.context
    with services.record.timed("read"):
        save_label_split(services.source.split, services.source.dataset, services.folder / "split.json")
        remove_partials(services.folder, deep=False)
        services.artifacts.remove_partials()
        services.items.remove_partials()
    return {}


def learn(state: LabelRunState, runtime: Services) -> LearnUpdate:
    """Teach the filter's classifier on real images, or read it from the cache."""
    services = runtime.context
    if services.crew.settings.filter:
        services.progress.start("learn", 1)
        with services.record.timed("learn"):
            services.classifier, unlearned = services.teaching.train_filter(services.plan.classes)
        services.progress.advance("learn")
        leave_out(services.source, services.choice, unlearned)
        services.plan = services.make_plan(services.classifier.classes)
    services.progress.start("make", services.crew.settings.count * len(services.plan.classes))
    return {"num_open": len(plan_wave(services))}


def plan_wave(services: LabelRunServices) -> list[LabelItem]:
    """The next items, as far as the budget goes."""
    size, budget = services.recipe.plan.wave_size, services.recipe.budget.items
    left = size if budget is None else max(0, budget - services.tally.num_items)
    return services.plan.wave(services.tally, size)[:left]


def _make_wave(graph: LabelAgentGraph, state: LabelRunState, services: LabelRunServices) -> WaveUpdate:
    """Make a wave of items; finished ones are taken from the ledger as they are, failed ones go on."""
    wave, shares = plan_wave(services), services.plan.open_shares(services.tally)
    with services.record.timed("make"):
        stored = {item["item_id"]: services.items.read(item["item_id"]) for item in wave}
        todo = [item for item in wave if not _is_finished(stored[item["item_id"]])]
        failed = {item_id: result for item_id, result in stored.items() if result and not _is_finished(result)}
        todo = [failed[item["item_id"]]["item"] if item["item_id"] in failed else item for item in todo]
        for result in services.crew.make(graph, todo, services.classifier, shares, failed):
            services.items.write(result["item"]["item_id"], result)
            stored[result["item"]["item_id"]] = result
        _close_wave(services, [made for item in wave if (made := stored[item["item_id"]]) is not None])
    return {
        "wave": state["wave"] + 1,
        "num_admitted": services.tally.num_admitted,
        "num_open": len(plan_wave(services)),
        "stopped": services.stop.is_set(),
        "spent": _why_spent(services),
    }


def _is_finished(result: LabelResult | None) -> bool:
    return result is not None and result["ending"] in FINISHED


def _close_wave(services: LabelRunServices, results: Iterable[LabelResult]) -> None:
    """Count what was made, and remember its prompts, in item order; a replay remembers the same ones."""
    record, records = services.record, []
    for result in results:
        services.tally.add(result, services.plan.classes)
        services.costs.add(result["cost"])
        records += to_prompt_records(result, record.run_id, record.started)
        if result["ending"] == "accepted":
            shown = sum(label in services.plan.classes for label in result["item"]["labels"])
            services.progress.advance("make", "accepted", shown)
    services.memory.upsert(records)


def _why_spent(services: LabelRunServices) -> str:
    budget, tally, limit = services.recipe.budget, services.tally, services.crew.settings.admission.stop_after
    if not tally.num_admitted and tally.num_tried >= limit:
        return f"none of the first {tally.num_tried} items had a picture that was admitted"
    if budget.items is not None and tally.num_items >= budget.items:
        return f"budget.items={budget.items} are made"
    return services.costs.exhausted(budget)


def route_wave(state: LabelRunState) -> Literal["more", "finished", "stopped", "empty"]:
    if state["stopped"]:
        return "stopped"
    if state["num_open"] and not state["spent"]:
        return "more"
    return "finished" if state["num_admitted"] else "empty"


def check(state: LabelRunState, runtime: Services) -> NoUpdate:
    """Let a second classifier, which the filter did not use, look at what was admitted and what was refused."""
    services = runtime.context
    services.progress.start("check", 1)
    with services.record.timed("check"):
        admitted, refused = _shown(services)
        classes = services.classifier.classes if services.classifier else services.choice.teachable
        services.precision = estimate_precision(services.teaching, classes, admitted, refused, services.artifacts)
    services.progress.advance("check")
    return {}


def _shown(services: LabelRunServices) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """Artifact and labels of the admitted and of the refused pictures; what is no picture at all is left out."""
    admitted, refused = [], []
    for result in results_of(services):
        labels = result["item"]["labels"]
        for scene in result["scenes"]:
            if not scene["refused"]:
                admitted.append((scene["artifact"], labels))
            elif not any(reason.startswith("flaw") for reason in scene["refused"]):
                refused.append((scene["artifact"], labels))
    return admitted, refused


def export(state: LabelRunState, runtime: Services) -> NoUpdate:
    """Write the real images and the admitted scenes as a VOC folder with label files, and the provenance."""
    services = runtime.context
    with services.record.timed("export"):
        services.progress.start("export", services.tally.num_admitted)
        accepted = [result for result in results_of(services) if result["ending"] == "accepted"]
        export_labels(services.folder, services.source, accepted, services.artifacts)
        services.progress.advance("export", count=services.tally.num_admitted)
    return {}


def report(state: LabelRunState, runtime: Services) -> NoUpdate:
    """Write run.json and the pictures."""
    services = runtime.context
    outcome = LabelOutcome(
        source=services.source,
        choice=services.choice,
        plan=services.plan,
        tally=services.tally,
        costs=services.costs,
        writer=services.crew.writer.name,
        painter=services.crew.painter.name,
        classifier=services.classifier.report.as_json() if services.classifier else None,
        precision=services.precision,
        stopped=state["stopped"],
        spent=state["spent"],
    )
    finish_labels(services.record, services.recipe, outcome)
    return {}


def results_of(services: LabelRunServices) -> Iterator[LabelResult]:
    """Results in item order."""
    for slot in range(services.tally.num_items):
        if (result := services.items.read(f"label-{slot:06d}")) is not None:
            yield result


def build_label_run_graph() -> LabelRunGraph:
    """The whole run; its context is `LabelRunServices`, and the agent's graph is its subgraph."""
    agent = build_label_agent_graph()

    def make_wave(state: LabelRunState, runtime: Services) -> WaveUpdate:
        return _make_wave(agent, state, runtime.context)

    graph = StateGraph(LabelRunState, context_schema=LabelRunServices)
    for node in (read, learn, make_wave, check, export, report):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "read")
    graph.add_edge("read", "learn")
    graph.add_edge("learn", "make_wave")
    graph.add_conditional_edges(
        "make_wave",
        route_wave,
        {"more": "make_wave", "finished": "check", "stopped": "report", "empty": "report"},
    )
    graph.add_edge("check", "export")
    graph.add_edge("export", "report")
    graph.add_edge("report", END)
    return graph.compile()
