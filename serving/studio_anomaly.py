"""The anomaly agent for LangGraph Studio and REST: a normal image and a defect's name in, edits with masks out."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NotRequired

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from pydantic import Field
from typing_extensions import TypedDict  # Pydantic makes Studio's form of it, and wants this one

from ..configs.recipe import Recipe, load_recipe
from ..errors import InputError, MaskwrightError, RecipeError
from ..graphs.anomaly_agent import AnomalyGraph, build_anomaly_agent_graph
from ..graphs.anomaly_data import AnomalySource, open_anomalies
from ..graphs.anomaly_pipeline import build_crew
from ..graphs.anomaly_state import AnomalyResult, EditEntry
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Ending, WorkItem
from ..memory.ledger import Ledger
from .studio import StudioContext, new_folder


class AnomalyContext(StudioContext):
    """What to work with; `data.path` among the overrides says where the images lie."""

    recipe: str = Field("anomaly", description="built-in recipe or path of a YAML file, with agents.anomaly_agent")


class AnomalyInput(TypedDict):
    """One defect to make."""

    image: str
    """A normal image: its path, absolute or from `data.path` on; none of the test or validation side."""
    defect: str
    """Name of the defect; one that the data set lacks is fine."""
    item: NotRequired[str]
    """Which item of the data set; not needed where there is one."""
    slot: NotRequired[int]
    """From 0; another slot makes another one."""
    out: NotRequired[str]
    """Folder to make for this sample alone; default runs/studio-N."""


class MadeEdit(TypedDict):
    """One edit of the image; the last is the sample where it was accepted."""

    turn: int
    path: str
    """Of the edited picture."""
    mask: str
    """Of the picture that is white where the image was changed; empty where nothing was."""
    location: float | None
    """In [0, 5]; null: not judged."""
    quality: float | None
    """In [0, 5]."""
    review: str
    """What was wrong with it."""


class AnomalyOutcome(TypedDict):
    """What came of it. Written by the only node."""

    ending: Ending
    reason: str
    edits: list[MadeEdit]
    folder: str
    """Of this sample alone: `items/` holds its whole trajectory, `artifacts/` its pictures."""


class AnomalyStudioState(AnomalyInput, AnomalyOutcome):
    """Of the graph that makes one defect."""


StudioAnomalyGraph = CompiledStateGraph[AnomalyStudioState, AnomalyContext, AnomalyInput, AnomalyOutcome]


def anomaly_agent() -> StudioAnomalyGraph:
    """The anomaly agent for one defect on one normal image."""
    inner = build_anomaly_agent_graph()

    def make_defect(state: AnomalyInput, runtime: Runtime[AnomalyContext]) -> AnomalyOutcome:
        context = runtime.context or AnomalyContext()
        try:
            return _make_defect(inner, state, load_recipe(context.recipe, context.overrides))
        except MaskwrightError as exc:
            return {"ending": "failed", "reason": str(exc), "edits": [], "folder": ""}

    graph = StateGraph(
        AnomalyStudioState, context_schema=AnomalyContext, input_schema=AnomalyInput, output_schema=AnomalyOutcome
    )
    graph.add_node("anomaly_agent", make_defect)
    graph.add_edge(START, "anomaly_agent")
    graph.add_edge("anomaly_agent", END)
    return graph.compile()


def _make_defect(graph: AnomalyGraph, wanted: AnomalyInput, recipe: Recipe) -> AnomalyOutcome:
    """Have the anomaly agent's crew make one item, and put down its result.

    Raises:
        InputError: the recipe, its data set or what is wanted is wrong; nothing was spent.
        BrokenRunError: a model is not fetched, or the disk is full.
    """
    recipe = _with_wanted(recipe, wanted)
    source = open_anomalies(recipe)
    item = plan_defect(source, wanted)
    folder = new_folder(wanted.get("out"))
    artifacts, items = ArtifactStore(folder / "artifacts"), Ledger[AnomalyResult](folder / "items")
    crew = build_crew(recipe, source, artifacts, threading.Event())
    [result] = crew.make(graph, [item])
    items.write(item["item_id"], result)
    return {
        "ending": result["ending"],
        "reason": result["reason"],
        "edits": [_to_made(edit, artifacts) for edit in result["edits"]],
        "folder": str(folder),
    }


def _with_wanted(recipe: Recipe, wanted: Mapping[str, object]) -> Recipe:
    """The recipe for the item and the defect alone."""
    settings = recipe.agents.anomaly_agent
    if settings is None:
        raise RecipeError("the recipe has no `agents.anomaly_agent`; take the recipe `anomaly`, or one made from it")
    defect, item = wanted.get("defect"), wanted.get("item") or settings.item
    if not isinstance(defect, str) or not defect.strip():
        raise InputError(f"defect is {defect!r}; expected its name, such as 'scratch'")
    if item is not None and not isinstance(item, str):
        raise InputError(f"item is {item!r}; expected its name, or none")
    only = settings.model_copy(update={"item": item, "defects": (defect,)})
    return recipe.model_copy(update={"agents": recipe.agents.model_copy(update={"anomaly_agent": only})})


def plan_defect(source: AnomalySource, wanted: Mapping[str, object]) -> WorkItem:
    """The work item that an input asks for.

    Args:
        wanted: an `AnomalyInput`, unchecked but for its defect.

    Raises:
        InputError: the slot is none, or the image is no normal one that may be learned from.
    """
    slot = wanted.get("slot", 0)
    if not isinstance(slot, int) or isinstance(slot, bool) or slot < 0:
        raise InputError(f"slot is {slot!r}; expected a whole number from 0")
    row = _find_row(source, wanted.get("image"))
    [defect] = source.defects
    return {
        "item_id": f"anomaly-{row}-{slot:05d}",
        "agent": "anomaly_agent",
        "category_id": 1,
        "category": defect,
        "source_row": row,
        "slot": slot,
    }


def _find_row(source: AnomalySource, image: object) -> int:
    """Which normal image a path means."""
    example = str(source.normals[0].image_path)
    if not isinstance(image, str) or not image.strip():
        raise InputError(f"image is {image!r}; expected the path of a normal image, such as {example!r}")
    path = (source.dataset.root / image).resolve()
    for side, records in source.split.sides.items():
        for row, record in enumerate(records):
            if record.image_path.resolve() == path:
                if side == "normal":
                    return row
                raise InputError(f"{image!r} is on the {side} side of {source.item!r}; take another, as {example!r}")
    raise InputError(f"{image!r} is no image of {source.item!r} in {str(source.dataset.root)!r}; take {example!r}")


def _to_made(edit: EditEntry, artifacts: ArtifactStore) -> MadeEdit:
    """An edit as a person reads it; paths are absolute."""
    return {
        "turn": edit["turn"],
        "path": str(artifacts.path(edit["artifact"]).absolute()),
        "mask": str(artifacts.path(edit["mask"]).absolute()) if edit["mask"] else "",
        "location": edit.get("location"),
        "quality": edit.get("quality"),
        "review": edit["flaw"] or edit.get("review", ""),
    }
