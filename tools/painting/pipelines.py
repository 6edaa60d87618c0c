"""Loading diffusers pipelines by their settings: offline, from safetensors only, once a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError

from ...configs.diffusion import LoraSettings, PipelineSettings
from ...errors import BrokenRunError, RecipeError
from ...models.device import resolve_device
from ...models.loading import without_bars
from .pipeline_index import check_scheduler, find_lora, find_pipeline, find_pipeline_class

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from diffusers.utils import BaseOutput

_shared: dict[str, SharedPipeline] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SharedPipeline:
    """A loaded pipeline. Its scheduler keeps state while it denoises, so that a call needs the lock."""

    pipeline: DiffusionPipeline
    lock: threading.Lock = field(default_factory=threading.Lock)


def share_pipeline(settings: PipelineSettings) -> SharedPipeline:
    """The pipeline of these settings; one a process for all settings that load the same.

    Raises as `load_pipeline` does.
    """
    key = settings.model_dump_json(include=set(PipelineSettings.model_fields))
    with _lock:
        if key not in _shared:
            _shared[key] = SharedPipeline(load_pipeline(settings))
        return _shared[key]


def load_pipeline(settings: PipelineSettings) -> DiffusionPipeline:
    """Load a pipeline of one's own, with scheduler and adaptations, and place it on its device.

    Raises:
        RecipeError: no pipeline is there, or the settings name a class, option or adaptation that does not fit.
        ModelNotFetchedError: the Hub repository is not in the cache.
        BrokenRunError: the files are damaged or not of the variant, there is no such device, or it is too small.
    """
    check_scheduler(settings)
    lora_files = [str(find_lora(lora)) for lora in settings.loras]
    device = resolve_device(settings.device)
    pipeline = _load_weights(settings, choose_dtype(settings.dtype, device))
    _set_scheduler(pipeline, settings)
    for number, (lora, file) in enumerate(zip(settings.loras, lora_files, strict=True)):
        _add_lora(pipeline, lora, file, f"lora_{number}")
    if settings.loras:
        pipeline.set_adapters([f"lora_{n}" for n in range(len(lora_files))], [lora.scale for lora in settings.loras])
    pipeline.set_progress_bar_config(disable=True)
    _set_switches(pipeline, settings)
    place_pipeline(pipeline, settings, device)
    return pipeline


def run_pipeline(pipeline: DiffusionPipeline, arguments: Mapping[str, object]) -> BaseOutput:
    """Call a pipeline.

    Raises:
        RecipeError: it refuses a setting: a size that it cannot divide, a scheduler of another kind.
    """
    try:
        return pipeline(**arguments)
    except (ValueError, TypeError) as exc:
        asked = {name: value for name, value in arguments.items() if isinstance(value, int | float)}
        raise RecipeError(
            f"{type(pipeline).__name__} with {type(pipeline.scheduler).__name__} refuses {asked} ({exc}); "
            "change these settings, or the scheduler, in the recipe."
        ) from exc


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format that a `dtype` setting means on a device."""
    if name != "auto":
        return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _load_weights(settings: PipelineSettings, dtype: torch.dtype) -> DiffusionPipeline:
    folder, pipeline_class = find_pipeline(settings), find_pipeline_class(settings)
    options: dict[str, object] = {"dtype": dtype, "variant": settings.variant}
    if settings.safety == "off" and "safety_checker" in signature(pipeline_class.__init__).parameters:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        with without_loading_bars():
            return pipeline_class.from_pretrained(folder, use_safetensors=True, local_files_only=True, **options)
    except (OSError, ValueError, ImportError, AttributeError, RuntimeError, SafetensorError) as exc:
        raise BrokenRunError(
            f"pipeline {str(folder)!r} cannot be loaded as {pipeline_class.__name__} ({exc}). Expected safetensors "
            f"weights, whole, of variant {settings.variant!r}; if they come from the Hub, fetch them again."
        ) from exc


def _set_scheduler(pipeline: DiffusionPipeline, settings: PipelineSettings) -> None:
    if settings.scheduler is None and not settings.scheduler_options:
        return
    own = pipeline.scheduler
    scheduler_class = getattr(diffusers, settings.scheduler) if settings.scheduler else type(own)
    try:
        pipeline.scheduler = scheduler_class.from_config(own.config, **settings.scheduler_options)
    except (ValueError, TypeError, NotImplementedError, ImportError) as exc:
        raise RecipeError(
            f"scheduler {scheduler_class.__name__} refuses {dict(settings.scheduler_options)} on the configuration of "
            f"{type(own).__name__} ({exc}); change `scheduler` or `scheduler_options` in the recipe."
        ) from exc


def _add_lora(pipeline: DiffusionPipeline, settings: LoraSettings, file: str, name: str) -> None:
    fault = f"it has no layer that {type(pipeline).__name__} has"
    try:
        pipeline.load_lora_weights(file, adapter_name=name, use_safetensors=True, local_files_only=True)
        if any(name in adapters for adapters in pipeline.get_list_adapters().values()):
            return
    except (AttributeError, OSError, ValueError, RuntimeError, KeyError, SafetensorError) as exc:
        fault = f"{type(exc).__name__}: {exc}"
    raise RecipeError(
        f"adaptation {settings.model!r} does not fit {type(pipeline).__name__} ({fault}); "
        "expected a LoRA that was trained on this kind of model. Change `loras` in the recipe."
    )


def _set_switches(pipeline: DiffusionPipeline, settings: PipelineSettings) -> None:
    if settings.attention_slicing:
        pipeline.enable_attention_slicing()
    try:
        if settings.vae_tiling:
            pipeline.vae.enable_tiling()
        if settings.compile:
            (pipeline.components.get("transformer") or pipeline.unet).compile()
    except AttributeError as exc:
        raise RecipeError(
            f"{type(pipeline).__name__} has no part for `vae_tiling` or `compile` ({exc}); leave it out of the recipe."
        ) from exc


def place_pipeline(pipeline: DiffusionPipeline, settings: PipelineSettings, device: torch.device) -> None:
    """Bring a pipeline to its device, or have it brought there part by part; parts that are there stay.

    Raises:
        BrokenRunError: the device is too small.
    """
    try:
        if settings.cpu_offload == "none" or device.type == "cpu":
            pipeline.to(device)
        elif settings.cpu_offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        else:
            pipeline.enable_sequential_cpu_offload(device=device)
    except torch.OutOfMemoryError as exc:
        raise BrokenRunError(
            f"the memory of {device} does not hold {settings.model!r} at cpu_offload {settings.cpu_offload!r} ({exc}); "
            "set `cpu_offload` to model or sequential, or `device` to cpu."
        ) from exc


@contextmanager
def without_loading_bars() -> Iterator[None]:
    """Load parts of a pipeline without progress bars on stderr."""
    were_shown = diffusers_logging.is_progress_bar_enabled()
    diffusers_logging.disable_progress_bar()
    try:
        with without_bars():
            yield
    finally:
        if were_shown:
            diffusers_logging.enable_progress_bar()
