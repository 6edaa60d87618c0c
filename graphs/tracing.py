"""What a run tells of itself: to LangSmith where it is switched on and can be reached, and always to RUN/trace.jsonl.

A trace holds prompts, scores, verdicts and the paths of pictures; never pixels, services or keys.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import orjson
from langchain_core.runnables import RunnableConfig

from ..data.files import open_atomically
from ..memory.entries import ItemResult, Round, WorkItem

if TYPE_CHECKING:
    from langsmith.anonymizer import StringNodeRule

SWITCHES = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGCHAIN_TRACING")
KEYS = ("LANGSMITH_API_KEY", "LANGCHAIN_API_KEY")
ENDPOINTS = ("LANGSMITH_ENDPOINT", "LANGCHAIN_ENDPOINT")
DEFAULT_ENDPOINT = "https://api.smith.langchain.com"
CONNECT_TIMEOUT_S = 2.0
PICTURE: StringNodeRule = {"pattern": re.compile(r"data:image/[^,]*,[\w+/=]+"), "replace": "(a picture)"}
"""What a vision model is sent, and a trace must not hold."""
MESSAGE_DEPTH = 20
"""How deep in a traced call a text is looked for; a message's picture lies ten levels down."""
TOLD: tuple[Literal["prompt", "elements", "rung", "template", "captions", "scores", "reasons"], ...] = (
    "prompt",
    "elements",
    "rung",
    "template",
    "captions",
    "scores",
    "reasons",
)
"""What a round's line takes over from the ledger."""

logger = logging.getLogger(__name__)


def langsmith_tracing() -> AbstractContextManager[None]:
    """LangSmith on where it is asked for, has a key and can be reached; else off for the block, with one warning.

    Without this, tracing that cannot reach its server costs some ten seconds at exit.
    """
    from langsmith import Client, tracing_context

    reason = _why_not()
    if reason:
        logger.warning("LangSmith is switched on and %s; this run is traced to its trace.jsonl alone", reason)
    if reason or not _is_wanted():
        off: AbstractContextManager[None] = tracing_context(enabled=False)
        return off
    from langsmith.anonymizer import create_anonymizer

    without_pixels = create_anonymizer([PICTURE], max_depth=MESSAGE_DEPTH)
    on: AbstractContextManager[None] = tracing_context(enabled=True, client=Client(anonymizer=without_pixels))
    return on


def _is_wanted() -> bool:
    return any(os.environ.get(name) == "true" for name in SWITCHES)


def _why_not() -> str:
    if not _is_wanted():
        return ""
    if not any(os.environ.get(name) for name in KEYS):
        return f"{KEYS[0]} is not set"
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), DEFAULT_ENDPOINT)
    try:
        parts = urlsplit(endpoint)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as exc:
        return f"its endpoint {endpoint!r} is no URL ({exc})"
    if not parts.hostname:
        return f"its endpoint {endpoint!r} is no URL; expected such as {DEFAULT_ENDPOINT}"
    try:
        socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT_S).close()
    except OSError as exc:
        return f"{parts.hostname}:{port} cannot be reached ({exc})"
    return ""


def traced_run(folder: Path, recipe: str, recursion_limit: int) -> RunnableConfig:
    """Name, tags and metadata of the run's trace."""
    return {
        "run_name": f"run {folder.name}",
        "tags": ["maskwright", recipe],
        "metadata": {"folder": str(folder)},
        "recursion_limit": recursion_limit,
    }


ITEM_RECURSION_LIMIT = 10_000


def traced_as(item: WorkItem) -> RunnableConfig:
    """Name, tags and metadata of an item's trace."""
    return {
        "run_name": f"{item['agent']} {item['item_id']}",
        "tags": [item["agent"], item["category"]],
        "metadata": {"item_id": item["item_id"], "category": item["category"], "slot": item["slot"]},
        # Else an item inherits the run's, which counts waves; what bounds an item's rounds is its `max_rounds`.
        "recursion_limit": ITEM_RECURSION_LIMIT,
    }


@contextmanager
def trace_agent(agent: str, wave: int) -> Iterator[None]:
    """A span of an agent's wave, above its items, where a trace is being made."""
    from langsmith import trace
    from langsmith.run_helpers import get_current_run_tree

    if get_current_run_tree() is None:
        yield
        return
    with trace(agent, "chain", inputs={"wave": wave}, tags=["agent", agent]):
        yield


def trace_round(category: str, round_: Round, thumbnails: Iterable[str]) -> None:
    """A span of one round below the node that calls it, where a trace is being made."""
    from langsmith import trace
    from langsmith.run_helpers import get_current_run_tree

    if get_current_run_tree() is None:
        return
    name, tags, inputs = f"round {round_['round']}", ["round", category], {"prompt": round_["prompt"]}
    metadata = {**round_, "thumbnails": list(thumbnails)}
    with trace(name, "chain", inputs=inputs, metadata=metadata, tags=tags) as span:
        span.end(outputs={"num_kept": round_["num_kept"], "scores": round_["scores"], "reasons": round_["reasons"]})


def write_trace(path: Path, run_name: str, results: Iterable[ItemResult]) -> None:
    """RUN/trace.jsonl: a line a span, parents first: the run, its agents, their items, their rounds."""
    with open_atomically(path) as file:
        for span in _spans(run_name, results):
            file.write(orjson.dumps(span, option=orjson.OPT_APPEND_NEWLINE))


def _spans(run_name: str, results: Iterable[ItemResult]) -> Iterator[dict[str, object]]:
    yield {"id": "run", "parent": None, "kind": "run", "name": run_name}
    agents = set[str]()
    for result in results:
        item = result["item"]
        if item["agent"] not in agents:
            agents.add(item["agent"])
            yield {"id": item["agent"], "parent": "run", "kind": "agent", "name": item["agent"]}
        yield {
            "id": item["item_id"],
            "parent": item["agent"],
            "kind": "item",
            "name": f"{item['category']} {item['slot']}",
            "tags": [item["agent"], item["category"]],
            "ending": result["ending"],
            "reason": result["reason"],
            "cost": result["cost"],
            "seconds": result["seconds"],
        }
        yield from _round_spans(result)


def _round_spans(result: ItemResult) -> Iterator[dict[str, object]]:
    item_id = result["item"]["item_id"]
    told = {one["round"]: one for one in result["rounds"]}
    for number in sorted({attempt["round"] for attempt in result["attempts"]}):
        attempts = [attempt for attempt in result["attempts"] if attempt["round"] == number]
        yield {
            "id": f"{item_id}-r{number}",
            "parent": item_id,
            "kind": "round",
            "name": f"round {number}",
            **{
                key: told[number][key] for key in ("prompt", "elements", "rung", "template", "scores") if number in told
            },
            "strength": attempts[0]["strength"],
            "images": [
                {
                    "thumbnail": f"artifacts/{attempt['artifact'][:2]}/{attempt['artifact']}",
                    "seed": attempt["seed"],
                    "verdict": "accept" if attempt["accepted"] else "reject",
                    "scores": attempt["measures"],
                    "reasons": [c["reason"] for c in attempt["criteria"] if c["outcome"] != "meet"],
                }
                for attempt in attempts
            ],
        }
