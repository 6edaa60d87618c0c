"""Single safetensors files of weights that a recipe names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import BrokenRunError, ModelNotFetchedError, RecipeError
from .checkpoints import find_checkpoint


def find_weights(model: str, revision: str | None, file: str) -> Path:
    """A file of a folder or of a Hub repository fetched earlier; never touches the network.

    Args:
        model: a folder, or a Hub id, `OWNER/NAME`.
        revision: branch, tag or commit of the Hub repository, None for its main branch.
        file: relative to the folder.

    Raises:
        RecipeError: no such folder, or no such file in it.
        ModelNotFetchedError: the Hub repository, or this file of it, is not in the cache.
    """
    folder = find_checkpoint(model, revision)
    path = folder / file
    if path.is_file():
        return path
    if not Path(model).expanduser().exists():
        name = f"{model}@{revision}" if revision else model
        raise ModelNotFetchedError(
            f"{file!r} of model {name!r} is not in the cache. Run `maskwright models fetch {name}` once, with a "
            "network; if it is not there then, the repository has no such file."
        )
    there = ", ".join(sorted(repr(other.name) for other in folder.glob("*.safetensors"))) or "no safetensors file"
    raise RecipeError(f"{file!r} is not in {str(folder)!r}, which holds {there}. Change the file's name in the recipe.")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, by its name, in the CPU's memory.

    Raises:
        BrokenRunError: the file is damaged or cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as exc:
        raise BrokenRunError(f"weights {str(path)!r} cannot be read ({exc}); fetch or copy them again") from exc
