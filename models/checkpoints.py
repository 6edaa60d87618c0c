"""Weights that a recipe names: a folder or file of the user's, or a Hub repository fetched earlier."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import ModelFetchError, RecipeError, UnknownModelError
from .catalogue import HubSource, find_model
from .fetch import locate_model

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAMPLE_BYTES = 1 << 16


def find_checkpoint(model: str, revision: str | None = None) -> Path:
    """The folder or file that a `model:` setting means; never touches the network.

    Args:
        model: a path, `~` allowed, or a Hub id, `OWNER/NAME`; a path that exists goes first.
        revision: branch, tag or commit of the Hub repository, None for its main branch; a path has none.

    Raises:
        RecipeError: neither a path that exists nor a Hub id.
        ModelNotFetchedError: the Hub repository is not in the cache; the message says how to fetch it.
    """
    path = Path(model).expanduser()
    if model and path.exists():
        return path
    name = f"{model}@{revision}" if revision else model
    try:
        is_hub_id = isinstance(find_model(name).source, HubSource)
        if is_hub_id:
            return locate_model(name)
    except (UnknownModelError, ModelFetchError):
        pass
    raise RecipeError(
        f"model {name!r} is neither a folder or file here nor a Hub id; expected a path that exists, or OWNER/NAME "
        "with its branch, tag or commit in `revision`."
    )


def checkpoint_revision(path: Path) -> str:
    """Version of a checkpoint's files, for the provenance.

    The commit of a Hub snapshot; else the first 12 hex digits of a sha256 over every file's name, size and both ends,
    64 KiB each, which other settings and other weights change and which stays quick at 30 GB.
    """
    if path.parent.name == "snapshots" and _COMMIT.fullmatch(path.name):
        return path.name
    digest = hashlib.sha256()
    for file in _visible_files(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(_ends(file))
    return digest.hexdigest()[:12]


def _visible_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [file for file in path.rglob("*") if file.is_file()]
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _ends(file: Path) -> bytes:
    with file.open("rb") as stream:
        head = stream.read(_SAMPLE_BYTES)
        stream.seek(max(stream.tell(), file.stat().st_size - _SAMPLE_BYTES))
        return head + stream.read()
