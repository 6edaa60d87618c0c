"""Any text-to-image pipeline of diffusers as a painter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ...configs.conditioning import ConditionedSettings
from ...configs.diffusion import DiffusionSettings
from ...errors import PromptError, RecipeError
from ...models.device import run_in_batches
from ..protocols import Painted, PaintRequest
from .pipeline_index import PipelinePromptReader, find_pipeline_class, find_revision
from .pipelines import run_pipeline, share_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from diffusers.utils import BaseOutput

BLACK_LEVEL = 8
"""A picture whose brightest value stays below this, of 255, is black: what broken arithmetic leaves."""


class DiffusionPainter(PipelinePromptReader):
    """Opaque pictures from words, in batches, by the pipeline that the settings name.

    Painters of settings that load the same share one loaded pipeline a process.
    """

    name = "diffusion"

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__(settings)
        self.settings = settings

    @functools.cached_property
    def revision(self) -> str:
        """Model and adaptations with the versions of their files.

        Raises:
            RecipeError: no such model.
            ModelNotFetchedError: it is not in the cache.
        """
        return find_revision(self.settings)

    def knows(self, category: str) -> bool:  # noqa: ARG002  # an open vocabulary
        return True

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """Paint one picture a request; its alpha is 255 everywhere. What went wrong with one picture is its flaw.

        Raises:
            PromptError: a request has no prompt.
            RecipeError: the settings do not fit the model; nothing was painted.
            ModelNotFetchedError: the model is not in the cache.
            BrokenRunError: damaged files, no such device, or not even one picture fits in its memory.
        """
        check_prompts(requests)
        arguments = call_arguments(find_pipeline_class(self.settings), self.settings)
        tokens_cut = {request.prompt: self._tokens.count_surplus(request.prompt) for request in requests}
        shared = share_pipeline(self.settings)
        parameters = self._parameters(shared.pipeline)

        def paint_batch(batch: Sequence[PaintRequest]) -> list[Painted]:
            output = call_pipeline(shared.pipeline, arguments, batch, output_type="np")
            blanked = getattr(output, "nsfw_content_detected", None) or [False] * len(batch)
            return [
                picture_to_painted(picture, parameters | {"tokens_cut": tokens_cut[request.prompt]}, is_blanked)
                for picture, request, is_blanked in zip(output.images, batch, blanked, strict=True)
            ]

        with shared.lock:
            return run_in_batches(paint_batch, requests, self.settings.batch_size)

    def _parameters(self, pipeline: DiffusionPipeline) -> dict[str, float | str]:
        return describe_call(pipeline, self.settings)


def describe_call(
    pipeline: DiffusionPipeline, settings: DiffusionSettings | ConditionedSettings
) -> dict[str, float | str]:
    """What made a picture, for the provenance: classes, format of numbers, and what the settings ask of a call."""
    return {
        "pipeline": type(pipeline).__name__,
        "scheduler": type(pipeline.scheduler).__name__,
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        **settings.model_dump(include={"num_inference_steps", "guidance_scale"}, exclude_none=True),
        **settings.model_dump(include={"negative_prompt"}, exclude_defaults=True),
    }


def check_prompts(requests: Sequence[PaintRequest]) -> None:
    """Look at the prompts before anything is painted.

    Raises:
        PromptError: a request has none.
    """
    for request in requests:
        if not request.prompt.strip():
            raise PromptError(f"item {request.item_id!r}: prompt {request.prompt!r} is empty; expected words.")


def call_arguments(
    pipeline_class: type[DiffusionPipeline], settings: DiffusionSettings | ConditionedSettings
) -> dict[str, object]:
    """What every call of a pipeline gets from the settings, under the names that this pipeline has for it.

    Raises:
        RecipeError: the pipeline does not take a setting, or it would have no effect.
    """
    known = inspect.signature(pipeline_class.__call__).parameters
    guidance = _guidance_argument(known, settings)
    asked: dict[str, object] = {
        "num_inference_steps": settings.num_inference_steps,
        **settings.model_dump(include={"width", "height"}),
        guidance: settings.guidance_scale,
        "negative_prompt": settings.negative_prompt or None,
    }
    arguments = {name: value for name, value in asked.items() if value is not None}
    for name in ("prompt", *arguments):
        if name not in known:
            raise RecipeError(
                f"{pipeline_class.__name__} takes no {name!r}; leave it out of the recipe, or choose another `model`."
            )
    if settings.negative_prompt:
        scale = arguments.get(guidance, known[guidance].default if guidance in known else None)
        _check_guidance(pipeline_class.__name__, guidance, scale)
    elif guidance == "true_cfg_scale" and guidance in arguments:
        arguments["negative_prompt"] = " "
    return arguments


def _guidance_argument(
    known: Mapping[str, inspect.Parameter], settings: DiffusionSettings | ConditionedSettings
) -> str:
    """Flux and Qwen-Image call classifier-free guidance `true_cfg_scale`, and need a negative prompt for it.

    Their `guidance_scale` is what a guidance-distilled model reads; Flux is one, Qwen-Image is not.
    """
    if "true_cfg_scale" in known and (settings.negative_prompt or known["guidance_scale"].default is None):
        return "true_cfg_scale"
    return "guidance_scale"


def _check_guidance(pipeline_name: str, guidance: str, scale: object) -> None:
    if isinstance(scale, int | float) and scale <= 1:
        raise RecipeError(
            f"negative_prompt has no effect on {pipeline_name} at {guidance} {scale:g}; "
            "set `guidance_scale` above 1, or leave `negative_prompt` out."
        )


def call_pipeline(
    pipeline: DiffusionPipeline, arguments: Mapping[str, object], requests: Sequence[PaintRequest], *, output_type: str
) -> BaseOutput:
    """Call a pipeline with one prompt and one generator on the CPU for each request.

    Args:
        arguments: as `call_arguments` gives them.
        output_type: as the pipeline understands it: `np`, `pt`, `latent`, …

    Raises as `run_pipeline` does.
    """
    per_image: dict[str, object] = {
        "prompt": [request.prompt for request in requests],
        "generator": [torch.Generator("cpu").manual_seed(request.seed) for request in requests],
    }
    if "negative_prompt" in arguments:
        per_image["negative_prompt"] = [arguments["negative_prompt"]] * len(requests)
    return run_pipeline(pipeline, {**arguments, **per_image, "output_type": output_type})


def picture_to_painted(
    picture: npt.NDArray[np.floating], parameters: Mapping[str, float | str], is_blanked: bool = False
) -> Painted:
    """Turn a pipeline's picture into an opaque one of ours, and see whether it is a picture at all.

    Args:
        picture: (h, w, 3) float in [0, 1], or not finite.
        is_blanked: the safety checker took it away.
    """
    rgb = (np.nan_to_num(picture, posinf=1.0).clip(0, 1) * 255).round().astype(np.uint8)
    flaw = ""
    if is_blanked:
        flaw = "blanked by the model's safety checker"
    elif not np.isfinite(picture).all():
        flaw = "values that are not finite"
    elif rgb.max() < BLACK_LEVEL:
        flaw = "black"
    return Painted(np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]), parameters, flaw=flaw)
