"""Trained heads that ship with us: a small network on a locked one, read from its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import BrokenRunError

CONFIG_NAME = "config.json"

ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)
HeadT = TypeVar("HeadT", bound=nn.Module)


def read_head(
    folder: Path, weights_name: str, config_type: type[ConfigT], build: Callable[[ConfigT], HeadT], device: torch.device
) -> HeadT:
    """A head in evaluation mode, in float32 whatever its file holds.

    Raises:
        BrokenRunError: its folder is damaged.
    """
    try:
        config = msgspec.json.decode((folder / CONFIG_NAME).read_bytes(), type=config_type)
        head = build(config)
        head.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / weights_name).items()})
    except (OSError, msgspec.MsgspecError, SafetensorError, RuntimeError) as exc:
        raise BrokenRunError(f"head {str(folder)!r} cannot be loaded ({exc}); install maskwright again") from exc
    return head.eval().requires_grad_(False).to(device)
