"""Who makes a wave of items: one crew an agent, with everything that its items share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, ensure_config

from ..configs.agents import TextAgentSettings
from ..memory.entries import Attempt, Cost, Instance, ItemResult, WorkItem
from ..models.smollm2 import EmbeddedChatModel, ModelCall, invoke_together
from ..tools.cutouts import crop_to_mask
from ..tools.judging.painted import painted_hash
from ..tools.protocols import Masker, Painter, TextPainter
from .image_agent import ImageAgentGraph, make_item
from .lockstep import Batched, Lockstep, Meter, StopEvent, run_in_lockstep
from .pool import Pool
from .remembering import RunMemory
from .services import Artifacts, ElementsStore, Executor, ImageAgentServices, PictureJudge, TextAgentServices
from .similarity import DualSimilarity
from .state import TextAgentState
from .text_agent import TextAgentGraph
from .tracing import traced_as
from .writing import Captioner, PromptWriter, Usage

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


@dataclass(frozen=True, slots=True)
class ImageCrew:
    """The I-Agent's items, each in a thread of its own."""

    services: ImageAgentServices
    """Of every item, but for the pool."""
    executor: Executor

    @property
    def painter(self) -> Painter:
        return self.services.painter

    def make(self, graphs: AgentGraphs, items: Sequence[WorkItem], pool: Pool, keep: Keep) -> Iterator[ItemResult]:
        services = replace(self.services, pool_hashes=pool.hashes)

        def work(item: WorkItem) -> ItemResult:
            return keep(make_item(graphs.image_agent, item, services))

        return self.executor.map(work, items)

    def remember(self, results: Sequence[ItemResult]) -> None:
        """Nothing: what the I-Agent's items share is the pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCrew:
    """The T-Agent's items, side by side: what they paint, mask and score at the same step is one batch."""

    settings: TextAgentSettings
    run_seed: int
    batch_items: int
    stop: StopEvent
    painter: TextPainter
    masker: Masker
    similarity: DualSimilarity
    judge: PictureJudge
    memory: RunMemory
    elements: ElementsStore
    writer: PromptWriter
    captioner: Captioner | None
    artifacts: Artifacts

    def make(self, graphs: AgentGraphs, items: Sequence[WorkItem], pool: Pool, keep: Keep) -> Iterator[ItemResult]:
        def work(item: WorkItem, lockstep: Lockstep, place: int) -> ItemResult:
            return keep(self._make_item(graphs.text_agent, item, self._services(pool, lockstep, place)))

        return run_in_lockstep(work, items, self.batch_items, self.stop)

    def remember(self, results: Sequence[ItemResult]) -> None:
        self.memory.remember(results)

    def _services(self, pool: Pool, lockstep: Lockstep, place: int) -> TextAgentServices:
        meter = Meter()
        return TextAgentServices(
            settings=self.settings,
            run_seed=self.run_seed,
            memory=self.memory,
            elements=self.elements,
            writer=self._writer(lockstep, place),
            captioner=self.captioner,
            usage=Usage(),
            meter=meter,
            paint=Batched(self.painter.paint, lockstep, place, meter),
            mask=Batched(self.masker.mask, lockstep, place, meter),
            score=Batched(self.similarity.score, lockstep, place, meter),
            judge=self.judge,
            artifacts=self.artifacts,
            pool_hashes=pool.hashes,
            class_scores=pool.scores,
        )

    def _writer(self, lockstep: Lockstep, place: int) -> PromptWriter:
        """The writer; its calls share batches with its companions', where its model runs in this process."""
        if not isinstance(self.writer.writer, EmbeddedChatModel):
            return self.writer  # a server takes requests as they come
        ask_all = Batched(self._ask_together, lockstep, place, Meter())

        def invoke(runnable: Runnable[LanguageModelInput, object], messages: list[BaseMessage]) -> object:
            [reply] = ask_all([(runnable, messages, ensure_config())])
            if isinstance(reply, Exception):
                raise reply
            return reply

        return replace(self.writer, invoke=invoke)

    def _ask_together(self, calls: Sequence[ModelCall]) -> list[object]:
        model = self.writer.writer
        assert isinstance(model, EmbeddedChatModel)
        return invoke_together(model, calls)

    def _make_item(self, graph: TextAgentGraph, item: WorkItem, services: TextAgentServices) -> ItemResult:
        """Run one item through the graph and state its result as the ledger keeps it."""
        started = time.perf_counter()
        first: TextAgentState = {
            "item": item,
            "round": 1,
            "strength": self.settings.strength,
            "attempts": [],
            "rounds": [],
            "images_usd": 0.0,
        }
        state = cast("TextAgentState", graph.invoke(first, context=services, config=traced_as(item)))
        # A failed item is made anew when the run is resumed, so nothing of it goes into the pool.
        kept = [attempt for attempt in state["attempts"] if attempt["accepted"] and state["ending"] != "failed"]
        rejected = "; ".join(state["rounds"][-1]["reasons"]) if state["rounds"] else ""
        return {
            "item": item,
            "ending": state["ending"],
            "reason": state.get("reason", "") or ("" if kept else rejected),
            "source": None,
            "unreadable_image": "",
            "painter": {"name": self.painter.name, "revision": self.painter.revision},
            "attempts": state["attempts"],
            "instances": [to_instance(item, attempt, self.artifacts) for attempt in kept],
            "rounds": state["rounds"],
            "cost": _to_cost(services, state["images_usd"]),
            "seconds": round(time.perf_counter() - started, 4),
        }


def _to_cost(services: TextAgentServices, images_usd: float) -> Cost:
    usage = services.usage
    return {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "images_usd": images_usd,
        "device_seconds": round(services.meter.seconds, 4),
    }


def to_instance(item: WorkItem, attempt: Attempt, artifacts: Artifacts) -> Instance:
    """The T-Agent's accepted picture, cropped to its object, as the composer wants it.

    Raises:
        ImageDecodeError: the picture's artifact is missing or damaged.
    """
    picture = artifacts.get_image(attempt["artifact"])
    return {
        "instance_id": f"{item['item_id']}-r{attempt['round']}-{attempt['index']}",
        "artifact": artifacts.put_image(crop_to_mask(picture)),
        "phash": f"{painted_hash(picture):016x}",
        "truncated_sides": [],
        "round": attempt["round"],
        "index": attempt["index"],
    }
