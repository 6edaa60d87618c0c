"""A run of the anomaly agent as a user types it: samples by defect, MVTec out, resumed without doubling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest
from anomaly_folders import write_item, write_picture
from PIL import Image

from maskwright import cli
from maskwright.data.anomaly_records import read_defect_mask
from maskwright.data.images import read_image
from maskwright.data.load import load_dataset
from maskwright.data.mvtec import load_anomalies
from maskwright.errors import DatasetError, RecipeError, RunFolderError
from maskwright.graphs.anomaly_run import build_anomaly_run_graph
from maskwright.graphs.calibrate import calibrate_run
from maskwright.graphs.pipeline import RunOutcome, run_recipe
from maskwright.graphs.rejudge import rejudge_run
from maskwright.serving import studio
from maskwright.serving.review_queue import ReviewQueue
from maskwright.tools.painting.procedural.painter import ProceduralPainter

SIDE = 96


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One item of smooth grey plates, (72, 96), with four real spots."""
    monkeypatch.chdir(tmp_path)
    folder = write_item(tmp_path / "daten ü", item="plate", num_good=0, defects={})
    rng = np.random.default_rng(0)
    for i in range(10):
        base = np.linspace(110, 150, SIDE)[None, :, None] + rng.normal(0, 2, (72, SIDE, 1))
        pixels = np.repeat(base.clip(0, 255), 3, axis=2).astype(np.uint8)
        write_picture(folder / "train" / "good" / f"{i:03d}.png", pixels)
        if i < 6:
            pixels = pixels.copy()
            mask = np.zeros((72, SIDE), np.uint8)
            mask[20 + i : 26 + i, 40:47] = 255
            pixels[mask > 0] = 20
            write_picture(folder / "test" / "hole" / f"{i:03d}.png", pixels)
            write_picture(folder / "ground_truth" / "hole" / f"{i:03d}_mask.png", mask)
    return folder


def run(data: Path, out: Path, *overrides: str, count: int = 3, **options: object) -> RunOutcome:
    settings = [f"agents.anomaly_agent.count={count}", "budget.workers=2", *overrides]
    return run_recipe("anomaly", data=data, out=out, overrides=settings, **options)  # type: ignore[arg-type]


def entries(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in (folder / "items").rglob("*.json")}


def test_the_graph_is_drawn_as_documented() -> None:
    golden = Path(__file__).parent / "golden" / "anomaly_run.mermaid"
    assert build_anomaly_run_graph().get_graph().draw_mermaid() == golden.read_text(encoding="utf-8")


