"""The T-Agent's crew: its items side by side, in common batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from ..configs.agents import TextAgentSettings
from ..memory.entries import Attempt, Instance, ItemResult, WorkItem
from ..tools.cutouts import crop_to_mask
from ..tools.judging.painted import painted_hash
from ..tools.protocols import Masker, TextPainter
from .crews import AgentGraphs, Keep, batched_planner, batched_writer, close_item
from .lockstep import Batched, Lockstep, Meter, StopEvent, run_in_lockstep
from .pool import Pool
from .remembering import RunMemory
from .services import Artifacts, ElementsStore, PictureJudge, TextAgentServices
from .similarity import DualSimilarity
from .state import TextAgentState
from .text_agent import TextAgentGraph
from .tracing import traced_as
from .validating import Validator
from .writing import Captioner, PromptWriter, Usage


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
    validator: Validator
    memory: RunMemory
    elements: ElementsStore
    writer: PromptWriter
    captioner: Captioner | None
    artifacts: Artifacts

    def make(self, graphs: AgentGraphs, items: Sequence[WorkItem], pool: Pool, keep: Keep) -> Iterator[ItemResult]:
        def work(item: WorkItem, lockstep: Lockstep, place: int) -> ItemResult:
            return keep(self._make_item(graphs.text_agent, item, self._services(pool, lockstep, place)))

        self._plan_ahead(items)
        return run_in_lockstep(work, items, self.batch_items, self.stop)

    def _plan_ahead(self, items: Sequence[WorkItem]) -> None:
        """Have the elements of all classes planned side by side, before the items wait for each other."""

        def plan(one: tuple[int, str], lockstep: Lockstep, place: int) -> None:
            self.elements.plan_ahead(*one, batched_planner(self.writer, lockstep, place))

        classes = list(dict.fromkeys((item["category_id"], item["category"]) for item in items))
        for _ in run_in_lockstep(plan, classes, self.batch_items, self.stop):
            pass

    def remember(self, results: Sequence[ItemResult]) -> None:
        self.memory.remember(results)

    def _services(self, pool: Pool, lockstep: Lockstep, place: int) -> TextAgentServices:
        meter = Meter()
        return TextAgentServices(
            settings=self.settings,
            run_seed=self.run_seed,
            memory=self.memory,
            elements=self.elements,
            writer=batched_writer(self.writer, lockstep, place),
            captioner=self.captioner,
            usage=Usage(),
            meter=meter,
            paint=Batched(self.painter.paint, lockstep, place, meter),
            mask=Batched(self.masker.mask, lockstep, place, meter),
            score=Batched(self.similarity.score, lockstep, place, meter),
            judge=self.judge,
            validator=self.validator,
            artifacts=self.artifacts,
            pool_hashes=pool.hashes,
            class_scores=pool.scores["text_agent"],
        )

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
        return close_item(item, state, self.painter, to_instance, services, started)


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
