"""Any painter's opaque picture, decomposed into transparent layers of which one is the object."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ...configs.diffusion import LayeredSettings
from ...data.masks import MASK_ALPHA
from ...data.records import ImageRGBA
from ...errors import RecipeError
from ...models.device import run_in_batches
from ..protocols import Painted, PaintRequest, TextPainter, TextScorer
from .pipeline_index import find_pipeline_class, find_revision
from .pipelines import SharedPipeline, run_pipeline, share_pipeline

PIPELINE = "QwenImageLayeredPipeline"


class LayeredPainter:
    """Cut-outs from words: a painter makes the picture, Qwen-Image-Layered its layers, a scorer names the object's.

    Where no layer shows anything, the opaque picture comes back with a flaw.
    """

    name = "layered"

    def __init__(self, settings: LayeredSettings, painter: TextPainter, scorer: TextScorer) -> None:
        self.settings = settings
        self._painter = painter
        self._scorer = scorer

    @functools.cached_property
    def revision(self) -> str:
        """The painter's revision and that of the layers' model.

        Raises:
            RecipeError: no such model.
            ModelNotFetchedError: it is not in the cache.
        """
        return f"{self._painter.name} {self._painter.revision} / {find_revision(self.settings)}"

    @property
    def max_tokens(self) -> int | None:
        return self._painter.max_tokens

    def count_tokens(self, prompt: str) -> int:
        return self._painter.count_tokens(prompt)

    def knows(self, category: str) -> bool:
        return self._painter.knows(category)

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """Paint, decompose, choose. The layers have the picture's shape, at about `resolution` pixels squared.

        Raises:
            RecipeError: the model is no Qwen-Image-Layered; nothing was painted.
            ModelNotFetchedError: it is not in the cache.
            BrokenRunError: damaged files, no such device, or its memory is too small. Also as the painter does.
        """
        if (found := find_pipeline_class(self.settings).__name__) != PIPELINE:
            raise RecipeError(f"model {self.settings.model!r} is a {found}; expected a {PIPELINE} to make layers.")
        shared = share_pipeline(self.settings)
        painted = self._painter.paint(requests)

        def cut_out(batch: Sequence[tuple[PaintRequest, Painted]]) -> list[Painted]:
            return [picture if picture.flaw else self._cut_out(shared, request, picture) for request, picture in batch]

        # One by one: in a batch, diffusers 0.42 counts one layer too many for each picture and mixes them up.
        return run_in_batches(cut_out, list(zip(requests, painted, strict=True)), batch_size=1)

    def _cut_out(self, shared: SharedPipeline, request: PaintRequest, picture: Painted) -> Painted:
        layers = self._decompose(shared, request, picture.rgba)
        if not np.isfinite(layers).all():
            return replace(picture, flaw="layers with values that are not finite")
        cutouts = [layer for layer in _to_images(layers) if (layer[..., 3] >= MASK_ALPHA).any()]
        if not cutouts:
            return replace(picture, flaw="no layer has a visible pixel")
        scores = np.nan_to_num(self._scorer.score(cutouts, [request.category])[:, 0], nan=-np.inf)
        best = int(scores.argmax())
        parameters = {
            "layers": len(layers),
            "visible_layers": len(cutouts),
            "layer_score": round(float(scores[best]), 4),
        }
        return replace(picture, rgba=cutouts[best], parameters={**picture.parameters, **parameters})

    def _decompose(self, shared: SharedPipeline, request: PaintRequest, rgba: ImageRGBA) -> npt.NDArray[np.float32]:
        """(layers, h, w, 4) float32 in [0, 1], straight alpha, or not finite."""
        settings = self.settings
        arguments = {
            "image": Image.fromarray(rgba),
            "prompt": request.prompt,
            "negative_prompt": settings.negative_prompt if settings.true_cfg_scale > 1 else None,
            **settings.model_dump(include={"true_cfg_scale", "layers", "num_inference_steps", "resolution"}),
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            "output_type": "np",
        }
        with shared.lock:
            output = run_pipeline(shared.pipeline, arguments)
        return np.asarray(output.images[0], dtype=np.float32)


def _to_images(layers: npt.NDArray[np.float32]) -> list[ImageRGBA]:
    return list((layers.clip(0, 1) * 255).round().astype(np.uint8))
