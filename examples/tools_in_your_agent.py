"""Maskwright's tools in a LangChain agent: write a prompt, paint an object, score the picture.

    python examples/tools_in_your_agent.py "a red apple" --root /tmp/apples
    python examples/tools_in_your_agent.py "a red apple" --root /tmp/apples --model openai:gpt-5-mini

Any model that calls tools decides for itself which to call. The default, `embedded:smollm2`, runs offline on a CPU
and is too small for that: there `ToolsInOrder` decides on the order and fills in paths and prompts from the answers
before, and the model only writes: the prompt, inside `write_prompt`, and a thing to compare the picture with.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from maskwright.models.language import build_chat_model
from maskwright.serving.toolbox import build_toolkit

TOOLS = ("write_prompt", "generate_image", "score_image")
INSTRUCTIONS = (
    "Make one picture of what the user names. First have a prompt written, then generate the image, then "
    "score it against the user's words and one similar object. End with the picture's path and its score."
)
Handler = Callable[[ModelRequest[None]], ModelResponse[object]]


class ToolsInOrder(AgentMiddleware):
    """Calls the tools one after the other, for a model that cannot choose among them."""

    def __init__(self, subject: str) -> None:
        super().__init__()
        self._subject = subject

    def wrap_model_call(self, request: ModelRequest[None], handler: Handler) -> ModelResponse[object]:  # noqa: ARG002
        answers = [message for message in request.messages if isinstance(message, ToolMessage)]
        if len(answers) == len(TOOLS) or any(answer.status == "error" for answer in answers):
            return ModelResponse(result=[AIMessage(answers[-1].text)])
        arguments = self._arguments(request.model, answers)
        call = {"name": TOOLS[len(answers)], "args": arguments, "id": f"call-{len(answers) + 1}", "type": "tool_call"}
        return ModelResponse(result=[AIMessage("", tool_calls=[call])])

    def _arguments(self, model: BaseChatModel, answers: Sequence[ToolMessage]) -> dict[str, object]:
        if not answers:
            return {"category": self._subject.removeprefix("an ").removeprefix("a ")}
        if len(answers) == 1:
            return {"category": self._subject.split()[-1], "prompt": json.loads(answers[-1].text)["prompt"]}
        similar = write(model, f"Name an object that looks like {self._subject}.", max_chars=20)
        return {"image": json.loads(answers[-1].text)["path"], "texts": [self._subject, similar]}


def write(model: BaseChatModel, question: str, max_chars: int) -> str:
    """A few words, held to their schema while they are decoded."""
    words = {"type": "string", "minLength": 3, "maxLength": max_chars}
    schema = {"title": "Answer", "type": "object", "properties": {"words": words}, "required": ["words"]}
    answer = model.with_structured_output(schema).invoke([HumanMessage(question)])
    return str(dict(answer)["words"])


def run(
    subject: str, root: Path, model: BaseChatModel, *, calls_tools: bool, overrides: Sequence[str] = ()
) -> list[BaseMessage]:
    """Everything that was said; pictures lie in `root/outputs`."""
    toolkit = build_toolkit("instada", root=root, overrides=overrides)
    tools = [tool for tool in toolkit.get_tools() if tool.name in TOOLS]
    agent = create_agent(
        model,
        tools,
        system_prompt=INSTRUCTIONS,
        middleware=[] if calls_tools else [ToolsInOrder(subject)],
    )
    messages: list[BaseMessage] = agent.invoke({"messages": [HumanMessage(subject)]})["messages"]
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint an object with an agent, and score the picture.")
    parser.add_argument("subject", help="what to paint, its class last, such as 'a red apple'")
    parser.add_argument("--root", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--model", default="embedded:smollm2", help="as a recipe's `llm` names it")
    arguments = parser.parse_args()
    model = build_chat_model(arguments.model)
    calls_tools = not arguments.model.startswith("embedded:")
    writer = [f"llm.model={arguments.model}"]
    for message in run(arguments.subject, arguments.root, model, calls_tools=calls_tools, overrides=writer):
        calls = "".join(f"{call['name']}({json.dumps(call['args'])})" for call in getattr(message, "tool_calls", []))
        print(f"{message.type:>5}: {message.text or calls}")


if __name__ == "__main__":
    main()
