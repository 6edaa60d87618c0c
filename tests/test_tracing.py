"""LangSmith hears of runs, items and rounds, of no pixel and no key; where it cannot hear, it costs nothing."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from langsmith.utils import tracing_is_enabled
from text_helpers import GOOD, POOR

from maskwright.graphs.tracing import ENDPOINTS, KEYS, SWITCHES, langsmith_tracing, trace_round

TESTS = Path(__file__).parent
KEY = "secret-key"
BATCHES = {
    "use_multipart_endpoint": False,
    "scale_up_qsize_trigger": 1000,
    "scale_up_nthreads_limit": 1,
    "scale_down_nempty_trigger": 4,
    "size_limit": 100,
    "size_limit_bytes": 20_971_520,
}
"""How the server wants its traces: in plain JSON."""
RUN = """
import sys
from pathlib import Path
import pytest
from text_helpers import ScriptedTextPainter, good, poor, register
from maskwright.graphs.pipeline import run_recipe

settings = register(pytest.MonkeyPatch(), ScriptedTextPainter([poor] * 4 + [good]))
settings += ["plan.at_least=14", "plan.classes=[bolt]", "memory.enabled=false"]
settings += ["llm.captioner=text_helpers:make_writer"]
outcome = run_recipe("text_agent", data=Path(sys.argv[1]), out=Path(sys.argv[2]), overrides=settings)
assert outcome.exit_code == 0, outcome.content
"""
Span = dict[str, Any]


@dataclass(slots=True)
class TraceServer:
    """What a test sees of the server."""

    url: str
    paths: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """Every run that was posted, completed by what was patched."""
        spans: dict[str, Span] = {}
        for body in self.bodies:
            content = json.loads(body)
            for posted in [*content.get("post", ()), *content.get("patch", ())]:
                known = {key: value for key, value in posted.items() if value is not None}
                spans.setdefault(posted["id"], {}).update(known)
        return list(spans.values())


@contextmanager
def serve_traces() -> Iterator[TraceServer]:
    """A server that takes traces in whole batches of plain JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.paths.append(self.path)
            self._answer({"batch_ingest_config": BATCHES})

        def do_POST(self) -> None:
            server.paths.append(self.path)
            server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer({})

        def _answer(self, content: object) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = TraceServer(f"http://127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _run(data: Path, out: Path, **environment: str) -> str:
    """Make a small run in a process of its own, to its very exit; returns what it logged."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(data), str(out)],
        env=clean | {"PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_run_item_and_round_arrive_nested_without_pixels_or_key(photographs: Path, tmp_path: Path) -> None:
    with serve_traces() as server:
        told = _run(
            photographs,
            tmp_path / "lauf ü",
            LANGSMITH_TRACING="true",
            LANGSMITH_API_KEY=KEY,
            LANGSMITH_ENDPOINT=server.url,
        )
    assert "switched on" not in told
    spans = {span["id"]: span for span in server.spans}
    names = {span["name"] for span in spans.values()}
    [run] = [span for span in spans.values() if span.get("parent_run_id") is None]
    assert (run["name"], set(run["tags"])) == ("run lauf ü", {"maskwright", "text_agent"})
    assert {"make_wave", "write_prompts", "paint", "validate", "judge_measures", "conclude", "ScriptedChat"} <= names

    def chain(span: Span) -> list[str]:
        above = spans.get(span.get("parent_run_id"))
        return [span["name"], *(chain(above) if above else [])]

    rounds = [span for span in spans.values() if re.fullmatch(r"round \d", span["name"])]
    assert sorted(span["name"] for span in rounds) == ["round 1", "round 2"]
    scores = {"round 1": POOR, "round 2": GOOD}
    for span in rounds:
        assert chain(span) == [
            span["name"],
            "conclude",
            "text_agent text-3-0000",
            "text_agent",
            "make_wave",
            run["name"],
        ]
        assert {"round", "bolt"} <= set(span["tags"])
        metadata = span["extra"]["metadata"]
        assert metadata["prompt"] == span["inputs"]["prompt"]
        assert all(Path(path).is_file() for path in metadata["thumbnails"])
        assert span["outputs"]["scores"]["image_text"] == pytest.approx(scores[span["name"]], abs=0.01)
    [item] = [span for span in spans.values() if span["name"] == "text_agent text-3-0000"]
    assert {"text_agent", "bolt"} <= set(item["tags"])
    assert item["extra"]["metadata"]["category"] == "bolt"

    everything = b"".join(server.bodies)
    assert KEY.encode() not in everything
    assert b"Say in one sentence what this picture shows" in everything, "a picture was asked about"
    assert not re.search(rb"[A-Za-z0-9+/]{400}", everything), "no base64"
    assert b"array(" not in everything
    assert b"Services(" not in everything


def test_without_a_key_nothing_is_sent_to_the_very_exit(photographs: Path, tmp_path: Path) -> None:
    with serve_traces() as server:
        told = _run(photographs, tmp_path / "run", LANGSMITH_TRACING="true", LANGSMITH_ENDPOINT=server.url)
    assert server.paths == []
    assert told.count("LANGSMITH_API_KEY is not set") == 1
    assert (tmp_path / "run" / "trace.jsonl").is_file()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*SWITCHES, *KEYS, *ENDPOINTS):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def _closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        pytest.param({}, "", id="not asked for"),
        pytest.param({"LANGSMITH_TRACING": "false", "LANGSMITH_API_KEY": KEY}, "", id="switched off"),
        pytest.param({"LANGSMITH_TRACING": "1", "LANGSMITH_API_KEY": KEY}, "", id="only true is true"),
        pytest.param({"LANGSMITH_TRACING": "true"}, "LANGSMITH_API_KEY is not set", id="no key"),
        pytest.param({"LANGCHAIN_TRACING_V2": "true"}, "LANGSMITH_API_KEY is not set", id="no key, older switch"),
        pytest.param(
            {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": KEY, "LANGSMITH_ENDPOINT": "http://127.0.0.1:PORT"},
            "cannot be reached",
            id="nobody there",
        ),
        pytest.param(
            {"LANGSMITH_TRACING": "true", "LANGCHAIN_API_KEY": KEY, "LANGCHAIN_ENDPOINT": "http://127.0.0.1:PORT/x"},
            "cannot be reached",
            id="nobody there, older names",
        ),
        pytest.param(
            {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": KEY, "LANGSMITH_ENDPOINT": "localhost"},
            "no URL",
            id="no address",
        ),
        pytest.param(
            {"LANGSMITH_TRACING": "true", "LANGSMITH_API_KEY": KEY, "LANGSMITH_ENDPOINT": "http://127.0.0.1:x"},
            "no URL",
            id="no port",
        ),
    ],
)
def test_where_nobody_can_hear_it_is_off_with_one_warning(
    environment: dict[str, str], says: str, clean: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in environment.items():
        clean.setenv(name, value.replace("PORT", str(_closed_port())))
    with caplog.at_level(logging.INFO), langsmith_tracing():
        assert not tracing_is_enabled()
    assert [says in message for message in caplog.messages] == [True] * bool(says)
    assert KEY not in caplog.text


def test_with_a_key_and_somebody_there_it_is_on_for_the_block(clean: pytest.MonkeyPatch) -> None:
    with serve_traces() as server:
        clean.setenv("LANGSMITH_TRACING", "true")
        clean.setenv("LANGSMITH_API_KEY", KEY)
        clean.setenv("LANGSMITH_ENDPOINT", server.url)
        with langsmith_tracing():
            assert tracing_is_enabled()
    # Its client's own thread may have asked how the server wants its traces; a trace there is none.
    assert set(server.paths) <= {"/info"}
    assert server.bodies == []


def test_a_round_outside_a_trace_goes_nowhere(clean: pytest.MonkeyPatch) -> None:
    def untouched() -> Iterator[str]:
        raise AssertionError("nobody asked for the thumbnails")
        yield ""

    with langsmith_tracing():
        trace_round("bolt", {"round": 1}, untouched())  # type: ignore[typeddict-item]


def test_tracing_that_is_off_imports_nothing_more() -> None:
    program = (
        "import sys, langgraph.graph; before = set(sys.modules);"
        "from maskwright.graphs.tracing import langsmith_tracing;\n"
        "with langsmith_tracing(): pass\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('maskwright')))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    added = {name.partition(".")[0] for name in done.stdout.split()}
    assert not added & {"torch", "transformers", "requests", "zstandard", "chromadb", "openai"}, added
