"""Makes the items of an anomaly run: everything that they share, built once, and one graph an item."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from ..configs.anomaly_agent import AnomalyAgentSettings
from ..memory.entries import WorkItem
from ..memory.knowledge import KnowledgeBase
from ..memory.knowledge_search import DefectKnowledge
from ..tools.defects import DefectPainter, QualityJudge
from ..tools.masking.foreground import find_foreground
from .anomaly_agent import AnomalyGraph
from .anomaly_data import AnomalySource
from .anomaly_judging import InformedQualityJudge
from .anomaly_planner import PlanDrawer
from .anomaly_services import AnomalyServices, Decider
from .anomaly_state import AnomalyResult, AnomalyState
from .costs import to_cost
from .lockstep import Meter
from .services import Artifacts, Executor
from .tracing import traced_as
from .writing import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyCrew:
    """The anomaly agent's items, side by side."""

    settings: AnomalyAgentSettings
    run_seed: int
    source: AnomalySource
    painter: DefectPainter
    judge: QualityJudge
    decider: Decider
    knowledge: KnowledgeBase
    fingerprint: str
    """Of what was known when the run began."""
    artifacts: Artifacts
    executor: Executor
    _known: dict[str, DefectKnowledge] = field(default_factory=dict)

    def make(self, graph: AnomalyGraph, items: Sequence[WorkItem]) -> Iterator[AnomalyResult]:
        """Results as they are ready, in no order."""
        yield from self.executor.map(lambda item: self._make_item(graph, item), items)

    def _make_item(self, graph: AnomalyGraph, item: WorkItem) -> AnomalyResult:
        started, services = time.perf_counter(), self._services()
        first: AnomalyState = {
            "item": item,
            "messages": [],
            "edits": [],
            "flags": [],
            "images_usd": 0.0,
            "is_masked": False,
        }
        state = cast("AnomalyState", graph.invoke(first, context=services, config=traced_as(item)))
        return {
            "item": item,
            "ending": state["ending"],
            "reason": state.get("reason", "") or ("" if state["ending"] == "accepted" else _last_review(state)),
            "normal": self.source.normals[item["source_row"]].key,
            "source": state.get("source", ""),
            "painter": {"name": self.painter.name, "revision": self.painter.revision},
            "knowledge": self.fingerprint,
            "edits": state["edits"],
            "messages": state["messages"],
            "flags": state["flags"],
            "cost": to_cost(services.usage, services.meter, state["images_usd"]),
            "seconds": round(time.perf_counter() - started, 4),
        }

    def _services(self) -> AnomalyServices:
        return AnomalyServices(
            settings=self.settings,
            run_seed=self.run_seed,
            item_name=self.source.item,
            decider=self.decider,
            drawer=PlanDrawer(self.settings.severity),
            read_image=self.source.read_normal,
            find_foreground=find_foreground,
            paint=self.painter.paint,
            judge=InformedQualityJudge(self.judge, self._look_up),
            look_up=self._look_up,
            artifacts=self.artifacts,
            usage=Usage(),
            meter=Meter(),
            max_changed_outside=self.settings.max_changed_outside,
            tolerance_levels=self.settings.tolerance_levels,
        )

    def _look_up(self, defect: str) -> DefectKnowledge:
        """What was known of a defect when it was first asked for."""
        if defect not in self._known:
            self._known[defect] = self.knowledge.search(
                self.source.item, defect, material=self.settings.material, measured=self.settings.references
            )
        return self._known[defect]


def _last_review(state: AnomalyState) -> str:
    return state["edits"][-1].get("review", "") if state["edits"] else ""