def test_samples_in_mvtecs_layout_with_exact_masks(root: Path, tmp_path: Path) -> None:
    outcome = run(root, tmp_path / "lauf ü")
    assert (outcome.exit_code, outcome.content["defects"]) == (0, {"hole": 3})
    made = load_anomalies(outcome.folder / "dataset" / "mvtec")
    samples = [record for record in made.records if record.defect == "hole"]
    normals = [read_image(record.image) for record in made.records if record.is_good]
    assert len(samples) == 3
    assert len(normals) == len(load_split(outcome.folder)["normal"])
    for sample in samples:
        rgb, mask = read_image(sample.image), read_defect_mask(sample)
        outside = [bool((normal[~mask] == rgb[~mask]).all()) for normal in normals]
        inside = [bool((normal[mask] != rgb[mask]).any()) for normal in normals]
        assert any(outside), "everything but the mask is a normal image"
        assert all(inside)
    lines = (outcome.folder / "dataset" / "provenance.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["defect"] for line in lines] == ["hole"] * 3
    assert "3 made defects on plate" in (outcome.folder / "report.html").read_text(encoding="utf-8")
    detectable = load_dataset(outcome.folder / "dataset" / "yolo")
    assert sum(image.split == "train" and "anomaly" in image.file_name for image in detectable.images) == 3
    trajectory = orjson.loads((outcome.folder / "trajectories.jsonl").read_bytes().splitlines()[0])
    assert trajectory["messages"][0]["role"] == "user"


def test_samples_in_anomaly_diffusions_layout(root: Path, tmp_path: Path) -> None:
    outcome = run(root, tmp_path / "lauf ü", "agents.anomaly_agent.anomaly_diffusion=PNG")
    place = outcome.folder / "dataset" / "anomaly_diffusion" / "plate" / "hole"
    assert sorted(path.name for path in place.iterdir()) == ["image", "mask", "ori"]
    for number in range(3):
        files = [place / part / f"{number}.png" for part in ("image", "ori", "mask")]
        image, original, mask = (np.asarray(Image.open(path)) for path in files)
        assert set(np.unique(mask)) == {0, 255}
        assert ((image != original).any(axis=2) <= (mask > 0)).all()
        assert (image != original).any()


def load_split(folder: Path) -> dict[str, list[str]]:
    sides: dict[str, list[str]] = orjson.loads((folder / "split.json").read_bytes())["sides"]
    return sides


def test_nothing_of_the_test_side_is_learned_from(root: Path, tmp_path: Path) -> None:
    outcome = run(root, tmp_path / "run")
    sides = load_split(outcome.folder)
    assert outcome.content["guarded"]["references"] > 0  # type: ignore[index]
    used = {orjson.loads(content)["normal"] for content in entries(outcome.folder).values()}
    assert used <= set(sides["normal"])
    assert not used & set(sides["test"])


def test_a_defect_without_any_reference_works(root: Path, tmp_path: Path) -> None:
    outcome = run(root, tmp_path / "run", "agents.anomaly_agent.defects=[scratch, never seen]", count=2)
    assert outcome.content["defects"] == {"scratch": 2, "never seen": 2}


def test_the_same_command_makes_nothing_twice_and_a_higher_count_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(root, tmp_path / "run", limit=2)
    assert first.exit_code == 3
    before = entries(first.folder)
    again = run(root, tmp_path / "run", count=5)
    after = entries(again.folder)
    assert (again.exit_code, again.content["accepted"]) == (0, 5)
    assert {key: after[key] for key in before} == before
    monkeypatch.setattr(ProceduralPainter, "paint", None)
    assert run(root, tmp_path / "run", count=5).content["accepted"] == 5
    whole = run_whole(root, tmp_path / "whole", monkeypatch)
    assert samples_of(whole.folder) == samples_of(again.folder)


def run_whole(root: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> RunOutcome:
    monkeypatch.undo()
    return run(root, out, count=5)


def samples_of(folder: Path) -> dict[str, bytes]:
    data = folder / "dataset" / "mvtec"
    return {path.relative_to(data).as_posix(): path.read_bytes() for path in data.rglob("*.png")}


def test_the_shorthands(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "run",
        "anomaly",
        "--data",
        str(root.parent),
        "--item",
        "plate",
        "--defect",
        "hole",
        "--defect",
        "dent",
    ]
    monkeypatch.setattr("sys.argv", ["maskwright", *arguments, "--count", "1", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert "2 samples on plate (hole 1, dent 1)" in capfd.readouterr().out
    monkeypatch.setattr("sys.argv", ["maskwright", "run", "instances", "--count", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "--count is for the recipe anomaly" in capfd.readouterr().err


def test_bad_input(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no data set is given"):
        run_recipe("anomaly", out=tmp_path / "a")
    write_item(root.parent, item="other")
    with pytest.raises(RecipeError, match="has the items other, plate; name one with --item"):
        run(root.parent, tmp_path / "b")
    with pytest.raises(DatasetError, match="no item 'none'"):
        run(root.parent, tmp_path / "c", "agents.anomaly_agent.item=none")
    with pytest.raises(RecipeError, match="unknown painter 'brush'"):
        run(root, tmp_path / "d", "agents.anomaly_agent.painter=brush")
    run(root, tmp_path / "e", count=1)
    with pytest.raises(RunFolderError, match="other settings"):
        run(root, tmp_path / "e", "agents.anomaly_agent.max_turns=2", count=1)


def test_an_item_without_normal_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_item(tmp_path / "data", item="plate", num_good=0, defects={"hole": 3})
    with pytest.raises(DatasetError):
        run(tmp_path / "data", tmp_path / "run")


def test_commands_for_instances_say_that_this_is_none(root: Path, tmp_path: Path) -> None:
    folder = run(root, tmp_path / "run", count=1).folder
    for command in (
        lambda: rejudge_run(folder),
        lambda: calibrate_run(folder, precision=0.9),
        lambda: ReviewQueue(folder, "Eva"),
    ):
        with pytest.raises(RunFolderError, match="an anomaly run"):
            command()


def test_studio_runs_the_recipe_too(root: Path, tmp_path: Path) -> None:
    overrides = [f"data.path={root}", "agents.anomaly_agent.count=1"]
    context = {"recipe": "anomaly", "overrides": overrides}
    summary = studio.run().invoke({"out": str(tmp_path / "run")}, context=context)  # type: ignore[call-overload]
    assert (summary["status"], summary["accepted"], summary["scenes"]) == ("done", 1, 0)
    assert Path(summary["report"]).is_file()
