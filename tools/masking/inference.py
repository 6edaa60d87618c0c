"""What maskers with a network share: loading it whole, and computing without gradients in the asked precision."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import msgspec
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from ...configs.masking import Precision
from ...errors import RecipeError
from ...models.loading import without_bars

Module = TypeVar("Module", bound=nn.Module)
Model = TypeVar("Model", bound=PreTrainedModel)
Processor = TypeVar("Processor", bound=ProcessorMixin)

_DTYPES: dict[Precision, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class _Config(msgspec.Struct):
    model_type: str = ""


@contextmanager
def inference(device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute without gradients; in less than float32 by autocast, so that weights stay exact and fragile steps too."""
    if precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        precision = "bfloat16"
    dtype = _DTYPES.get(precision)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
        yield


def freeze(module: Module, device: torch.device) -> Module:
    """The same network in evaluation mode, without gradients, on the device."""
    network: nn.Module = module
    network.eval().requires_grad_(False).to(device)
    return module


def load_whole(model_class: type[Model], kind: str, folder: Path, device: torch.device) -> Model:
    """A transformers model from a folder, in float32, evaluation mode and on the device.

    Args:
        kind: the `model_type` that the folder's config.json must name; `KIND_video`, in which SAM 2 and 3 are
            published, will do.

    Raises:
        RecipeError: the folder holds no such model, or one that lacks weights; transformers would draw them at random
            and go on.
    """
    _check_kind(kind, folder)
    try:
        with without_bars():
            loaded = model_class.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as exc:
        raise RecipeError(
            f"{str(folder)!r} cannot be loaded as {model_class.__name__} ({say_briefly(exc)}). Check `model` in the "
            "recipe."
        ) from exc
    model, report = cast(tuple[Model, dict[str, set[str]]], loaded)
    if missing := sorted(report["missing_keys"]):
        raise RecipeError(
            f"{str(folder)!r} lacks {len(missing)} weights of {model_class.__name__}, as {missing[0]!r}; fetch it "
            "again."
        )
    return freeze(model, device)


def _check_kind(kind: str, folder: Path) -> None:
    try:
        found = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config).model_type
    except (OSError, msgspec.MsgspecError) as exc:
        raise RecipeError(f"{str(folder)!r} has no config.json that can be read ({exc}). Check `model`.") from exc
    if found not in (kind, f"{kind}_video"):
        raise RecipeError(
            f"{str(folder)!r} holds a model of type {found!r}, expected {kind!r}. Check `model`, and `version` where "
            "there is one, in the recipe."
        )


def load_processor(processor_class: type[Processor], folder: Path) -> Processor:
    """What prepares pictures for a transformers model, from the model's folder.

    Raises:
        RecipeError: the folder lacks its files.
    """
    try:
        return processor_class.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as exc:
        raise RecipeError(
            f"{str(folder)!r} has no {processor_class.__name__} ({say_briefly(exc)}); expected the processor's files "
            "beside the weights, as its publisher saved them."
        ) from exc


def say_briefly(exc: BaseException) -> str:
    """An error of a library in one short line, with its kind."""
    return textwrap.shorten(f"{type(exc).__name__}: {exc}", 240, placeholder=" …")
