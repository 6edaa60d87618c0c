"""Training and comparing from the command line: what is shown, what is refused before anything is spent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from detector_helpers import Colours, copy_of, make_run, open_made, script
from run_helpers import QUICK

from maskwright.errors import MissingDependencyError
from maskwright.evaluation.yolo_detector import YoloDetector


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("ü"))


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """The run and its data, in a folder of the test's own."""
    return copy_of(made, tmp_path)


@pytest.mark.parametrize(
    ("command", "example"),
    [(["evaluate", "yolo"], "maskwright evaluate yolo runs/"), (["train"], "maskwright train runs/")],
)
def test_help_has_examples(maskwright: Callable[..., tuple[int, str]], command: list[str], example: str) -> None:
    exit_code, printed = maskwright(*command, "--help")
    assert exit_code == 0
    assert example in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "`evaluation.steps` is 0"),
        (["--size", "100"], "`evaluation.image_px` is 100"),
        (["--curriculum", "1"], "`evaluation.mixing.curriculum` is 1"),
        (["--set", "evaluation.hold_aut=all"], "did you mean `hold_out`"),
        (["--data", "nirgends"], "'nirgends' does not exist"),
    ],
)
def test_a_wrong_flag_costs_nothing(
    root: Path, maskwright: Callable[..., tuple[int, str]], arguments: list[str], says: str
) -> None:
    for command in (["evaluate", "yolo"], ["train"]):
        exit_code, printed = maskwright(*command, root / "lauf", *arguments)
        assert exit_code == 2
        assert says in printed
    assert not (root / "lauf/evaluation").exists()


def test_without_ultralytics_the_message_says_how_to_get_it(
    root: Path, maskwright: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_missing(_: YoloDetector) -> str:
        raise MissingDependencyError("run `pip install 'maskwright[yolo]'`")

    monkeypatch.setattr(YoloDetector, "revision", property(is_missing))
    for command in (["evaluate", "yolo"], ["train"]):
        exit_code, printed = maskwright(*command, root / "lauf")
        assert exit_code == 2
        assert "pip install 'maskwright[yolo]'" in printed


def test_the_commands_show_figures_and_what_to_do_next(
    root: Path, maskwright: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = script(open_made(root))
    monkeypatch.setattr("maskwright.evaluation.yolo_detector.YoloDetector", lambda: detector)
    monkeypatch.setattr("maskwright.models.image_features.Lite0", Colours)
    given = [root / "lauf", "--data", root / "daten ü", "--steps", 10, "--size", 64, "--batch", 2, "--device", "cpu"]
    exit_code, printed = maskwright("train", *given)
    assert exit_code == 0, printed
    assert "yolo predict model=" in printed
    exit_code, printed = maskwright("evaluate", "yolo", *given, "--seeds", 2, "--split", "val")
    assert exit_code == 0, printed
    assert re.search(r"real \+ ours +10 +1\.000 ± 0\.000", printed)
    assert "real + ours, seed 1: box AP 1.000, mask AP 1.000" in printed
    assert "evaluation/yolo.html" in printed
    assert len(detector.trained) == 8
    assert {one.training.device for one in detector.trained} == {"cpu"}


def test_a_run_can_train_and_loop(
    root: Path, maskwright: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = script(open_made(root))
    monkeypatch.setattr("maskwright.evaluation.yolo_detector.YoloDetector", lambda: detector)
    monkeypatch.setattr("maskwright.models.image_features.Lite0", Colours)
    monkeypatch.setattr("maskwright.console.console.width", 200)
    small = ["evaluation.steps=10", "evaluation.image_px=64", "evaluation.batch=2", "evaluation.seeds=2"]
    given = ["instances", "--data", root / "daten ü", *(part for one in [*QUICK, *small] for part in ("--set", one))]
    exit_code, printed = maskwright("run", *given, "--out", root / "trained", "--train")
    assert exit_code == 0, printed
    assert "yolo predict model=" in printed
    exit_code, printed = maskwright("run", *given, "--out", root / "looped", "--loop", 2)
    assert exit_code == 0, printed
    assert re.search(r"1 +Mutter ö 8, Bolzen 2 +\+0\.\d+ ± 0\.\d+, 2 of 2 seeds +Bolzen \+0\.\d+", printed)
    assert re.search(r"2 +Mutter ö 7, Bolzen 3 +\+0\.000 ± 0\.000, 0 of 2 seeds", printed)
    assert "ended: all rounds are made; the same command with a higher --loop goes on" in printed
    assert f"rounds    {root / 'looped'}" in printed
    assert f"next: maskwright train {root / 'looped' / 'round-1'}" in printed


def test_a_loop_goes_without_limit_and_train(root: Path, maskwright: Callable[..., tuple[int, str]]) -> None:
    for option in (["--limit", "3"], ["--train"]):
        exit_code, printed = maskwright("run", "instances", "--data", root / "daten ü", "--loop", 2, *option)
        assert exit_code == 2
        assert f"{option[0]} does not go with --loop" in printed
    assert not (root / "runs").exists()
