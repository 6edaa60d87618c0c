"""Prompt memory: idempotent, exact, the same for a run whatever others write, and safe among processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from memory_helpers import EMBEDDINGS, NAME, SETTINGS, chroma, ids, record

from maskwright.configs.memory import MemorySettings
from maskwright.data.files import PARTIAL_SUFFIX
from maskwright.errors import BrokenRunError, MaskwrightError, RecipeError, RunFolderError
from maskwright.memory import shared_folder
from maskwright.memory.chroma_store import MARKER_NAME, ChromaFolder
from maskwright.memory.prompt_history import NoHistory, PromptHistory, open_existing_history, open_prompt_history
from maskwright.memory.prompt_records import Snapshot
from maskwright.memory.prompt_store import SingleProcessStore
from maskwright.memory.shared_folder import DATABASE_NAME, SharedFolder

LOCK_NAME = "memory.lock"


@pytest.fixture(params=["chroma", "in_memory"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> PromptHistory:
    """The default store, and another vector store of LangChain's that knows nothing of ours."""
    if request.param == "chroma":
        return chroma(tmp_path / "Gedächtnis ü")
    return PromptHistory(SingleProcessStore(InMemoryVectorStore(EMBEDDINGS), EMBEDDINGS), SETTINGS)


def test_records_come_back_whole_and_in_order(history: PromptHistory) -> None:
    written = [
        record("f-2-r1", "Mutter ö 螺母", prompt="eine Mutter 🔩\n'\"", parent="f-1-r1", scores={}, reasons=("a", "b")),
        record("f-1-r1", kept=0, num_painted=0, elements=()),
    ]
    history.upsert(written)
    assert history.records() == written
    assert history.records("Mutter ö 螺母") == written[:1]
    assert history.records(run_id="run-2") == []
    assert history.counts() == {"Mutter ö 螺母": 1, "apple": 1}


def test_the_same_id_twice_is_one_record_with_the_last_content(history: PromptHistory) -> None:
    first, second = record("a"), record("b")
    assert history.upsert([first, second]) == 2
    assert history.upsert([second, first]) == 2, "an unchanged record keeps its place"
    changed = record("a", kept=3)
    assert history.upsert([first, changed]) == 3
    assert history.records() == [second, changed]
    assert history.upsert([]) == 0


def test_a_score_that_is_not_finite_is_not_remembered(history: PromptHistory) -> None:
    history.upsert([record("a", scores={"image_text": float("nan"), "image_image": 0.5, "x": float("inf")})])
    [read] = history.records()
    assert read.scores == {"image_image": 0.5}


@pytest.mark.parametrize(
    ("kept_and_likeness", "best", "worst"),
    [
        pytest.param({}, [], [], id="nothing"),
        pytest.param({"a": (4, 0.1), "b": (2, 0.9), "c": (3, 0.1)}, ["a", "c"], ["b"], id="by-kept-share"),
        pytest.param(
            {"a": (2, 0.1), "b": (2, 0.9), "c": (2, 0.5), "d": (2, 0.3)}, ["b", "c"], ["a", "d"], id="by-likeness"
        ),
        pytest.param({"c": (2, 0.5), "b": (2, 0.5), "d": (2, 0.5), "a": (2, 0.5)}, ["a", "b"], ["c", "d"], id="by-id"),
        pytest.param({"a": (0, 0.9), "b": (0, 0.1), "c": (0, None)}, [], ["c", "b"], id="none-kept"),
        pytest.param({"a": (4, 0.1), "b": (4, 0.2), "c": (4, None)}, ["b", "a"], [], id="all-kept"),
        pytest.param({"a": (1, 0.1)}, ["a"], [], id="never-both"),
    ],
)
def test_recall_gives_best_and_worst(
    history: PromptHistory, kept_and_likeness: dict[str, tuple[int, float | None]], best: list[str], worst: list[str]
) -> None:
    history.upsert(
        record(name, kept=kept, scores={} if likeness is None else {"image_text": likeness})
        for name, (kept, likeness) in kept_and_likeness.items()
    )
    history.upsert([record("of another class", "pear", kept=4), record("never painted", num_painted=0, kept=0)])
    recalled = history.recall("apple")
    assert (ids(recalled.best), ids(recalled.worst)) == (best, worst)


