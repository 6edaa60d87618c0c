"""The embedded painter: one transparent object from a few words, on two CPU cores."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from ...configs.sprites import SpritesSettings
from ...models.checkpoints import checkpoint_revision
from ...models.embeddings import MiniLM, token_count
from ..protocols import Painted, PaintRequest

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.sprites.bank import PictureBank
    from ...models.sprites.pipeline import SpritePipeline

_lock = threading.Lock()


class SpritesPainter:
    """Paints with the model that ships with us (`embedded:sprites`); one model a process."""

    name = "embedded:sprites"

    def __init__(self, settings: SpritesSettings) -> None:
        self._settings = settings
        self.max_tokens: int | None = settings.max_tokens

    @functools.cached_property
    def revision(self) -> str:
        from ...models.sprites.pipeline import DEFAULT_FOLDER

        return checkpoint_revision(DEFAULT_FOLDER)

    def count_tokens(self, prompt: str) -> int:
        return token_count(prompt)

    def knows(self, category: str) -> bool:
        """Whether a name in the picture bank is near enough to the class's."""
        return bank_likeness(category) >= self._settings.min_likeness

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """One cut-out of 96×96 a request; `strength` is how far it departs from the banked picture.

        Raises:
            PromptError: a prompt is empty or longer than the text encoder reads.
            ModelNotFetchedError: MiniLM is not in the cache.
        """
        order = sorted(range(len(requests)), key=lambda index: requests[index].strength)
        painted: dict[int, Painted] = {}
        for _, group in groupby(order, key=lambda index: requests[index].strength):
            indices = list(group)
            painted.update(zip(indices, self._paint([requests[i] for i in indices]), strict=True))
        return [painted[index] for index in range(len(requests))]

    def _paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """Requests of one strength, in one batch."""
        import torch

        settings, strength = self._settings, requests[0].strength
        output = load_pipeline()(
            [request.prompt for request in requests],
            strength=max(strength, 0.05),
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            generator=[torch.Generator().manual_seed(request.seed) for request in requests],
            batch_size=settings.batch_size,
        )
        return [
            Painted(np.array(image), {"start": source, "likeness": round(likeness, 4)})
            for image, source, likeness in zip(output.images, output.sources, output.likeness, strict=True)
        ]


@functools.cache
def bank_likeness(category: str) -> float:
    """Cosine of a class's name with the nearest name in the picture bank, in [-1, 1]; the network is not loaded."""
    import torch

    from ...models.fetch import locate_model
    from ...models.sprites.bank import BANK_FOLDER

    bank = _load_bank(locate_model("sprites") / BANK_FOLDER)
    return float(bank.likeness(torch.from_numpy(MiniLM().embed([category]))).max())


@functools.cache
def _load_bank(folder: Path) -> PictureBank:
    from ...models.sprites.bank import PictureBank

    return PictureBank.from_folder(folder)


def load_pipeline() -> SpritePipeline:
    """The pipeline; one a process."""
    with _lock:
        return _load()


@functools.cache
def _load() -> SpritePipeline:
    from ...models.sprites.pipeline import SpritePipeline

    with _without_bars():
        pipeline = SpritePipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _without_bars() -> Iterator[None]:
    """Load a pipeline without the progress bar of diffusers, which would tear the run's own."""
    from diffusers.utils import logging as diffusers_logging

    were_shown = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            diffusers_logging.enable_progress_bar()
