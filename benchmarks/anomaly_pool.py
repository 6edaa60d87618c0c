"""Defects that the anomaly agent makes for the benchmark, with its real embedded parts, kept on disk as MVTec folders.

A pool's folder is named by a hash of its settings, of the normal images and of the code that makes defects, so that
arms and seeds share it and a better painter gets a pool of its own.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

import maskwright
from maskwright.configs.anomaly_agent import AnomalyAgentSettings
from maskwright.data.anomaly_records import AnomalyRecord
from maskwright.data.files import write_atomically
from maskwright.data.images import read_image
from maskwright.data.mvtec import AnomalySample, load_anomalies, number_names, save_mvtec
from maskwright.data.records import ImageRGB
from maskwright.graphs.anomaly_agent import build_anomaly_agent_graph
from maskwright.graphs.anomaly_crew import first_state
from maskwright.graphs.anomaly_judging import InformedQualityJudge
from maskwright.graphs.anomaly_planner import PlanDrawer
from maskwright.graphs.anomaly_policy import FixedPolicy
from maskwright.graphs.anomaly_services import AnomalyServices
from maskwright.graphs.anomaly_state import AnomalyState
from maskwright.graphs.lockstep import Meter
from maskwright.graphs.writing import Usage
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import WorkItem
from maskwright.memory.knowledge import KnowledgeBase
from maskwright.memory.knowledge_search import DefectKnowledge
from maskwright.tools.judging.defect_quality import MeasuredQualityJudge
from maskwright.tools.masking.changed_box import known_or_difference
from maskwright.tools.masking.foreground import find_foreground
from maskwright.tools.painting.procedural.painter import ProceduralPainter

MAX_ITEMS_RATIO = 4
"""Items begun over defects asked for, after which a pool stays smaller."""
NAME_DIGITS = 5
MAKERS = (
    "tools/painting/procedural/*.py",
    "tools/judging/defect_*.py",
    "tools/masking/foreground.py",
    "tools/defects.py",
    "graphs/anomaly_*.py",
    "configs/anomaly*.py",
)
"""Code that decides what a defect looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """What decides a pool, beside normal images, knowledge and code."""

    item: str
    defects: tuple[str, ...]
    samples: int
    """Accepted ones of each defect."""
    loop: bool
    seed: int = 0
    workers: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """What one defect's part of a pool cost."""

    defect: str
    items: int
    accepted: int
    failed: int
    edits: int
    seconds: float
    usd: float


def make_pool(
    settings: PoolSettings, normals: Sequence[AnomalyRecord], knowledge: KnowledgeBase, folder: Path
) -> tuple[list[AnomalyRecord], list[PoolReport]]:
    """Defects of a pool, and what they cost; those that an earlier run made are read.

    Args:
        normals: not one of them a test image.
        folder: of all pools.
    """
    place = folder / pool_name(settings, normals, knowledge)
    crew = _Crew(settings, normals, knowledge, place)
    reports = [crew.make(defect) for defect in settings.defects]
    good = AnomalySample(item=settings.item, defect="good", split="train", name="0", image=normals[0].image_path)
    save_mvtec([good], place)  # a folder without a normal image is none
    records = [one for one in load_anomalies(place, settings.item).records if not one.is_good]
    return records, reports


