"""Pipelines of diffusers that start from a picture, over the weights that other painters share."""

from __future__ import annotations

import threading
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import diffusers
from diffusers.pipelines.auto_pipeline import (
    AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    AUTO_INPAINT_PIPELINES_MAPPING,
    AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
)
from safetensors import SafetensorError

from ...configs.conditioning import ConditionedSettings, ControlNetSettings, IpAdapterSettings
from ...configs.diffusion import PipelineSettings
from ...errors import BrokenRunError, RecipeError
from ...models.checkpoints import find_checkpoint
from ...models.device import resolve_device
from .pipeline_index import find_class, find_kind, find_pipeline, named_revision, read_config, read_index
from .pipelines import (
    SharedPipeline,
    choose_dtype,
    load_pipeline,
    place_pipeline,
    share_pipeline,
    without_loading_bars,
)

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

Task = Literal["image_to_image", "inpainting"]

_UNMAPPED = {"qwenimage-controlnet": "QwenImageControlNetInpaintPipeline"}
"""Inpainting pipelines that diffusers has and its tables leave out."""
_SIZES = (
    "cross_attention_dim",
    "block_out_channels",
    "joint_attention_dim",
    "pooled_projection_dim",
    "num_attention_heads",
    "dim",
    "cap_feat_dim",
)
"""Settings that a ControlNet and its base have in common."""

_adapted: dict[str, SharedPipeline] = {}
_controlnets: dict[str, ModelMixin] = {}
_conditioned: dict[tuple[str, str, str], SharedPipeline] = {}
_lock = threading.Lock()


def find_conditioned_class(settings: ConditionedSettings, task: Task) -> type[DiffusionPipeline]:
    """The class that the settings name; else diffusers' own for the task, with the model's parts and the ControlNet.

    Where there is a ControlNet but no image-to-image pipeline, it is the one that paints from the edges alone.

    Raises:
        RecipeError: diffusers has none, or the one named does not take a picture.
        ModelNotFetchedError: the model or the ControlNet is not in the cache.
    """
    if settings.pipeline is not None:
        named = find_class("pipeline", settings.pipeline, diffusers.DiffusionPipeline)
        _check_task(named, task)
        return named
    own, base_kind = find_kind(settings)
    kind = base_kind + _controlnet_suffix(settings.controlnet)
    found: type[DiffusionPipeline] | None
    if task == "inpainting":
        found = AUTO_INPAINT_PIPELINES_MAPPING.get(kind) or AUTO_TEXT2IMAGE_PIPELINES_MAPPING.get(f"{kind}-inpaint")
        found = found or getattr(diffusers, _UNMAPPED.get(kind, ""), None)
    else:
        found = AUTO_IMAGE2IMAGE_PIPELINES_MAPPING.get(kind) or AUTO_TEXT2IMAGE_PIPELINES_MAPPING.get(kind)
    if found is None and settings.controlnet is None and "mask_image" in signature(own.__call__).parameters:
        found = own
    if found is None:
        raise RecipeError(
            f"diffusers {diffusers.__version__} has no pipeline of kind {kind!r} for {task.replace('_', ' ')} with "
            f"model {settings.model!r}; set `pipeline` to a class that fits, or choose another `model`."
        )
    return found


def check_controlnet(settings: ConditionedSettings) -> None:
    """See from the files' settings, before anything is loaded, whether the ControlNet is one for this base.

    Raises:
        RecipeError: it is not, or it needs a `mode`.
        ModelNotFetchedError: the model or the ControlNet is not in the cache.
    """
    if settings.controlnet is None:
        return
    config, base, denoiser = _read_controlnet(settings.controlnet), *_read_denoiser(settings)
    name = str(config["_class_name"])
    family = name.partition("ControlNet")[0] or "UNet2DCondition"
    faults = [] if denoiser.startswith(family) else [f"{name} is no part of {denoiser}"]
    faults += [
        f"{size} is {config[size]}, the model's is {base[size]}"
        for size in _SIZES
        if config.get(size) is not None and base.get(size) is not None and config[size] != base[size]
    ]
    if faults:
        raise RecipeError(
            f"ControlNet {settings.controlnet.model!r} does not fit model {settings.model!r} ({'; '.join(faults)}); "
            "choose one that was trained on this kind of model."
        )
    if name == "ControlNetUnionModel" and settings.controlnet.mode is None:
        raise RecipeError(
            f"ControlNet {settings.controlnet.model!r} reads several conditions; set `controlnet.mode` to the number "
            f"of the one that edges are, 0 to {int(str(config.get('num_control_type', 6))) - 1}."
        )


