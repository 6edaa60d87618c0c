"""The graphs as Studio and REST see them: JSON in, JSON out, files on disk."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from anomaly_folders import write_item
from model_helpers import fetched
from PIL import Image
from pydantic import ValidationError
from run_helpers import QUICK

from maskwright.serving.studio import StudioContext, image_agent, run, text_agent

ROOT = Path(__file__).parent.parent
ONE_PICTURE = ["agents.text_agent.images_per_prompt=1", "memory.enabled=false"]


@pytest.fixture
def context(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The I-Agent on the small data set, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return {"recipe": "instances", "overrides": [*QUICK, f"data.path={json.dumps(str(photographs))}"]}


def test_an_instance_is_accepted_in_a_folder_of_its_own(context: dict[str, object], tmp_path: Path) -> None:
    first = image_agent().invoke({"category": "Mutter ö"}, context=context)  # type: ignore[call-overload]
    second = image_agent().invoke({"category": "Mutter ö", "slot": 1}, context=context)  # type: ignore[call-overload]
    assert [(made["ending"], made["rounds"] >= 1) for made in (first, second)] == [("accepted", True)] * 2
    assert [made["folder"] for made in (first, second)] == [str(tmp_path / f"runs/studio-{n}") for n in (1, 2)]
    ids = {made["instances"][0]["instance_id"] for made in (first, second)}
    assert len(ids) == 2
    with Image.open(first["instances"][0]["path"]) as cut_out:
        assert cut_out.mode == "RGBA"
    assert json.loads(json.dumps(first)) == first


def test_a_run_goes_where_it_is_told(context: dict[str, object], tmp_path: Path) -> None:
    summary = run().invoke({"out": str(tmp_path / "läuft")}, context=context)  # type: ignore[call-overload]
    assert (summary["status"], summary["accepted"]) == ("done", 14)
    assert summary["folder"] == str(tmp_path / "läuft")
    assert Path(summary["report"]).is_file()


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        pytest.param({"category": "nail"}, "'nail' is not in the data set; it has: bolt", id="unknown class"),
        pytest.param({"category": " "}, "expected the name of a class", id="no class"),
        pytest.param({"category": 3}, "category is 3", id="no text"),
        pytest.param({"slot": 1}, "category is None", id="nothing"),
        pytest.param({"category": "bolt", "slot": -1}, "slot is -1", id="slot"),
        pytest.param({"category": "bolt", "slot": "1"}, "slot is '1'", id="slot of text"),
        pytest.param({"category": "bolt", "out": "photographs"}, "is there already", id="folder in use"),
    ],
)
def test_wrong_input_is_explained(
    wanted: dict[str, object], says: str, context: dict[str, object], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    told = image_agent().invoke(wanted, context=context)  # type: ignore[call-overload]
    assert (told["ending"], told["instances"], told["folder"]) == ("failed", [], "")
    assert says in told["reason"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("context", "says"),
    [
        pytest.param({"recipe": "quickstop"}, "did you mean `quickstart`", id="recipe"),
        pytest.param({"recipe": "text_agent"}, "agents.image_agent", id="a recipe without the agent"),
        pytest.param({"overrides": ["plan.at_least"]}, "expected key.sub=value", id="override"),
    ],
)
def test_a_wrong_context_is_explained(
    context: dict[str, object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = image_agent().invoke({"category": "cup"}, context=context)  # type: ignore[call-overload]
    assert (told["ending"], says in told["reason"]) == ("failed", True), told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "context", [{"overrides": "plan.at_least=3"}, {"receipt": "quickstart"}], ids=["no list", "misspelt"]
)
def test_a_context_of_another_shape_is_refused(context: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(context))):
        image_agent().invoke({"category": "cup"}, context=context)  # type: ignore[call-overload]


def test_a_run_that_cannot_begin_says_why(context: dict[str, object], tmp_path: Path) -> None:
    told = run().invoke({"out": str(tmp_path / "photographs")}, context=context)  # type: ignore[call-overload]
    assert told["status"] == "failed"
    assert "is not empty and no run of ours" in told["reason"]


@pytest.mark.parametrize("given", [None, {}, StudioContext()], ids=["none", "empty", "default"])
def test_without_a_context_it_is_the_quickstart(given: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = image_agent().invoke({"category": "nail"}, context=given)  # type: ignore[call-overload]
    assert "it has: cat, cup" in told["reason"]


def test_studio_knows_what_to_ask_for() -> None:
    graph = text_agent()
    asked, context = graph.get_input_jsonschema(), graph.get_context_jsonschema()
    assert asked["properties"].keys() == {"category", "slot", "out"}
    assert asked["required"] == ["category"]
    assert context is not None
    assert context["properties"]["recipe"]["default"] == "quickstart"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`langgraph dev` on loopback, with nothing of the user's environment that could make it call home."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = tmp_path_factory.mktemp("studio")
    config = json.loads((ROOT / "langgraph.json").read_text(encoding="utf-8"))
    (folder / "langgraph.json").write_text(json.dumps({**config, "dependencies": [str(ROOT)]}), encoding="utf-8")
    program = Path(sys.executable).with_name("langgraph")
    command = [str(program), "dev", "--no-browser", "--no-reload", "--port", port]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH_", "LANGCHAIN_"))}
    environment = {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}
    log = folder / "log"
    with log.open("w", encoding="utf-8") as printed:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=printed, stderr=printed)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False) as client:
        try:
            _wait_until_up(client, server, log)
            yield client
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_up(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/ok").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    pytest.fail(f"`langgraph dev` did not come up: {log.read_text(encoding='utf-8')[-3000:]}")


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "category"), [("image_agent", "cup"), ("text_agent", "apple")])
def test_an_agent_over_rest(agent: str, category: str, api: httpx.Client) -> None:
    for name in ("smollm2", "minilm", "lite0"):
        fetched(name)
    asked = {
        "assistant_id": agent,
        "input": {"category": category},
        "context": {"recipe": "quickstart", "overrides": ONE_PICTURE},
    }
    answer = api.post("/runs/wait", json=asked).raise_for_status().json()
    assert answer["ending"] == "accepted", answer
    for instance in answer["instances"]:
        assert Path(instance["path"]).is_file()


@pytest.mark.slow
def test_the_anomaly_agent_over_rest(api: httpx.Client, tmp_path: Path) -> None:
    fetched("minilm")
    folder = write_item(tmp_path / "daten ü")
    asked = {
        "assistant_id": "anomaly_agent",
        "input": {"image": "", "defect": "Riß"},
        "context": {"overrides": [f"data.path={json.dumps(str(folder))}", "agents.anomaly_agent.loop=false"]},
    }
    refused = api.post("/runs/wait", json=asked).raise_for_status().json()
    example = refused["reason"].split("such as ")[1].strip("'")
    asked["input"] = {"image": example, "defect": "Riß"}
    answer = api.post("/runs/wait", json=asked).raise_for_status().json()
    assert answer["ending"] == "accepted", answer
    assert Path(answer["edits"][-1]["mask"]).is_file()


@pytest.mark.slow
def test_wrong_input_over_rest_is_readable(api: httpx.Client) -> None:
    asked = {"assistant_id": "image_agent", "input": {"category": "nail"}}
    answer = api.post("/runs/wait", json=asked).json()
    assert "'nail' is not in the data set" in json.dumps(answer)


@pytest.mark.slow
def test_the_example_collects_what_was_accepted(tmp_path: Path) -> None:
    for name in ("smollm2", "minilm", "lite0"):
        fetched(name)
    command = [sys.executable, str(ROOT / "examples" / "text_agent_as_subgraph.py"), "apple", "bicycle"]
    setting = ["--set", "agents.text_agent.images_per_prompt=1"]
    shopped = subprocess.run(
        [*command, "--out", str(tmp_path / "Körbe"), *setting], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    bought = dict(line.split("  ", 1) for line in shopped.stdout.splitlines())
    assert bought.keys() == {"apple", "bicycle"}
    assert Path(bought["apple"]).is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"Körbe"}
