"""Which scenes to make: quotas by class, label sets that open classes need, and a real image to start from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..configs.label_agent import LabelAgentSettings
from ..data.label_records import LabelledImage
from .items import image_seed
from .label_state import LabelItem

LabelSet = frozenset[str]
ENOUGH_EMPTY = 16
"""Images without any label from which on labelled ones are not needed as backgrounds."""
WITHOUT_BACKGROUND = -1


class BackdropRows:
    """Rows of the training images that a scene can start from: those without a label, if there are enough of them.

    Else any image that shows none of what is to be painted, nothing that the filter does not know, and, with what is
    painted, at most `max_labels` classes where that can be had.

    Args:
        needs_one: whether the painter starts from a real image; else no row is ever needed.
    """

    def __init__(
        self, train: Sequence[LabelledImage], known: LabelSet, max_labels: int, *, needs_one: bool = True
    ) -> None:
        self.labels_of = tuple(image.labels for image in train)
        self._usable = [row for row, labels in enumerate(self.labels_of) if labels <= known]
        self._empty = tuple(row for row in self._usable if not self.labels_of[row])
        self._max_labels = max_labels
        self._needs_one = needs_one
        self._found: dict[LabelSet, tuple[int, ...]] = {}

    def of(self, labels: LabelSet) -> tuple[int, ...]:
        """Rows for a scene on which these labels are painted."""
        if not self._needs_one or len(self._empty) >= ENOUGH_EMPTY:
            return self._empty if self._needs_one else ()
        if labels not in self._found:
            self._found[labels] = self._find(labels)
        return self._found[labels]

    def allow(self, labels: LabelSet) -> bool:
        """Whether there is what such a scene starts from."""
        return not self._needs_one or bool(self.of(labels))

    def _find(self, labels: LabelSet) -> tuple[int, ...]:
        without = [row for row in self._usable if not labels & self.labels_of[row]]
        fewest = min((len(self.labels_of[row]) for row in without), default=0)
        most = max(fewest, self._max_labels - len(labels))
        return tuple(row for row in without if len(self.labels_of[row]) <= most)


@dataclass(slots=True)
class Progress:
    """How far the classes are, by class."""

    accepted: Counter[str] = field(default_factory=Counter)
    """Admitted scenes that show it."""
    tried: Counter[str] = field(default_factory=Counter)
    """Items painted for it."""
    num_items: int = 0
    """Of all kinds, those too that admission did not draw."""


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """What can be made, and of what."""

    settings: LabelAgentSettings
    run_seed: int
    classes: tuple[str, ...]
    """Those to make: the painter can draw them, and the filter knows them."""
    set_counts: Mapping[LabelSet, int]
    """Label sets of training images, as far as they can be made, and in how many images each is."""
    backdrops: BackdropRows

    @property
    def max_tries(self) -> int:
        """Painted items that a class may cost."""
        return round(self.settings.count * self.settings.max_tries_ratio)

    def open_classes(self, progress: Progress) -> dict[str, int]:
        """Scenes missing of each class that may still be tried."""
        missing = {name: self.settings.count - progress.accepted[name] for name in self.classes}
        return {name: n for name, n in missing.items() if n > 0 and progress.tried[name] < self.max_tries}

    def open_shares(self, progress: Progress) -> dict[str, float]:
        """What is open of each class's quota, over what is open of the class that lacks most: 1 for that one.

        So the admission is proportional to the open quota, and never stalls where all classes are nearly full.
        """
        missing = self.open_classes(progress)
        most = max(missing.values(), default=1)
        return {name: missing.get(name, 0) / most for name in self.classes}

    def wave(self, progress: Progress, size: int) -> list[LabelItem]:
        """The next items, at most `size`: as many of each open class as scenes are missing."""
        missing = self.open_classes(progress)
        left = {name: min(n, self.max_tries - progress.tried[name]) for name, n in missing.items()}
        items: list[LabelItem] = []
        while len(items) < size and any(n > 0 for n in left.values()):
            slot = progress.num_items + len(items)
            rng = np.random.default_rng(image_seed(self.run_seed, f"label-{slot}", 0, 0))
            labels = self._draw_labels({name: n for name, n in left.items() if n > 0}, rng)
            items.append(self._to_item(labels, slot, rng))
            left = {name: n - (name in labels) for name, n in left.items()}
        return items

    def _draw_labels(self, left: Mapping[str, int], rng: np.random.Generator) -> LabelSet:
        """Of training images: a set without full classes, where there is one."""
        if self.settings.labels_from == "histogram":
            return self._draw_from_histogram(left, rng)
        eligible = [labels for labels in self.set_counts if labels <= left.keys()]
        eligible = eligible or [labels for labels in self.set_counts if labels & left.keys()]
        weights = np.array([self.set_counts[labels] for labels in eligible], dtype=np.float64)
        return eligible[int(rng.choice(len(eligible), p=weights / weights.sum()))]

    def _draw_from_histogram(self, left: Mapping[str, int], rng: np.random.Generator) -> LabelSet:
        """A class by its open quota, then others as often as they occur together with all that is drawn."""
        names = sorted(left)
        quota = np.array([left[name] for name in names], dtype=np.float64)
        drawn = {names[int(rng.choice(len(names), p=quota / quota.sum()))]}
        others = [name for name in self.classes if name not in drawn]
        for row in rng.permutation(len(others)):
            if len(drawn) == self.settings.max_labels:
                break
            together = self._num_with(drawn | {others[row]}) / max(1, self._num_with(drawn))
            if rng.random() < together and self.backdrops.allow(frozenset(drawn | {others[row]})):
                drawn.add(others[row])
        return frozenset(drawn)

    def _num_with(self, labels: Iterable[str]) -> int:
        wanted = frozenset(labels)
        return sum(count for one, count in self.set_counts.items() if wanted <= one)

    def _to_item(self, drawn: LabelSet, slot: int, rng: np.random.Generator) -> LabelItem:
        rows = self.backdrops.of(drawn)
        row = rows[int(rng.integers(len(rows)))] if rows else WITHOUT_BACKGROUND
        labels = sorted(drawn | (self.backdrops.labels_of[row] if rows else frozenset()))
        return {
            "item_id": f"label-{slot:06d}",
            "agent": "label_agent",
            "category_id": self.classes.index(min(drawn)) + 1,
            "category": " + ".join(labels),
            "source_row": row,
            "slot": slot,
            "labels": labels,
        }


def plan_labels(
    train: Sequence[LabelledImage],
    settings: LabelAgentSettings,
    run_seed: int,
    *,
    drawable: Iterable[str],
    known: Iterable[str],
    needs_backdrop: bool,
) -> LabelPlan:
    """What can be made from a training side.

    Args:
        train: in the order of the backgrounds' rows.
        drawable: classes that the painter can draw.
        known: classes that the filter can find; a background shows no other one. Without a filter, all.
        needs_backdrop: whether the painter starts from a real image.

    Returns:
        A plan whose `classes` are empty where nothing can be made.
    """
    known = frozenset(known)
    targets = tuple(name for name in drawable if name in known)
    found = Counter(labels for image in train if (labels := image.labels & set(targets)))
    sets = {labels: n for labels, n in found.items() if len(labels) <= settings.max_labels}
    covered = frozenset().union(*sets)
    sets |= {frozenset({name}): 1 for name in targets if name not in covered}
    backdrops = BackdropRows(train, known, settings.max_labels, needs_one=needs_backdrop)
    possible = {labels: n for labels, n in sets.items() if backdrops.allow(labels)}
    classes = tuple(name for name in targets if any(name in labels for labels in possible))
    ordered = dict(sorted(possible.items(), key=lambda pair: sorted(pair[0])))
    return LabelPlan(settings, run_seed, classes, ordered, backdrops)
