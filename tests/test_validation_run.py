"""A run with vision judges, from the command a user types to the data set: over a server that sees real pictures."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import orjson
import pytest
from chat_server import ChatServer, Reply, fails, says, serve_script
from PIL import Image
from run_helpers import QUICK, snapshot
from vision_helpers import review_of

from maskwright.errors import BrokenRunError
from maskwright.graphs.pipeline import RunOutcome, run_recipe
from maskwright.graphs.rejudge import rejudge_run
from maskwright.memory.entries import ItemResult, Review, review_id
from maskwright.memory.ledger import Ledger
from maskwright.tools.painting.variation import VariationPainter
from maskwright.tools.protocols import Outcome

Sees = Callable[[np.ndarray, dict[str, Any]], bool]
PLANTED = 4
AGENT = "agents.image_agent.validation"


def _picture(body: dict[str, Any]) -> np.ndarray:
    [part] = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    encoded = part["image_url"]["url"].split(",", 1)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def _criteria(body: dict[str, Any]) -> list[str]:
    text = "\n".join(part["text"] for part in body["messages"][0]["content"] if part["type"] == "text")
    return [name for name in re.findall(r"^- (\w+):", text, re.MULTILINE) if name not in get_args(Outcome)]


def answers(sees: Sees) -> Callable[[dict[str, Any]], Reply]:
    """A judge that meets all where it sees nothing wrong, and fails all else."""

    def reply(body: dict[str, Any]) -> Reply:
        good = sees(_picture(body), body)
        outcome = {"outcome": "meet", "reason": "it holds"} if good else {"outcome": "fail", "reason": "it looks off"}
        return says(json.dumps({"description": "a thing", **dict.fromkeys(_criteria(body), outcome)}))

    return reply


class Careful:
    """Turns the planted pictures down, which come first; afterwards it goes by `sees`."""

    def __init__(self, sees: Sees = lambda picture, body: True) -> None:
        self.sees = sees
        self.num_asked = 0

    def __call__(self, picture: np.ndarray, body: dict[str, Any]) -> bool:
        self.num_asked += 1
        return self.num_asked > PLANTED and self.sees(picture, body)


def settings(*servers: ChatServer, **more: object) -> list[str]:
    judges = dict(zip(("judge", "second_judge"), servers, strict=False))
    named = [
        f"llm.{role}={json.dumps({'model': f'openai:{role}', 'base_url': server.base_url, 'max_retries': 0})}"
        for role, server in judges.items()
    ]
    return [*QUICK, *named, *(f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in more.items())]


def run(photographs: Path, out: Path, overrides: Sequence[str]) -> RunOutcome:
    return run_recipe("instances", data=photographs, out=out, overrides=overrides)


def results(folder: Path) -> list[ItemResult]:
    ledger: Ledger[ItemResult] = Ledger(folder / "items")
    return [result for item_id in sorted(ledger.ids()) if (result := ledger.read(item_id))]


def decide(folder: Path, *, keep: bool) -> int:
    """A person's verdict on everything that waits."""
    reviews: Ledger[Review] = Ledger(folder / "reviews")
    num_decided = 0
    for result in results(folder):
        item_id = result["item"]["item_id"]
        for attempt in result["attempts"]:
            if "held" in attempt and "review" not in attempt:
                reviews.write(review_id(item_id, attempt), review_of(attempt, item_id, keep=keep))
                num_decided += 1
    return num_decided


