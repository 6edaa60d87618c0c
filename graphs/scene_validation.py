"""Vision judges on whole scenes: what they do not all accept is composed anew elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..data.records import ImageRGB
from ..errors import UnparseableAnswerError
from ..memory.entries import Cost, OpinionEntry
from ..tools.protocols import VisionJudge
from .costs import to_cost
from .lockstep import Meter
from .validating import accepts, to_entry
from .writing import Usage


@dataclass(frozen=True, slots=True)
class SceneVerdict:
    """What judges said of a scene, and what that cost."""

    accepted: bool
    opinions: list[OpinionEntry]
    cost: Cost


@dataclass(frozen=True, slots=True)
class SceneJudges:
    """Those who look at scenes; where there is none, every scene is accepted."""

    judges: tuple[VisionJudge, ...]
    names: Mapping[int, str]
    """Of the classes, by category id."""

    def look(self, image_rgb: ImageRGB, category_ids: Sequence[int]) -> SceneVerdict:
        """All judges' verdict; a scene is not worth a person's time, so where they differ it is rejected.

        Args:
            image_rgb: (H, W, 3) uint8.
            category_ids: of what was pasted.

        Raises:
            ModelOutageError, ModelAccessError: a judge cannot be asked.
        """
        usage = Usage()
        opinions: list[OpinionEntry] = []
        pasted = " or ".join(dict.fromkeys(self.names[category_id] for category_id in category_ids))
        for judge in self.judges:
            try:
                opinion = judge.judge(image_rgb, pasted)
            except UnparseableAnswerError:
                return SceneVerdict(False, opinions, to_cost(usage, Meter(), 0.0))
            usage.add_opinion(opinion)
            opinions.append(to_entry(opinion))
        return SceneVerdict(all(map(accepts, opinions)), opinions, to_cost(usage, Meter(), 0.0))
