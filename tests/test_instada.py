"""Both agents from data set to data set: quotas shared, prompts remembered, budgets kept, kills survived."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from model_helpers import fetched
from run_helpers import TRUTH, snapshot
from text_helpers import INPUT_TOKENS, ScriptedScorer, ScriptedTextPainter, breaks, good, poor, register

from maskwright.configs.memory import MemorySettings
from maskwright.graphs.pipeline import RunOutcome, run_recipe
from maskwright.memory.prompt_history import open_existing_history
from maskwright.tools.protocols import Painted, PaintRequest

QUICK = [
    "plan.at_least=14",
    "plan.wave_size=4",
    "compose.instances_per_scene=[1,3]",
    "agents.text_agent.images_per_prompt=2",
    "budget.workers=2",
]
NO_MEMORY = "memory.enabled=false"
Json = dict[str, Any]


class FailsAlone(ScriptedTextPainter):
    """Breaks down over one item and paints the others."""

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        if any(request.item_id == "text-7-0001" for request in requests):
            raise RuntimeError("out of luck")
        return super().paint(requests)


@dataclass
class StopsAfter(ScriptedTextPainter):
    """Asks for a stop at one of its batches, as Ctrl-C does in the middle of a wave."""

    left: int = 1
    stop: threading.Event = field(default_factory=threading.Event)

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        self.left -= 1
        if not self.left:
            self.stop.set()
        return super().paint(requests)


@pytest.fixture
def memory(tmp_path: Path) -> str:
    """The setting of a memory of the test's own, with the real embeddings."""
    fetched("minilm")
    return f"memory.path={tmp_path / 'gedächtnis'}"


def _run(
    data: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    *overrides: str,
    painter: ScriptedTextPainter | None = None,
    scorer: ScriptedScorer | None = None,
    **options: object,
) -> RunOutcome:
    backends = register(monkeypatch, painter or ScriptedTextPainter(), scorer)
    settings = [*QUICK, *backends, *overrides]
    return run_recipe("instada", data=data, out=out, overrides=settings, **options)  # type: ignore[arg-type]


def _lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _items(folder: Path) -> dict[str, Json]:
    """The ledger's items without what depends on the clock."""
    items = {path.stem: json.loads(path.read_bytes()) for path in sorted((folder / "items").rglob("*.json"))}
    for item in items.values():
        item["seconds"] = item["cost"]["device_seconds"] = 0
    return items


def _result(folder: Path) -> Mapping[str, object]:
    """What a run came to, without what depends on the clock."""
    files = snapshot(folder, *TRUTH[1:], "elements")
    files.pop("dataset/README.md")
    return {**files, **_items(folder)}


def _counts(outcome: RunOutcome) -> Json:
    items: Json = outcome.content["items"]  # type: ignore[assignment]
    return items


