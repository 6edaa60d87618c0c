"""What the run's own graph is given."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..configs.recipe import Recipe
from ..data.records import Dataset, Findings
from ..memory.artifacts import ArtifactStore
from ..memory.entries import ItemResult, SceneResult
from ..memory.ledger import Ledger
from .composition import SceneServices
from .crews import Crew
from .pool import Pool
from .record import RunRecord
from .services import Progress
from .validating import Validator
from .work import WorkPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class RunServices:
    """What the run's nodes need; `pool` and `record` are filled as the run goes, from the ledger."""

    recipe: Recipe
    folder: Path
    dataset: Dataset
    work: WorkPlan
    crews: Mapping[str, Crew]
    """By agent."""
    validators: Mapping[str, Validator]
    """By agent."""
    artifacts: ArtifactStore
    items: Ledger[ItemResult]
    scene_services: SceneServices
    progress: Progress
    stop: threading.Event
    record: RunRecord
    dataset_digest: str
    why: Mapping[str, str]
    """Why an agent has the painter and masker that it has, by agent that left that open."""
    pool: Pool
    findings: Findings = field(default_factory=Findings)

    @property
    def scenes(self) -> Ledger[SceneResult]:
        return self.scene_services.scenes
