"""The masker by BiRefNet and its kin: a soft alpha of what stands out, from a network that brings its own code."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import msgspec
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import interpolate
from transformers import PreTrainedConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from ...configs.masking import BirefnetSettings
from ...data.records import ImageRGB
from ...errors import MissingDependencyError, RecipeError
from ...models.checkpoints import checkpoint_revision, find_checkpoint
from ...models.device import resolve_device, run_in_batches
from ..protocols import Masked, MaskRequest
from .composites import Alpha, alpha_to_masked, to_opaque
from .inference import freeze, inference, say_briefly

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS_NAME = "model.safetensors"
_CLASS_KEYS = ("AutoModelForImageSegmentation", "AutoModel")
_IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
_BROKEN = (
    *(OSError, ValueError, RuntimeError, AttributeError, TypeError, LookupError, NameError, SyntaxError),
    *(SafetensorError, msgspec.MsgspecError),
)
"""What a damaged folder raises, or code that this transformers is too new for."""
_lock = threading.Lock()


class _Config(msgspec.Struct):
    auto_map: dict[str, object] = {}


class _NetworkClass(Protocol):
    config_class: type[PreTrainedConfig]

    def __call__(self, config: PreTrainedConfig) -> nn.Module: ...


class BirefnetMasker:
    """A soft alpha by a network such as BiRefNet (arXiv 2401.03407), whose last output is taken."""

    name = "birefnet"

    def __init__(self, settings: BirefnetSettings) -> None:
        """Loads nothing yet, and runs none of the model's code.

        Raises:
            RecipeError: the code is not trusted, or not pinned.
        """
        _check_trust(settings)
        self._settings = settings

    @functools.cached_property
    def revision(self) -> str:
        return checkpoint_revision(find_checkpoint(self._settings.model, self._settings.revision))

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        """One mask a request, in order.

        Raises:
            RecipeError: the folder holds no such network, or only part of it.
            MissingDependencyError: its code imports a package that is not installed.
            ModelNotFetchedError: it is not in the cache.
            BrokenRunError: no such device, or its memory does not hold one picture.
        """
        return run_in_batches(self._mask, requests, self._settings.batch_size)

    def _mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        settings = self._settings
        device = resolve_device(settings.device)
        folder = find_checkpoint(settings.model, settings.revision)
        network = _load_shared(folder, device)
        pixels = torch.stack([to_input(to_opaque(request.rgba), settings.side_px) for request in requests])
        with inference(device, settings.dtype):
            logits = _last_logits(network(pixels.to(device)), len(requests), folder)
            shares = logits.float().sigmoid().nan_to_num().cpu()
        return [
            alpha_to_masked(to_alpha(share, *request.rgba.shape[:2]))
            for share, request in zip(shares, requests, strict=True)
        ]


def _check_trust(settings: BirefnetSettings) -> None:
    if not settings.trust_remote_code:
        raise RecipeError(
            f"model {settings.model!r} runs Python code of its own, with your rights. Read it; then set "
            "`trust_remote_code: true` and, for a repository of the Hub, `revision` to the commit that you read."
        )
    is_local = Path(settings.model).expanduser().exists()
    if not is_local and not _COMMIT.fullmatch(settings.revision or ""):
        raise RecipeError(
            f"{settings.model!r} is no folder here, and revision {settings.revision!r} does not pin the code of a Hub "
            "repository; expected a full commit, 40 hexadecimal digits, as its page lists them under `commits`."
        )


def to_input(rgb: ImageRGB, side_px: int) -> torch.Tensor:
    """Stretch a picture into the square that the network sees: (3, side, side) float32, ImageNet's mean and spread."""
    square = Image.fromarray(rgb).resize((side_px, side_px), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
    return (pixels - _IMAGENET_MEAN) / _IMAGENET_STD


def to_alpha(share: torch.Tensor, height: int, width: int) -> Alpha:
    """(1, side, side) float32 in [0, 1] back to the picture's size, as 8-bit alpha."""
    resized = interpolate(share[None], (height, width), mode="bilinear", antialias=True)[0, 0]
    return np.asarray((resized * 255).round().byte().numpy())


def _last_logits(output: object, count: int, folder: Path) -> torch.Tensor:
    last = output[-1] if isinstance(output, list | tuple) else output
    if not isinstance(last, torch.Tensor) or last.ndim != 4 or last.shape[:2] != (count, 1):
        found = tuple(last.shape) if isinstance(last, torch.Tensor) else type(last).__name__
        raise RecipeError(
            f"the network of {str(folder)!r} gives {found!r}; expected a list whose last entry is the logits of "
            f"{count} masks, of shape ({count}, 1, height, width). Check `model` in the recipe."
        )
    return last


def _load_shared(folder: Path, device: torch.device) -> nn.Module:
    with _lock:
        return _load(folder, device)


@functools.cache
def _load(folder: Path, device: torch.device) -> nn.Module:
    return freeze(load_own_code(folder), device)


def load_own_code(folder: Path) -> nn.Module:
    """Build the network by the code in its folder and fill it from `model.safetensors`, on the CPU in float32.

    Its code was written for `from_pretrained` of older transformers, whose successor builds networks on the meta
    device, where much of it fails; so it is called by itself.

    Raises:
        RecipeError: the folder lacks code or weights, or they do not belong together.
        MissingDependencyError: the code imports a package that is not installed.
    """
    try:
        found = get_class_from_dynamic_module(_own_class(folder), str(folder), local_files_only=True)
        network_class = cast(_NetworkClass, found)
        network = network_class(network_class.config_class.from_pretrained(folder))
        missing, _ = network.float().load_state_dict(load_file(folder / _WEIGHTS_NAME), strict=False)
    except ImportError as exc:
        raise MissingDependencyError(f"the code of {str(folder)!r} cannot be imported: {exc}") from exc
    except _BROKEN as exc:
        raise RecipeError(
            f"the network of {str(folder)!r} cannot be loaded ({say_briefly(exc)}); expected config.json, "
            f"its Python code and {_WEIGHTS_NAME}. Check `model` in the recipe."
        ) from exc
    if missing:
        raise RecipeError(
            f"{str(folder / _WEIGHTS_NAME)!r} lacks {len(missing)} weights of its network, as {missing[0]!r}; fetch "
            "it again."
        )
    return network


def _own_class(folder: Path) -> str:
    """`module.Class` of the network, as config.json's `auto_map` names it."""
    auto_map = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config).auto_map
    named = next((auto_map[key] for key in _CLASS_KEYS if key in auto_map), None)
    if not isinstance(named, str):
        raise RecipeError(
            f"{str(folder / 'config.json')!r} names no network of its own; expected `auto_map` with one of "
            f"{', '.join(_CLASS_KEYS)}."
        )
    if "--" in named:
        raise RecipeError(
            f"{str(folder / 'config.json')!r} takes its code from another repository, {named!r}, which `revision` "
            "does not pin; expected the code beside the weights."
        )
    return named
