"""Makes the items of an anomaly run: everything that they share, built once, and one graph an item."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from ..configs.anomaly_agent import AnomalyAgentSettings
from ..memory.entries import Cost, WorkItem
from ..memory.knowledge import KnowledgeBase
from ..memory.knowledge_search import DefectKnowledge
from ..tools.defects import DefectPainter, QualityJudge
from ..tools.masking.changed_box import EditMasker
from ..tools.masking.foreground import find_foreground
from .anomaly_agent import AnomalyGraph
from .anomaly_data import AnomalySource
from .anomaly_judging import InformedQualityJudge
from .anomaly_planner import PlanDrawer
from .anomaly_services import AnomalyServices, Decider
from .anomaly_state import AnomalyResult, AnomalyState, Message
from .costs import add_costs, to_cost
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
    find_mask: EditMasker
    judge: QualityJudge
    decider: Decider
    knowledge: KnowledgeBase
    fingerprint: str
    """Of what was known when the run began."""
    artifacts: Artifacts
    executor: Executor
    _known: dict[str, DefectKnowledge] = field(default_factory=dict)

    def make(
        self, graph: AnomalyGraph, items: Sequence[WorkItem], failed: Mapping[str, AnomalyResult] | None = None
    ) -> Iterator[AnomalyResult]:
        """Results as they are ready, in no order.

        Args:
            failed: earlier tries by item id, which go on where they stopped.
        """
        earlier = failed or {}
        yield from self.executor.map(lambda item: self._make_item(graph, item, earlier.get(item["item_id"])), items)

    def _make_item(self, graph: AnomalyGraph, item: WorkItem, earlier: AnomalyResult | None) -> AnomalyResult:
        started, services = time.perf_counter(), self._services()
        first = first_state(item, earlier)
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
            "cost": _total(earlier, to_cost(services.usage, services.meter, state["images_usd"])),
            "seconds": round(time.perf_counter() - started + (earlier["seconds"] if earlier else 0.0), 4),
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
            find_mask=self.find_mask,
            judge=InformedQualityJudge(self.judge, self.look_up),
            look_up=self.look_up,
            artifacts=self.artifacts,
            usage=Usage(),
            meter=Meter(),
            max_changed_outside=self.settings.max_changed_outside,
            tolerance_levels=self.settings.tolerance_levels,
        )

    def look_up(self, defect: str) -> DefectKnowledge:
        """What was known of a defect when it was first asked for."""
        if defect not in self._known:
            self._known[defect] = self.knowledge.search(
                self.source.item, defect, material=self.settings.material, measured=self.settings.references
            )
        return self._known[defect]


def first_state(item: WorkItem, earlier: AnomalyResult | None = None) -> AnomalyState:
    """What an item begins with: nothing, or where a failed try stopped, so that no edit is made and paid for twice."""
    state: AnomalyState = {
        "item": item,
        "messages": [],
        "edits": [],
        "flags": [],
        "images_usd": 0.0,
        "is_masked": False,
    }
    if earlier is None or not earlier["edits"]:
        return state
    *messages, last = earlier["messages"]
    if last["role"] == "tool":
        messages.append(last)
    state |= {"source": earlier["source"], "messages": messages, "flags": earlier["flags"]}
    state |= {"edits": earlier["edits"], "plan": earlier["edits"][-1]["plan"]}
    if known := _looked_up(messages):
        state["knowledge"] = known
    return state


def _looked_up(messages: Sequence[Message]) -> str:
    """What knowledge_retrieval answered, refusals aside; empty where it was not called."""
    answers = [m["content"] for m in messages if m["role"] == "tool" and m["name"] == "knowledge_retrieval"]
    return next((answer for answer in answers if "error" not in json.loads(answer)), "")


def _total(earlier: AnomalyResult | None, cost: Cost) -> Cost:
    return add_costs(earlier["cost"], cost) if earlier else cost


def _last_review(state: AnomalyState) -> str:
    return state["edits"][-1].get("review", "") if state["edits"] else ""
