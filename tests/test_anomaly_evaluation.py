"""What a run's samples are worth: equal networks on each source, measured on test images that nobody learned from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest
from anomaly_folders import write_item, write_picture

from maskwright.errors import DatasetError, LeakError, RunFolderError
from maskwright.evaluation import anomaly_evaluation
from maskwright.evaluation.anomaly_evaluation import ArmResult, evaluate_anomalies, summarize
from maskwright.evaluation.anomaly_training import UNetTraining
from maskwright.graphs.pipeline import run_recipe

TRAINING = UNetTraining(steps=2, batch=2, size_px=32, width=4)
ARMS = ["perlin", "ours", "reference", "reference + perlin", "reference + ours"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An item of plates with six spots, and a run with two samples."""
    root = tmp_path_factory.mktemp("daten ü")
    folder = write_item(root, item="plate", num_good=0, defects={})
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(110, 150, (48, 64, 3)).astype(np.uint8)
        write_picture(folder / "train" / "good" / f"{i:03d}.png", pixels)
    for i in range(6):
        pixels, mask = rng.integers(110, 150, (48, 64, 3)).astype(np.uint8), np.zeros((48, 64), np.uint8)
        mask[20 + i : 26 + i, 40:47] = 255
        pixels[mask > 0] = 20
        write_picture(folder / "test" / "hole" / f"{i:03d}.png", pixels)
        write_picture(folder / "ground_truth" / "hole" / f"{i:03d}_mask.png", mask)
    settings = [
        "agents.anomaly_agent.count=2",
        "agents.anomaly_agent.loop=false",
        f"memory.knowledge_path={root / 'kb'}",
    ]
    outcome = run_recipe("anomaly", data=folder, out=root / "run", overrides=settings)
    assert outcome.exit_code == 0
    return folder, root / "run"


def test_every_arm_is_trained_once_and_measured(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data, run = made
    told: list[ArmResult] = []
    summaries = evaluate_anomalies(run, data, TRAINING, seeds=2, device="cpu", on_result=told.append)
    assert [one.arm for one in summaries] == ARMS
    assert all(one.num_seeds == 2 and 0 <= one.means["pixel_ap"] <= 1 for one in summaries)
    assert len(told) == 2 * len(ARMS)
    content = orjson.loads((run / "evaluation" / "anomaly.json").read_bytes())
    assert [one["arm"] for one in content["arms"]] == ARMS
    monkeypatch.setattr(anomaly_evaluation, "train_unet", None)
    assert evaluate_anomalies(run, data, TRAINING, seeds=2, device="cpu") == summaries


def test_without_references_they_are_no_arm(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    split = orjson.loads((copy / "split.json").read_bytes())
    split["sides"]["reference"] = []
    (copy / "split.json").write_bytes(orjson.dumps(split))
    assert [one.arm for one in evaluate_anomalies(copy, data, TRAINING, seeds=1, device="cpu")] == ARMS[:2]


def test_a_leak_stops_it(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    sides = orjson.loads((copy / "split.json").read_bytes())["sides"]
    test_image = next(key for key in sides["test"] if "hole" in key)
    target = next((copy / "dataset" / "mvtec" / "plate" / "test" / "hole").iterdir())
    shutil.copy(data / Path(test_image).relative_to("plate"), target)
    with pytest.raises(LeakError):
        evaluate_anomalies(copy, data, TRAINING, seeds=1, device="cpu")


def test_other_folders_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    with pytest.raises(RunFolderError, match="no anomaly run with samples"):
        evaluate_anomalies(tmp_path, data, TRAINING, seeds=1)
    write_item(tmp_path, item="plate", num_good=4, defects={"hole": 3})
    with pytest.raises(DatasetError):
        evaluate_anomalies(run, tmp_path, TRAINING, seeds=1)


def test_means_and_deviations() -> None:
    results = [ArmResult("a", seed, {"pixel_ap": value}) for seed, value in enumerate((0.2, 0.4))]
    [summary] = summarize([*results])
    assert summary.means["pixel_ap"] == pytest.approx(0.3)
    assert summary.deviations["pixel_ap"] == pytest.approx(0.1414, abs=1e-4)
