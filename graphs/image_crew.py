"""The I-Agent's crew: its items side by side, in common batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from ..configs.image_agent import ImageAgentSettings
from ..memory.entries import ItemResult, WorkItem
from ..tools.protocols import Masker, SourcePainter
from .crews import AgentGraphs, Keep, batched_writer, close_item
from .image_agent import ImageAgentGraph, to_instance
from .lockstep import Batched, Lockstep, Meter, StopEvent, run_in_lockstep
from .pool import Pool
from .services import Artifacts, ImageAgentServices, PictureJudge, Sources
from .similarity import VariantSimilarity
from .sources import choose_source
from .state import ImageAgentState
from .tracing import traced_as
from .validating import Validator
from .writing import Captioner, PromptWriter, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageCrew:
    """The I-Agent's items: what they paint, mask and score at the same step is one batch."""

    settings: ImageAgentSettings
    run_seed: int
    batch_items: int
    stop: StopEvent
    painter: SourcePainter
    masker: Masker
    similarity: VariantSimilarity | None
    judge: PictureJudge
    validator: Validator
    sources: Sources
    source_rows: Mapping[int, Sequence[int]]
    """Rows that a class's items may start from, the best first, by category id."""
    retired_rows: frozenset[int] = frozenset()
    """Rows that none may start from, beside those that the pool retires."""
    writer: PromptWriter | None
    captioner: Captioner | None
    artifacts: Artifacts

    def make(self, graphs: AgentGraphs, items: Sequence[WorkItem], pool: Pool, keep: Keep) -> Iterator[ItemResult]:
        def work(item: WorkItem, lockstep: Lockstep, place: int) -> ItemResult:
            return keep(self._make_item(graphs.image_agent, item, self._services(pool, lockstep, place)))

        return run_in_lockstep(work, items, self.batch_items, self.stop)

    def remember(self, results: Sequence[ItemResult]) -> None:
        """Nothing: what the I-Agent's items share is the pool."""

    def _services(self, pool: Pool, lockstep: Lockstep, place: int) -> ImageAgentServices:
        meter, similarity = Meter(), self.similarity
        return ImageAgentServices(
            settings=self.settings,
            run_seed=self.run_seed,
            sources=self.sources,
            choose_source=lambda item: self._choose_source(item, pool),
            needs_view=self.painter.needs_view,
            writer=self.writer and batched_writer(self.writer, lockstep, place),
            captioner=self.captioner,
            usage=Usage(),
            meter=meter,
            paint=Batched(self.painter.paint, lockstep, place, meter),
            mask=Batched(self.masker.mask, lockstep, place, meter),
            score=None if similarity is None else Batched(similarity.score, lockstep, place, meter),
            judge=self.judge,
            validator=self.validator,
            artifacts=self.artifacts,
            pool_hashes=pool.hashes,
            class_scores=pool.scores["image_agent"],
        )

    def _choose_source(self, item: WorkItem, pool: Pool) -> int | None:
        class_id = item["category_id"]
        retired = pool.retired(class_id, self.settings.sources.retire_after) | self.retired_rows
        return choose_source(item["source_row"], self.source_rows.get(class_id, ()), retired, item["slot"])

    def _make_item(self, graph: ImageAgentGraph, item: WorkItem, services: ImageAgentServices) -> ItemResult:
        """Run one item through the graph and state its result as the ledger keeps it."""
        started = time.perf_counter()
        first: ImageAgentState = {
            "item": item,
            "round": 1,
            "strength": self.settings.strength,
            "control_scale": self.settings.control_scale,
            "attempts": [],
            "rounds": [],
            "images_usd": 0.0,
        }
        state = cast("ImageAgentState", graph.invoke(first, context=services, config=traced_as(item)))
        return close_item(item, state, self.painter, to_instance, services, started)
