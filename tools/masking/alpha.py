"""The masker of pictures that were painted with their alpha: it is the mask."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocols import Masked, MaskRequest
from .composites import alpha_to_masked


class AlphaMasker:
    """Takes the painted alpha as it is; of an opaque picture it finds all of it."""

    name = "alpha"
    revision = "1"

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        return [alpha_to_masked(request.rgba[..., 3].copy()) for request in requests]
