"""The process that ultralytics runs in, seen from outside: started, listened to, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from .. import errors
from ..errors import BrokenRunError, MaskwrightError
from .yolo_protocol import Event, Job

WORKER = (sys.executable, "-m", "maskwright.evaluation.yolo_worker")
SECONDS_TO_END = 10
TAIL_LINES = 15
_SETTINGS_FOLDER = ".ultralytics"
_RANKS = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE"})
"""Of a torchrun that we may be part of; ultralytics would join it."""


def run_worker(job: Job, folder: Path, log: Path, command: Sequence[str] = WORKER) -> Generator[Event, None, None]:
    """Start a worker and yield its events, the last one its result; the worker ends when the iterator is closed.

    Args:
        folder: exists; the worker's working folder, in which ultralytics keeps its settings.
        log: gets what the worker prints, after what is there.

    Raises:
        MaskwrightError: as the worker raised it.
        BrokenRunError: the worker died.
    """
    with (
        open(log, "ab") as log_file,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            cwd=folder,
            env=_environment(folder, job["threads"]),
        ) as worker,
    ):
        try:
            yield from _listen(worker, job)
            exit_code = worker.wait()
        finally:
            _end(worker)
    if exit_code:
        raise BrokenRunError(_how_it_died(exit_code, log))


def _environment(folder: Path, threads: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _RANKS}
    return {
        "OMP_NUM_THREADS": str(threads),  # unless the user set it
        **inherited,
        "YOLO_CONFIG_DIR": str(folder / _SETTINGS_FOLDER),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "PYTHONIOENCODING": "utf-8",
    }


def _listen(worker: subprocess.Popen[bytes], job: Job) -> Iterator[Event]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(BrokenPipeError):  # it died before it read; its exit code says so
        worker.stdin.write(json.dumps(job).encode() + b"\n")
        worker.stdin.flush()
    for line in worker.stdout:
        event: Event = json.loads(line)
        if event["event"] == "error":
            raise _to_error(event["kind"], event["message"])
        yield event


def _to_error(kind: str, message: str) -> MaskwrightError:
    found = getattr(errors, kind, BrokenRunError)
    return found(message) if issubclass(found, MaskwrightError) else BrokenRunError(message)


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Its stdin stays open until now, because it ends with it."""
    if worker.poll() is None:
        worker.send_signal(signal.SIGINT)
        try:
            worker.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            worker.kill()
    if worker.stdin is not None:
        with suppress(BrokenPipeError):
            worker.stdin.close()


def _how_it_died(exit_code: int, log: Path) -> str:
    how = f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    tail = "\n".join(line for line in lines[-TAIL_LINES:] if line.strip())
    hint = " Out of memory, most likely: set a smaller `batch`." if exit_code == -signal.SIGKILL else ""
    return (
        f"the process of ultralytics ended {how}.{hint} Run again; a training goes on at its last checkpoint. "
        f"Its log {str(log)!r} ends in:\n{tail}"
    )
