"""The anomaly agent as Studio and REST see it: a normal image and a defect's name in, edits on disk out."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from anomaly_folders import write_picture
from PIL import Image
from pydantic import ValidationError

from maskwright.serving.studio_anomaly import anomaly_agent

ROOT = Path(__file__).parent.parent
GOOD = "Platte/train/good"
DEFECT = "Loch ß"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two items of ten lit plates each, (48, 64), one with six holes; the working folder is beside them."""
    folder = tmp_path / "daten ü"
    ramp = np.repeat(np.linspace(110, 150, 64)[None, :, None], 48, axis=0)
    for seed in range(10):
        grain = np.random.default_rng(seed).normal(0, 2, (48, 64, 1))
        plate = np.repeat(ramp + grain, 3, axis=2).astype(np.uint8)
        for item in ("Platte", "Rohr"):
            write_picture(folder / item / "train" / "good" / f"{seed}.png", plate)
        if seed < 6:
            mask = np.zeros((48, 64), np.uint8)
            mask[20:26, 30:37] = 255
            plate = plate.copy()
            plate[mask > 0] = 20
            write_picture(folder / "Platte" / "test" / DEFECT / f"{seed}.png", plate)
            write_picture(folder / "Platte" / "ground_truth" / DEFECT / f"{seed}_mask.png", mask)
    (tmp_path / "hier").mkdir()
    monkeypatch.chdir(tmp_path / "hier")
    return folder


def ask(data: Path, wanted: dict[str, object], *overrides: str) -> dict[str, object]:
    context = {"overrides": [f"data.path={json.dumps(str(data))}", *overrides]}
    return anomaly_agent().invoke(wanted, context=context)  # type: ignore[call-overload, no-any-return]


def usable(data: Path) -> str:
    """A normal image that may be learned from, by what the graph itself suggests."""
    reason = str(ask(data, {"image": " ", "defect": DEFECT, "item": "Platte"})["reason"])
    return reason.split("such as ")[1].strip("'")


def test_a_defect_is_made_on_the_image_in_a_folder_of_its_own(data: Path) -> None:
    image = usable(data)
    relative = str(Path(image).relative_to(data))
    first = ask(data, {"image": image, "defect": DEFECT, "item": "Platte"})
    second = ask(data, {"image": relative, "defect": DEFECT, "item": "Platte", "slot": 1})
    assert [made["ending"] for made in (first, second)] == ["accepted"] * 2
    assert [made["folder"] for made in (first, second)] == [str(Path.cwd() / f"runs/studio-{n}") for n in (1, 2)]
    for made in (first, second):
        last = made["edits"][-1]  # type: ignore[index]
        assert last["location"] + last["quality"] > 5
        edited, mask = np.array(Image.open(last["path"]))[..., :3], np.array(Image.open(last["mask"]))[..., 0] > 127
        original = np.array(Image.open(image))
        assert np.array_equal(edited[~mask], original[~mask])
        assert (edited[mask] != original[mask]).any()
    assert first["edits"] != second["edits"]
    assert json.loads(json.dumps(first)) == first
    assert len(list((Path(str(first["folder"])) / "items").rglob("*.json"))) == 1


def test_a_defect_without_reference_goes_where_it_is_told(data: Path, tmp_path: Path) -> None:
    image = str(data / "Rohr" / Path(usable(data)).relative_to(data / "Platte"))
    out = tmp_path / "Ort ü"
    made = ask(data, {"image": image, "defect": "scratch", "item": "Rohr", "out": str(out)})
    assert (made["folder"], bool(made["edits"])) == (str(out), True), made


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        pytest.param({"item": "Stab"}, "no item 'Stab'; known: Platte, Rohr", id="unknown item"),
        pytest.param({"item": None}, "has the items Platte, Rohr; name one", id="no item"),
        pytest.param({"item": 3}, "item is 3; expected its name", id="item of no text"),
        pytest.param({"defect": " "}, "defect is ' '; expected its name, such as 'scratch'", id="no defect"),
        pytest.param({"image": None}, "image is None; expected the path of a normal image, such as", id="no image"),
        pytest.param({"image": f"{GOOD}/99.png"}, "99.png' is no image of 'Platte'", id="not there"),
        pytest.param({"image": "/etc/hostname"}, "'/etc/hostname' is no image of 'Platte'", id="elsewhere"),
        pytest.param({"image": f"Platte/test/{DEFECT}/5.png"}, "is on the test side", id="test image"),
        pytest.param({"image": f"{GOOD}/../../../Rohr/train/good/1.png"}, "is no image of 'Platte'", id="other item"),
        pytest.param({"slot": -1}, "slot is -1; expected a whole number", id="slot"),
        pytest.param({"out": "../daten ü"}, "is there already", id="folder in use"),
    ],
)
def test_wrong_input_is_explained_and_nothing_written(
    wanted: dict[str, object], says: str, data: Path, tmp_path: Path
) -> None:
    image = usable(data)
    before = sorted(tmp_path.rglob("*"))
    told = ask(data, {"image": image, "defect": DEFECT, "item": "Platte", **wanted})
    assert (told["ending"], told["edits"], told["folder"]) == ("failed", [], "")
    assert says in str(told["reason"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("context", "says"),
    [
        pytest.param({"recipe": "quickstart"}, "no `agents.anomaly_agent`; take the recipe `anomaly`", id="recipe"),
        pytest.param({}, "no data set is given", id="no data"),
    ],
)
def test_a_wrong_context_is_explained(context: dict[str, object], says: str) -> None:
    told = anomaly_agent().invoke({"image": "x", "defect": "y"}, context=context)  # type: ignore[call-overload]
    assert (told["ending"], says in told["reason"]) == ("failed", True), told


def test_a_context_of_another_shape_is_refused() -> None:
    with pytest.raises(ValidationError, match="receipt"):
        anomaly_agent().invoke({"image": "x", "defect": "y"}, context={"receipt": "anomaly"})  # type: ignore[call-overload]


def test_studio_knows_what_to_ask_for() -> None:
    graph = anomaly_agent()
    asked, context = graph.get_input_jsonschema(), graph.get_context_jsonschema()
    assert asked["properties"].keys() == {"image", "defect", "item", "slot", "out"}
    assert sorted(asked["required"]) == ["defect", "image"]
    assert context is not None
    assert context["properties"]["recipe"]["default"] == "anomaly"


def test_every_graph_of_the_configuration_is_there() -> None:
    graphs = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))["graphs"]
    assert "anomaly_agent" in graphs
    for name, target in graphs.items():
        module, function = target.split(":")
        assert function == name
        assert callable(getattr(importlib.import_module(module), function))
