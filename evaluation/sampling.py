"""Which pictures of a run to show: a deterministic sample, spread over classes and reasons."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..data.records import Findings
from ..memory.entries import Attempt, ItemResult, Round

MAX_ACCEPTED = 240
MAX_SCENES = 60
MAX_REJECTED = 60
MAX_RETHINKS = 12
MIN_UNRESCUED = 4
"""Rethought items that were not rescued have at least so many of the places, if there are so many."""
MAX_VARIANTS = 12
MIN_LOST = 3
MIN_AT_ONCE = 3
"""Items whose first variant was accepted have at least so many of the places, if there are so many."""

Pick = tuple[str, int]
"""Item id, and the index of one of its attempts."""


class SpreadSample:
    """A sample that takes from every group in turn; the same members give the same sample in any order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_offered = 0
        self._groups: dict[str, list[tuple[int, Pick]]] = {}

    def offer(self, group: str, pick: Pick) -> None:
        """Keep a member while it is among its group's `limit` least by hash."""
        self.num_offered += 1
        heap = self._groups.setdefault(group, [])
        heapq.heappush(heap, (-_hash(f"{pick[0]}\0{pick[1]}"), pick))
        if len(heap) > self.limit:
            heapq.heappop(heap)

    def picks(self) -> list[Pick]:
        """At most `limit` members, groups by name."""
        queues = [sorted(self._groups[group], reverse=True) for group in sorted(self._groups)]
        longest = max(map(len, queues), default=0)
        in_turn = [queue[turn][1] for turn in range(longest) for queue in queues if turn < len(queue)]
        return in_turn[: self.limit]


def share_places(limit: int, *samples: tuple[SpreadSample, int]) -> list[str]:
    """At most `limit` item ids, sample after sample; each comes with the places that it has at least, if it fills them.

    The samples after the first have theirs even where the first alone would take them all.
    """
    picks = [[item_id for item_id, _ in sample.picks()] for sample, _ in samples]
    reserved = [min(len(ids), least) for ids, (_, least) in zip(picks, samples, strict=True)]
    shown: list[str] = []
    for index, ids in enumerate(picks):
        shown += ids[: limit - len(shown) - sum(reserved[index + 1 :])]
    return shown


@dataclass(slots=True)
class RethinkSample:
    """Items from words whose prompt was rethought: rescued ones first, yet never they alone."""

    rescued: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_RETHINKS))
    others: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_RETHINKS))
    num_prompted: int = 0
    """Items with a prompt that was painted, rethought or not."""

    @property
    def num_rethought(self) -> int:
        return self.rescued.num_offered + self.others.num_offered

    def add(self, result: ItemResult) -> None:
        rounds = result["rounds"] if result["source"] is None else []
        self.num_prompted += bool(rounds)
        if len(rounds) > 1:
            sample = self.rescued if is_rescued(rounds) else self.others
            sample.offer(result["item"]["category"], (result["item"]["item_id"], 0))

    def item_ids(self) -> list[str]:
        """At most `MAX_RETHINKS` ids."""
        return share_places(MAX_RETHINKS, (self.rescued, 0), (self.others, MIN_UNRESCUED))


@dataclass(slots=True)
class VariantSample:
    """Items that started from an instance of the user: those tried more than once first, yet never they alone."""

    rescued: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_VARIANTS))
    """Accepted after at least one rejected round."""
    lost: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_VARIANTS))
    """Painted, and never accepted."""
    at_once: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_VARIANTS))

    @property
    def num_items(self) -> int:
        return self.rescued.num_offered + self.lost.num_offered + self.at_once.num_offered

    def add(self, result: ItemResult) -> None:
        attempts = result["attempts"]
        if result["source"] is None or not attempts:
            return
        accepted = [attempt["round"] for attempt in attempts if attempt["accepted"]]
        sample = self.lost if not accepted else self.rescued if min(accepted) > 1 else self.at_once
        sample.offer(result["item"]["category"], (result["item"]["item_id"], 0))

    def item_ids(self) -> list[str]:
        """At most `MAX_VARIANTS` ids."""
        return share_places(MAX_VARIANTS, (self.rescued, 0), (self.lost, MIN_LOST), (self.at_once, MIN_AT_ONCE))


@dataclass(frozen=True, slots=True)
class ItemSample:
    """What one pass over the items finds; it keeps ids, no pictures."""

    accepted: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_ACCEPTED))
    rejected: SpreadSample = field(default_factory=lambda: SpreadSample(MAX_REJECTED))
    rethinks: RethinkSample = field(default_factory=RethinkSample)
    variants: VariantSample = field(default_factory=VariantSample)
    class_names: dict[int, str] = field(default_factory=dict)
    without_image: Findings = field(default_factory=Findings)
    """Items that failed, or ended before the first image; by ending."""

    def add(self, result: ItemResult) -> None:
        item = result["item"]
        self.class_names[item["category_id"]] = item["category"]
        self.rethinks.add(result)
        self.variants.add(result)
        for index, attempt in enumerate(result["attempts"]):
            if attempt["accepted"]:
                self.accepted.offer(item["category"], (item["item_id"], index))
            elif not ("held" in attempt and "review" not in attempt):
                self.rejected.offer(first_failure(attempt), (item["item_id"], index))
        if result["ending"] == "failed" or not result["attempts"]:
            self.without_image.add(result["ending"], f"{item['item_id']}: {result['reason'] or 'no reason given'}")


def is_rescued(rounds: Sequence[Round]) -> bool:
    """Whether the first prompt gave nothing and a later one did."""
    return not rounds[0]["num_kept"] and any(one["num_kept"] for one in rounds[1:])


def first_failure(attempt: Attempt) -> str:
    """Name of the first criterion that an attempt did not meet, or ''."""
    return next((criterion["name"] for criterion in attempt["criteria"] if criterion["outcome"] != "meet"), "")


def sample_scenes(scene_ids: Iterable[str]) -> list[str]:
    """At most `MAX_SCENES` ids, in order."""
    return sorted(heapq.nsmallest(MAX_SCENES, scene_ids, key=_hash))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
