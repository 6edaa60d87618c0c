"""The whole comparison on small pictures: arms, guards, resume, tables, page, command."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner
from wsss_helpers import TINY, write_data, write_run

from maskwright.cli_wsss import add_wsss_command
from maskwright.data.images import read_image
from maskwright.data.label_records import LabelledImage
from maskwright.data.label_sources import load_labels
from maskwright.data.label_splits import load_label_split
from maskwright.data.label_writer import ExportedImage, save_label_folder
from maskwright.data.records import ImageRecord
from maskwright.errors import DatasetError, InputError, LeakError, RecipeError, RunFolderError
from maskwright.evaluation import wsss_evaluation
from maskwright.evaluation.wsss_arms import NO_FILTER, NO_REFINEMENT, OURS, OVERSAMPLED, REAL, arms_of, oversample
from maskwright.evaluation.wsss_data import WsssRun, open_wsss
from maskwright.evaluation.wsss_evaluation import WsssResult, evaluate_wsss
from maskwright.evaluation.wsss_metrics import SegmentationFigures
from maskwright.evaluation.wsss_report import build_wsss_report, headline_of, spread_to_percent
from maskwright.evaluation.wsss_summary import save_summary, summarize
from maskwright.evaluation.wsss_training import WsssSettings
from maskwright.graphs.run_folder import RunOutcome

MADE = {"Riß": 4, "chip": 1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "Daten ü")


@pytest.fixture
def run(tmp_path: Path, data: Path) -> WsssRun:
    return open_wsss(write_run(tmp_path / "iaa-1", data, made=MADE), data)


def _labels(images: tuple[LabelledImage, ...] | list[LabelledImage]) -> Counter[str]:
    return Counter(label for one in images for label in one.labels)


def test_arms_have_the_runs_sides_and_equal_class_counts(run: WsssRun) -> None:
    arms = arms_of(run, 0)
    assert list(arms) == [REAL, OVERSAMPLED, OURS]
    assert len(arms[OVERSAMPLED]) == len(arms[OURS]) == len(arms[REAL]) + 5
    assert _labels(arms[OVERSAMPLED]) == _labels(arms[OURS]) == _labels(arms[REAL]) + Counter(MADE)
    assert {one.key for one in run.test}.isdisjoint({one.key for arm in arms.values() for one in arm})
    assert set(arms[OVERSAMPLED]) == set(arms[REAL])


def test_oversampling_takes_each_image_in_turn_and_the_nearest_labels() -> None:
    def image(name: str, *labels: str) -> LabelledImage:
        return LabelledImage(image=ImageRecord(0, name, "", 64, 48), labels=frozenset(labels))

    real = [image("a", "x"), image("b", "x"), image("c", "x", "y"), image("d")]
    again = oversample(real, [image("1", "x"), image("2", "x"), image("3", "x"), image("4", "y")], seed=1)
    assert {one.key for one in again[:2]} == {"a", "b"}
    assert again[2] == again[0]
    assert again[3].key == "c"


def test_ablations_are_arms_of_their_own(tmp_path: Path, data: Path) -> None:
    folders = {
        name: write_run(tmp_path / name, data, made=MADE, first=first)
        for first, name in ((900, "ours"), (950, NO_REFINEMENT), (990, NO_FILTER))
    }
    ablations = {name: folders[name] for name in (NO_REFINEMENT, NO_FILTER)}
    arms = arms_of(open_wsss(folders["ours"], data, ablations), 0)
    assert list(arms) == [REAL, OVERSAMPLED, OURS, NO_REFINEMENT, NO_FILTER]
    assert len(set(arms[OURS]) | set(arms[NO_FILTER])) == len(arms[REAL]) + 10


def _delete_table(folder: Path, data: Path) -> None:
    (folder / "dataset" / "voc_labels" / "labels.csv").unlink()


def _move_to_val(folder: Path, data: Path) -> None:
    path = folder / "dataset" / "voc_labels" / "labels.csv"
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    for row in rows:
        row[1] = "val" if "synthetic" in row else row[1]
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")


def _leave_folder(folder: Path, data: Path) -> None:
    path = folder / "dataset" / "voc_labels" / "labels.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[-1] = ",".join(["../../../x.jpg", *lines[-1].split(",")[1:]])
    path.write_text("\n".join(lines), encoding="utf-8")


def _copy_a_test_image(folder: Path, data: Path) -> None:
    dataset = load_labels(data)
    tested = next(one for one in load_label_split(folder / "split.json", dataset).of("test") if one.labels)
    entry = ExportedImage(
        key="made/leak", picture=read_image(tested.image), labels=tested.labels, split="train", source="synthetic"
    )
    saved = save_label_folder(folder / "dataset" / "voc_labels", dataset.classes, [entry])
    path = folder / "dataset" / "voc_labels" / "JPEGImages" / f"{saved.names['made/leak']}.jpg"
    path.write_bytes(tested.path.read_bytes())


def _no_synthetic(folder: Path, data: Path) -> None:
    write_run(folder, data, made={})


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_delete_table, RunFolderError, "maskwright run iaa"),
        (_move_to_val, LeakError, "expected train"),
        (_leave_folder, DatasetError, "safe file name"),
        (_copy_a_test_image, LeakError, "is test image"),
        (_no_synthetic, RunFolderError, "lists no synthetic image"),
    ],
    ids=["no export", "synthetic in val", "a name leads out", "a copied test image", "nothing admitted"],
)
def test_what_would_spoil_the_comparison_stops_it(
    tmp_path: Path, data: Path, spoil: object, error: type[InputError], message: str
) -> None:
    folder = write_run(tmp_path / "iaa-1", data, made=MADE)
    assert callable(spoil)
    spoil(folder, data)
    with pytest.raises(error, match=message):
        open_wsss(folder, data)


def test_an_ablation_with_other_sides_is_refused(tmp_path: Path, data: Path) -> None:
    ours = write_run(tmp_path / "iaa-1", data, made=MADE)
    other = write_run(tmp_path / "iaa-2", data, made=MADE, seed=5)
    with pytest.raises(RunFolderError, match="expected the sides of"):
        open_wsss(ours, data, {NO_FILTER: other})


def test_a_test_image_without_a_mask_is_left_out_and_counted(tmp_path: Path, data: Path) -> None:
    folder = write_run(tmp_path / "iaa-1", data, made=MADE)
    for path in sorted(data.rglob("ground_truth/chip/*.png"))[-2:]:
        path.write_bytes(b"no picture")
    run = open_wsss(folder, data)
    assert run.findings.counts["no_truth"] == 2
    assert len([one for one in run.test if "chip" in one.labels]) == 4


def test_every_arm_is_measured_once_and_a_killed_call_goes_on(run: WsssRun, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    real_training = wsss_evaluation.train_segmentation_network

    def stopping(*args: object, **options: object) -> object:
        trained.append("masks")
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real_training(*args, **options)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(wsss_evaluation, "train_segmentation_network", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_wsss(run, TINY, seeds=1)
    labels_kept = {path: path.stat().st_mtime_ns for path in run.results.rglob("labels.safetensors")}
    assert len(labels_kept) == 2

    seen: list[WsssResult] = []
    summary = evaluate_wsss(run, TINY, seeds=1, on_result=seen.append)

    assert [(one.arm, one.seed) for one in seen] == [(REAL, 0), (OVERSAMPLED, 0), (OURS, 0)]
    assert len(trained) == 4
    assert {path: path.stat().st_mtime_ns for path in labels_kept} == labels_kept
    assert summary.num_test == 14
    assert all(0 <= one.final.mean_iou <= 1 and 0 <= one.pseudo.mean_iou <= 1 for one in seen)
    assert evaluate_wsss(run, TINY, seeds=1) == summary
    assert len(trained) == 4
    page = build_wsss_report(summary, run.results, findings=run.findings, run="iaa-1").read_text(encoding="utf-8")
    assert page.count("<img ") == 3
    assert "Left out, no run was given: ours_no_refinement, ours_no_filter" in page
    assert "<td>Riß</td>" in page


def _result(arm: str, seed: int, final: float) -> WsssResult:
    def figures(mean_iou: float) -> SegmentationFigures:
        return SegmentationFigures(num_images=18, mean_iou=mean_iou, iou={"Riß": mean_iou, "chip": None})

    return WsssResult(
        arm=arm,
        seed=seed,
        num_images=9,
        thresholds={"Riß": 0.3},
        pseudo=figures(final / 2),
        final=figures(final),
        seconds=1.0,
    )


def test_seeds_are_set_against_themselves(tmp_path: Path) -> None:
    finals = {(REAL, 0): 0.2, (REAL, 1): 0.4, (OURS, 0): 0.3, (OURS, 1): 0.5}
    results = [_result(arm, seed, value) for (arm, seed), value in finals.items()]
    summary = summarize(results, TINY)
    [(pair, difference)] = summary.final_differences.items()
    assert pair == (OURS, REAL)
    assert difference.differences == pytest.approx((0.1, 0.1))
    assert summary.pseudo_differences[pair].mean == pytest.approx(0.05)
    assert summary.missing == (OVERSAMPLED, NO_REFINEMENT, NO_FILTER)
    assert summary.absent == ("chip",)
    assert spread_to_percent(summary.arms[0].final) == "30.0±14.1"
    assert headline_of(summary).startswith("ours minus real: +10.0 mIoU")
    assert headline_of(replace(summary, final_differences={})) == "real: mIoU 30.0±14.1 on 18 test images"
    assert spread_to_percent(summary.arms[0].final_by_class["chip"]) == "-"
    save_summary(summary, tmp_path)
    content = orjson.loads((tmp_path / "results.json").read_bytes())
    assert content["differences"]["final"]["ours - real"]["wins"] == 2


def test_equal_seeds_give_equal_figures_and_another_picture_another_result(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsss_evaluation, "arms_of", lambda run, seed: {OURS: (*run.train, *run.synthetic)})
    results: list[WsssResult] = []
    for name, first in (("iaa-1", 900), ("iaa-2", 900), ("iaa-3", 950)):
        folder = write_run(tmp_path / name, data, made=MADE, first=first)
        evaluate_wsss(open_wsss(folder, data), TINY, seeds=1, on_result=results.append)
    names = [path.stem for path in sorted(tmp_path.rglob("results/*.json"))]
    assert names[0] == names[1] != names[2]
    assert results[0].final == results[1].final
    assert results[0].thresholds == results[1].thresholds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size_px": 100}, "multiple of 16"),
        ({"size_px": 16}, "32 or more"),
        ({"batch": 1}, "batch of 2 or more"),
        ({"mask_steps": 0}, "at least one step"),
    ],
    ids=["side", "too small", "batch", "steps"],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        WsssSettings(**settings)  # type: ignore[arg-type]  # integers all


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr("maskwright.evaluation.wsss_training.WsssSettings", lambda **given: TINY)
    app = typer.Typer()
    add_wsss_command(app)
    return app


def test_the_command_shows_table_differences_and_what_is_missing(
    tmp_path: Path, data: Path, command: typer.Typer
) -> None:
    folder = write_run(tmp_path / "iaa-1", data, made=MADE)

    result = CliRunner().invoke(command, [str(folder), "--data", str(data), "--seeds", "1", "--no-ablations"])

    assert result.exit_code == 0, result.output
    assert "ours minus real: " in result.output
    assert "left out: ours_no_refinement, ours_no_filter" in result.output
    assert (folder / "evaluation" / "wsss" / "report.html").is_file()


def test_the_command_makes_the_run_again_without_each_mechanism(
    tmp_path: Path, data: Path, command: typer.Typer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = write_run(tmp_path / "iaa-1", data, made=MADE), []

    def run(recipe: str, *, out: Path, overrides: list[str], **_: object) -> RunOutcome:
        asked.append((Path(recipe), *overrides))
        accepted = 0 if "refine" in overrides[0] else 1
        write_run(out, data, made=dict.fromkeys(list(MADE)[:accepted], 1))
        return RunOutcome(out, 0 if accepted else 3, {"accepted": accepted})

    monkeypatch.setattr("maskwright.graphs.label_ablations.run_recipe", run)
    result = CliRunner().invoke(command, [str(folder), "--data", str(data), "--seeds", "1"])

    assert result.exit_code == 0, result.output
    recipe = folder / "recipe.yaml"
    assert asked == [(recipe, "agents.label_agent.refine=false"), (recipe, "agents.label_agent.filter=false")]
    assert "ours_no_refinement: nothing was admitted" in result.output
    assert "ours minus ours_no_filter: " in result.output