def find_conditioned_revision(settings: ConditionedSettings) -> list[str]:
    """ControlNet and IP-Adapter with the versions of their files. Raises as `find_checkpoint` does."""
    parts = [part for part in (settings.controlnet, settings.ip_adapter) if part]
    return [named_revision(part.model, find_checkpoint(part.model, part.revision)) for part in parts]


def share_conditioned_pipeline(
    settings: ConditionedSettings, pipeline_class: type[DiffusionPipeline]
) -> SharedPipeline:
    """A pipeline of a class over the weights of its base; one a process for all settings that load the same.

    The base is shared with text-to-image painters of the same settings, and so is its lock. Only an IP-Adapter,
    which changes the base itself, has one of its own.

    Raises:
        RecipeError: base, ControlNet, IP-Adapter and class do not fit each other.
        ModelNotFetchedError: one of them is not in the cache.
        BrokenRunError: damaged files, no such device, or it is too small.
    """
    base_settings = base_of(settings)
    parts = settings.model_dump_json(include={"controlnet": {"model", "revision", "variant"}, "ip_adapter": True})
    key = (base_settings.model_dump_json(), parts, pipeline_class.__name__)
    with _lock:
        if key not in _conditioned:
            check_controlnet(settings)
            base = _share_adapted(base_settings, settings.ip_adapter) if settings.ip_adapter else None
            base = base or share_pipeline(base_settings)
            controlnet = _share_controlnet(settings.controlnet, base_settings) if settings.controlnet else None
            with base.lock:
                _conditioned[key] = SharedPipeline(
                    _build(pipeline_class, base.pipeline, controlnet, base_settings), base.lock
                )
        return _conditioned[key]


def base_of(settings: ConditionedSettings) -> PipelineSettings:
    """The settings of the text-to-image pipeline that has the weights."""
    return PipelineSettings.model_validate(
        settings.model_dump(include=set(PipelineSettings.model_fields), exclude={"pipeline"})
    )


def _check_task(pipeline_class: type[DiffusionPipeline], task: Task) -> None:
    known = signature(pipeline_class.__call__).parameters
    wanted = {"inpainting": {"mask_image", "control_mask"}, "image_to_image": {"image", "control_image"}}[task]
    if not wanted & set(known):
        raise RecipeError(
            f"pipeline {pipeline_class.__name__!r} takes none of {', '.join(sorted(wanted))}, which "
            f"{task.replace('_', ' ')} needs. Set `pipeline` to another class, or to null for diffusers' own choice."
        )


def _controlnet_suffix(settings: ControlNetSettings | None) -> str:
    if settings is None:
        return ""
    is_union = _read_controlnet(settings)["_class_name"] == "ControlNetUnionModel"
    return "-controlnet-union" if is_union else "-controlnet"


def _read_controlnet(settings: ControlNetSettings) -> dict[str, object]:
    folder = find_checkpoint(settings.model, settings.revision)
    config = dict(read_config(folder / "config.json"))
    if "ControlNet" not in str(config.get("_class_name")):
        raise RecipeError(
            f"ControlNet {settings.model!r} is {config.get('_class_name')!r} by its config.json; expected a ControlNet "
            "as diffusers' `save_pretrained` writes it."
        )
    return config


def _read_denoiser(settings: ConditionedSettings) -> tuple[dict[str, object], str]:
    """Settings and class of the model's UNet or transformer."""
    folder = find_pipeline(settings)
    part = "transformer" if "transformer" in read_index(folder) else "unet"
    config = dict(read_config(folder / part / "config.json"))
    return config, str(config.get("_class_name"))