@pytest.fixture
def undisturbed(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOutcome:
    return _run(photographs, tmp_path / "undisturbed", monkeypatch, NO_MEMORY)


def test_both_agents_fill_the_quotas(undisturbed: RunOutcome) -> None:
    assert undisturbed.exit_code == 0
    assert [c["shortfall"] for c in undisturbed.content["classes"]] == [0, 0]  # type: ignore[attr-defined]
    painters: Json = undisturbed.content["painters"]  # type: ignore[assignment]
    assert painters["text_agent"] == {"name": "scripted", "revision": "1", "masker": "alpha"}
    assert (painters["image_agent"]["name"], painters["image_agent"]["masker"]) == ("variation", "alpha")
    counts = _counts(undisturbed)
    assert counts["spared"] == 3, "two of two were kept, where one was expected"
    assert counts["accepted"] + counts["spared"] == counts["planned"]
    agents = [item["item"]["agent"] for item in _items(undisturbed.folder).values()]
    assert {agent: agents.count(agent) for agent in set(agents)} == {"text_agent": 4, "image_agent": 7}
    assert (undisturbed.folder / "report.html").stat().st_size > 10_000


def test_every_painted_instance_tells_its_prompt(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = ScriptedTextPainter([poor] * 4 + [good])
    outcome = _run(photographs, tmp_path / "run", monkeypatch, NO_MEMORY, painter=painter)
    provenance = _lines(outcome.folder / "dataset" / "provenance.jsonl")
    painted = [entry for entry in provenance if entry["agent"] == "text_agent"]
    varied = [entry for entry in provenance if entry["agent"] == "image_agent"]
    assert {entry["prompt"] for entry in varied} == {None}
    assert all(entry["parent"] is None and entry["licence"]["source"].startswith("none") for entry in painted)
    requests = {request.seed: request for request in painter.requests}
    for entry in painted:
        assert entry["prompt"]["prompt"] == requests[entry["seed"]].prompt
        assert len(entry["prompt_lineage"]) == entry["round"] - 1
        assert entry["scores"]["image_text"] == pytest.approx(0.9, abs=0.01)
        assert "image_image" in entry["scores"]
        assert entry["scenes"]
    assert {entry["round"] for entry in painted} == {1, 2}
    lineages = [entry["prompt_lineage"] for entry in painted if entry["round"] == 2]
    assert all(lineage[0].startswith("a single ") for lineage in lineages)


def test_the_trace_is_a_tree_without_pixels(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = ScriptedTextPainter([poor] * 4 + [good])
    folder = _run(photographs, tmp_path / "run", monkeypatch, NO_MEMORY, painter=painter).folder
    spans = _lines(folder / "trace.jsonl")
    kinds = {span["id"]: span["kind"] for span in spans}
    assert len(kinds) == len(spans)
    above = {"run": None, "agent": "run", "item": "agent", "round": "item"}
    seen: set[str | None] = {None}
    for span in spans:
        assert span["parent"] in seen
        assert (kinds[span["parent"]] if span["parent"] else None) == above[span["kind"]]
        seen.add(span["id"])
    rounds = [span for span in spans if span["kind"] == "round" and span["parent"].startswith("text-")]
    assert {len(span["images"]) for span in rounds} == {2}
    assert all(span["prompt"] and span["rung"] == "extract" for span in rounds)
    images = [image for span in rounds for image in span["images"]]
    assert {image["verdict"] for image in images} == {"accept", "reject"}
    assert all((folder / image["thumbnail"]).is_file() for image in images)
    assert all(image["reasons"] for image in images if image["verdict"] == "reject")
    assert max(map(len, (folder / "trace.jsonl").read_text().splitlines())) < 10_000


def test_costs_are_summed_and_shared_by_the_accepted(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    price = "budget.prices={'text_helpers:make_writer': {input: 1000, output: 0}}"
    outcome = _run(photographs, tmp_path / "run", monkeypatch, NO_MEMORY, price)
    costs: Json = outcome.content["costs"]  # type: ignore[assignment]
    assert costs["llm_calls"] == 2 * 3 + 4, "two classes planned, four prompts written"
    assert costs["input_tokens"] == INPUT_TOKENS * costs["llm_calls"]
    assert costs["usd"] == pytest.approx(costs["input_tokens"] * 1000 / 1e6)
    assert costs["usd_per_accepted"] == pytest.approx(costs["usd"] / outcome.content["accepted"], abs=1e-6)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("tight", "loose", "says"),
    [
        pytest.param("budget.usd=0.01", "budget.usd=9", "budget.usd=0.01 is spent", id="money"),
        pytest.param("budget.gpu_minutes=0.0000001", "budget.gpu_minutes=9", "budget.gpu_minutes=1e-07", id="time"),
    ],
)
def test_a_spent_budget_stops_cleanly_and_a_higher_one_goes_on(
    tight: str, loose: str, says: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    undisturbed: RunOutcome,
) -> None:  # fmt: skip
    settings = (NO_MEMORY, "budget.prices={'text_helpers:make_writer': {input: 1000}}")
    part = _run(photographs, tmp_path / "run", monkeypatch, *settings, tight)
    assert (part.exit_code, part.content["status"]) == (3, "partial")
    assert any(says in hint and "higher limit" in hint for hint in part.content["hints"])  # type: ignore[attr-defined]
    assert 0 < len(_items(part.folder)) < len(_items(undisturbed.folder))
    assert (part.folder / "dataset" / "provenance.jsonl").is_file(), "what there is is exported"
    again = _run(photographs, tmp_path / "run", monkeypatch, *settings, tight)
    assert (again.exit_code, _items(again.folder)) == (3, _items(part.folder)), "the same limit spends nothing more"
    whole = _run(photographs, tmp_path / "run", monkeypatch, *settings, loose)
    assert whole.exit_code == 0
    assert _result(whole.folder) == _result(undisturbed.folder)


def test_one_failing_item_does_not_stop_the_others_and_is_tried_again(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: RunOutcome
) -> None:
    broken = _run(photographs, tmp_path / "run", monkeypatch, NO_MEMORY, painter=FailsAlone())
    assert broken.exit_code == 3
    failed = [item for item in _items(broken.folder).values() if item["ending"] == "failed"]
    assert [item["item"]["item_id"] for item in failed] == ["text-7-0001"]
    assert failed[0]["reason"] == "paint: RuntimeError: out of luck"
    mended = _run(photographs, tmp_path / "run", monkeypatch, NO_MEMORY)
    assert (mended.exit_code, _counts(mended)["failed"]) == (0, 0)


@pytest.mark.parametrize("unknown_to", ["painter", "scorer"])
def test_a_class_that_is_not_known_goes_to_the_i_agent(
    unknown_to: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bolt = frozenset({"bolt"})
    backends = {
        "painter": ScriptedTextPainter(unknown=bolt if unknown_to == "painter" else frozenset()),
        "scorer": ScriptedScorer(unknown=bolt if unknown_to == "scorer" else frozenset()),
    }
    outcome = _run(photographs, tmp_path / "run", monkeypatch, NO_MEMORY, **backends)  # type: ignore[arg-type]
    assert outcome.exit_code == 0
    made = [item["item"] for item in _items(outcome.folder).values() if item["item"]["category"] == "bolt"]
    assert [item["agent"] for item in made] == ["image_agent", "image_agent"]


def test_a_broken_painter_is_no_reason_to_accept(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = ScriptedTextPainter([breaks(RuntimeError("out of luck"))])
    outcome = _run(photographs, tmp_path / "run", monkeypatch, NO_MEMORY, painter=painter)
    assert outcome.exit_code == 3
    made = _lines(outcome.folder / "dataset" / "provenance.jsonl")
    assert {entry["agent"] for entry in made} == {"image_agent"}


@pytest.mark.parametrize("after", [1, 3], ids=["first batch", "third batch"])
def test_a_stopped_run_goes_on_to_the_result_of_an_undisturbed_one(
    after: int, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    by_seed = ScriptedTextPainter([lambda request: good(request) if request.seed % 3 else poor(request)])
    strict = "agents.text_agent.min_yield=1"
    whole = _run(photographs, tmp_path / "whole", monkeypatch, strict, memory + "-1", painter=by_seed)
    painter = StopsAfter(by_seed.script, left=after)
    settings = (strict, memory + "-2")
    stopped = _run(photographs, tmp_path / "run", monkeypatch, *settings, painter=painter, stop=painter.stop)
    assert (stopped.exit_code, stopped.content["status"]) == (130, "interrupted")
    assert 0 < len(_items(stopped.folder)) < len(_items(whole.folder))
    resumed = _run(photographs, tmp_path / "run", monkeypatch, *settings, painter=by_seed)
    assert resumed.exit_code == whole.exit_code
    assert any(len(item["rounds"]) > 1 for item in _items(whole.folder).values())
    assert _result(resumed.folder) == _result(whole.folder)
    assert _remembered(memory + "-2") == _remembered(memory + "-1")


def _remembered(setting: str) -> list[tuple[str, int, float]]:
    """Prompts of a memory with how many pictures they kept, in the order in which they were remembered."""
    history = open_existing_history(MemorySettings(path=Path(setting.partition("=")[2])))
    return [(record.prompt, record.num_kept, record.strength) for record in history.records()]


def test_a_second_run_recalls_the_first(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    first = _run(photographs, tmp_path / "first", monkeypatch, memory)
    second = _run(photographs, tmp_path / "second", monkeypatch, memory)
    prompts = {folder: _first_prompts(folder) for folder in (first.folder, second.folder)}
    assert second.content["memory"]["sequence"] == len(prompts[first.folder])  # type: ignore[index]
    assert not set(prompts[first.folder]) & set(prompts[second.folder]), "what is remembered is not written again"
    novelty = [item["rounds"][0]["novelty"] for item in _items(second.folder).values() if item["rounds"]]
    assert all(0.05 <= one < 2 for one in novelty)


def _first_prompts(folder: Path) -> list[str]:
    return [item["rounds"][0]["prompt"] for item in _items(folder).values() if item["rounds"]]


def test_the_effective_recipe_stands_in_the_run(undisturbed: RunOutcome) -> None:
    settings = yaml.safe_load((undisturbed.folder / "recipe.yaml").read_text(encoding="utf-8"))
    assert settings["agents"]["text_agent"]["painter"] == "scripted"
    assert settings["llm"]["model"] == "text_helpers:make_writer"
