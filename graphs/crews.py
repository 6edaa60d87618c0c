"""Who makes a wave of items: one crew an agent, with everything that its items share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, ensure_config

from ..memory.entries import Attempt, Cost, Instance, ItemResult, Source, WorkItem
from ..models.smollm2 import EmbeddedChatModel, ModelCall, invoke_together
from .costs import to_cost
from .image_agent import ImageAgentGraph
from .items import rejection
from .lockstep import Batched, Lockstep, Meter
from .pool import Pool
from .services import Artifacts, ImageAgentServices, TextAgentServices
from .state import ImageAgentState, TextAgentState
from .text_agent import TextAgentGraph
from .writing import PromptWriter

Keep = Callable[[ItemResult], ItemResult]
"""Makes a result durable and hands it on."""


@dataclass(frozen=True, slots=True)
class AgentGraphs:
    """The agents' graphs, one item each."""

    text_agent: TextAgentGraph
    image_agent: ImageAgentGraph


class Named(Protocol):
    """A backend as the provenance names it."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...


class Crew(Protocol):
    """Makes the items of one agent."""

    @property
    def painter(self) -> Named: ...

    def make(self, graphs: AgentGraphs, items: Sequence[WorkItem], pool: Pool, keep: Keep) -> Iterator[ItemResult]:
        """Results as they are ready, each kept before; every item sees the pool as it is now."""
        ...

    def remember(self, results: Sequence[ItemResult]) -> None:
        """Take a finished wave into what later waves are told, in item order."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _AskTogether:
    """The batch function of a model in this process; that of the same model is the same function."""

    model: EmbeddedChatModel

    def __call__(self, calls: Sequence[ModelCall]) -> list[object]:
        return invoke_together(self.model, calls)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _AskTogether) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


def batched_writer(writer: PromptWriter, lockstep: Lockstep, place: int) -> PromptWriter:
    """A writer as one item sees it: its calls share batches with its companions', where its model runs in this process.

    A server takes requests as they come.
    """
    return _batched(writer, writer.writer, lockstep, place)


def batched_planner(writer: PromptWriter, lockstep: Lockstep, place: int) -> PromptWriter:
    """`batched_writer` for the calls of its planner."""
    return _batched(writer, writer.planner, lockstep, place)


def _batched(writer: PromptWriter, model: BaseChatModel, lockstep: Lockstep, place: int) -> PromptWriter:
    if not isinstance(model, EmbeddedChatModel):
        return writer
    ask_all = Batched(_AskTogether(model), lockstep, place, Meter())

    def invoke(runnable: Runnable[LanguageModelInput, object], messages: list[BaseMessage]) -> object:
        [reply] = ask_all([(runnable, messages, ensure_config())])
        if isinstance(reply, Exception):
            raise reply
        return reply

    return replace(writer, invoke=invoke)


def close_item(
    item: WorkItem,
    state: ImageAgentState | TextAgentState,
    painter: Named,
    to_instance: Callable[[WorkItem, Attempt, Artifacts], Instance],
    services: ImageAgentServices | TextAgentServices,
    started: float,
) -> ItemResult:
    """An ended item as the ledger keeps it; `started` by `time.perf_counter`."""
    instances = [to_instance(item, attempt, services.artifacts) for attempt in kept_attempts(state)]
    cost = to_cost(services.usage, services.meter, state["images_usd"])
    return to_result(item, state, painter, instances, cost, time.perf_counter() - started)


def kept_attempts(state: ImageAgentState | TextAgentState) -> list[Attempt]:
    """Accepted images of an ended item; a failed one is made anew on resume, so nothing of it goes into the pool."""
    return [attempt for attempt in state["attempts"] if attempt["accepted"] and state["ending"] != "failed"]


def to_result(
    item: WorkItem,
    state: ImageAgentState | TextAgentState,
    painter: Named,
    instances: list[Instance],
    cost: Cost,
    seconds: float,
) -> ItemResult:
    """An ended item as the ledger keeps it."""
    attempts, rounds = state["attempts"], state["rounds"]
    return {
        "item": item,
        "ending": state["ending"],
        "reason": state.get("reason", "") or ("" if instances else rejection(rounds, attempts)),
        "source": cast("Source | None", state.get("source")),
        "unreadable_image": str(state.get("unreadable_image", "")),
        "painter": {"name": painter.name, "revision": painter.revision},
        "attempts": attempts,
        "instances": instances,
        "rounds": rounds,
        "cost": cost,
        "seconds": round(seconds, 4),
    }
