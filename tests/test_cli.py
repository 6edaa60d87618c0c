"""The command line: every wrong input is exit code 2, one message, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Edit = Callable[[dict[str, list[dict[str, object]]]], object]


def _edited(photographs: Path, edit: Edit) -> Path:
    path = photographs / "annotations" / "instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return photographs


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        pytest.param(lambda c: c["annotations"][1].update(id=1), "1", id="duplicate id"),
        pytest.param(lambda c: c["annotations"][0].update(category_id=99), "99", id="unknown class"),
        pytest.param(lambda c: c["annotations"][0].update(image_id=99), "99", id="unknown image"),
        pytest.param(lambda c: c["annotations"][1]["segmentation"].update(size=[64, 48]), "64", id="RLE size"),
        pytest.param(lambda c: c["images"][0].update(file_name="../../etc/passwd"), "etc/passwd", id="leaves"),
        pytest.param(lambda c: c["images"][0].update(file_name="/etc/passwd"), "/etc/passwd", id="absolute"),
        pytest.param(lambda c: c["annotations"].clear(), "instances_train.json", id="no annotation"),
        pytest.param(lambda c: c.pop("categories"), "categories", id="no categories"),
    ],
)
def test_a_wrong_annotation_file_is_refused_before_any_work(
    edit: Edit, says: str, photographs: Path, tmp_path: Path, maskwright: Callable[..., tuple[int, str]]
) -> None:
    data = _edited(photographs, edit)
    exit_code, printed = maskwright("run", "instances", "--data", data, "--out", tmp_path / "run")
    assert exit_code == 2
    assert "instances_train.json" in printed
    assert says in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["run", "quickstrat"], "did you mean `quickstart`", id="misspelt recipe"),
        pytest.param(["run", "instances"], "--data PATH", id="no data"),
        pytest.param(["run", "instances", "--data", "nowhere"], "nowhere", id="no such data"),
        pytest.param(["run", "quickstart", "--set", "plan.at_leest=3"], "did you mean `at_least`", id="misspelt key"),
        pytest.param(["run", "quickstart", "--set", "plan.classes=[dgo]"], "'dgo'", id="unknown class"),
        pytest.param(["run", "quickstart", "--set", "agents.image_agent.painter=sdxl"], "variation", id="painter"),
        pytest.param(["run", "quickstart", "--set", "compose.harmonization=glue"], "poisson", id="harmonization"),
        pytest.param(["run", "quickstart", "--set", "compose.backgrounds=nowhere"], "nowhere", id="backgrounds"),
        pytest.param(["report", "nowhere"], "nowhere", id="report of nothing"),
        pytest.param(["convert", "nowhere", "there", "--to", "coco"], "nowhere", id="convert nothing"),
    ],
)
def test_a_wrong_command_is_one_message_and_exit_code_2(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    maskwright: Callable[..., tuple[int, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    exit_code, printed = maskwright(*arguments)
    assert exit_code == 2
    assert says in printed
    assert "Traceback" not in printed
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_json_and_a_bomb_are_refused(
    photographs: Path, tmp_path: Path, maskwright: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = photographs / "images" / "train" / "bild 1 ü.png"
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(bomb)
    header = bytearray(bomb.read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    bomb.write_bytes(header)
    exit_code, printed = maskwright("plan", "instances", "--data", photographs)
    assert exit_code == 2
    assert "60000" in printed
    (photographs / "annotations" / "instances_train.json").write_text("[1, 2")
    exit_code, printed = maskwright("plan", "instances", "--data", photographs)
    assert exit_code == 2
    assert "instances_train.json" in printed


def test_plan_shows_quotas_and_counts_oddities(photographs: Path, maskwright: Callable[..., tuple[int, str]]) -> None:
    (photographs / "images" / "train" / "bild 6 ü.png").unlink()
    exit_code, printed = maskwright("plan", "instances", "--data", photographs, "--set", "plan.at_least=12")
    assert exit_code == 0
    assert "Mutter ö" in printed
    assert "missing_image" in printed
    assert "12 work items" in printed


def test_convert_and_report_and_doctor(
    photographs: Path, tmp_path: Path, maskwright: Callable[..., tuple[int, str]]
) -> None:
    exit_code, printed = maskwright("convert", photographs, tmp_path / "yolo", "--to", "yolo")
    assert (exit_code, (tmp_path / "yolo/data.yaml").is_file()) == (0, True), printed
    out = tmp_path / "run"
    exit_code, printed = maskwright("run", "instances", "--data", tmp_path / "yolo", "--out", out, "--limit", 3)
    assert exit_code == 0, printed
    assert "3 new instances" in printed
    (out / "report.html").unlink()
    exit_code, printed = maskwright("report", out)
    assert (exit_code, (out / "report.html").is_file()) == (0, True)
    exit_code, printed = maskwright("doctor")
    assert exit_code == 0
    assert "recipe quickstart" in printed


@pytest.mark.parametrize("command", ["run", "plan", "convert", "report", "doctor"])
def test_every_command_s_help_has_an_example(command: str, maskwright: Callable[..., tuple[int, str]]) -> None:
    exit_code, printed = maskwright(command, "--help")
    assert exit_code == 0
    assert "Example" in printed
    assert f"maskwright {command}" in printed
