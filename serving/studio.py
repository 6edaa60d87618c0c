"""The graphs for LangGraph Studio and its REST API, whose context is JSON: a recipe and settings above it.

Each is one node around the graph of the same name in `graphs/`: it builds the services that the recipe asks for, runs
the inner graph, and says what came of it. `langgraph.json` names these. An error of ours is an answer, too: of an
exception REST tells no more than its class.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NotRequired

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # Pydantic makes Studio's form of it, and wants this one

from ..configs.agents import AgentsSettings
from ..configs.recipe import Recipe, load_recipe
from ..errors import InputError, MaskwrightError, RecipeError, RunFolderError
from ..graphs.crews import AgentGraphs
from ..graphs.image_agent import build_image_agent_graph
from ..graphs.items import digest_to_int
from ..graphs.pipeline import Prepared, prepare, run_recipe
from ..graphs.pool import Pool
from ..graphs.record import RunRecord
from ..graphs.sources import rank_sources
from ..graphs.text_agent import build_text_agent_graph
from ..graphs.validators import build_validators
from ..graphs.workshop import Workshop, knows_class
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Ending, ItemResult, WorkItem
from ..memory.ledger import Ledger

FOLDER = Path("runs")


class StudioContext(BaseModel):
    """What to work with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = Field("quickstart", description="built-in recipe or path of a YAML file")
    overrides: list[str] = Field([], description="settings above the recipe's, key.sub=value")


class ItemInput(TypedDict):
    """One thing to make."""

    category: str
    """Name of the class."""
    slot: NotRequired[int]
    """From 0; another slot makes another one. The I-Agent goes round the class's instances by it."""
    out: NotRequired[str]
    """Folder to make for this item alone; default runs/studio-N."""


class AcceptedInstance(TypedDict):
    """A cut-out that was accepted."""

    instance_id: str
    path: str
    """Of the PNG; its alpha is the mask."""


class ItemOutcome(TypedDict):
    """What came of one item. Written by the only node."""

    ending: Ending
    reason: str
    rounds: int
    instances: list[AcceptedInstance]
    folder: str
    """Of this item alone: `items/` holds its whole story, `artifacts/` its pictures."""


class ItemState(ItemInput, ItemOutcome):
    """Of a graph that makes one item."""


class RunInput(TypedDict):
    """Nothing is needed: the recipe says it all."""

    out: NotRequired[str]
    """Run folder; as `maskwright run --out`."""


class RunSummary(TypedDict):
    """What came of a run. Written by the only node."""

    status: str
    """done, partial or interrupted, or failed before it could begin or end."""
    reason: str
    """Why it failed."""
    accepted: int
    scenes: int
    hints: list[str]
    folder: str
    report: str


class RunState(RunInput, RunSummary):
    """Of the graph that makes a whole run."""


Context = Runtime[StudioContext]
StudioItemGraph = CompiledStateGraph[ItemState, StudioContext, ItemInput, ItemOutcome]
StudioRunGraph = CompiledStateGraph[RunState, StudioContext, RunInput, RunSummary]


def text_agent() -> StudioItemGraph:
    """The T-Agent for one item of a class, also of one that the recipe's data set lacks."""
    return _item_graph("text_agent")


def image_agent() -> StudioItemGraph:
    """The I-Agent for one item of a class of the recipe's data set."""
    return _item_graph("image_agent")


def run() -> StudioRunGraph:
    """A whole run; the same input and context go on with it."""

    def run_whole(state: RunInput, runtime: Context) -> RunSummary:
        context = runtime.context or StudioContext()
        out = Path(state["out"]) if state.get("out") else None
        try:
            outcome = run_recipe(context.recipe, out=out, overrides=context.overrides)
        except MaskwrightError as exc:
            return {
                "status": "failed",
                "reason": str(exc),
                "accepted": 0,
                "scenes": 0,
                "hints": [],
                "folder": "",
                "report": "",
            }
        content = outcome.content
        hints = content["hints"]
        return {
            "status": str(content["status"]),
            "reason": "",
            "accepted": int(str(content["accepted"])),
            "scenes": int(str(content.get("scenes", 0))),
            "hints": [str(hint) for hint in hints] if isinstance(hints, list) else [],
            "folder": str(outcome.folder.absolute()),
            "report": str((outcome.folder / "report.html").absolute()),
        }

    graph = StateGraph(RunState, context_schema=StudioContext, input_schema=RunInput, output_schema=RunSummary)
    graph.add_node("run", run_whole)
    graph.add_edge(START, "run")
    graph.add_edge("run", END)
    return graph.compile()


def _item_graph(agent: str) -> StudioItemGraph:
    text_graph, image_graph = build_text_agent_graph(), build_image_agent_graph()

    def make_item(state: ItemInput, runtime: Context) -> ItemOutcome:
        context = runtime.context or StudioContext()
        graphs = AgentGraphs(text_graph, image_graph)
        try:
            return _make_item(graphs, agent, state, load_recipe(context.recipe, context.overrides))
        except MaskwrightError as exc:
            return {"ending": "failed", "reason": str(exc), "rounds": 0, "instances": [], "folder": ""}

    graph = StateGraph(ItemState, context_schema=StudioContext, input_schema=ItemInput, output_schema=ItemOutcome)
    graph.add_node(agent, make_item)
    graph.add_edge(START, agent)
    graph.add_edge(agent, END)
    return graph.compile()


