"""A loop that was killed, stopped or finished: the same call goes on, and nothing is different in the end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from loop_helpers import BOLT, DOWN, NUT, SAME, UP, Gains, Killed, ScriptedMeter, run_small
from run_helpers import TRUTH, snapshot

from maskwright.graphs import loop, pipeline
from maskwright.graphs.loop import LoopOutcome, round_folder


def _kill_call(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> None:
    """One call of a function, counted from 1, does its work and never returns; those before and after do."""
    original, calls = getattr(owner, name), []

    def killed(*arguments: object, **options: object) -> object:
        result = original(*arguments, **options)
        calls.append(name)
        if len(calls) == number:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, killed)


KILLS: dict[str, Callable[[pytest.MonkeyPatch, ScriptedMeter], None]] = {
    "after the first round's run": lambda patch, _: _kill_call(patch, loop, "run_recipe", 1),
    "in the meter": lambda _, meter: setattr(meter, "killed_at", 2),
    "after the second round was decided": lambda patch, _: _kill_call(patch, loop, "write_loop", 4),
    "while the second round takes over": lambda patch, _: _kill_call(patch, os, "link", 5),
    "before the second round makes anything": lambda patch, _: _kill_call(patch, pipeline, "take_over", 1),
    "after the second round's run": lambda patch, _: _kill_call(patch, loop, "run_recipe", 2),
}
SCRIPT: Sequence[Gains] = [{BOLT: UP * 3, NUT: DOWN}, {BOLT: UP, NUT: SAME}, {}]


@pytest.fixture(scope="module")
def undisturbed() -> list[tuple[LoopOutcome, list[dict[str, bytes]]]]:
    """The loop that nobody killed and its rounds' files, once a test has made it."""
    return []


def _files(outcome: LoopOutcome) -> list[dict[str, bytes]]:
    return [snapshot(round_folder(outcome.folder, one.number), *TRUTH) for one in outcome.rounds]


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
def test_a_kill_between_any_two_steps_changes_nothing(
    kill: Callable[[pytest.MonkeyPatch, ScriptedMeter], None],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: list[tuple[LoopOutcome, list[dict[str, bytes]]]],
) -> None:
    if not undisturbed:
        whole = run_small(photographs, tmp_path / "whole", ScriptedMeter(SCRIPT), rounds=2)
        undisturbed.append((whole, _files(whole)))
    [(whole, files)] = undisturbed
    meter = ScriptedMeter(SCRIPT)
    with monkeypatch.context() as patch:
        kill(patch, meter)
        with pytest.raises(Killed):
            run_small(photographs, tmp_path / "killed", meter, rounds=2)
    resumed = run_small(photographs, tmp_path / "killed", meter, rounds=2)
    assert resumed.rounds == whole.rounds
    assert _files(resumed) == files
    assert [path.name for path in meter.measured] == ["round-1", "round-2"], "nothing is measured twice"


def test_a_finished_loop_makes_nothing_again_and_more_rounds_go_on(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = ScriptedMeter(SCRIPT)
    first = run_small(photographs, tmp_path / "loop", meter, rounds=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "run_recipe", None)
        assert run_small(photographs, tmp_path / "loop", meter, rounds=1) == first
    more = run_small(photographs, tmp_path / "loop", meter, rounds=2)
    assert [path.name for path in meter.measured] == ["round-1", "round-2"]
    assert more.rounds[0] == first.rounds[0]


def test_a_stop_is_an_interruption_and_the_same_call_goes_on(photographs: Path, tmp_path: Path) -> None:
    stop, meter = threading.Event(), ScriptedMeter(SCRIPT)
    stop.set()
    stopped = run_small(photographs, tmp_path / "loop", meter, rounds=2, stop=stop)
    assert (stopped.ended, stopped.exit_code, meter.measured) == ("interrupted", 130, [])
    assert run_small(photographs, tmp_path / "loop", meter, rounds=2).ended == "rounds done"
