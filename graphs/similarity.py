"""Dual similarity: each cut-out against its class's name and against the class's real instances (InstaDA)."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..data.records import ImageRGBA
from ..errors import SampleError
from ..tools.judging.similarity import rival_lead
from ..tools.protocols import CutOutScorer, ImageEmbedder, TextScorer
from .services import Pair, Sources, Variant

KEPT_SOURCES = 2048


@dataclass(slots=True)
class ClassCrops:
    """Features of a class's real instances, made when first asked for; safe for threads.

    Attributes:
        rows: annotation rows by class name, the best sources first.
    """

    embedder: ImageEmbedder
    sources: Sources
    rows: Mapping[str, Sequence[int]]
    max_crops: int
    _features: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    _locks: defaultdict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def of(self, category: str) -> npt.NDArray[np.float32]:
        """(n, d) float32, unit length, at most `max_crops` rows; none where the class has no readable instance."""
        with self._locks[category]:
            if category not in self._features:
                self._features[category] = self.embedder.embed(self._cut_outs(category))
            return self._features[category]

    def _cut_outs(self, category: str) -> list[ImageRGBA]:
        found = []
        for row in self.rows.get(category, ())[: self.max_crops]:
            try:
                found.append(self.sources.cut_out(row).rgba)
            except SampleError:
                continue
        return found


@dataclass(frozen=True, slots=True)
class DualSimilarity:
    """Scores of cut-outs, in batches."""

    scorer: TextScorer
    crops: ClassCrops
    wholeness: CutOutScorer | None = None
    rivals: Sequence[str] = ()
    """Other classes of the data set, of those that the scorer knows."""

    def score(self, pairs: Sequence[Pair]) -> list[dict[str, float]]:
        """Of each cut-out, where they can be taken, these.

        `image_text`; `rival_lead`, by how much another class's name fits better; `image_image`, the mean cosine to the
        class's real instances; `wholeness`.
        """
        if not pairs:
            return []
        images = [rgba for rgba, _ in pairs]
        names = list(dict.fromkeys([*(category for _, category in pairs), *self.rivals]))
        by_name = self.scorer.score(images, names)
        features = self.crops.embedder.embed(images)
        scores = []
        for row, (_, category) in enumerate(pairs):
            score = {"image_text": float(by_name[row, names.index(category)])}
            lead = rival_lead(by_name[row], names, category)
            if lead is not None and self.rivals:
                score["rival_lead"] = lead
            real = self.crops.of(category)
            if len(real):
                score["image_image"] = float((real @ features[row]).mean().clip(-1, 1))
            scores.append(score)
        if self.wholeness is not None:
            for score, whole in zip(scores, self.wholeness.score(images), strict=True):
                score["wholeness"] = float(whole)
        return scores


@dataclass(slots=True)
class VariantSimilarity:
    """Scores of variants against their class's name and their source; features of the last sources are kept.

    Called by one thread at a time.
    """

    scorer: TextScorer
    embedder: ImageEmbedder
    _sources: OrderedDict[str, npt.NDArray[np.float32]] = field(default_factory=OrderedDict)

    def score(self, variants: Sequence[Variant]) -> list[dict[str, float]]:
        """`source_likeness`, the cosine to the source, and `image_text` where the scorer knows the class."""
        if not variants:
            return []
        new = {one.source_key: one.source_rgba for one in variants if one.source_key not in self._sources}
        features = self.embedder.embed([*(one.rgba for one in variants), *new.values()])
        self._sources.update(zip(new, features[len(variants) :], strict=True))
        scores = [
            {"source_likeness": float(np.clip(own @ self._sources[one.source_key], -1, 1))}
            for own, one in zip(features, variants, strict=False)
        ]
        while len(self._sources) > KEPT_SOURCES:
            self._sources.popitem(last=False)
        named = [number for number, one in enumerate(variants) if self.scorer.knows(one.category)]
        names = list(dict.fromkeys(variants[number].category for number in named))
        by_name = self.scorer.score([variants[number].rgba for number in named], names) if named else ()
        for number, row in zip(named, by_name, strict=True):
            scores[number]["image_text"] = float(row[names.index(variants[number].category)])
        return scores