def test_a_run_sees_what_stood_at_its_start_and_its_own_finished_waves(history: PromptHistory) -> None:
    history.upsert([record("old", run_id="run-0")])
    mine, other = history.snapshot("mine"), history.snapshot("other")

    wave_1 = [record("m1", kept=4, run_id="mine")]
    mine = mine.after(history.upsert(wave_1))
    other = other.after(history.upsert([record("o1", kept=3, run_id="other")]))
    assert ids(history.recall("apple", mine).best) == ["m1", "old"]
    assert ids(history.recall("apple", other).best) == ["o1", "old"]

    history.upsert([record("m2", kept=4, run_id="mine")])
    assert ids(history.recall("apple", mine).best) == ["m1", "old"], "a wave that has not ended is not seen"

    resumed = Snapshot("mine", mine.shared_sequence)
    assert ids(history.recall("apple", resumed).best) == ["old"], "before the replay nothing of its own is seen"
    assert resumed.after(history.upsert(wave_1)) == mine, "replayed from the ledger, it stands where it stood"
    assert ids(history.recall("apple").best) == ["m1", "m2"], "a later run sees everything"


def test_nearest_are_exact_of_the_class_and_of_the_snapshot(history: PromptHistory) -> None:
    records = [record(f"r{i:02}", "apple" if i % 2 else "pear") for i in range(40)]
    history.upsert(records)
    snapshot = history.snapshot("mine")
    history.upsert([record("later", run_id="other", prompt="the candidate")])
    rows = np.array(EMBEDDINGS.embed_documents([r.prompt for r in records if r.category == "apple"]))
    query = np.array(EMBEDDINGS.embed_query("the candidate"))
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    expected = np.sort(cosines)[::-1][:5]
    found = history.nearest("apple", "the candidate", 5, snapshot)
    np.testing.assert_allclose([near.cosine for near in found], expected, atol=1e-5)
    assert {near.record.category for near in found} == {"apple"}
    assert history.nearest("apple", "the candidate")[0].record.record_id == "later"
    assert len(history.nearest("apple", "the candidate")) == SETTINGS.num_nearest
    assert history.nearest("nothing", "the candidate", snapshot=snapshot) == ()


def test_a_repeated_prompt_is_not_novel(history: PromptHistory) -> None:
    history.upsert([record("a", prompt="a red apple")])
    assert not history.is_novel("apple", "a red apple")
    assert history.is_novel("apple", "a green one")
    assert history.is_novel("pear", "a red apple"), "novelty is of a class"


def test_removed_records_are_forgotten(history: PromptHistory) -> None:
    history.upsert([record("a"), record("b")])
    snapshot = history.snapshot("mine")
    assert ids(history.recall("apple", snapshot).best) == ["a", "b"]
    history.remove(["a", "unknown"])
    assert ids(history.records()) == ["b"]
    assert ids(history.recall("apple", snapshot).best) == ["b"]
    assert history.upsert([record("c")]) > snapshot.shared_sequence, "no number is given twice"


def test_the_same_look_up_reads_the_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = chroma(tmp_path)
    history.upsert([record("a")])
    snapshot = history.snapshot("mine")
    opened: list[Path] = []
    connect = SharedFolder._connect
    monkeypatch.setattr(SharedFolder, "_connect", lambda self: opened.append(self.folder) or connect(self))
    for _ in range(3):
        history.recall("apple", snapshot)
        history.nearest("apple", "red", snapshot=snapshot)
    assert len(opened) == 1


def test_no_history_remembers_nothing(tmp_path: Path) -> None:
    history = open_prompt_history(MemorySettings(enabled=False, path=tmp_path / "m"))
    assert isinstance(history, NoHistory)
    snapshot = history.snapshot("mine").after(history.upsert([record("a")]))
    assert history.recall("apple", snapshot).best == history.nearest("apple", "x") == ()
    assert history.is_novel("apple", "a apple, a")
    assert list(tmp_path.iterdir()) == []


