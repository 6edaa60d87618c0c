"""Makes the items of a label run: everything that they share, built once, and one graph an item."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from ..configs.label_agent import LabelAgentSettings
from ..data.records import ImageRGB
from ..tools.labels import LabelClassifier
from ..tools.protocols import TextScorer
from ..tools.scenes import ScenePainter
from .costs import add_costs, to_cost
from .label_agent import LabelAgentGraph
from .label_remembering import first_state, with_scores
from .label_services import LabelServices, SceneWriter
from .label_state import LabelItem, LabelResult, LabelState
from .lockstep import Batched, Lockstep, Meter, StopEvent, run_in_lockstep
from .services import Artifacts
from .tracing import traced_as
from .writing import Usage


@dataclass(frozen=True, slots=True)
class SharedClassifier:
    """The classifier as one item sees it: its pictures are looked at with its companions'."""

    whole: LabelClassifier
    batched: Batched[ImageRGB, npt.NDArray[np.float32]]

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def revision(self) -> str:
        return self.whole.revision

    @property
    def classes(self) -> tuple[str, ...]:
        return self.whole.classes

    def score(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        return np.stack(list(self.batched(images)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCrew:
    """The label agent's items, side by side: what they paint and look at in the same step is one batch."""

    settings: LabelAgentSettings
    run_seed: int
    batch_items: int
    stop: StopEvent
    painter: ScenePainter
    writer: SceneWriter
    text_scorer: TextScorer | None
    artifacts: Artifacts

    def make(
        self,
        graph: LabelAgentGraph,
        items: Sequence[LabelItem],
        classifier: LabelClassifier | None,
        open_shares: Mapping[str, float],
        failed: Mapping[str, LabelResult],
    ) -> Iterator[LabelResult]:
        """Results in item order.

        Args:
            classifier: None: no filter.
            open_shares: as the wave began.
            failed: earlier tries by item id, which go on where they stopped.
        """

        def work(item: LabelItem, lockstep: Lockstep, place: int) -> LabelResult:
            services = self._services(classifier, open_shares, lockstep, place)
            return self._make_item(graph, item, services, failed.get(item["item_id"]))

        return run_in_lockstep(work, items, self.batch_items, self.stop)

    def _services(
        self,
        classifier: LabelClassifier | None,
        open_shares: Mapping[str, float],
        lockstep: Lockstep,
        place: int,
    ) -> LabelServices:
        meter = Meter()
        return LabelServices(
            settings=self.settings,
            run_seed=self.run_seed,
            writer=self.writer,
            paint=Batched(self.painter.paint, lockstep, place, meter),
            classifier=SharedClassifier(classifier, Batched(classifier.score, lockstep, place, meter))  # type: ignore[arg-type]  # rows
            if classifier
            else None,
            text_scorer=self.text_scorer,
            open_shares=open_shares,
            artifacts=self.artifacts,
            usage=Usage(),
            meter=meter,
        )

    def _make_item(
        self, graph: LabelAgentGraph, item: LabelItem, services: LabelServices, earlier: LabelResult | None
    ) -> LabelResult:
        started = time.perf_counter()
        first = first_state(item, earlier)
        state = cast("LabelState", graph.invoke(first, context=services, config=traced_as(item)))
        cost = to_cost(services.usage, services.meter, state["images_usd"])
        return {
            "item": item,
            "ending": state["ending"],
            "reason": state.get("reason", ""),
            "prompts": with_scores(state["prompts"], state["scores"]),
            "scenes": state["scenes"],
            "painter": {"name": self.painter.name, "revision": self.painter.revision},
            "classifier": services.classifier.revision if services.classifier else "",
            "cost": add_costs(earlier["cost"], cost) if earlier else cost,
            "seconds": round(time.perf_counter() - started + (earlier["seconds"] if earlier else 0.0), 4),
        }
