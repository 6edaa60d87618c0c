"""Scripted parts of the anomaly agent over small grey tiles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from maskwright.configs.anomaly_agent import AnomalyAgentSettings
from maskwright.graphs.anomaly_agent import build_anomaly_agent_graph
from maskwright.graphs.anomaly_planner import PlanDrawer
from maskwright.graphs.anomaly_policy import FixedPolicy
from maskwright.graphs.anomaly_services import AnomalyServices, Decider
from maskwright.graphs.anomaly_state import AnomalyState
from maskwright.graphs.lockstep import Meter
from maskwright.graphs.writing import Usage
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import WorkItem
from maskwright.memory.knowledge_search import DefectKnowledge
from maskwright.tools.defects import Edited, EditRequest, Quality

HEIGHT, WIDTH = 48, 64
LOW = Quality(1.0, 1.0, "raise severity: contrast 0.01 is under 0.05", {"contrast": 0.01})
HIGH = Quality(4.0, 4.0, "", {"contrast": 0.2})
Score = Quality | Exception


def tile(seed: int = 0) -> npt.NDArray[np.uint8]:
    """(48, 64, 3) grey noise."""
    grey = np.random.default_rng(seed).integers(100, 140, (HEIGHT, WIDTH, 1)).astype(np.uint8)
    return np.repeat(grey, 3, axis=2)


def square(request: EditRequest, *, known: bool = True, everywhere: bool = False, nothing: bool = False) -> Edited:
    """A dark square of 10 pixels at the planned place."""
    rgb, mask = request.image_rgb.copy(), np.zeros((HEIGHT, WIDTH), np.bool_)
    x, y = (round(share * side) for share, side in zip(request.plan.centre_xy, (WIDTH, HEIGHT), strict=True))
    x, y = min(max(x, 5), WIDTH - 5), min(max(y, 5), HEIGHT - 5)
    if not nothing:
        mask[y - 5 : y + 5, x - 5 : x + 5] = True
        rgb[mask] = 10
    if everywhere:
        rgb = np.where(mask[..., None], rgb, rgb // 2).astype(np.uint8)
    return Edited(rgb, mask if known else None, {"severity": request.plan.severity})


@dataclass
class ScriptedDefects:
    """Makes squares, and records what it is asked."""

    script: Callable[[EditRequest], Edited] = square
    requests: list[EditRequest] = field(default_factory=list)

    def paint(self, requests: Sequence[EditRequest]) -> list[Edited]:
        self.requests += requests
        return [self.script(request) for request in requests]


@dataclass
class ScriptedQuality:
    """Scores by script, the last one again and again; records what it saw."""

    scores: Sequence[Score] = (HIGH,)
    name: str = "scripted"
    seen: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, request: EditRequest, edited: Edited, mask_hw: npt.NDArray[np.bool_]) -> Quality:
        with self._lock:
            self.seen.append(edited.rgb)
            score = self.scores[min(len(self.seen), len(self.scores)) - 1]
        if isinstance(score, Exception):
            raise score
        return score


def knowledge(defect: str = "blowhole") -> DefectKnowledge:
    return DefectKnowledge(
        item="tile",
        defect=defect,
        material="ferrite",
        is_guess=False,
        families=("hole",),
        ranges={"size_ratio": (0.05, 0.06), "severity": (0.7, 0.9)},
        relief=("removed",),
        tone=("darker",),
        colours_rgb=(),
        place_weights=(1 / 9,) * 9,
        text="blowhole: gas that did not escape",
        notes=(),
    )


@dataclass
class Bench:
    """One item's services, and what its parts recorded."""

    folder: Path
    settings: AnomalyAgentSettings = field(default_factory=AnomalyAgentSettings)
    painter: ScriptedDefects = field(default_factory=ScriptedDefects)
    judge: ScriptedQuality = field(default_factory=ScriptedQuality)
    decider: Decider | None = None
    looked_up: list[str] = field(default_factory=list)
    image_error: Exception | None = None

    def read(self, row: int) -> npt.NDArray[np.uint8]:
        if self.image_error:
            raise self.image_error
        return tile(row)

    def look_up(self, defect: str) -> DefectKnowledge:
        self.looked_up.append(defect)
        return knowledge(defect)

    @property
    def artifacts(self) -> ArtifactStore:
        return ArtifactStore(self.folder / "artifacts")

    def services(self) -> AnomalyServices:
        return AnomalyServices(
            settings=self.settings,
            run_seed=3,
            item_name="tile",
            decider=self.decider or FixedPolicy(self.settings),
            drawer=PlanDrawer(self.settings.severity),
            read_image=self.read,
            find_foreground=lambda image: np.ones(image.shape[:2], np.bool_),
            paint=self.painter.paint,
            judge=self.judge,
            look_up=self.look_up,
            artifacts=self.artifacts,
            usage=Usage(),
            meter=Meter(),
            max_changed_outside=0.001,
            tolerance_levels=0,
        )

    def make(self, defect: str = "blowhole", slot: int = 0) -> AnomalyState:
        first: AnomalyState = {
            "item": item(defect, slot),
            "messages": [],
            "edits": [],
            "flags": [],
            "images_usd": 0.0,
            "is_masked": False,
        }
        graph = build_anomaly_agent_graph()
        return cast("AnomalyState", graph.invoke(first, context=self.services()))


def item(defect: str = "blowhole", slot: int = 0) -> WorkItem:
    return {
        "item_id": f"anomaly-tile-{defect}-{slot:04d}",
        "agent": "anomaly_agent",
        "category_id": 1,
        "category": defect,
        "source_row": slot,
        "slot": slot,
    }
