"""A run from data set to data set: complete, repeatable, resumable, and never at the user's expense."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from run_helpers import QUICK, TRUTH, snapshot

from maskwright.errors import BrokenRunError, RunFolderError
from maskwright.graphs.pipeline import RunOutcome, plan_recipe, run_recipe
from maskwright.tools import registry
from maskwright.tools.painting.variation import VariationPainter
from maskwright.tools.protocols import Painted, PaintRequest


def _run(data: Path, out: Path, *overrides: str, **options: object) -> RunOutcome:
    return run_recipe("instances", data=data, out=out, overrides=[*QUICK, *overrides], **options)  # type: ignore[arg-type]


def _counts(outcome: RunOutcome) -> Mapping[str, int]:
    items = outcome.content["items"]
    assert isinstance(items, dict)
    return items


def test_every_class_reaches_its_quota_and_every_instance_is_placed(photographs: Path, tmp_path: Path) -> None:
    outcome = _run(photographs, tmp_path / "run")
    assert outcome.exit_code == 0
    assert _counts(outcome) == {"planned": 14, "accepted": 14, "exhausted": 0, "failed": 0, "held": 0, "spared": 0}
    assert [c["shortfall"] for c in outcome.content["classes"]] == [0, 0]  # type: ignore[attr-defined]
    assert outcome.content["unplaced"] == []

    coco = COCO(str(tmp_path / "run/dataset/coco/annotations/instances_train.json"))
    names = {category["name"] for category in coco.cats.values()}
    assert names == {"bolt", "Mutter ö"}
    assert len(coco.imgs) == 6 + outcome.content["scenes"]  # type: ignore[operator]
    for annotation in coco.anns.values():
        assert coco.annToMask(annotation).sum() == annotation["area"] > 0
    lines = (tmp_path / "run/dataset/provenance.jsonl").read_text(encoding="utf-8").splitlines()
    provenance = [json.loads(line) for line in lines]
    assert len({entry["instance_id"] for entry in provenance}) == outcome.content["accepted"] == 14
    assert all(entry["scenes"] and entry["parent"]["file_name"].startswith("bild") for entry in provenance)
    assert (tmp_path / "run/report.html").stat().st_size > 10_000
    assert "Mutter ö" in (tmp_path / "run/dataset/README.md").read_text(encoding="utf-8")


def test_neither_order_nor_speed_changes_the_result(photographs: Path, tmp_path: Path) -> None:
    _run(photographs, tmp_path / "one", "budget.workers=1", "budget.batch_items=1")
    _run(photographs, tmp_path / "four", "budget.workers=4", "budget.batch_items=5")
    assert snapshot(tmp_path / "one", *TRUTH[:3]) == snapshot(tmp_path / "four", *TRUTH[:3])


def test_another_seed_makes_other_instances(photographs: Path, tmp_path: Path) -> None:
    first, second = (_run(photographs, tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert first.content["fingerprint"] != second.content["fingerprint"]
    assert snapshot(first.folder, "artifacts").keys() != snapshot(second.folder, "artifacts").keys()


def test_a_finished_run_makes_nothing_again(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _run(photographs, tmp_path / "run")
    before = snapshot(first.folder, *TRUTH)
    monkeypatch.setattr(VariationPainter, "paint", None)
    again = _run(photographs, tmp_path / "run")
    assert again.exit_code == 0
    assert _counts(again) == _counts(first)
    assert snapshot(first.folder, *TRUTH) == before


def test_a_limit_makes_a_part_and_the_rest_follows(photographs: Path, tmp_path: Path) -> None:
    part = _run(photographs, tmp_path / "run", limit=5)
    assert part.content["accepted"] == 5
    assert any("--limit 5" in hint for hint in part.content["hints"])  # type: ignore[attr-defined]
    whole = _run(photographs, tmp_path / "run")
    _run(photographs, tmp_path / "undisturbed")
    assert whole.content["accepted"] == 14
    assert snapshot(whole.folder, "items") == snapshot(tmp_path / "undisturbed", "items")


class _BreaksAfter(VariationPainter):
    """The real painter, which stops the run or breaks at every item after the first few."""

    num_served = 0
    served: set[str]
    stop: threading.Event | None = None

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        for request in requests:
            if request.item_id not in self.served and len(self.served) >= self.num_served:
                if self.stop is None:
                    raise RuntimeError("out of luck")
                self.stop.set()
            self.served.add(request.item_id)
        return super().paint(requests)


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> type[_BreaksAfter]:
    monkeypatch.setitem(registry.PAINTERS, "variation", lambda settings: _BreaksAfter(settings.variation))
    monkeypatch.setattr(_BreaksAfter, "num_served", 5)
    monkeypatch.setattr(_BreaksAfter, "served", set(), raising=False)
    monkeypatch.setattr(_BreaksAfter, "stop", None)
    return _BreaksAfter


def test_failed_items_are_partial_and_tried_again(
    photographs: Path, tmp_path: Path, breaking: type[_BreaksAfter]
) -> None:
    broken = _run(photographs, tmp_path / "run")
    assert broken.exit_code == 3
    assert _counts(broken)["failed"] == 9
    assert any("9 items failed" in hint for hint in broken.content["hints"])  # type: ignore[attr-defined]
    breaking.num_served = 10_000
    mended = _run(photographs, tmp_path / "run")
    assert (mended.exit_code, _counts(mended)["failed"]) == (0, 0)
    _run(photographs, tmp_path / "undisturbed")
    assert snapshot(mended.folder, *TRUTH) == snapshot(tmp_path / "undisturbed", *TRUTH)


def test_a_stop_drains_and_the_next_run_goes_on(
    photographs: Path, tmp_path: Path, breaking: type[_BreaksAfter], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    monkeypatch.setattr(breaking, "stop", stop)
    stopped = _run(photographs, tmp_path / "run", stop=stop)
    assert stopped.exit_code == 130
    assert stopped.content["status"] == "interrupted"
    assert 5 <= _counts(stopped)["accepted"] < 14
    assert not (tmp_path / "run/dataset").exists()
    monkeypatch.undo()
    _run(photographs, tmp_path / "run")
    _run(photographs, tmp_path / "undisturbed")
    assert snapshot(tmp_path / "run", *TRUTH) == snapshot(tmp_path / "undisturbed", *TRUTH)


def test_nothing_accepted_is_partial_and_exports_nothing(photographs: Path, tmp_path: Path) -> None:
    outcome = _run(photographs, tmp_path / "run", "agents.image_agent.limits.min_sharpness=1000000")
    assert outcome.exit_code == 3
    assert outcome.content["accepted"] == 0
    assert not (tmp_path / "run/dataset").exists()
    assert any("Nothing was accepted (sharpness" in hint for hint in outcome.content["hints"])  # type: ignore[attr-defined]


def test_a_disk_that_fills_during_the_export_breaks_the_run_and_the_next_goes_on(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("maskwright.data.export.place_image", full)
        with pytest.raises(BrokenRunError, match="No space left on device; free some space"):
            _run(photographs, tmp_path / "run")
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith("dataset")]
    assert _run(photographs, tmp_path / "run").exit_code == 0


def test_nothing_to_do_is_done(photographs: Path, tmp_path: Path) -> None:
    outcome = _run(photographs, tmp_path / "run", "plan.at_least=1")
    assert (outcome.exit_code, outcome.content["accepted"]) == (0, 0)


def test_an_image_that_does_not_decode_is_skipped_with_its_sources(photographs: Path, tmp_path: Path) -> None:
    damaged = photographs / "images" / "train" / "bild 1 ü.png"
    damaged.write_bytes(damaged.read_bytes()[:600])
    outcome = _run(photographs, tmp_path / "run")
    assert outcome.content["findings"]["undecodable_image"]["count"] == 1  # type: ignore[index]
    exported = {path.name for path in (tmp_path / "run/dataset/yolo/images/train").iterdir()}
    assert "bild 1 ü.png" not in exported
    assert "bild 2 ü.png" in exported


def test_val_is_never_a_source_nor_a_background_and_keeps_its_bytes(photographs: Path, tmp_path: Path) -> None:
    outcome = _run(photographs, tmp_path / "run", "data.val_share=0.4")
    sides = json.loads((outcome.folder / "split.json").read_text(encoding="utf-8"))
    assert sides["val"]
    assert not set(sides["val"]) & set(sides["train"])
    for path in (outcome.folder / "scenes").rglob("*.json"):
        assert json.loads(path.read_bytes())["background"] in sides["train"]
    for path in (outcome.folder / "items").rglob("*.json"):
        assert json.loads(path.read_bytes())["source"]["file_name"] in sides["train"]
    for name in sides["val"]:
        exported = outcome.folder / "dataset/coco/images/val" / name
        assert exported.read_bytes() == (photographs / "images/train" / name).read_bytes()


def test_a_folder_of_backgrounds_brings_no_labels_of_its_own(photographs: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "empty rooms").mkdir()
    Image.fromarray(np.full((90, 120, 3), 90, np.uint8)).save(tmp_path / "empty rooms" / "räum.jpg")
    outcome = _run(photographs, tmp_path / "run", f"compose.backgrounds={tmp_path / 'empty rooms'}")
    scenes = [json.loads(path.read_bytes()) for path in (outcome.folder / "scenes").rglob("*.json")]
    assert {scene["background"] for scene in scenes} == {"räum.jpg"}
    assert {instance["origin"] for scene in scenes for instance in scene["instances"]} == {"synthetic"}


@pytest.mark.parametrize("harmonization", ["none", "color_transfer", "poisson"])
def test_every_harmonizer_finishes_a_run(harmonization: str, photographs: Path, tmp_path: Path) -> None:
    outcome = _run(photographs, tmp_path / "run", f"compose.harmonization={harmonization}", limit=4)
    assert (outcome.exit_code, outcome.content["accepted"]) == (0, 4)


@pytest.mark.parametrize(
    ("arrange", "options", "says"),
    [
        pytest.param("foreign", {}, "no run of ours", id="a folder of the user's"),
        pytest.param("file", {}, "is a file", id="a file"),
        pytest.param("run", {"seed": 9}, "other settings", id="another fingerprint"),
        pytest.param("run", {"resume": "never"}, "--resume is never", id="never on a folder in use"),
        pytest.param("nothing", {"resume": "always"}, "no run to resume", id="always on nothing"),
    ],
)
def test_a_folder_that_is_not_this_run_s_is_refused_untouched(
    arrange: str, options: dict[str, object], says: str, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if arrange == "foreign":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    elif arrange == "file":
        out.write_text("a file")
    elif arrange == "run":
        _run(photographs, out, limit=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match=says):
        _run(photographs, out, **options)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_default_folder_counts_up_and_finds_the_unfinished_run(
    photographs: Path, tmp_path: Path, breaking: type[_BreaksAfter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop = threading.Event()
    monkeypatch.setattr(breaking, "stop", stop)
    stopped = run_recipe("instances", data=photographs, overrides=QUICK, stop=stop)
    resumed = run_recipe("instances", data=photographs, overrides=QUICK)
    fresh = run_recipe("instances", data=photographs, overrides=QUICK)
    assert [outcome.folder.as_posix() for outcome in (stopped, resumed, fresh)] == [
        "runs/instances-1",
        "runs/instances-1",
        "runs/instances-2",
    ]


def test_planning_spends_nothing_and_spreads_the_sources(photographs: Path, tmp_path: Path) -> None:
    prepared = plan_recipe("instances", data=photographs, overrides=QUICK)
    assert [(q.category.name, q.num_instances, q.num_new) for q in prepared.work.quotas] == [
        ("bolt", 12, 2),
        ("Mutter ö", 2, 12),
    ]
    ids = [item["item_id"] for item in prepared.work.items]
    assert len(set(ids)) == len(ids) == 14
    assert [item["category"] for item in prepared.work.items[:4]] == ["Mutter ö", "bolt", "Mutter ö", "bolt"]
    assert {item["source_row"] for item in prepared.work.items if item["category"] == "Mutter ö"} == {2, 5}
    assert not list(tmp_path.glob("runs"))


def test_what_a_kill_left_half_written_beside_the_data_set_goes(photographs: Path, tmp_path: Path) -> None:
    run = _run(photographs, tmp_path / "run", limit=3).folder
    halves = [run / "run.json.a.partial", run / "dataset/provenance.jsonl.b.partial", run / "items/c.json.d.partial"]
    for half in halves:
        half.write_text("{")
    (run / "report.html").unlink()
    _run(photographs, run, limit=3)
    assert not [half for half in halves if half.exists()]
    assert (run / "report.html").is_file()
