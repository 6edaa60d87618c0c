"""A label run as a user types it: scenes by class, a VOC folder out, resumed without doubling."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest
import yaml
from label_scripts import BlockPainter, Trainer, write_class_folders

from maskwright import cli
from maskwright.data.label_sources import load_labels
from maskwright.data.label_splits import load_label_split
from maskwright.errors import BrokenRunError, DatasetError, InputError, RecipeError, RunFolderError
from maskwright.evaluation.wsss_arms import NO_FILTER
from maskwright.graphs import label_pipeline
from maskwright.graphs.calibrate import calibrate_run
from maskwright.graphs.label_ablations import make_ablation
from maskwright.graphs.label_run import build_label_run_graph
from maskwright.graphs.pipeline import plan_recipe, run_recipe
from maskwright.graphs.run_folder import RunOutcome
from maskwright.memory.prompt_history import NoHistory
from maskwright.memory.prompt_records import PromptRecord

COUNTS = {"rot ü": 12, "blau": 8, "gelb": 8}


@dataclass
class RecordingHistory(NoHistory):
    """Keeps what it is told, by id."""

    told: dict[str, PromptRecord] = field(default_factory=dict)

    def upsert(self, records: object) -> int:
        for record in records:  # type: ignore[attr-defined]
            self.told[record.record_id] = record
        return len(self.told)


@dataclass
class Stage:
    """A data set in a folder, and the fakes that a run meets."""

    data: Path
    painter: BlockPainter = field(default_factory=BlockPainter)
    trainer: Trainer = field(default_factory=Trainer)
    history: RecordingHistory = field(default_factory=RecordingHistory)

    def run(self, out: Path, *overrides: str, count: int = 3, limit: int | None = None) -> RunOutcome:
        settings = [f"agents.label_agent.count={count}", *overrides]
        return run_recipe("iaa", data=self.data, out=out, overrides=settings, limit=limit)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.chdir(tmp_path)
    stage = Stage(write_class_folders(tmp_path / "daten ü", COUNTS))
    monkeypatch.setattr(label_pipeline, "build_label_painter", lambda *_: stage.painter)
    monkeypatch.setattr(label_pipeline, "train_classifier", stage.trainer)
    monkeypatch.setattr(label_pipeline, "open_prompt_history", lambda _: stage.history)
    return stage


def entries(folder: Path) -> dict[str, dict[str, object]]:
    """The ledger without what a clock says."""
    found = {path.stem: orjson.loads(path.read_bytes()) for path in sorted((folder / "items").rglob("*.json"))}
    for entry in found.values():
        del entry["seconds"]
        del entry["cost"]["device_seconds"]
    return found


def product(folder: Path) -> dict[str, bytes]:
    data = folder / "dataset"
    return {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def rows(folder: Path) -> list[dict[str, str]]:
    text = (folder / "dataset" / "voc_labels" / "labels.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def test_the_graph_is_drawn_as_documented() -> None:
    golden = Path(__file__).parent / "golden" / "label_run.mermaid"
    assert build_label_run_graph().get_graph().draw_mermaid() == golden.read_text(encoding="utf-8")


def test_scenes_of_each_class_with_their_labels(stage: Stage, tmp_path: Path) -> None:
    stage.painter.misses = frozenset({1})
    outcome = stage.run(tmp_path / "lauf ü")
    content = outcome.content
    assert (outcome.exit_code, content["accepted"], content["images"]) == (0, 9, {"painted": 10, "rejected": 1})
    assert {one["name"]: one["accepted"] for one in content["classes"]} == dict.fromkeys(COUNTS, 3)  # type: ignore[index, attr-defined]
    assert [reason.partition(" ")[0] for reason in content["refusals"]] == ["missing"]  # type: ignore[attr-defined]
    made = [row for row in rows(outcome.folder) if row["source"] == "synthetic"]
    assert Counter(name for row in made for name in COUNTS if row[name] == "1") == dict.fromkeys(COUNTS, 3)
    assert {row["split"] for row in made} == {"train"}
    assert all((outcome.folder / "dataset" / "voc_labels" / row["file"]).is_file() for row in made)
    lines = (outcome.folder / "dataset" / "provenance.jsonl").read_bytes().splitlines()
    assert len(lines) == 9
    assert {orjson.loads(line)["prompt_id"] for line in lines} == {row["prompt"] for row in made}
    balance = content["balance"]
    assert balance["after"] > balance["before"]  # type: ignore[index]


def test_the_report_shows_scenes_refusals_and_balance(stage: Stage, tmp_path: Path) -> None:
    stage.painter.misses = frozenset({0})
    page = (stage.run(tmp_path / "run").folder / "report.html").read_text(encoding="utf-8")
    assert "9 scenes admitted for 3 classes" in page
    assert "missing" in page
    assert "rot ü" in page
    for section in ("admitted", "refused", "classes", "classifier"):
        assert f'id="{section}"' in page


def test_the_test_side_teaches_nobody(stage: Stage, tmp_path: Path) -> None:
    outcome = stage.run(tmp_path / "run")
    sides = load_label_split(outcome.folder / "split.json", load_labels(stage.data))
    test = {one.key for one in sides.of("test")}
    (train, held_out), (second_train, second_held_out) = stage.trainer.taught
    assert train == {one.key for one in sides.of("train")}
    assert held_out == {one.key for one in sides.of("held_out")}
    assert second_train | second_held_out == train | held_out
    assert not second_held_out & held_out
    assert not test & (train | held_out)
    empty = [row for row, one in enumerate(sides.of("train")) if not one.labels]
    assert {request.background for request in stage.painter.requests} <= set(empty)


def test_the_labels_are_checked_by_a_classifier_that_did_not_filter(stage: Stage, tmp_path: Path) -> None:
    stage.painter.misses = frozenset({0, 4})
    precision = stage.run(tmp_path / "run").content["label_precision"]
    assert precision["admitted"] == {"pictures": 9, "exact": 9, "share": 1.0}  # type: ignore[index]
    assert precision["refused"] == {"pictures": 2, "exact": 0, "share": 0.0}  # type: ignore[index]
    assert precision["real"]["share"] == 1.0  # type: ignore[index]


def test_every_version_of_a_prompt_is_remembered(stage: Stage, tmp_path: Path) -> None:
    outcome = stage.run(tmp_path / "run")
    written = [prompt["text"] for entry in entries(outcome.folder).values() for prompt in entry["prompts"]]  # type: ignore[attr-defined]
    assert Counter(record.prompt for record in stage.history.told.values()) == Counter(written)
    before = dict(stage.history.told)
    stage.run(tmp_path / "run")
    assert stage.history.told == before


@pytest.mark.parametrize("breaks_after", [1, 6])
def test_a_broken_run_goes_on_as_if_nothing_had_happened(stage: Stage, tmp_path: Path, breaks_after: int) -> None:
    small = ("plan.wave_size=4", "budget.batch_items=2")
    stage.painter = BlockPainter(misses=frozenset({2}), breaks_after=breaks_after)
    with pytest.raises(BrokenRunError):
        stage.run(tmp_path / "run", *small)
    before = entries(tmp_path / "run")
    stage.painter = BlockPainter(misses=frozenset({2}))
    resumed = stage.run(tmp_path / "run", *small)
    painted_again = {request.item_id for request in stage.painter.requests}
    assert not painted_again & set(before)
    stage.painter = BlockPainter(misses=frozenset({2}))
    whole = stage.run(tmp_path / "whole", *small)
    assert entries(resumed.folder) == entries(whole.folder)
    assert product(resumed.folder) == product(whole.folder)


def test_a_limit_stops_and_the_same_command_goes_on(stage: Stage, tmp_path: Path) -> None:
    first = stage.run(tmp_path / "run", limit=4)
    assert (first.exit_code, first.content["accepted"]) == (3, 4)
    assert "budget.items=4" in " ".join(first.content["hints"])  # type: ignore[arg-type]
    again = stage.run(tmp_path / "run")
    assert (again.exit_code, again.content["accepted"]) == (0, 9)
    assert entries(again.folder) == entries(stage.run(tmp_path / "whole").folder)


def test_a_filter_that_admits_nothing_stops_the_run(stage: Stage, tmp_path: Path) -> None:
    stage.trainer.is_blind = True
    settings = (
        "plan.wave_size=2",
        "agents.label_agent.admission.stop_after=4",
        "agents.label_agent.admission.max_repaints=1",
    )
    outcome = stage.run(tmp_path / "run", *settings)
    content = outcome.content
    assert (outcome.exit_code, content["status"], content["accepted"]) == (3, "partial", 0)
    assert sum(content["refusals"].values()) == 8  # type: ignore[attr-defined]
    [told] = [hint for hint in content["hints"] if "none of the first 4 items" in hint]  # type: ignore[attr-defined]
    assert "missing" in told
    assert "another --out" in told
    assert not (outcome.folder / "dataset").exists()
    assert (outcome.folder / "report.html").is_file()


def test_classes_that_nobody_can_draw_are_named_and_the_others_made(stage: Stage, tmp_path: Path) -> None:
    stage.painter.known = frozenset({"blau", "gelb"})
    outcome = stage.run(tmp_path / "run")
    classes = {one["name"]: one for one in outcome.content["classes"]}  # type: ignore[attr-defined]
    assert "cannot draw it" in classes["rot ü"]["not_made"]
    assert (classes["rot ü"]["accepted"], classes["blau"]["accepted"]) == (0, 3)
    assert outcome.content["findings"]["class_not_made"]["count"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("known", "counts", "expected"),
    [
        (frozenset(), COUNTS, "can draw none of the classes blau, gelb, rot ü"),
        (frozenset({"gelb"}), {"rot ü": 8, "gelb": 3}, "none has 4 images to learn"),
    ],
    ids=["none can be drawn", "none can be learned"],
)
def test_nothing_to_make(
    stage: Stage, tmp_path: Path, known: frozenset[str], counts: dict[str, int], expected: str
) -> None:
    stage.data = write_class_folders(tmp_path / "other", counts)
    stage.painter.known = known
    with pytest.raises(RecipeError, match=expected):
        stage.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_contradictory_labels_stop_before_any_work(stage: Stage, tmp_path: Path) -> None:
    table = stage.data / "labels.csv"
    table.write_text("file,labels\nblau/000.png,blau\nblau/000.png,gelb\n", encoding="utf-8")
    stage.data = table
    with pytest.raises(DatasetError, match=r"000\.png"):
        stage.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert stage.painter.requests == []


def test_a_classifier_that_cannot_learn_stops_the_run(stage: Stage, tmp_path: Path) -> None:
    stage.trainer.weak = frozenset(COUNTS)
    with pytest.raises(InputError, match="cannot learn"):
        stage.run(tmp_path / "run")
    assert stage.painter.requests == []
    outcome = stage.run(tmp_path / "unfiltered", "agents.label_agent.filter=false")
    assert outcome.content["accepted"] == 9


def test_a_class_that_cannot_be_learned_is_named_and_the_others_made(stage: Stage, tmp_path: Path) -> None:
    stage.trainer.weak = frozenset({"gelb"})
    outcome = stage.run(tmp_path / "run")
    classes = {one["name"]: one for one in outcome.content["classes"]}  # type: ignore[attr-defined]
    assert "AUC 0.51 ± 0.01" in classes["gelb"]["not_made"]
    assert {name: one["accepted"] for name, one in classes.items()} == {"rot ü": 3, "blau": 3, "gelb": 0}
    assert outcome.exit_code == 0


def test_without_filter_and_refinement(stage: Stage, tmp_path: Path) -> None:
    stage.painter.misses = frozenset({0})
    outcome = stage.run(tmp_path / "run", "agents.label_agent.filter=false", "agents.label_agent.refine=false")
    content = outcome.content
    assert (content["accepted"], content["classifier"], content["refinement"]) == (9, None, {})
    assert content["label_precision"]["admitted"]["exact"] == 8  # type: ignore[index]
    assert not any("score" in prompt for entry in entries(outcome.folder).values() for prompt in entry["prompts"])  # type: ignore[attr-defined]
    assert "9 scenes admitted" in (outcome.folder / "report.html").read_text(encoding="utf-8")


def test_an_ablation_is_the_same_run_without_one_mechanism(stage: Stage, tmp_path: Path) -> None:
    made = stage.run(tmp_path / "lauf").folder
    outcome = make_ablation(made, NO_FILTER, data=stage.data, out=tmp_path / "ohne ü")
    assert outcome.exit_code == 0
    settings = [
        yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")) for folder in (made, outcome.folder)
    ]
    assert settings[1]["agents"]["label_agent"].pop("filter") is not settings[0]["agents"]["label_agent"].pop("filter")
    assert settings[0] == settings[1]
    assert (made / "split.json").read_bytes() == (outcome.folder / "split.json").read_bytes()


def test_bad_input(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no data set is given"):
        run_recipe("iaa", out=tmp_path / "a")
    with pytest.raises(DatasetError, match="has no item 'plate'"):
        stage.run(tmp_path / "b", "agents.label_agent.item=plate")
    with pytest.raises(RecipeError, match="label_agent works alone; take out text_agent"):
        stage.run(tmp_path / "c", "agents.text_agent.painter=embedded:sprites")
    with pytest.raises(RecipeError, match="run it with --count"):
        plan_recipe("iaa", data=stage.data)
    folder = stage.run(tmp_path / "d", count=1).folder
    with pytest.raises(RunFolderError, match="other settings"):
        stage.run(tmp_path / "d", count=2)
    with pytest.raises(RunFolderError, match="a label run"):
        calibrate_run(folder, precision=0.9)


def test_the_shorthands(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def type_in(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr("sys.argv", ["maskwright", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capfd.readouterr()
        return ended.value.code, printed.out, printed.err

    code, out, _ = type_in("run", "iaa", "--data", str(stage.data), "--count", "1", "--out", str(tmp_path / "run"))
    assert code == 0
    assert "3 scenes admitted (blau 1, gelb 1, rot ü 1)" in out
    assert "as a second classifier sees them" in out
    code, out, _ = type_in("report", str(tmp_path / "run"))
    assert (code, out.strip()) == (0, str(tmp_path / "run" / "report.html"))
    code, _, err = type_in("run", "iaa", "--defect", "hole")
    assert code == 2
    assert "--defect is for the recipe anomaly" in err
