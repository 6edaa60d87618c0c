"""Which models a YOLO detector starts from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from ..errors import RecipeError
from ..models.fetch import locate_model

OWN_MODELS: Final = ("yolo11n-lite0-seg.yaml", "yolo11n-lite0.yaml")
"""Files beside this one: neck and head of a nano YOLO on a backbone that knows ImageNet, for masks and for boxes."""


def resolve_model(name: str) -> str:
    """The absolute path of a model file, one of `OWN_MODELS` too, or the name of a YAML that ultralytics may ship.

    Raises:
        RecipeError: it is neither; ultralytics would try to download it.
        ModelNotFetchedError: it is one of ours, and lite0 is not in the cache.
    """
    if name in OWN_MODELS:
        locate_model("lite0")
        return str(Path(__file__).with_name(name))
    path = Path(name).expanduser()
    if path.is_file() and path.suffix in {".pt", ".yaml", ".yml"}:
        return str(path.absolute())
    if path.suffix in {".yaml", ".yml"} and path.name == name:
        return name
    raise RecipeError(
        f"model {name!r} is no file; expected the path of a .pt or .yaml file, or the name of a YAML of ultralytics, "
        f"such as 'yolo11n-seg.yaml', or of ours: {', '.join(OWN_MODELS)}. Weights are not downloaded: fetch the file "
        "and give its path."
    )


def identify_model(resolved: str) -> str:
    """A file by its content, anything else by its name."""
    path = Path(resolved)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else resolved
