"""The instance pool: what has been accepted so far, rebuilt from the ledger in item order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from ..configs.budget import TokenPrice
from ..memory.entries import FINISHED, ItemResult
from .composition import PooledInstance
from .costs import Ledgered
from .validating import ValidationTally, is_waiting

LIKENESSES = ("image_text", "image_image")
"""Scores by which a class's own thresholds are set."""
ScoresByClass = defaultdict[int, list[Mapping[str, float]]]


class Pool:
    """Accepted instances and the tallies of a run; it grows only between waves."""

    def __init__(self, prices: Mapping[str, TokenPrice] | None = None) -> None:
        self.costs = Ledgered(prices or {})
        self.scores: defaultdict[str, ScoresByClass] = defaultdict(lambda: defaultdict(list))
        """By agent: likenesses of its pictures, by category id."""
        self.accepted_by_agent: Counter[tuple[str, int]] = Counter()
        self.num_spared = 0
        self.hashes: defaultdict[int, list[int]] = defaultdict(list)
        self.instances: list[PooledInstance] = []
        self.endings: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self.accepted_by_class: Counter[str] = Counter()
        self.painted_by_class: Counter[str] = Counter()
        self.unreadable_images: set[str] = set()
        self.validation = ValidationTally()
        self._misses: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._undecodable: set[int] = set()

    @property
    def num_painted(self) -> int:
        return self.painted_by_class.total()

    def retired(self, category_id: int, retire_after: int) -> frozenset[int]:
        """Sources of a class that are not worth another item, as annotation rows.

        Those whose last `retire_after` items ended without an accepted image, and those whose photograph does not
        decode. An item that failed says nothing about its source.
        """
        misses = self._misses[category_id]
        return frozenset(row for row, count in misses.items() if count >= retire_after or row in self._undecodable)

    def add(self, result: ItemResult) -> None:
        """Take over one finished item."""
        item, attempts = result["item"], result["attempts"]
        self.endings[result["ending"]] += 1
        self.costs.add(result["cost"])
        self.accepted_by_agent[item["agent"], item["category_id"]] += len(result["instances"])
        if result["unreadable_image"]:
            self.unreadable_images.add(result["unreadable_image"])
        self._count_misses(result)
        self.painted_by_class[item["category"]] += len(attempts)
        self.accepted_by_class[item["category"]] += len(result["instances"])
        for attempt in attempts:
            if not attempt["accepted"] and not is_waiting(attempt):
                self.rejections.update(c["name"] for c in attempt["criteria"] if c["outcome"] != "meet")
            likenesses = {name: attempt["measures"][name] for name in LIKENESSES if name in attempt["measures"]}
            self.validation.add(attempt)
            if likenesses:
                self.scores[item["agent"]][item["category_id"]].append(likenesses)
        for instance in result["instances"]:
            self.hashes[item["category_id"]].append(int(instance["phash"], 16))
            source = result["source"]
            self.instances.append(
                PooledInstance(
                    instance_id=instance["instance_id"],
                    category_id=item["category_id"],
                    artifact=instance["artifact"],
                    truncated_sides=tuple(instance["truncated_sides"]),
                    side_ratio=source["side_ratio"] if source else 0.0,
                    surround_rgb=source.get("surround_rgb") if source else None,
                )
            )

    def _count_misses(self, result: ItemResult) -> None:
        item, source = result["item"], result["source"]
        row = item["source_row"] if source is None else source.get("row", item["source_row"])
        if row < 0 or result["ending"] not in FINISHED:
            return
        misses = self._misses[item["category_id"]]
        misses[row] = 0 if result["instances"] else misses[row] + 1
        if result["unreadable_image"]:
            self._undecodable.add(row)
