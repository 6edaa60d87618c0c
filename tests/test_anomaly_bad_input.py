"""Anomaly runs on data that is not as it should be: said before anything is painted, named, left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from anomaly_folders import patch_mask, write_picture
from anomaly_plates import DEFECT, DEFECTS, NORMALS, plate, run, write_plates

from maskwright.configs.recipe import load_recipe
from maskwright.errors import DatasetError
from maskwright.graphs.anomaly_data import AnomalySource, open_anomalies
from maskwright.tools.defects import Edited, EditRequest
from maskwright.tools.painting.procedural.painter import ProceduralPainter


@pytest.fixture
def plates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_plates(tmp_path / "daten ü" / "Blech")


def opened(folder: Path, *overrides: str) -> AnomalySource:
    return open_anomalies(load_recipe("anomaly", [f"data.path={folder}", *overrides]))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def masks(change: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for i in range(DEFECTS):
            levels = patch_mask().astype(np.uint8) * np.uint8(255)
            write_picture(folder / "ground_truth" / DEFECT / f"{i:03d}_mask.png", change(levels))

    return damage


def all_colour(folder: Path) -> None:
    for i in range(NORMALS):
        write_picture(folder / "train" / "good" / f"{i:03d}.png", plate(i, colour=True))


def all_colour_but_one(folder: Path) -> None:
    all_colour(folder)
    write_picture(folder / "train" / "good" / "003.png", plate(3))


@pytest.mark.parametrize(
    ("damage", "kind", "count", "named", "num_references"),
    [
        pytest.param(
            masks(lambda levels: levels * 0), "empty_mask", DEFECTS, "_mask.png' is empty", 0, id="all-black masks"
        ),
        pytest.param(
            masks(lambda levels: levels[:40, :60]), "mask_size_mismatch", DEFECTS, "60x40 pixels", 0, id="smaller masks"
        ),
        pytest.param(
            lambda folder: write_picture(folder / "train/good/005.png", plate(5, colour=True)),
            "colour_among_grey",
            1,
            "good/005.png' is colour, most normal images of 'Blech' are grey",
            1,
            id="one colour image",
        ),
        pytest.param(
            all_colour_but_one, "grey_among_colour", 1 + DEFECTS, "are colour; convert it", 1, id="one grey image"
        ),
        pytest.param(all_colour, "grey_among_colour", DEFECTS, f"{DEFECT}/00", 1, id="grey defects on colour"),
        pytest.param(
            lambda folder: truncate(folder / "train/good/002.png"),
            "unreadable_image",
            1,
            "good/002.png' cannot be decoded",
            1,
            id="half a normal image",
        ),
        pytest.param(
            lambda folder: [truncate(folder / "test" / DEFECT / f"{i:03d}.png") for i in range(DEFECTS)],
            "unreadable_image",
            DEFECTS,
            "save it anew",
            0,
            id="half of every defect",
        ),
        pytest.param(
            lambda folder: [truncate(folder / "ground_truth" / DEFECT / f"{i:03d}_mask.png") for i in range(DEFECTS)],
            "unreadable_mask",
            DEFECTS,
            "counts as one without mask",
            0,
            id="half of every mask",
        ),
    ],
)
def test_oddities_are_counted_named_and_left_out(
    damage: Callable[[Path], None], kind: str, count: int, named: str, num_references: int, plates: Path
) -> None:
    damage(plates)
    source = opened(plates)
    assert source.findings.counts == {kind: count}
    assert named in source.findings.examples[kind][0]
    broken = count if kind == "unreadable_image" else 0
    assert sum(map(len, source.split.sides.values())) == NORMALS + DEFECTS - broken
    assert len(source.references(DEFECT)) == num_references


def test_good_data_have_no_findings(plates: Path) -> None:
    source = opened(plates)
    assert not source.findings.counts
    assert source.references(DEFECT)


def test_normal_images_of_which_none_decodes_are_refused_before_anything_is_made(plates: Path) -> None:
    for path in (plates / "train" / "good").iterdir():
        truncate(path)
    with pytest.raises(DatasetError, match=r"'Blech': none of its \d normal images is left.*good/00\d.png.*save it"):
        run(plates)
    assert not (plates.parent.parent / "lauf").exists()


def test_an_item_without_normal_images_is_named_with_what_to_add(plates: Path) -> None:
    for path in (plates / "train" / "good").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"Blech' has no normal image; expected some in train/good/. Add them"):
        run(plates)


def test_a_run_says_what_it_guesses_and_left_out_before_it_paints(
    plates: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    masks(lambda levels: levels * 0)(plates)
    truncate(plates / "train/good/002.png")
    said: list[str] = []
    paint = ProceduralPainter.paint

    def noting(self: ProceduralPainter, requests: Sequence[EditRequest]) -> list[Edited]:
        said[:] = caplog.messages
        return paint(self, requests)

    monkeypatch.setattr(ProceduralPainter, "paint", noting)
    with caplog.at_level(logging.WARNING):
        outcome = run(plates, "agents.anomaly_agent.defects=[Zwölfling, scratch]", count=1)
    assert (outcome.exit_code, outcome.content["accepted"]) == (0, 2)
    findings = outcome.content["findings"]
    assert isinstance(findings, dict)
    assert {kind: found["count"] for kind, found in findings.items()} == {
        "empty_mask": DEFECTS,
        "guessed_defect": 1,
        "unreadable_image": 1,
    }
    for wanted in ("no note names 'Zwölfling', so its looks are guessed", "000_mask.png' is empty", "good/002.png"):
        assert any(wanted in line for line in said), said
        assert any(wanted in example for found in findings.values() for example in found["examples"])
    hints = str(outcome.content["hints"])
    assert all(kind in hints for kind in findings)
    exported = sorted(path.name for path in (outcome.folder / "dataset/mvtec/Blech/train/good").iterdir())
    assert len(exported) == len(orjson.loads((outcome.folder / "split.json").read_bytes())["sides"]["normal"])