def _junk(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(b"no such thing" * 500)


def _halve(folder: Path) -> None:
    path = folder / DATABASE_NAME
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_junk(DATABASE_NAME), id="junk-database"),
        pytest.param(_halve, id="half-a-database"),
        pytest.param(lambda folder: (folder / DATABASE_NAME).unlink(), id="no-database"),
        pytest.param(_junk(MARKER_NAME), id="junk-marker"),
        pytest.param(lambda folder: (folder / MARKER_NAME).write_text('{"sequence": 3}'), id="other-marker"),
    ],
)
def test_a_damaged_memory_is_named_with_what_to_do(damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    chroma(folder).upsert([record("a")])
    damage(folder)
    with pytest.raises(BrokenRunError, match="move the folder away") as caught:
        chroma(folder)
    assert str(folder) in str(caught.value)


def test_a_record_that_is_not_ours_is_named(tmp_path: Path) -> None:
    store = ChromaFolder(tmp_path / "m", EMBEDDINGS, NAME)
    with store.opened() as table:
        table.vectors.add_texts(["x"], [{"category": "apple", "record": '{"prompt": 3}'}], ["x"])
    with pytest.raises(BrokenRunError, match=r"holds '\{\"prompt\": 3\}', which is no prompt of ours"):
        PromptHistory(store, SETTINGS).recall("apple")


def _foreign(folder: Path) -> Path:
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    return folder


def _made_with_others(folder: Path) -> Path:
    ChromaFolder(folder, EMBEDDINGS, "embedded:other")
    return folder


def _of_the_future(folder: Path) -> Path:
    folder.mkdir()
    (folder / MARKER_NAME).write_text('{"prompt_memory": 9, "embeddings": "embedded:minilm", "sequence": 0}')
    (folder / LOCK_NAME).touch()
    return folder


def _below_a_file(folder: Path) -> Path:
    folder.write_text("a file")
    return folder / "memory"


@pytest.mark.parametrize(
    ("prepare", "settings", "error", "message"),
    [
        pytest.param(_foreign, {}, RunFolderError, "holds 'thesis.tex' and no memory.json", id="not-ours"),
        pytest.param(_made_with_others, {}, RecipeError, "made with the embeddings 'embedded:other'", id="embeddings"),
        pytest.param(_of_the_future, {}, RunFolderError, "has format 9, expected 1", id="newer"),
        pytest.param(_below_a_file, {}, BrokenRunError, "Not a directory", id="not-writable"),
        pytest.param(Path, {"embeddings": "minlm"}, RecipeError, "known: embedded:minilm", id="unknown-embeddings"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_opened(
    prepare: Callable[[Path], Path],
    settings: dict[str, object],
    error: type[MaskwrightError],
    message: str,
    tmp_path: Path,
) -> None:
    path = prepare(tmp_path / "m")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        open_prompt_history(MemorySettings(path=path, **settings))  # type: ignore[arg-type]
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_kill_left_while_the_folder_was_made_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).touch()
    (tmp_path / f"{MARKER_NAME}.x1{PARTIAL_SUFFIX}").write_text('{"prom')
    assert chroma(tmp_path).upsert([record("a")]) == 1
    assert not list(tmp_path.glob(f"*{PARTIAL_SUFFIX}"))


def test_nothing_leaves_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setenv("ANONYMIZED_TELEMETRY", "True")
    monkeypatch.setattr(socket.socket, "connect", lambda _socket, address: called.append(address))
    history = chroma(tmp_path)
    history.upsert([record("a")])
    history.nearest("apple", "x")
    assert called == []


def test_a_missing_memory_is_made_only_on_request(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no prompt memory here"):
        open_existing_history(MemorySettings(path=tmp_path / "m"), EMBEDDINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_waits_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    history = chroma(tmp_path)
    monkeypatch.setattr(shared_folder, "PATIENCE_S", 0.05)
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, time; f = open({str(tmp_path / LOCK_NAME)!r}); "
         "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(0.6)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    history.upsert([record("a")])
    assert holder.wait() == 0, "it was waited for, not robbed"
    assert caplog.messages == [f"{tmp_path}: another process uses this prompt memory; waiting for it"]


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from memory_helpers import chroma, record
name, folder, waves = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
history = chroma(folder)
print("ready", flush=True)
for wave in range(waves):
    history.upsert([record(f"{{name}}-{{wave:03}}-{{i:02}}", run_id=name) for i in range(30)])
    assert len(history.nearest("apple", "x", 5)) == 5
    print(wave, flush=True)
"""


def _writer(name: str, folder: Path, waves: int) -> subprocess.Popen[bytes]:
    code = WRITER.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", code, name, str(folder), str(waves)],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_processes_share_a_memory_and_a_killed_one_leaves_whole_waves(tmp_path: Path) -> None:
    chroma(tmp_path)
    writers = [_writer("first", tmp_path, 6), _writer("second", tmp_path, 400)]
    assert writers[0].wait() == 0
    assert writers[1].stdout is not None
    for line in writers[1].stdout:
        if line == b"2\n":
            break
    writers[1].send_signal(signal.SIGKILL)
    writers[1].wait()
    history = chroma(tmp_path)
    assert len(history.records(run_id="first")) == 6 * 30
    of_second = len(history.records(run_id="second"))
    assert of_second >= 3 * 30
    assert of_second % 30 == 0
    total = 6 * 30 + of_second
    assert len({near.record.record_id for near in history.nearest("apple", "x", 10**6)}) == total
    sequences = json.loads((tmp_path / MARKER_NAME).read_bytes())["sequence"]
    assert sequences >= total
