"""The prompt history in a run: what its items see of it, and what its finished items add."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..configs.memory import MemorySettings
from ..memory.entries import ItemResult
from ..memory.prompt_history import NoHistory, PromptHistory
from ..memory.prompt_records import PromptRecord, Snapshot
from .state import Recollection


@dataclass(slots=True)
class RunMemory:
    """The history as this run sees it: as it stood when the run began, and the run's own finished waves."""

    history: PromptHistory | NoHistory
    settings: MemorySettings
    snapshot: Snapshot
    run_id: str
    started: str
    """ISO 8601; the date of every record of the run, so that a replay after a kill writes the same ones."""
    painter: str

    def recall(self, category: str) -> Recollection:
        recalled = self.history.recall(category, self.snapshot)
        return {
            "good": [record.prompt for record in recalled.best],
            "bad": [(record.prompt, "; ".join(record.reasons)) for record in recalled.worst],
            "strength": choose_strength(
                record for record in (*recalled.best, *recalled.worst) if record.painter == self.painter
            ),
        }

    def nearest_cosine(self, category: str, prompt: str) -> float:
        nearest = self.history.nearest(category, prompt, 1, self.snapshot)
        return nearest[0].cosine if nearest else 0.0

    def is_novel(self, cosine: float) -> bool:
        return cosine <= self.settings.novelty

    def remember(self, results: Iterable[ItemResult]) -> None:
        """Add a finished wave, in item order; from now on the run's items see it."""
        records = [record for result in results for record in self._records(result)]
        self.snapshot = self.snapshot.after(self.history.upsert(records))

    def _records(self, result: ItemResult) -> Iterator[PromptRecord]:
        parent = ""
        for one in result["rounds"]:
            record_id = f"{self.run_id[:12]}-{result['item']['item_id']}-r{one['round']}"
            yield PromptRecord(
                record_id=record_id,
                category=result["item"]["category"],
                prompt=one["prompt"],
                elements=tuple(one["elements"]),
                painter=result["painter"]["name"],
                num_painted=one["num_painted"],
                num_kept=one["num_kept"],
                scores=one["scores"],
                reasons=tuple(one["reasons"]),
                parent=parent,
                strength=one["strength"],
                run_id=self.run_id,
                created=self.started,
            )
            parent = record_id


def choose_strength(records: Iterable[PromptRecord]) -> float | None:
    """The strength that promises the best yield, the higher one where two promise the same; None without records.

    The promise is the kept share with one image kept and one lost added, so that a single lucky round counts little.
    """
    kept, painted = Counter[float](), Counter[float]()
    for record in records:
        kept[record.strength] += record.num_kept
        painted[record.strength] += record.num_painted
    return max(painted, key=lambda strength: ((kept[strength] + 1) / (painted[strength] + 2), strength), default=None)