def _make_item(graphs: AgentGraphs, agent: str, wanted: ItemInput, recipe: Recipe) -> ItemOutcome:
    """Have the agent's crew make one item, and put down its result.

    Raises:
        InputError: the recipe, its data set or what is wanted is wrong; nothing was spent.
        BrokenRunError: a model is not fetched, or the disk is full.
    """
    prepared = prepare(_with_only(agent, recipe))
    recipe, item = prepared.recipe, plan_item(prepared, agent, wanted)
    sources = {item["category_id"]: _source_rows(prepared, item["category_id"])}
    folder = new_folder(wanted.get("out"))
    artifacts, items = ArtifactStore(folder / "artifacts"), Ledger[ItemResult](folder / "items")
    record = RunRecord(folder, agent, recipe.fingerprint(prepared.digest))
    validators = build_validators(recipe)
    workshop = Workshop(recipe, prepared.dataset, folder, artifacts, sources, threading.Event(), record, validators)
    crew = workshop.build_crews()[agent]
    [result] = crew.make(graphs, [item], Pool(recipe.budget.prices), lambda result: result)
    items.write(item["item_id"], result)
    crew.remember([result])
    return to_outcome(result, artifacts, folder)


def _with_only(agent: str, recipe: Recipe) -> Recipe:
    """The recipe without its other agents, so that nothing of theirs is asked for."""
    settings = getattr(recipe.agents, agent)
    if settings is None:
        raise RecipeError(f"the recipe has no `agents.{agent}`; set it, such as `agents.{agent}={{}}`")
    return recipe.model_copy(update={"agents": AgentsSettings(**{agent: settings})})


def plan_item(prepared: Prepared, agent: str, wanted: Mapping[str, object]) -> WorkItem:
    """The work item that an input asks for.

    Args:
        agent: text_agent, which takes any class that its painter can draw, or image_agent, which needs instances.
        wanted: an `ItemInput`, unchecked.

    Raises:
        InputError: the category or the slot is none, or the agent cannot make the class.
    """
    name, slot = wanted.get("category"), wanted.get("slot", 0)
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"category is {name!r}; expected the name of a class, such as 'cup'")
    if not isinstance(slot, int) or isinstance(slot, bool) or slot < 0:
        raise InputError(f"slot is {slot!r}; expected a whole number from 0")
    ids = {category.name: category.category_id for category in prepared.dataset.categories}
    if agent == "text_agent":
        if not knows_class(prepared.recipe)(name):
            raise InputError(f"category {name!r}: the recipe's painter cannot draw it, or its scorer does not know it")
        category_id = ids.get(name, digest_to_int(name) >> 33)
        return _to_item(agent, f"text-{category_id}-{slot:04d}", category_id, name, -1, slot)
    if name not in ids:
        raise InputError(f"category {name!r} is not in the data set; it has: {', '.join(ids)}")
    rows = _source_rows(prepared, ids[name])
    if not rows:
        raise InputError(f"category {name!r} has no training instance to start from; take another, or add one")
    row = rows[slot % len(rows)]
    annotation_id = int(prepared.dataset.annotations.annotation_id[row])
    turn = slot // len(rows)
    return _to_item(agent, f"image-train-{annotation_id}-{turn:03d}", ids[name], name, row, turn)


def _source_rows(prepared: Prepared, category_id: int) -> list[int]:
    """Annotations that the I-Agent starts a class from, best first; none without an I-Agent."""
    settings = prepared.recipe.agents.image_agent
    if settings is None:
        return []
    return rank_sources(prepared.dataset, category_id, settings.sources, settings.limits.min_area_px)


def _to_item(agent: str, item_id: str, category_id: int, category: str, row: int, slot: int) -> WorkItem:
    return {
        "item_id": item_id,
        "agent": agent,
        "category_id": category_id,
        "category": category,
        "source_row": row,
        "slot": slot,
    }


def to_outcome(result: ItemResult, artifacts: ArtifactStore, folder: Path) -> ItemOutcome:
    """An item's result as a person reads it; paths are absolute."""
    return {
        "ending": result["ending"],
        "reason": result["reason"],
        "rounds": max((attempt["round"] for attempt in result["attempts"]), default=0),
        "instances": [
            {"instance_id": one["instance_id"], "path": str(artifacts.path(one["artifact"]).absolute())}
            for one in result["instances"]
        ],
        "folder": str(folder.absolute()),
    }


def new_folder(out: str | None) -> Path:
    """A fresh folder: the one that is asked for, else `runs/studio-N`, also where several threads ask at once.

    Raises:
        RunFolderError: what is asked for is there already.
    """
    names: Iterable[Path] = [Path(out)] if out else (FOLDER / f"studio-{number}" for number in count(1))
    for name in names:
        with suppress(FileExistsError):
            name.mkdir(parents=True)
            return name.absolute()
    raise RunFolderError(f"{out}: is there already; give a new folder as `out`, or leave it out")