def test_judges_decide_and_what_they_said_is_kept(photographs: Path, tmp_path: Path) -> None:
    picky = Careful(lambda picture, body: int(picture.sum()) % 3 > 0)
    with serve_script(answers(picky)) as server:
        outcome = run(photographs, tmp_path / "lauf ü", settings(server))
    content, items = outcome.content, results(outcome.folder)
    looked = [attempt for result in items for attempt in result["attempts"] if "opinions" in attempt]
    assert content["judges"] == ["openai:judge"]
    assert content["validation"]["looked"] == len(looked) == picky.num_asked - PLANTED  # type: ignore[index]
    assert {attempt["accepted"] for attempt in looked} == {True, False}
    assert all(attempt["accepted"] == (c["outcome"] == "meet") for attempt in looked for c in attempt["criteria"][-1:])
    [check] = [orjson.loads(path.read_bytes()) for path in (outcome.folder / "judges").rglob("*.json")]
    assert len(check["planted"]) == PLANTED
    lines = (outcome.folder / "dataset" / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == content["accepted"] > 0
    assert "openai:judge" in lines[0]


def test_a_judge_that_always_says_yes_is_found_before_anything_is_painted(photographs: Path, tmp_path: Path) -> None:
    with (
        serve_script(answers(lambda picture, body: True)) as server,
        pytest.raises(BrokenRunError, match=r"'openai:judge' accepted 4 of 4 pictures that are bad on purpose"),
    ):
        run(photographs, tmp_path / "run", settings(server))
    assert not list((tmp_path / "run" / "items").rglob("*.json"))


def test_a_judge_that_always_says_no_stops_the_run_with_its_reasons(photographs: Path, tmp_path: Path) -> None:
    with (
        serve_script(answers(lambda picture, body: False)) as server,
        pytest.raises(BrokenRunError, match=r"rejected 6 pictures in a row, most often: it looks off"),
    ):
        run(photographs, tmp_path / "run", settings(server, budget__max_rejections_in_a_row=6))


def test_an_outage_before_the_first_picture_is_no_verdict(photographs: Path, tmp_path: Path) -> None:
    with serve_script(fails(500), answers(Careful())) as server:
        assert run(photographs, tmp_path / "run", settings(server)).exit_code == 0


def test_where_judges_disagree_a_person_decides_and_the_run_goes_on(photographs: Path, tmp_path: Path) -> None:
    strict = Careful(lambda picture, body: int(picture.sum()) % 3 > 0)
    folder = tmp_path / "run"
    with serve_script(answers(Careful())) as kind, serve_script(answers(strict)) as other:
        overrides = settings(kind, other)
        first = run(photographs, folder, overrides)
        assert first.exit_code == 3
        waiting = first.content["validation"]["waiting"]  # type: ignore[index]
        assert waiting > 0
        assert any("maskwright review" in hint for hint in first.content["hints"])  # type: ignore[attr-defined]
        asked = strict.num_asked
        assert decide(folder, keep=True) == waiting
        second = run(photographs, folder, overrides)
    assert strict.num_asked == asked, "nothing is made or asked again"
    assert second.exit_code == 0
    assert second.content["accepted"] == first.content["accepted"] + waiting  # type: ignore[operator]
    assert second.content["validation"]["decided"] == waiting  # type: ignore[index]


def test_the_audit_holds_its_share_without_any_judge(photographs: Path, tmp_path: Path) -> None:
    overrides = [*QUICK, f"{AGENT}.audit_share=0.3"]
    first = run(photographs, tmp_path / "run", overrides)
    waiting = first.content["validation"]["waiting"]  # type: ignore[index]
    assert 0 < waiting < len(results(tmp_path / "run"))
    assert decide(tmp_path / "run", keep=False) == waiting
    second = run(photographs, tmp_path / "run", overrides)
    assert (second.exit_code, second.content["accepted"]) == (0, first.content["accepted"])


def test_judging_again_with_a_judge_paints_nothing_and_asks_nothing_twice(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    before = run(photographs, folder, QUICK)
    monkeypatch.setattr(VariationPainter, "paint", None)
    picky = Careful(lambda picture, body: int(picture.sum()) % 3 > 0)
    with serve_script(answers(picky)) as server:
        judge = [one for one in settings(server) if one.startswith("llm.")]
        judged = rejudge_run(folder, overrides=judge)
        assert 0 < judged.outcome.content["accepted"] < before.content["accepted"]  # type: ignore[operator]
        asked, truth = picky.num_asked, snapshot(folder, "items")
        again = rejudge_run(folder, overrides=[f"{AGENT}.audit_share=0.0"])
    assert picky.num_asked == asked
    assert again.outcome.content["accepted"] == judged.outcome.content["accepted"]
    assert snapshot(folder, "items") == truth


def test_a_persons_verdict_outlives_another_judgement(photographs: Path, tmp_path: Path) -> None:
    folder, overrides = tmp_path / "run", [*QUICK, f"{AGENT}.audit_share=0.3"]
    run(photographs, folder, overrides)
    num_kept = decide(folder, keep=True)
    first = run(photographs, folder, overrides)
    again = rejudge_run(folder, overrides=["agents.image_agent.limits.min_sharpness=1e9"])
    assert first.content["accepted"] > num_kept  # type: ignore[operator]
    assert again.outcome.content["accepted"] == num_kept


def test_scenes_that_a_judge_rejects_are_composed_anew(photographs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def is_picky_about_scenes(picture: np.ndarray, body: dict[str, Any]) -> bool:
        return "no_visible_seam" not in _criteria(body) or int(picture.sum()) % 2 == 0

    with serve_script(answers(Careful(is_picky_about_scenes))) as server:
        overrides = settings(server, compose__validation={"kind": "scene"})
        outcome = run(photographs, folder, overrides)
        asked = len(server.requests)
        made = {path.stem: orjson.loads(path.read_bytes()) for path in (folder / "scenes").rglob("*.json")}
        rejected = {scene_id for scene_id, scene in made.items() if scene["rejected"]}
        assert 0 < len(rejected) < len(made)
        assert outcome.content["scenes"] == len(made) - len(rejected)
        assert not rejected & {path.stem for path in (folder / "dataset/coco/images/train").iterdir()}
        assert outcome.content["costs"]["llm_calls"] == asked  # type: ignore[index]
        (folder / "report.html").unlink()
        again = run(photographs, folder, overrides)
        assert (len(server.requests), again.content["scenes"]) == (asked, outcome.content["scenes"])
    placed = {i["source_id"] for key in made.keys() - rejected for i in made[key]["instances"] if i["origin"] != "real"}
    lines = (folder / "dataset" / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    unplaced = outcome.content["unplaced"]
    assert placed | set(unplaced) == {json.loads(line)["instance_id"] for line in lines}  # type: ignore[call-overload]
