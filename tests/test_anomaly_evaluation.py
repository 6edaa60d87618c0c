"""What a run's samples are worth: equal networks on each source, measured on test images that nobody learned from."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pytest
import torch
from anomaly_folders import write_item, write_picture

from maskwright.data.records import ImageRGB
from maskwright.errors import DatasetError, LeakError, RunFolderError
from maskwright.evaluation import anomaly_classifier, anomaly_evaluation, generation_extractors
from maskwright.evaluation.anomaly_classifier import (
    ClassifierTraining,
    evaluate_classification,
    find_imagenet_weights,
)
from maskwright.evaluation.anomaly_evaluation import AnomalyRun, ArmResult, evaluate_anomalies, open_run, summarize
from maskwright.evaluation.anomaly_training import UNetTraining
from maskwright.evaluation.anomaly_unet import AnomalyUNet
from maskwright.evaluation.generation_metrics import evaluate_generation
from maskwright.graphs.pipeline import run_recipe

TRAINING = UNetTraining(steps=2, batch=2, size_px=32, width=4)
CLASSIFIER = ClassifierTraining(epochs=2, batch=2, size_px=32)
ARMS = ["perlin", "ours", "reference", "reference + perlin", "reference + ours"]
DEFECTS = ("hole", "stain")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An item of plates with six dark and six bright spots, and a run with two samples of each."""
    root = tmp_path_factory.mktemp("daten ü")
    folder = write_item(root, item="plate", num_good=0, defects={})
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(110, 150, (48, 64, 3)).astype(np.uint8)
        write_picture(folder / "train" / "good" / f"{i:03d}.png", pixels)
    for defect, level in zip(DEFECTS, (20, 220), strict=True):
        for i in range(6):
            pixels, mask = rng.integers(110, 150, (48, 64, 3)).astype(np.uint8), np.zeros((48, 64), np.uint8)
            mask[20 + i : 26 + i, 40:47] = 255
            pixels[mask > 0] = level
            write_picture(folder / "test" / defect / f"{i:03d}.png", pixels)
            write_picture(folder / "ground_truth" / defect / f"{i:03d}_mask.png", mask)
    settings = [
        "agents.anomaly_agent.count=2",
        "agents.anomaly_agent.loop=false",
        f"memory.knowledge_path={root / 'kb'}",
    ]
    outcome = run_recipe("anomaly", data=folder, out=root / "run", overrides=settings)
    assert outcome.exit_code == 0
    return folder, root / "run"


@pytest.fixture
def opened(made: tuple[Path, Path], tmp_path: Path) -> AnomalyRun:
    """The run, with results in a folder of the test's own."""
    data, run = made
    return replace(open_run(run, data), folder=tmp_path)


def copy_with_split(run: Path, target: Path, edit: Callable[[dict[str, list[str]]], object]) -> Path:
    shutil.copytree(run, target)
    split = orjson.loads((target / "split.json").read_bytes())
    edit(split["sides"])
    (target / "split.json").write_bytes(orjson.dumps(split))
    return target


def read_json(path: Path) -> dict[str, object]:
    content: dict[str, object] = orjson.loads(path.read_bytes())
    return content


class RecordingTraining:
    """Trains nothing; remembers whether checkpoints were chosen."""

    def __init__(self) -> None:
        self.scores: list[float | None] = []

    def __call__(
        self, *_: object, validate: Callable[[AnomalyUNet], float] | None, on_steps: Callable[[int], None], **__: object
    ) -> AnomalyUNet:
        network = AnomalyUNet(width=4).eval()
        self.scores.append(validate(network) if validate else None)
        on_steps(TRAINING.steps)
        return network


