"""Weights of a finished network, kept so that a killed evaluation goes on and its networks can be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from ..data.files import write_atomically
from ..errors import RunFolderError

Network = TypeVar("Network", bound=nn.Module)


def kept_or_trained(path: Path, build: Callable[[], Network], train: Callable[[], Network]) -> Network:
    """The network in evaluation mode whose weights lie at `path`; else it is trained, and its weights are put there.

    Raises:
        RunFolderError: the file is damaged, or of another network.
    """
    if not path.is_file():
        network = train()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        write_atomically(path, save(weights))
        return network.eval()
    network = build()
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as exc:
        raise RunFolderError(f"weights {str(path)!r} cannot be read ({exc}); remove the file to train anew") from exc
    return network.eval()
