"""A chat model that calls tools as the anomaly agent's decider; it sees the normal image and every edit."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from ..configs.anomaly_agent import AnomalyAgentSettings
from ..models.answers import message_of, text_of
from ..models.failures import FAILURES, raise_unless_refused, refusal_error
from ..tools.judging.shown import show_picture
from .anomaly_policy import to_message
from .anomaly_schemas import SCHEMAS
from .anomaly_state import AnomalyState, Call, Message
from .services import Artifacts
from .templates import load_template
from .writing import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatDecider:
    """Asks a model for its next tool call; of several in one answer the first counts."""

    model: BaseChatModel
    name: str
    """As the recipe names it."""
    settings: AnomalyAgentSettings
    artifacts: Artifacts
    max_side_px: int
    max_image_bytes: int

    def decide(self, state: AnomalyState, usage: Usage) -> tuple[Message, Call | None]:
        """The model's message, and the call in it; None where it calls nothing any more.

        Raises:
            ModelOutageError, ModelAccessError, ModelRequestError: the model cannot be asked.
        """
        question = load_template("anomaly_agent").text.format(max_turns=self.settings.max_turns)
        messages = [SystemMessage(question), *self._converse(state)]
        try:
            reply = message_of(self.model.bind_tools(list(SCHEMAS)).invoke(messages))
        except FAILURES as exc:
            raise_unless_refused(self.model, exc)
            raise refusal_error(self.model, exc) from exc
        usage.add_message(self.name, reply)
        if not reply.tool_calls:
            return {"role": "assistant", "content": text_of(reply)}, None
        first = reply.tool_calls[0]
        call: Call = {
            "id": first["id"] or f"call-{len(state['messages'])}",
            "name": first["name"],
            "arguments": {name: value for name, value in first["args"].items() if value is not None},
        }
        return to_message(text_of(reply), call), call

    def _converse(self, state: AnomalyState) -> list[BaseMessage]:
        """The trajectory as LangChain has it, the pictures shown where they came up."""
        messages: list[BaseMessage] = []
        for message in state["messages"]:
            if message["role"] == "user":
                messages.append(self._show(message["content"], state["source"]))
            elif message["role"] == "assistant":
                messages.append(AIMessage(message["content"], tool_calls=_tool_calls(message)))
            else:
                messages.append(ToolMessage(message["content"], tool_call_id=message["tool_call_id"]))
                if key := _picture_in(message["content"]):
                    messages.append(self._show("This is the edit.", key))
        return messages

    def _show(self, text: str, key: str) -> HumanMessage:
        encoded, mime = show_picture(self.artifacts.get_image(key), self.max_side_px, self.max_image_bytes)
        url = f"data:{mime};base64,{base64.b64encode(encoded).decode()}"
        return HumanMessage([{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}])


def _tool_calls(message: Message) -> list[dict[str, object]]:
    calls = []
    for call in message.get("tool_calls", ()):
        function = cast("dict[str, str]", call["function"])
        calls.append({"id": call["id"], "name": function["name"], "args": json.loads(function["arguments"])})
    return calls


def _picture_in(content: str) -> str:
    """The artifact key of the edit that a tool's answer tells of; empty: none."""
    answer = json.loads(content)
    return str(answer.get("image", "")) if isinstance(answer, dict) else ""