class CountingProgress:
    """What a bar would show."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.counts: dict[str, int] = {}

    def start(self, stage: str, total: int) -> None:
        self.totals[stage] = total
        self.counts[stage] = 0

    def advance(self, stage: str, outcome: str = "", count: int = 1) -> None:
        self.counts[stage] += count


def test_every_arm_is_trained_once_and_measured(opened: AnomalyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[ArmResult] = []
    summary = evaluate_anomalies(opened, TRAINING, seeds=2, device="cpu", on_result=told.append)
    assert [one.arm for one in summary.arms] == ARMS
    assert summary.chosen_by == "validation"
    assert all(one.num_seeds == 2 and 0 <= one.means["pixel_ap"] <= 1 for one in summary.arms)
    assert len(told) == 2 * len(ARMS)
    content = read_json(opened.folder / "evaluation" / "anomaly.json")
    assert content["chosen_by"] == "validation"
    assert [one["arm"] for one in content["arms"]] == ARMS  # type: ignore[attr-defined]
    monkeypatch.setattr(anomaly_evaluation, "train_unet", None)
    assert evaluate_anomalies(opened, TRAINING, seeds=2, device="cpu") == summary


def test_sides_do_not_overlap_and_validation_chooses_in_every_arm(
    opened: AnomalyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = [opened.normals, opened.references, opened.validation, opened.test]
    keys = [one.key for side in sides for one in side]
    assert len(set(keys)) == len(keys) == 8 + 12
    train, progress = RecordingTraining(), CountingProgress()
    monkeypatch.setattr(anomaly_evaluation, "train_unet", train)
    evaluate_anomalies(opened, TRAINING, seeds=1, device="cpu", progress=progress)
    assert len(train.scores) == len(ARMS)
    assert all(score is not None and 0 <= score <= 1 for score in train.scores)
    assert progress.totals == progress.counts == {"networks": len(ARMS), "steps": TRAINING.steps}


@pytest.mark.parametrize("kept", [pytest.param("good", id="no defect"), pytest.param("test", id="no good image")])
def test_a_validation_side_of_one_class_chooses_nothing(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    data, run = made

    def keep(sides: dict[str, list[str]]) -> None:
        sides["validation"] = [key for key in sides["validation"] if f"/{kept}/" in key]
        assert sides["validation"]

    train = RecordingTraining()
    monkeypatch.setattr(anomaly_evaluation, "train_unet", train)
    copy = open_run(copy_with_split(run, tmp_path / "run", keep), data)
    assert evaluate_anomalies(copy, TRAINING, seeds=1, device="cpu").chosen_by == "last step"
    assert train.scores == [None] * len(ARMS)


def test_other_samples_are_another_result(opened: AnomalyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    train = RecordingTraining()
    monkeypatch.setattr(anomaly_evaluation, "train_unet", train)
    evaluate_anomalies(opened, TRAINING, seeds=1, device="cpu")
    evaluate_anomalies(replace(opened, samples=opened.samples[1:]), TRAINING, seeds=1, device="cpu")
    assert len(train.scores) == 2 * len(ARMS)


def test_without_references_they_are_no_arm(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    copy = open_run(copy_with_split(run, tmp_path / "run", lambda sides: sides["reference"].clear()), data)
    assert [one.arm for one in evaluate_anomalies(copy, TRAINING, seeds=1, device="cpu").arms] == ARMS[:2]


def test_a_leaked_sample_stops_it(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    test_image = next(key for key in orjson.loads((copy / "split.json").read_bytes())["sides"]["test"] if "hole" in key)
    target = next((copy / "dataset" / "mvtec" / "plate" / "test" / "hole").iterdir())
    shutil.copy(data / Path(test_image).relative_to("plate"), target)
    with pytest.raises(LeakError, match="the run's samples"):
        open_run(copy, data)


def test_a_test_image_cannot_choose(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    copied = tmp_path / "plate"
    shutil.copytree(data, copied)
    sides = orjson.loads((run / "split.json").read_bytes())["sides"]
    chosen, tested = (
        copied / Path(next(key for key in sides[side] if "hole" in key)).relative_to("plate")
        for side in ("validation", "test")
    )
    shutil.copy(tested, chosen)
    with pytest.raises(LeakError, match="validation"):
        open_run(run, copied)


def test_other_folders_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    with pytest.raises(RunFolderError, match="no anomaly run with samples"):
        open_run(tmp_path, data)
    write_item(tmp_path, item="plate", num_good=4, defects={"hole": 3})
    with pytest.raises(DatasetError):
        open_run(run, tmp_path)


def test_means_and_deviations() -> None:
    results = [ArmResult("a", seed, {"pixel_ap": value}) for seed, value in enumerate((0.2, 0.4))]
    [summary] = summarize([*results])
    assert summary.means["pixel_ap"] == pytest.approx(0.3)
    assert summary.deviations["pixel_ap"] == pytest.approx(0.1414, abs=1e-4)


class BrightnessExtractor:
    """Sees how bright pictures are; counts how many it was shown."""

    name = "brightness"

    def __init__(self) -> None:
        self.num_shown = 0

    def classify(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float64]:
        self.num_shown += len(images)
        return np.eye(256)[[int(image.mean()) for image in images]]

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        return np.array([[image.mean()] for image in images], np.float32)


def test_each_defects_samples_are_scored_once(opened: AnomalyRun) -> None:
    extractor = BrightnessExtractor()
    summary = evaluate_generation(opened, extractor)
    assert tuple(summary.defects) == DEFECTS
    assert [one.num_samples for one in summary.defects.values()] == [2, 2]
    assert all(one.ic_distance is not None for one in summary.defects.values())
    assert summary.mean.extractor == "brightness"
    assert extractor.num_shown == 4
    assert evaluate_generation(opened, extractor) == summary
    assert extractor.num_shown == 4
    assert read_json(opened.results / "generation.json")["mean"]["num_samples"] == 4  # type: ignore[index]


def test_a_defect_without_references_has_no_distance(opened: AnomalyRun) -> None:
    holes = [one for one in opened.references if one.defect == "hole"]
    summary = evaluate_generation(replace(opened, references=holes), BrightnessExtractor())
    assert summary.defects["stain"].ic_distance is None
    assert summary.mean.ic_distance == summary.defects["hole"].ic_distance


class MeanColourNetwork(torch.nn.Module):
    """Stands in for ResNet34."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(3, 512)
        self.fc = torch.nn.Linear(512, 1000)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(self.body(pixels.mean(dim=(2, 3))).relu()))


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly_classifier, "resnet34", lambda weights: MeanColourNetwork())


