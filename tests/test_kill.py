"""SIGKILL at any moment: the next run ends with the accepted set of an undisturbed one, file by file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_helpers import QUICK, TRUTH, snapshot

from maskwright.graphs.pipeline import run_recipe


def _command(data: Path, out: Path) -> list[str]:
    settings = [part for setting in QUICK for part in ("--set", setting)]
    arguments = ["run", "instances", "--data", str(data), "--out", str(out), *settings]
    return [sys.executable, "-c", "from maskwright.cli import main; main()", *arguments]


def _kill_when(moment: Callable[[], bool], command: list[str]) -> bool:
    """Start the command, kill it once the moment comes; False where it ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not moment():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def _count_files(folder: Path) -> int:
    """Files below a folder that somebody else is changing."""
    return sum(len(files) for _, _, files in os.walk(folder))


def _check_same(data: Path, killed: Path, undisturbed: Path) -> None:
    resumed = run_recipe("instances", data=data, out=killed, overrides=QUICK)
    assert resumed.exit_code == 0
    assert snapshot(killed, *TRUTH) == snapshot(undisturbed, *TRUTH)
    left = [path for path in killed.rglob("*") if ".partial" in path.name or ".replaced" in path.name]
    assert left == []


@pytest.fixture
def undisturbed(photographs: Path, tmp_path: Path) -> Path:
    return run_recipe("instances", data=photographs, out=tmp_path / "undisturbed", overrides=QUICK).folder


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(lambda run: len(list(run.glob("items/*/*.json"))) >= 5, id="in the middle of making"),
        pytest.param(lambda run: len(list(run.glob("scenes/*/*.json"))) >= 2, id="in the middle of composing"),
        pytest.param(lambda run: (run / "dataset.partial" / "coco").is_dir(), id="in the middle of the export"),
        pytest.param(lambda run: (run / "dataset").is_dir(), id="between the export and its provenance"),
    ],
)
def test_a_kill_loses_nothing(
    moment: Callable[[Path], bool], photographs: Path, tmp_path: Path, undisturbed: Path
) -> None:
    killed = tmp_path / "killed"
    assert _kill_when(lambda: moment(killed), _command(photographs, killed))
    _check_same(photographs, killed, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_a_random_moment_loses_nothing(
    seed: int, photographs: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """The moment is a random number of files written, from none to all, so that slow and fast machines hit alike."""
    at_files = random.Random(seed).randrange(_count_files(undisturbed))
    killed = tmp_path / "killed"
    _kill_when(lambda: killed.is_dir() and _count_files(killed) >= at_files, _command(photographs, killed))
    _check_same(photographs, killed, undisturbed)


def test_ctrl_c_drains_with_exit_code_130_and_says_how_to_go_on(
    photographs: Path, tmp_path: Path, undisturbed: Path
) -> None:
    out = tmp_path / "killed"
    command = [*_command(photographs, out), "--set", "plan.at_least=15", "--set", "budget.workers=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob("items/*/*.json")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "goes on where it stopped" in stdout
    assert "Traceback" not in stderr
