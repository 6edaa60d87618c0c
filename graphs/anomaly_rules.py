"""Which of the anomaly agent's five tools may be called when (AnomalyAgent, arXiv 2604.07900)."""

from __future__ import annotations

from collections.abc import Callable

from ..configs.anomaly_agent import AnomalyAgentSettings
from ..tools.defects import PASSING_SUM
from .anomaly_state import AnomalyState, EditEntry


def find_illegal(name: str, state: AnomalyState, settings: AnomalyAgentSettings) -> str:
    """Why a tool must not be called now, as the caller is told it; empty: it may."""
    rule = RULES.get(name)
    if rule is None:
        return f"there is no tool {name!r}; there are {', '.join(RULES)}"
    return rule(state, settings)


def is_judged(edit: EditEntry) -> bool:
    return "location" in edit and "quality" in edit


def total_of(edit: EditEntry) -> float:
    """Location and quality together, in [0, 10]; 0 where it was not judged."""
    return edit.get("location", 0.0) + edit.get("quality", 0.0)


def passes(edit: EditEntry) -> bool:
    """Whether an edit was judged, and well enough."""
    return is_judged(edit) and total_of(edit) > PASSING_SUM


def _plan(state: AnomalyState, _: AnomalyAgentSettings) -> str:
    return "prompt_generation comes once, first" if "plan" in state else ""


def _edit(state: AnomalyState, settings: AnomalyAgentSettings) -> str:
    edits = state["edits"]
    if "plan" not in state:
        return "call prompt_generation first"
    if len(edits) >= settings.max_turns:
        return f"all {settings.max_turns} edits are spent"
    if edits and not is_judged(edits[-1]):
        return "call quality_evaluation on the last edit first"
    return "the last edit passed; call mask_generation" if edits and passes(edits[-1]) else ""


def _judge(state: AnomalyState, _: AnomalyAgentSettings) -> str:
    edits = state["edits"]
    if not edits:
        return "there is no edit yet; call image_generation first"
    return "the last edit is judged already" if is_judged(edits[-1]) else ""


def _look_up(state: AnomalyState, _: AnomalyAgentSettings) -> str:
    edits = state["edits"]
    if not edits or not is_judged(edits[-1]):
        return "knowledge_retrieval comes after a low score"
    if passes(edits[-1]):
        return "the last edit passed; call mask_generation"
    return "knowledge was looked up already; edit again" if state.get("knowledge") else ""


def _mask(state: AnomalyState, settings: AnomalyAgentSettings) -> str:
    edits = state["edits"]
    if not edits or (settings.loop and not passes(edits[-1])):
        return "mask_generation comes after an edit that passed"
    return "the mask is made already" if state["is_masked"] else ""


RULES: dict[str, Callable[[AnomalyState, AnomalyAgentSettings], str]] = {
    "prompt_generation": _plan,
    "image_generation": _edit,
    "quality_evaluation": _judge,
    "knowledge_retrieval": _look_up,
    "mask_generation": _mask,
}
"""By tool; each says why it must not be called now."""