@pytest.mark.usefixtures("small_network")
def test_classifiers_are_trained_once_a_seed_and_chosen_on_validation(
    opened: AnomalyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = CountingProgress()
    summary = evaluate_classification(opened, CLASSIFIER, seeds=2, device="cpu", progress=progress)
    assert 0 <= summary.mean <= 1
    assert (summary.num_seeds, summary.num_defects) == (2, 2)
    assert (summary.began_with, summary.chosen_by) == ("nothing", "validation")
    assert progress.totals == progress.counts == {"classifiers": 2, "epochs": 2}
    assert read_json(opened.results / "classification.json")["chosen_by"] == "validation"
    monkeypatch.setattr(anomaly_classifier, "train_classifier", None)
    assert evaluate_classification(opened, CLASSIFIER, seeds=2, device="cpu") == summary


@pytest.mark.usefixtures("small_network")
def test_classification_without_a_validation_side_takes_the_last_epoch(opened: AnomalyRun) -> None:
    summary = evaluate_classification(replace(opened, validation=[]), CLASSIFIER, seeds=1, device="cpu")
    assert summary.chosen_by == "last epoch"


@pytest.mark.usefixtures("small_network")
def test_weights_in_the_cache_of_torch_hub_are_begun_with(
    opened: AnomalyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert find_imagenet_weights() is None
    evaluate_classification(opened, CLASSIFIER, seeds=1, device="cpu")
    path = tmp_path / "hub" / "checkpoints" / "resnet34-b627a593.pth"
    path.parent.mkdir(parents=True)
    torch.save(MeanColourNetwork().state_dict(), path)
    progress, training = CountingProgress(), replace(CLASSIFIER, weights_path=find_imagenet_weights())
    summary = evaluate_classification(opened, training, seeds=1, device="cpu", progress=progress)
    assert summary.began_with == "ImageNet"
    assert progress.counts["epochs"] == 2  # what was learned from nothing is another result


def test_one_defect_cannot_be_told_apart(opened: AnomalyRun) -> None:
    holes = [one for one in opened.samples if one.defect == "hole"]
    with pytest.raises(DatasetError, match="two defects"):
        evaluate_classification(replace(opened, samples=holes), CLASSIFIER, seeds=1, device="cpu")


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    monkeypatch.setattr(
        generation_extractors, "choose_extractor", lambda *_, **__: (BrightnessExtractor(), "no weights")
    )
    monkeypatch.setattr("maskwright.console.console.width", 200)


@pytest.mark.usefixtures("small_network", "without_weights")
@pytest.mark.parametrize(
    ("only", "titles"),
    [
        pytest.param((), ("Detection", "Generation", "Classification"), id="all"),
        pytest.param(("--only", "generation"), ("Generation",), id="one"),
        pytest.param(("--only", "generation", "--only", "classification"), ("Generation", "Classification"), id="two"),
    ],
)
def test_the_command_prints_the_parts_that_were_asked_for(
    made: tuple[Path, Path],
    tmp_path: Path,
    maskwright: Callable[..., tuple[int, str]],
    only: tuple[str, ...],
    titles: tuple[str, ...],
) -> None:
    data, run = made
    shutil.copytree(run, tmp_path / "run")
    small = ("--size", "32", "--steps", "1", "--width", "4", "--epochs", "1", "--seeds", "1", "--device", "cpu")
    exit_code, printed = maskwright(
        "evaluate", "anomaly", tmp_path / "run", "--data", data, *small, "--precision", "bfloat16", *only
    )
    assert exit_code == 0
    expected = {
        "Detection": "Detection, checkpoints chosen by validation",
        "Generation": "Generation, by brightness",
        "Classification": "Classification, ResNet34 from nothing, epochs chosen by validation",
    }
    assert {name for name, title in expected.items() if title in printed} == set(titles)
    assert ("no weights" in printed) == ("Generation" in titles)
    written = {path.stem for path in (tmp_path / "run" / "evaluation").glob("*.json")}
    assert written == {{"Detection": "anomaly"}.get(title, title.lower()) for title in titles}


@pytest.mark.usefixtures("without_weights")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(("--size", "100"), "multiple of 32", id="size"),
        pytest.param(("--only", "beauty"), "beauty", id="unknown part"),
        pytest.param(("--classifier-weights", "none.pth"), "none.pth", id="no such weights"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    made: tuple[Path, Path], maskwright: Callable[..., tuple[int, str]], arguments: tuple[str, ...], says: str
) -> None:
    data, run = made
    exit_code, printed = maskwright("evaluate", "anomaly", run, "--data", data, *arguments)
    assert exit_code == 2
    assert says in printed
    assert not (run / "evaluation").exists()
