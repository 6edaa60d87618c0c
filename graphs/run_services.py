"""What the run's own graph is given."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from ..configs.recipe import Recipe
from ..data.records import Dataset, Findings
from ..memory.artifacts import ArtifactStore
from ..memory.entries import ItemResult, SceneResult
from ..memory.ledger import Ledger
from ..tools.protocols import MeasureJudge, Painter
from .composition import SceneServices
from .pool import Pool
from .record import RunRecord
from .services import Executor, Progress, Sources
from .work import WorkPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class RunServices:
    """What the run's nodes need; `pool` and `record` are filled as the run goes, from the ledger."""

    recipe: Recipe
    folder: Path
    dataset: Dataset
    work: WorkPlan
    painter: Painter
    judge: MeasureJudge
    sources: Sources
    artifacts: ArtifactStore
    items: Ledger[ItemResult]
    scene_services: SceneServices
    executor: Executor
    progress: Progress
    stop: threading.Event
    record: RunRecord
    dataset_digest: str
    pool: Pool = field(default_factory=Pool)
    findings: Findings = field(default_factory=Findings)

    @property
    def scenes(self) -> Ledger[SceneResult]:
        return self.scene_services.scenes
