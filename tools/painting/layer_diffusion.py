"""LayerDiffuse on SDXL: objects painted with an alpha of their own (Zhang & Agrawala 2024, arXiv 2402.17113)."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch
from diffusers import StableDiffusionXLPipeline

from ...configs.diffusion import PipelineSettings
from ...configs.layer_diffusion import LayerDiffusionSettings, WeightsFile
from ...data.masks import MASK_ALPHA
from ...errors import RecipeError
from ...models.checkpoints import checkpoint_revision
from ...models.device import resolve_device, run_in_batches
from ...models.transparent_attention import merge_attention
from ...models.transparent_vae import LATENT_CHANNELS, LATENT_STRIDE, TransparentDecoder, load_decoder
from ...models.weight_files import find_weights
from ..protocols import Painted, PaintRequest
from .diffusion import BLACK_LEVEL, DiffusionPainter, call_arguments, call_pipeline, check_prompts
from .pipeline_index import find_pipeline_class, find_revision
from .pipelines import load_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_shared: dict[str, TransparentPipeline] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class TransparentPipeline:
    """An SDXL pipeline with the attention weights in it, and the decoder. A call needs the lock."""

    pipeline: DiffusionPipeline
    decoder: TransparentDecoder
    lock: threading.Lock = field(default_factory=threading.Lock)


class LayerDiffusionPainter(DiffusionPainter):
    """Transparent pictures from words. Painters of settings that load the same share the weights in a process.

    A flawed picture (opaque, empty, black, not finite) is painted again with a seed that follows from the request's;
    one that is flawed at the last try, too, says so.
    """

    name = "layer_diffusion"

    def __init__(self, settings: LayerDiffusionSettings) -> None:
        super().__init__(settings.diffusion)
        self.transparency = settings

    @functools.cached_property
    def revision(self) -> str:
        """The pipeline, its adaptations, attention weights and decoder, with the versions of their files.

        Raises:
            RecipeError: no such model or file.
            ModelNotFetchedError: one is not in the cache.
        """
        parts = [find_revision(self.settings)]
        if self.transparency.attention:
            parts.append(f"{_named_revision(self.transparency.attention)}*{self.transparency.attention_scale:g}")
        return " + ".join([*parts, _named_revision(self.transparency.decoder)])

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """Paint one picture a request, with straight alpha.

        Raises:
            PromptError: a request has no prompt.
            RecipeError: the settings do not fit the model, or a file holds other weights; nothing was painted.
            ModelNotFetchedError: the model, or a file, is not in the cache.
            BrokenRunError: damaged files, no such device, or not even one picture fits in its memory.
        """
        check_prompts(requests)
        _check_kind(self.settings)
        arguments = call_arguments(StableDiffusionXLPipeline, self.settings)
        paint_batch = functools.partial(self._paint_batch, share_transparent_pipeline(self.transparency), arguments)
        painted: dict[int, Painted] = {}
        waiting = list(range(len(requests)))
        for retry in range(self.transparency.max_retries + 1):
            tries = [replace(requests[index], seed=retry_seed(requests[index].seed, retry)) for index in waiting]
            results = run_in_batches(paint_batch, tries, self.settings.batch_size)
            for index, result in zip(waiting, results, strict=True):
                painted[index] = replace(result, parameters={**result.parameters, "tries": retry + 1})
            waiting = [index for index in waiting if painted[index].flaw]
        return [painted[index] for index in range(len(requests))]

    @torch.no_grad()
    def _paint_batch(
        self, loaded: TransparentPipeline, arguments: Mapping[str, object], batch: Sequence[PaintRequest]
    ) -> list[Painted]:
        with loaded.lock:
            latents = call_pipeline(loaded.pipeline, arguments, batch, output_type="latent").images
            pictures = [_decode(loaded, latent[None], self.transparency.num_flips) for latent in latents]
            loaded.pipeline.maybe_free_model_hooks()
        return [
            picture_to_painted(picture, {**self._parameters(loaded.pipeline), "seed": request.seed}, self.transparency)
            for picture, request in zip(pictures, batch, strict=True)
        ]


def _decode(loaded: TransparentPipeline, latents: torch.Tensor, num_flips: int) -> npt.NDArray[np.float32]:
    """(1, 4, h, w) latents, as the pipeline leaves them, to an (8 h, 8 w, 4) picture in [0, 1], straight alpha."""
    vae = loaded.pipeline.vae
    if vae.dtype == torch.float16 and vae.config.force_upcast:
        vae.to(torch.float32)  # SDXL's own overflows in float16
    latents = latents.float() / vae.config.scaling_factor
    pixels = (vae.decode(latents.to(vae.dtype)).sample.float() / 2 + 0.5).clamp(0, 1)
    rgba = loaded.decoder.decode(pixels, latents, num_flips)
    return np.asarray(rgba[0].movedim(0, -1).cpu().numpy())


def share_transparent_pipeline(settings: LayerDiffusionSettings) -> TransparentPipeline:
    """Pipeline and decoder of these settings; one a process for all settings that load the same.

    Raises:
        RecipeError: no such model or file, or one that does not fit.
        ModelNotFetchedError: one is not in the cache.
        BrokenRunError: damaged files, or no such device.
    """
    base = settings.diffusion.model_dump_json(include=set(PipelineSettings.model_fields))
    key = base + settings.model_dump_json(include={"attention", "attention_scale", "decoder"})
    with _lock:
        if key not in _shared:
            _shared[key] = _load(settings)
        return _shared[key]


def _load(settings: LayerDiffusionSettings) -> TransparentPipeline:
    """The small files first: when one is wrong, the pipeline's load is not waited for."""
    attention = _find(settings.attention) if settings.attention else None
    decoder = load_decoder(_find(settings.decoder), resolve_device(settings.diffusion.device))
    pipeline = load_pipeline(settings.diffusion)
    kind = (pipeline.vae.config.latent_channels, pipeline.vae_scale_factor)
    if kind != (LATENT_CHANNELS, LATENT_STRIDE):
        raise RecipeError(
            f"model {settings.diffusion.model!r} has latents of {kind[0]} channels and {kind[1]} pixels a side, "
            f"expected {LATENT_CHANNELS} and {LATENT_STRIDE}; LayerDiffuse needs SDXL's own autoencoder."
        )
    if attention:
        merge_attention(pipeline.unet, attention, settings.attention_scale)
    return TransparentPipeline(pipeline, decoder)


