"""A vote between maskers: the mask whose cut-out is named best wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..protocols import Masked, Masker, MaskRequest, TextScorer
from .composites import alpha_to_masked, lay_on_white, score_names, to_opaque


class BestOfMasker:
    """Asks several maskers and keeps the mask with the best image-text score on white (X-Paste, arXiv 2212.03863).

    The score is that image-text score, clipped to [0, 1]. Masks without a pixel do not stand. Ties go to the masker
    named first, and so do classes that the scorer does not know; the score is then its own.
    """

    name = "best_of"

    def __init__(self, maskers: Sequence[Masker], scorer: TextScorer) -> None:
        """`maskers`: the favourite first."""
        self._maskers = tuple(maskers)
        self._scorer = scorer

    @property
    def revision(self) -> str:
        parts: list[Masker | TextScorer] = [*self._maskers, self._scorer]
        return "+".join(f"{part.name}@{part.revision}" for part in parts)

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        """One mask a request, in order; raises what the maskers and the scorer raise.

        `num_instances` is what the first masker that counts has counted, whichever mask wins.
        """
        by_masker = [masker.mask(requests) for masker in self._maskers]
        return [
            self._choose(request, candidates)
            for request, candidates in zip(requests, zip(*by_masker, strict=True), strict=True)
        ]

    def _choose(self, request: MaskRequest, candidates: Sequence[Masked]) -> Masked:
        counted = next((each.num_instances for each in candidates if each.num_instances is not None), None)
        standing = [candidate for candidate in candidates if candidate.alpha.any()]
        if not standing:
            return alpha_to_masked(np.zeros(request.rgba.shape[:2], np.uint8), num_instances=counted)
        if not self._scorer.knows(request.category):
            return replace(standing[0], num_instances=counted)
        rgb = to_opaque(request.rgba)
        cutouts = [lay_on_white(rgb, candidate.alpha) for candidate in standing]
        scores = score_names(self._scorer, cutouts, [request.category] * len(cutouts))
        best = int(scores.argmax())
        return alpha_to_masked(standing[best].alpha, float(scores[best]), counted)