def _share_adapted(base: PipelineSettings, adapter: IpAdapterSettings) -> SharedPipeline:
    key = base.model_dump_json() + adapter.model_dump_json(exclude={"scale"})
    if key not in _adapted:
        folder = _find_adapter(adapter)
        pipeline = load_pipeline(base)
        _load_adapter(pipeline, adapter, folder)
        _adapted[key] = SharedPipeline(pipeline)
    return _adapted[key]


def _find_adapter(adapter: IpAdapterSettings) -> Path:
    folder = find_checkpoint(adapter.model, adapter.revision)
    file = folder / adapter.subfolder / adapter.weight_name
    if not file.is_file():
        raise RecipeError(f"IP-Adapter {str(file)!r} is not there; set `subfolder` and `weight_name` in the recipe.")
    return folder


def _load_adapter(pipeline: DiffusionPipeline, adapter: IpAdapterSettings, folder: Path) -> None:
    load = getattr(pipeline, "load_ip_adapter", None)
    fault = f"{type(pipeline).__name__} takes none"
    if load is not None and "image_encoder_folder" in signature(load).parameters:
        try:
            with without_loading_bars():
                load(
                    str(folder),
                    subfolder=adapter.subfolder,
                    weight_name=adapter.weight_name,
                    image_encoder_folder=adapter.image_encoder,
                    local_files_only=True,
                )
            return
        except (OSError, ValueError, KeyError, RuntimeError, AttributeError, SafetensorError) as exc:
            fault = f"{type(exc).__name__}: {exc}"
    raise RecipeError(
        f"IP-Adapter {adapter.model!r} does not fit {type(pipeline).__name__} ({fault}); expected one that was trained "
        "on this kind of model, its image encoder in `image_encoder`."
    )


def _share_controlnet(settings: ControlNetSettings, base: PipelineSettings) -> ModelMixin:
    """One of its own for each base, as Z-Image's takes parts of the base into itself."""
    key = settings.model_dump_json(exclude={"mode"}) + base.model_dump_json()
    if key not in _controlnets:
        _controlnets[key] = _load_controlnet(settings, base)
    return _controlnets[key]


def _load_controlnet(settings: ControlNetSettings, base: PipelineSettings) -> ModelMixin:
    folder = find_checkpoint(settings.model, settings.revision)
    model_class = find_class("controlnet", str(_read_controlnet(settings)["_class_name"]), diffusers.ModelMixin)
    try:
        with without_loading_bars():
            return model_class.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                variant=settings.variant,
                torch_dtype=choose_dtype(base.dtype, resolve_device(base.device)),
            ).eval()
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise BrokenRunError(
            f"ControlNet {str(folder)!r} cannot be loaded as {model_class.__name__} ({exc}). Expected safetensors "
            f"weights, whole, of variant {settings.variant!r}; if they come from the Hub, fetch them again."
        ) from exc


def _build(
    pipeline_class: type[DiffusionPipeline],
    base: DiffusionPipeline,
    controlnet: ModelMixin | None,
    settings: PipelineSettings,
) -> DiffusionPipeline:
    parts = {**dict(base.config), **base.components, **({"controlnet": controlnet} if controlnet else {})}
    taken = {name: option for name, option in signature(pipeline_class.__init__).parameters.items() if name != "self"}
    missing = [name for name, option in taken.items() if option.default is Parameter.empty and name not in parts]
    if missing:
        raise RecipeError(
            f"{pipeline_class.__name__} needs {', '.join(missing)}, which {type(base).__name__} of model "
            f"{settings.model!r} does not have; change `pipeline`, or set `controlnet`."
        )
    pipeline = pipeline_class(**{name: parts[name] for name in taken if name in parts})
    pipeline.set_progress_bar_config(disable=True)
    place_pipeline(pipeline, settings, resolve_device(settings.device))
    return pipeline
