"""The validation agent for LangGraph Studio and REST: a folder in, verdicts out; context as the other graphs have."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from typing_extensions import TypedDict  # Pydantic makes Studio's form of it, and wants this one

from ..errors import MaskwrightError
from ..graphs.folder_validation import validate_folder
from .studio import StudioContext


class FolderInput(TypedDict):
    """Pictures to judge."""

    folder: str
    """Of pictures, at any depth; it is only read."""
    category: NotRequired[str]
    """What all of them should show; without it every folder below is a class."""
    out: NotRequired[str]
    """Folder to write; default runs/validate-N."""


class FolderVerdict(TypedDict):
    """What came of it. Written by the only node."""

    status: str
    """done, partial or interrupted, or failed before it could begin or end."""
    reason: str
    """Why it failed."""
    kept: int
    rejected: int
    waiting: int
    """For a person: `maskwright review`."""
    hints: list[str]
    verdicts: str
    """Folder with kept/, verdicts.jsonl and report.html."""


class FolderState(FolderInput, FolderVerdict):
    """Of the graph that judges a folder."""


StudioFolderGraph = CompiledStateGraph[FolderState, StudioContext, FolderInput, FolderVerdict]


def validation_agent() -> StudioFolderGraph:
    """The validation agent on a folder; the same input and context go on with it."""

    def validate(state: FolderInput, runtime: Runtime[StudioContext]) -> FolderVerdict:
        context = runtime.context or StudioContext()
        out = Path(state["out"]) if state.get("out") else None
        try:
            outcome = validate_folder(
                Path(state["folder"]),
                category=state.get("category") or None,
                recipe=context.recipe,
                out=out,
                overrides=context.overrides,
            )
        except MaskwrightError as exc:
            return _to_verdict("failed", str(exc), {}, [], "")
        items, hints = outcome.content["items"], outcome.content["hints"]
        return _to_verdict(
            str(outcome.content["status"]),
            "",
            items if isinstance(items, dict) else {},
            [str(hint) for hint in hints] if isinstance(hints, list) else [],
            str(outcome.folder.absolute()),
        )

    graph = StateGraph(FolderState, context_schema=StudioContext, input_schema=FolderInput, output_schema=FolderVerdict)
    graph.add_node("validation_agent", validate)
    graph.add_edge(START, "validation_agent")
    graph.add_edge("validation_agent", END)
    return graph.compile()


def _to_verdict(status: str, reason: str, items: dict[str, int], hints: list[str], verdicts: str) -> FolderVerdict:
    return {
        "status": status,
        "reason": reason,
        "kept": items.get("accepted", 0),
        "rejected": items.get("exhausted", 0),
        "waiting": items.get("held", 0),
        "hints": hints,
        "verdicts": verdicts,
    }
