"""What the anomaly agent's nodes are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..configs.anomaly_agent import AnomalyAgentSettings
from ..data.records import ImageRGB, MaskHW
from ..memory.knowledge_search import DefectKnowledge
from ..tools.defects import Edited, EditRequest, QualityJudge
from ..tools.masking.changed_box import EditMasker, known_or_difference
from .anomaly_planner import PlanDrawer
from .anomaly_state import AnomalyState, Call, Message
from .lockstep import Meter
from .services import Artifacts
from .writing import Usage


class Decider(Protocol):
    """Says which tool comes next."""

    def decide(self, state: AnomalyState, usage: Usage) -> tuple[Message, Call | None]:
        """The assistant's message, and the call in it; None: nothing is left to do.

        Raises:
            LanguageModelError: of those that ask a model.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyServices:
    """What the anomaly agent needs for one item."""

    settings: AnomalyAgentSettings
    run_seed: int
    item_name: str
    """What the normal images show, as the data set calls it."""
    decider: Decider
    drawer: PlanDrawer
    read_image: Callable[[int], ImageRGB]
    """The normal image of a row; raises ImageDecodeError."""
    find_foreground: Callable[[ImageRGB], MaskHW]
    paint: Callable[[Sequence[EditRequest]], Sequence[Edited]]
    find_mask: EditMasker = known_or_difference
    judge: QualityJudge
    look_up: Callable[[str], DefectKnowledge]
    """What is known of a defect on this item."""
    artifacts: Artifacts
    usage: Usage
    meter: Meter
    max_changed_outside: float
    """Share of the pixels outside the mask that an edit may change by more than `tolerance_levels`."""
    tolerance_levels: int
