"""The closed loop: quotas follow gains, earlier instances stay, and nobody else's folder is touched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from loop_helpers import BOLT, DOWN, NUT, SAME, SEEDS, SMALL, UP, Gains, ScriptedMeter, instances_of, run_small
from run_helpers import TRUTH, snapshot

from maskwright.errors import RecipeError, RunFolderError
from maskwright.evaluation.gains import Verdict, judge_gain
from maskwright.evaluation.paired import PairedDifference, paired_difference
from maskwright.graphs import pipeline
from maskwright.graphs.earlier import take_over
from maskwright.graphs.loop import LoopOutcome, round_folder
from maskwright.graphs.loop_quotas import divide, share_by_gains


def _gain(mean: float, *, deviation: float = 0.01, seeds: Sequence[int] = SEEDS) -> PairedDifference:
    jitter = [deviation * (number - (len(seeds) - 1) / 2) for number in range(len(seeds))]
    with_synthetic = {seed: 0.5 + mean + one for seed, one in zip(seeds, jitter, strict=True)}
    return paired_difference(with_synthetic, dict.fromkeys(seeds, 0.5))


def _quotas(outcome: LoopOutcome) -> list[dict[str, int]]:
    return [one.quotas for one in outcome.rounds]


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        pytest.param(_gain(0.02), "gained", id="beyond its deviation"),
        pytest.param(_gain(-0.02), "lost", id="as far below"),
        pytest.param(_gain(0.02, deviation=0.03), "unknown", id="within it"),
        pytest.param(_gain(-0.02, deviation=0.03), "unknown", id="within it, below"),
        pytest.param(_gain(0.9, seeds=(1,)), "unknown", id="one seed"),
        pytest.param(paired_difference({}, {}), "unknown", id="no figure"),
    ],
)
def test_a_gain_counts_beyond_the_noise_of_its_seeds(gain: PairedDifference, verdict: Verdict) -> None:
    assert judge_gain(gain) == verdict


@pytest.mark.parametrize(
    ("gains", "shares"),
    [
        pytest.param({}, {"a": 20, "b": 10, "c": 10}, id="nothing known: as they were"),
        pytest.param({"a": _gain(0.2, deviation=0.3)}, {"a": 20, "b": 10, "c": 10}, id="noise moves nothing"),
        pytest.param({"a": _gain(0.2)}, {"a": 27, "b": 7, "c": 6}, id="the one that gained gets more"),
        pytest.param({"b": _gain(0.2), "c": _gain(0.1)}, {"a": 15, "b": 14, "c": 11}, id="in proportion to the gains"),
        pytest.param({"a": _gain(-0.2)}, {"a": 0, "b": 20, "c": 20}, id="the one that lost gets none"),
        pytest.param({name: _gain(-0.2) for name in "abc"}, {"a": 0, "b": 0, "c": 0}, id="all lost: nothing"),
    ],
)
def test_shares_follow_gains_and_the_budget_stays(gains: dict[str, PairedDifference], shares: dict[str, int]) -> None:
    assert share_by_gains({"a": 20, "b": 10, "c": 10}, gains) == shares


@pytest.mark.parametrize(
    ("total", "room", "dealt"),
    [
        pytest.param(10, {}, {"a": 5, "b": 5, "c": 0}, id="no bound"),
        pytest.param(10, {"a": 2}, {"a": 2, "b": 8, "c": 0}, id="what one cannot take goes to the other"),
        pytest.param(10, {"a": 2, "b": 3, "c": 9}, {"a": 2, "b": 3, "c": 0}, id="none without a weight"),
        pytest.param(3, {}, {"a": 2, "b": 1, "c": 0}, id="a tie goes to the first"),
        pytest.param(0, {"a": 0}, {"a": 0, "b": 0, "c": 0}, id="nothing to deal"),
    ],
)
def test_whole_numbers_within_their_room(total: int, room: dict[str, int], dealt: dict[str, int]) -> None:
    assert divide(total, {"a": 1.0, "b": 1.0, "c": 0.0}, room) == dealt


def test_a_round_makes_more_of_what_helped_on_top_of_what_there_is(photographs: Path, tmp_path: Path) -> None:
    meter = ScriptedMeter([{BOLT: UP * 3, NUT: DOWN}, {BOLT: UP, NUT: SAME}])
    outcome = run_small(photographs, tmp_path / "schleife ü", meter, rounds=2)
    assert (outcome.ended, outcome.exit_code) == ("rounds done", 0)
    assert _quotas(outcome) == [{BOLT: 2, NUT: 4}, {BOLT: 6, NUT: 0}]
    assert [one.accepted for one in outcome.rounds] == [6, 12]
    assert meter.measured == [round_folder(outcome.folder, number) for number in (1, 2)]
    first, second = map(instances_of, meter.measured)
    assert second.items() >= {name: {**one, "scenes": second[name]["scenes"]} for name, one in first.items()}.items()
    assert {one["category"] for name, one in second.items() if name not in first} == {BOLT}
    assert outcome.best == meter.measured[1]
    assert [judge_gain(gain) for gain in outcome.gains] == ["gained", "gained"]


def test_the_first_round_is_the_recipe_s_own_run(photographs: Path, tmp_path: Path) -> None:
    outcome = run_small(photographs, tmp_path / "loop", ScriptedMeter([{BOLT: UP}]), rounds=1)
    alone = pipeline.run_recipe("instances", data=photographs, out=tmp_path / "alone", overrides=SMALL)
    assert snapshot(round_folder(outcome.folder, 1), *TRUTH) == snapshot(alone.folder, *TRUTH)


@pytest.mark.parametrize(
    ("gains", "overrides", "ended"),
    [
        pytest.param({BOLT: SAME, NUT: SAME}, [], "within noise", id="a gain within the noise"),
        pytest.param({BOLT: DOWN, NUT: DOWN}, [], "nothing to add", id="every class lost"),
        pytest.param({BOLT: UP, NUT: UP}, ["plan.max_per_class=0"], "nothing accepted", id="nothing was made"),
        pytest.param({BOLT: UP, NUT: UP}, ["plan.max_per_class=1"], "nothing to add", id="no class has room"),
        pytest.param(
            {BOLT: UP, NUT: UP},
            ["budget.gpu_minutes=1e-9", "plan.wave_size=2"],
            "budget spent",
            id="the budget is spent",
        ),
    ],
)
def test_it_ends_after_the_first_round(
    gains: Gains, overrides: list[str], ended: str, photographs: Path, tmp_path: Path
) -> None:
    outcome = run_small(photographs, tmp_path / "loop", ScriptedMeter([gains]), *overrides, rounds=3)
    assert outcome.ended == ended
    assert len(outcome.rounds) == 1


def test_a_loop_that_ended_in_the_noise_goes_on_where_it_is_told_to(photographs: Path, tmp_path: Path) -> None:
    meter = ScriptedMeter([{BOLT: SAME, NUT: SAME}, {BOLT: SAME, NUT: SAME}])
    first = run_small(photographs, tmp_path / "loop", meter, rounds=2)
    second = run_small(photographs, tmp_path / "loop", meter, rounds=2, stop_within_noise=False)
    assert (first.ended, second.ended) == ("within noise", "rounds done")
    assert _quotas(second) == [{BOLT: 2, NUT: 4}] * 2
    assert meter.measured == [round_folder(tmp_path / "loop", number) for number in (1, 2)]


def test_the_control_makes_every_round_by_the_first_quotas(photographs: Path, tmp_path: Path) -> None:
    meter = ScriptedMeter([{BOLT: SAME, NUT: SAME}, {BOLT: UP * 3, NUT: DOWN}, {}])
    outcome = run_small(photographs, tmp_path / "loop", meter, rounds=3, reweight=False)
    assert outcome.ended == "rounds done"
    assert _quotas(outcome) == [{BOLT: 2, NUT: 4}] * 3
    assert [one.accepted for one in outcome.rounds] == [6, 12, 18]
    assert all(not one.retired_sources for one in outcome.rounds)


@pytest.mark.parametrize(
    ("options", "overrides", "error", "message"),
    [
        pytest.param({"rounds": 0}, [], RecipeError, "at least 1", id="no round"),
        pytest.param({"rounds": 2}, ["budget.items=3"], RecipeError, "budget.items is 3", id="a limit of items"),
        pytest.param(
            {"rounds": 1, "resume": "always"}, [], RunFolderError, "no loop to resume", id="nothing to resume"
        ),
    ],
)
def test_a_loop_that_cannot_be_is_refused_before_anything_is_made(
    options: dict[str, object],
    overrides: list[str],
    error: type[Exception],
    message: str,
    photographs: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        run_small(photographs, tmp_path / "loop", ScriptedMeter([]), *overrides, **options)
    assert not (tmp_path / "loop").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"notes.txt": b"mine"}, "no loop of ours", id="somebody's files"),
        pytest.param({"loop.json": b"{}"}, "no loop of ours", id="another program's loop.json"),
    ],
)
def test_a_folder_of_others_is_left_alone(
    content: dict[str, bytes], message: str, photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "loop"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_bytes(text)
    with pytest.raises(RunFolderError, match=message):
        run_small(photographs, folder, ScriptedMeter([]), rounds=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


def test_another_loop_s_folder_is_refused(photographs: Path, tmp_path: Path) -> None:
    meter = ScriptedMeter([{BOLT: UP}])
    run_small(photographs, tmp_path / "loop", meter, rounds=1)
    for options in ({"reweight": False}, {"seed": 7}, {"resume": "never"}):
        with pytest.raises(RunFolderError, match="give another --out"):
            run_small(photographs, tmp_path / "loop", meter, rounds=1, **options)


def test_taking_over_copies_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier, folder = tmp_path / "früher", tmp_path / "später"
    (earlier / "items" / "ab").mkdir(parents=True)
    (earlier / "items" / "ab" / "x.json").write_bytes(b"{}")
    (earlier / "items" / "ab" / "y.json.partial").write_bytes(b"{")

    def refuse(*paths: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    take_over(earlier, folder)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["x.json"]
    assert (folder / "items" / "ab" / "x.json").read_bytes() == b"{}"