def picture_to_painted(
    picture: npt.NDArray[np.floating], parameters: Mapping[str, float | str], settings: LayerDiffusionSettings
) -> Painted:
    """Round a picture to 8 bits, clean its alpha with a median filter, and see whether it is a cut-out at all.

    Args:
        picture: (h, w, 4) float in [0, 1], straight alpha, or not finite.
    """
    rgba = (np.nan_to_num(picture) * 255).round().astype(np.uint8)
    rgba[..., 3] = cv2.medianBlur(np.ascontiguousarray(rgba[..., 3]), settings.median_filter_px)
    mask = rgba[..., 3] >= MASK_ALPHA
    share, flaw = mask.mean(), ""
    if not np.isfinite(picture).all():
        flaw = "values that are not finite"
    elif share > settings.max_opaque_share:
        flaw = f"opaque: {share:.1%} of the picture, at most {settings.max_opaque_share:.1%} may be"
    elif share < settings.min_visible_share:
        flaw = f"empty: {share:.1%} of the picture is visible, at least {settings.min_visible_share:.1%} must be"
    elif rgba[mask][:, :3].max() < BLACK_LEVEL:
        flaw = "black"
    return Painted(rgba, parameters, flaw=flaw)


def retry_seed(seed: int, retry: int) -> int:
    """A request's own seed at first, then others that follow from it: the same whatever else is painted."""
    if retry == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}\0{retry}".encode()).digest()[:8], "big") >> 1


def _check_kind(settings: PipelineSettings) -> None:
    kind = find_pipeline_class(settings)
    if kind is not StableDiffusionXLPipeline:
        raise RecipeError(
            f"LayerDiffuse's weights are SDXL's, and model {settings.model!r} is painted with by {kind.__name__}; "
            "set `diffusion.model` to one of StableDiffusionXLPipeline."
        )


def _find(file: WeightsFile) -> Path:
    return find_weights(file.model, file.revision, file.file)


def _named_revision(file: WeightsFile) -> str:
    path = _find(file)
    return f"{path.name}@{checkpoint_revision(path)}"
