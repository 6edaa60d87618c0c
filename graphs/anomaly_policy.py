"""The fixed policy: the anomaly agent's loop without a model that calls tools (AnomalyAgent, arXiv 2604.07900).

Plan, edit, judge; after the first low score look things up; edit again by the review; mask what passed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..configs.anomaly_agent import AnomalyAgentSettings
from .anomaly_rules import is_judged, passes
from .anomaly_state import AnomalyState, Call, Message, ToolName
from .writing import Usage


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """Decides by the state alone."""

    settings: AnomalyAgentSettings

    def decide(self, state: AnomalyState, usage: Usage) -> tuple[Message, Call | None]:  # noqa: ARG002
        name, thought = self._next(state)
        if name is None:
            return {"role": "assistant", "content": thought}, None
        call: Call = {"id": f"call-{len(state['messages'])}", "name": name, "arguments": {}}
        return to_message(thought, call), call

    def _next(self, state: AnomalyState) -> tuple[ToolName | None, str]:
        edits = state["edits"]
        if "plan" not in state:
            return "prompt_generation", "A plan of the defect comes first."
        if not edits:
            return "image_generation", "The plan is made; edit the image by it."
        if not self.settings.loop:
            return (None, "Done.") if state["is_masked"] else ("mask_generation", "Without judgement, mask the edit.")
        if not is_judged(edits[-1]):
            return "quality_evaluation", "Look at what the edit made."
        if passes(edits[-1]):
            return (None, "Done.") if state["is_masked"] else ("mask_generation", "It passed; mask what changed.")
        if len(edits) >= self.settings.max_turns:
            return None, "No edit is left."
        if not state.get("knowledge"):
            return "knowledge_retrieval", "The score is low; look up what such a defect looks like."
        return "image_generation", f"Edit the original again: {edits[-1].get('review', '')}"


def to_message(thought: str, call: Call) -> Message:
    """A thought with its tool call, as chat models and trl write it."""
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
    return {
        "role": "assistant",
        "content": thought,
        "tool_calls": [{"id": call["id"], "type": "function", "function": function}],
    }
