"""Splits that keep photographs of one object on one side, as their look tells."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .anomaly_records import AnomalyRecord
from .siblings import find_siblings

Shared = tuple[list[AnomalyRecord], list[AnomalyRecord]]
"""Images to learn from, and those of the other side."""


@dataclass(slots=True)
class Objects:
    """Which object each image of an item shows, and which objects are for test."""

    group_of_key: dict[str, int]
    _is_tested: dict[int, bool] = field(default_factory=dict)
    """By group, of those that have a side."""
    _is_validated: dict[int, bool] = field(default_factory=dict)
    """The same of those that are learned from: whether they validate."""

    @classmethod
    def find(cls, records: Sequence[AnomalyRecord], tested: Iterable[AnomalyRecord]) -> Objects:
        """Look at every image once.

        Args:
            tested: those whose side is given.
        """
        groups = find_siblings([one.image for one in records])
        objects = cls(dict(zip((one.key for one in records), groups, strict=True)))
        objects._is_tested = dict.fromkeys((objects.group_of_key[one.key] for one in tested), True)
        return objects

    def share_defects(self, images: Sequence[AnomalyRecord]) -> Shared:
        """A defect's images in their order: objects that have a side keep it, then the first third is learned from."""
        learned: list[AnomalyRecord] = []
        tested: list[AnomalyRecord] = []
        for group, members in self._by_object(images).items():
            is_tested = self._is_tested.setdefault(group, len(learned) >= len(images) // 3)
            (tested if is_tested else learned).extend(members)
        return learned, tested

    def share_good(self, images: Sequence[AnomalyRecord], share: float, seed: int) -> Shared:
        """Good images: objects that have a side keep it, then whole objects are drawn for test up to a share of all."""
        tested = {one.key for one in images if self._is_tested.get(self.group_of_key[one.key])}
        free = {group: them for group, them in self._by_object(images).items() if group not in self._is_tested}
        most = round(len(images) * share)
        for _, members in sorted(free.items(), key=lambda one: _rank(one[1], seed)):
            if len(tested) + len(members) <= most:
                tested |= {one.key for one in members}
        return [one for one in images if one.key not in tested], [one for one in images if one.key in tested]

    def draw_validation(self, learned: Sequence[AnomalyRecord], share: float, seed: int) -> Shared:
        """Images to learn from: objects that validate elsewhere do so here, then whole ones are drawn up to a share.

        Returns:
            Images that are left, and those that validate: of one object at least where two have no side yet.
        """
        by_object = self._by_object(learned)
        free = [group for group in by_object if group not in self._is_validated]
        free.sort(key=lambda group: _rank(by_object[group], seed))
        drawn = {group for group in by_object if self._is_validated.get(group)}
        most, num_drawn = round(len(learned) * share), sum(len(by_object[group]) for group in drawn)
        for group in free:
            if num_drawn + len(by_object[group]) <= most:
                drawn.add(group)
                num_drawn += len(by_object[group])
        if share > 0 and not drawn and len(free) > 1:
            drawn.add(min(free, key=lambda group: len(by_object[group])))
        self._is_validated |= {group: group in drawn for group in by_object}
        left = [one for one in learned if self.group_of_key[one.key] not in drawn]
        return left, [one for one in learned if self.group_of_key[one.key] in drawn]

    def _by_object(self, images: Iterable[AnomalyRecord]) -> dict[int, list[AnomalyRecord]]:
        groups: dict[int, list[AnomalyRecord]] = {}
        for one in images:
            groups.setdefault(self.group_of_key[one.key], []).append(one)
        return groups


def count_known(learned: Iterable[AnomalyRecord], tested: Iterable[AnomalyRecord]) -> int:
    """How many test images with a defect show an object that an image with a defect among the others shows too."""
    defects, tests = ([one for one in records if not one.is_good] for records in (learned, tested))
    groups = find_siblings([one.image for one in (*defects, *tests)])
    known = set(groups[: len(defects)])
    return sum(group in known for group in groups[len(defects) :])


def _rank(members: Sequence[AnomalyRecord], seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{min(one.key for one in members)}".encode()).digest()
