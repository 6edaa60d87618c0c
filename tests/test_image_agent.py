"""The I-Agent: its drawing, its loop, its endings, its judge's veto."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from maskwright.configs.image_agent import ImageAgentSettings
from maskwright.data.records import ImageRGBA
from maskwright.errors import BrokenRunError, EmptyMaskError, ImageDecodeError
from maskwright.graphs.image_agent import build_image_agent_graph, make_item
from maskwright.graphs.items import image_seed
from maskwright.graphs.services import ImageAgentServices, SourceCutOut
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import WorkItem
from maskwright.tools.judging.limits import LimitJudge, instance_bounds
from maskwright.tools.protocols import Painted, PaintRequest

GOLDEN = Path(__file__).parent / "golden"
ITEM: WorkItem = {
    "item_id": "image-train-7-000",
    "agent": "image_agent",
    "category_id": 3,
    "category": "bolt",
    "source_row": 0,
    "slot": 0,
}


def _textured(seed: int, alpha: int = 255) -> ImageRGBA:
    rgba = np.full((48, 64, 4), alpha, dtype=np.uint8)
    rgba[..., :3] = np.random.default_rng(seed).integers(0, 255, (48, 64, 3))
    return rgba


SOURCE = SourceCutOut(_textured(0), "a.png", 7, "CC0", 0.0, (), 0.2)


@dataclass
class ScriptedPainter:
    """Answers each request by the script, and records it."""

    script: Sequence[Callable[[], ImageRGBA]]
    requests: list[PaintRequest] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        self.requests += requests
        return [Painted(self.script[len(self.requests) - 1](), {"x": 1.0})]


@dataclass
class OneSource:
    error: Exception | None = None
    truncation: float = 0.0

    def file_name(self, row: int) -> str:
        return "a.png"

    def cut_out(self, row: int) -> SourceCutOut:
        if self.error:
            raise self.error
        return replace(SOURCE, truncation=self.truncation)


def _raise(error: BaseException) -> Callable[[], ImageRGBA]:
    def painted() -> ImageRGBA:
        raise error

    return painted


COPY, NEW, INVISIBLE = (lambda: _textured(0)), (lambda: _textured(1)), (lambda: _textured(1, alpha=0))


def _services(folder: Path, painter: ScriptedPainter, **changes: object) -> ImageAgentServices:
    settings = ImageAgentSettings(max_rounds=3)
    services = ImageAgentServices(
        settings=settings,
        run_seed=5,
        painter=painter,
        judge=LimitJudge(instance_bounds(settings.limits)),
        artifacts=ArtifactStore(folder),
        sources=OneSource(),
        pool_hashes={},
    )
    return replace(services, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["image_agent", "run"])
def test_the_graph_is_drawn_as_documented(name: str) -> None:
    from maskwright.graphs.run import build_run_graph

    graph = build_image_agent_graph() if name == "image_agent" else build_run_graph()
    assert graph.get_graph().draw_mermaid() == (GOLDEN / f"{name}.mermaid").read_text(encoding="utf-8")


def test_the_run_knows_the_agent_as_a_subgraph() -> None:
    from maskwright.graphs.run import build_run_graph

    [(name, _)] = build_run_graph().get_subgraphs()
    assert name == "make_wave"


@pytest.mark.parametrize(
    ("script", "ending", "accepted_rounds"),
    [
        pytest.param([NEW], "accepted", [1], id="good at once"),
        pytest.param([COPY, NEW], "accepted", [2], id="a copy, then good"),
        pytest.param([COPY, COPY, COPY], "exhausted", [], id="only copies"),
        pytest.param([INVISIBLE], "exhausted", [], id="the mask vanishes"),
        pytest.param([_raise(EmptyMaskError("nothing left"))], "exhausted", [], id="the painter finds no pixel"),
        pytest.param([_raise(RuntimeError("CUDA went away"))], "failed", [], id="the painter breaks"),
        pytest.param([COPY, _raise(RuntimeError("late"))], "failed", [], id="the painter breaks in round two"),
    ],
)
def test_endings(
    script: list[Callable[[], ImageRGBA]], ending: str, accepted_rounds: list[int], tmp_path: Path
) -> None:
    painter = ScriptedPainter(script)
    result = make_item(build_image_agent_graph(), ITEM, _services(tmp_path, painter))
    assert result["ending"] == ending
    assert [instance["round"] for instance in result["instances"]] == accepted_rounds
    assert len(painter.requests) == len(script)
    assert bool(result["reason"]) is (ending != "accepted")


def test_a_copy_is_retried_stronger_with_another_seed(tmp_path: Path) -> None:
    painter = ScriptedPainter([COPY, NEW])
    result = make_item(build_image_agent_graph(), ITEM, _services(tmp_path, painter))
    first, second = painter.requests
    assert second.strength > first.strength
    assert [first.seed, second.seed] == [image_seed(5, ITEM["item_id"], r, 0) for r in (1, 2)]
    assert first.seed != second.seed
    rejected = [c["name"] for c in result["attempts"][0]["criteria"] if c["outcome"] != "meet"]
    assert rejected == ["source_difference"]


def test_a_damaged_sample_is_retried_weaker(tmp_path: Path) -> None:
    def dust() -> ImageRGBA:
        rgba = _textured(1, alpha=0)
        rgba[:5, :5, 3] = 255
        return rgba

    painter = ScriptedPainter([dust, NEW])
    make_item(build_image_agent_graph(), ITEM, _services(tmp_path, painter))
    assert painter.requests[1].strength < painter.requests[0].strength


def test_the_pool_of_the_wave_refuses_a_near_duplicate(tmp_path: Path) -> None:
    first = make_item(build_image_agent_graph(), ITEM, _services(tmp_path, ScriptedPainter([NEW])))
    pool = {3: [int(first["instances"][0]["phash"], 16)]}
    services = _services(tmp_path, ScriptedPainter([NEW] * 3), pool_hashes=pool)
    result = make_item(build_image_agent_graph(), ITEM, services)
    assert result["ending"] == "exhausted"
    assert "pool_distance_bits" in result["reason"]


def test_an_unreadable_source_costs_no_paint(tmp_path: Path) -> None:
    painter = ScriptedPainter([])
    sources = OneSource(ImageDecodeError("a.png cannot be decoded"))
    result = make_item(build_image_agent_graph(), ITEM, _services(tmp_path, painter, sources=sources))
    assert (result["ending"], painter.requests) == ("exhausted", [])
    assert result["unreadable_image"] == "a.png"


def test_a_source_cut_too_much_costs_no_paint(tmp_path: Path) -> None:
    painter = ScriptedPainter([])
    services = _services(tmp_path, painter, sources=OneSource(truncation=0.9))
    result = make_item(build_image_agent_graph(), ITEM, services)
    assert (result["ending"], painter.requests) == ("exhausted", [])
    assert "truncation 0.90 is over 0.70" in result["reason"]


@pytest.mark.parametrize("error", [BrokenRunError("disk full"), MemoryError()], ids=["disk", "memory"])
def test_a_broken_run_is_not_an_item_s_failure(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        make_item(build_image_agent_graph(), ITEM, _services(tmp_path, ScriptedPainter([_raise(error)])))


def test_every_artifact_of_the_result_is_durable(tmp_path: Path) -> None:
    services = _services(tmp_path, ScriptedPainter([COPY, NEW]))
    result = make_item(build_image_agent_graph(), ITEM, services)
    named = {attempt["artifact"] for attempt in result["attempts"]} | {result["source"]["artifact"]}  # type: ignore[index]
    assert {path.name for path in tmp_path.rglob("*.png")} == named