def pool_name(settings: PoolSettings, normals: Sequence[AnomalyRecord], knowledge: KnowledgeBase) -> str:
    """16 characters; the number of workers changes no pixel."""
    chosen = {name: value for name, value in asdict(settings).items() if name != "workers"}
    root = Path(maskwright.__file__).parent
    makers = sorted(path for pattern in MAKERS for path in root.glob(pattern))
    digest = hashlib.sha256(json.dumps([chosen, [one.key for one in normals], knowledge.fingerprint]).encode())
    for path in makers:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class _Crew:
    """The agent with its parts, for the items of one pool."""

    def __init__(
        self, settings: PoolSettings, normals: Sequence[AnomalyRecord], knowledge: KnowledgeBase, place: Path
    ) -> None:
        self._settings, self._normals, self._place = settings, normals, place
        self._agent = AnomalyAgentSettings(loop=settings.loop)
        self._artifacts = ArtifactStore(place / "artifacts")
        self._painter = ProceduralPainter(self._agent.procedural)
        self._graph = build_anomaly_agent_graph()
        self._known: Mapping[str, DefectKnowledge] = {
            defect: knowledge.search(settings.item, defect) for defect in settings.defects
        }

    def make(self, defect: str) -> PoolReport:
        """Items in waves of as many as are missing, so that speed decides nothing."""
        report_path = self._place / "reports" / f"{hashlib.sha256(defect.encode()).hexdigest()[:16]}.json"
        if report_path.is_file():
            return PoolReport(**json.loads(report_path.read_text(encoding="utf-8")))
        started, states = time.perf_counter(), list[AnomalyState]()
        limit = MAX_ITEMS_RATIO * self._settings.samples
        with ThreadPoolExecutor(self._settings.workers) as threads:
            while (missing := self._settings.samples - _count(states, "accepted")) > 0 and len(states) < limit:
                slots = range(len(states), min(limit, len(states) + missing))
                states += threads.map(lambda slot: self._run(defect, slot), slots)
        save_mvtec(number_names(self._samples(defect, states), NAME_DIGITS), self._place)
        report = PoolReport(
            defect=defect,
            items=len(states),
            accepted=_count(states, "accepted"),
            failed=_count(states, "failed"),
            edits=sum(len(state["edits"]) for state in states),
            seconds=time.perf_counter() - started,
            usd=sum(state["images_usd"] for state in states),
        )
        if not report.accepted:
            raise SystemExit(
                f"no {defect!r} was accepted of {report.items}: {states[-1].get('reason', 'all exhausted')}"
            )
        write_atomically(report_path, json.dumps(asdict(report)).encode())
        return report

    def _run(self, defect: str, slot: int) -> AnomalyState:
        order = np.random.default_rng([self._settings.seed, *defect.encode()]).permutation(len(self._normals))
        item: WorkItem = {
            "item_id": f"anomaly-{self._settings.item}-{defect}-{slot:05d}",
            "agent": "anomaly_agent",
            "category_id": 1,
            "category": defect,
            "source_row": int(order[slot % len(order)]),
            "slot": slot,
        }
        return cast("AnomalyState", self._graph.invoke(first_state(item), context=self._services()))

    def _services(self) -> AnomalyServices:
        return AnomalyServices(
            settings=self._agent,
            run_seed=self._settings.seed,
            item_name=self._settings.item,
            decider=FixedPolicy(self._agent),
            drawer=PlanDrawer(self._agent.severity),
            read_image=self._read,
            find_foreground=find_foreground,
            paint=self._painter.paint,
            find_mask=known_or_difference,
            judge=InformedQualityJudge(MeasuredQualityJudge(), self._known.__getitem__),
            look_up=self._known.__getitem__,
            artifacts=self._artifacts,
            usage=Usage(),
            meter=Meter(),
            max_changed_outside=self._agent.max_changed_outside,
            tolerance_levels=self._agent.tolerance_levels,
        )

    def _read(self, row: int) -> ImageRGB:
        return read_image(self._normals[row].image)

    def _samples(self, defect: str, states: Sequence[AnomalyState]) -> Iterator[AnomalySample]:
        for state in states:
            if state.get("ending") == "accepted":
                last = state["edits"][-1]
                image, mask = (self._artifacts.get_image(last[part])[..., :3] for part in ("artifact", "mask"))
                yield AnomalySample(
                    item=self._settings.item,
                    defect=defect,
                    split="test",
                    name="",
                    image=image,
                    mask_hw=mask[..., 0] > 127,
                )


def _count(states: Sequence[AnomalyState], ending: str) -> int:
    return sum(state.get("ending") == ending for state in states)
