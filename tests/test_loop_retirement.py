"""What did not help is left behind: prompts in the memory, sources in the next rounds' settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from loop_helpers import BOLT, DOWN, NUT, SAME, SMALL, UP, ScriptedMeter, instances_of, run_small
from memory_helpers import chroma, ids, record
from model_helpers import fetched
from text_helpers import ScriptedTextPainter, register

from maskwright.configs.memory import MemorySettings
from maskwright.graphs.loop import round_folder, run_loop
from maskwright.graphs.retirement import prompts_to_retire
from maskwright.memory.browse import summarize
from maskwright.memory.prompt_history import open_existing_history


@pytest.mark.parametrize("retire", [True, False], ids=["switched on", "switched off"])
def test_a_class_that_lost_returns_without_the_worse_half_of_its_sources(
    retire: bool, photographs: Path, tmp_path: Path
) -> None:
    meter = ScriptedMeter([{BOLT: UP * 3, NUT: DOWN}, {BOLT: UP, NUT: SAME}, {}])
    outcome = run_small(photographs, tmp_path / "loop", meter, rounds=3, retire=retire)
    retired = outcome.rounds[1].retired_sources
    assert len(retired) == retire, "of the two that the class has"
    second, third = (instances_of(round_folder(outcome.folder, number)) for number in (2, 3))
    new = [one for name, one in third.items() if name not in second and one["category"] == NUT]
    assert len(new) == outcome.rounds[2].quotas[NUT] > 0
    used = {one["parent"]["annotation_id"] for one in new}  # type: ignore[index]
    assert used.isdisjoint(retired)
    assert len(used) == 2 - retire


def test_a_retired_prompt_is_no_example_any_more_and_stays_retired(tmp_path: Path) -> None:
    history = chroma(tmp_path / "Gedächtnis ü")
    good, better = record("r-1", kept=3), record("r-2", kept=4)
    history.upsert([good, better])
    before = history.snapshot("run-9")
    history.retire(["r-2", "unknown"], "its class lost", "run-1")
    assert ids(history.recall("apple").best) == ["r-1"]
    assert ids(history.recall("apple", history.snapshot("run-9")).best) == ["r-1"]
    assert ids(history.recall("apple", before).best) == ["r-2", "r-1"], "a run sees the memory as it stood"
    assert not history.is_novel("apple", better.prompt), "it is still known"
    history.upsert([good, better])
    history.retire(["r-2"], "again", "run-2")
    [_, kept] = history.records()
    assert kept.retired is not None
    assert kept.retired.reason == "its class lost"
    [summary] = summarize(history.records())
    assert (summary.num_prompts, summary.num_retired, summary.best.record_id) == (2, 1, "r-1")


def test_the_worse_half_of_the_prompts_that_gaveinstances_of_goes(tmp_path: Path) -> None:
    history = chroma(tmp_path / "memory")
    history.upsert(
        [
            record("a", kept=4),
            record("b", kept=2, scores={"image_text": 0.9}),
            record("c", kept=2, scores={"image_text": 0.1}),
            record("d", kept=0),
            record("e", kept=1, run_id="another run"),
            record("f", "pear", kept=1),
        ]
    )
    assert prompts_to_retire(history, "run-1", ["apple", "pear"]) == ["c"]
    history.retire(["c"], "its class lost", "run-1")
    assert prompts_to_retire(history, "run-1", ["apple"]) == ["b"]


def test_both_agents_go_round_and_prompts_are_retired_in_memory(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched("minilm")
    memory = tmp_path / "gedächtnis"
    settings = [
        *SMALL,
        f"plan.extra={{{BOLT}: 2, {NUT}: 12}}",
        "agents.text_agent.images_per_prompt=2",
        f"memory.path={memory}",
        *register(monkeypatch, ScriptedTextPainter()),
    ]
    meter = ScriptedMeter([{BOLT: UP * 3, NUT: DOWN}, {BOLT: UP, NUT: SAME}])
    outcome = run_loop("instada", data=photographs, out=tmp_path / "loop", measure=meter, overrides=settings, rounds=2)
    retired = set(outcome.rounds[1].retired_prompts)
    records = open_existing_history(MemorySettings(path=memory)).records()
    assert retired == {one.record_id for one in records if one.retired}
    assert retired
    assert {one.category for one in records if one.retired} == {NUT}
    assert len({one.run_id for one in records}) == 1, "to the memory a loop is one run, so that nothing is there twice"
    first, second = (set(instances_of(round_folder(outcome.folder, number))) for number in (1, 2))
    assert first < second
