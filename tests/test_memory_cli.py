"""`maskwright memory`: what is remembered, as a table and as JSON lines, and what is forgotten."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from memory_helpers import ids, record

from maskwright import cli
from maskwright.configs.memory import MemorySettings
from maskwright.memory.prompt_history import PromptHistory, open_prompt_history

Run = Callable[..., tuple[int, str, str]]
OLD = "2020-01-02T03:04:05+00:00"
YOUNG = datetime.now(UTC).isoformat()
RECORDS = [
    record("a-1-r1", "dog", kept=1, created=OLD, reasons=("hole_share 0.3 is above 0.1",)),
    record("a-1-r2", "dog", kept=4, created=OLD, prompt="a [bold]dog[/]", run_id="run-2"),
    record("b-1-r1", "dog", kept=2, created=YOUNG),
    record("a-2-r1", "Mutter ö", kept=0, created=OLD, prompt="eine Mutter"),
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `maskwright memory` in this process and in an empty folder; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maskwright", "memory", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        return int(exit_info.value.code or 0), *capfd.readouterr()

    return run


class _Embeddings:
    """Enough for a memory that is not searched; nothing is loaded."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, float(len(text))] for text in texts]


@pytest.fixture
def history(run: Run) -> PromptHistory:
    """The memory of the folder that `run` works in."""
    history = open_prompt_history(MemorySettings(), _Embeddings())  # type: ignore[arg-type]
    assert isinstance(history, PromptHistory)
    history.upsert(RECORDS)
    return history


def test_list_shows_each_class_with_its_best_prompt(run: Run, history: PromptHistory) -> None:
    exit_code, out, _ = run("list")
    assert exit_code == 0
    [dog] = [line for line in out.splitlines() if "dog" in line]
    assert [cell.strip() for cell in dog.strip("│ ").split("│")] == ["dog", "3", "12", "7", "0", "a [bold]dog[/]"]
    assert "Mutter ö" in out
    assert "dog" not in run("list", "--class", "Mutter ö")[1]
    assert "Mutter" not in run("list", "--run", "run-2")[1]


def test_show_gives_prompts_best_first_with_reasons(run: Run, history: PromptHistory) -> None:
    exit_code, out, _ = run("show", "--class", "dog", "--limit", "2")
    assert exit_code == 0
    assert out.index("a-1-r2") < out.index("b-1-r1")
    assert "a-1-r1" not in out
    assert "1 more" in out
    assert "hole_share 0.3" in run("show")[1]


def test_export_writes_whole_records_to_stdout_or_a_new_file(run: Run, history: PromptHistory, tmp_path: Path) -> None:
    exit_code, out, _ = run("export")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (exit_code, [row["record_id"] for row in rows]) == (0, ids(RECORDS))
    assert rows[3] == {
        "record_id": "a-2-r1",
        "category": "Mutter ö",
        "prompt": "eine Mutter",
        "elements": ["colour: red", "light: weich, über"],
        "painter": "embedded:sprites",
        "num_painted": 4,
        "num_kept": 0,
        "scores": {"image_image": 0.25, "image_text": 0.5},
        "reasons": ["area_share 0.01 is below 0.05"],
        "parent": "",
        "strength": 0.6,
        "run_id": "run-1",
        "created": OLD,
        "retired": None,
    }
    target = tmp_path / "über prompts.jsonl"
    assert run("export", str(target), "--run", "run-2")[0] == 0
    assert [json.loads(line)["record_id"] for line in target.read_text().splitlines()] == ["a-1-r2"]
    assert run("export", str(target))[0] == 2, "a file that is there is not written over"


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        pytest.param([], [], id="everything"),
        pytest.param(["--class", "dog"], ["a-2-r1"], id="class"),
        pytest.param(["--run", "run-2"], ["a-1-r1", "b-1-r1", "a-2-r1"], id="run"),
        pytest.param(["--older-than", "30"], ["b-1-r1"], id="age"),
        pytest.param(["--keep-best", "1"], ["a-1-r2", "a-2-r1"], id="best"),
        pytest.param(["--older-than", "30", "--keep-best", "1"], ["a-1-r2", "b-1-r1", "a-2-r1"], id="age-and-best"),
        pytest.param(["--class", "cat"], ids(RECORDS), id="nothing"),
    ],
)
def test_prune_forgets_what_meets_every_condition(
    arguments: list[str], left: list[str], run: Run, history: PromptHistory
) -> None:
    exit_code, out, _ = run("prune", *arguments, "--dry-run")
    assert (exit_code, out) == (0, f"{len(RECORDS) - len(left)} prompts would be forgotten\n")
    assert ids(history.records()) == ids(RECORDS)
    assert run("prune", *arguments, "--yes")[0] == 0
    assert ids(history.records()) == left


def test_prune_asks_first(run: Run, history: PromptHistory) -> None:
    exit_code, _, err = run("prune", "--class", "dog")
    assert exit_code == 2
    assert "3 prompts would be forgotten. Say --yes" in err
    assert ids(history.records()) == ids(RECORDS)


@pytest.mark.parametrize("command", ["list", "show", "export", "prune"])
def test_without_a_memory_nothing_is_made(command: str, run: Run, tmp_path: Path) -> None:
    exit_code, out, err = run(command)
    assert (exit_code, out) == (2, "")
    assert "no prompt memory here" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["list", "show", "export", "prune"])
def test_every_command_s_help_has_an_example(command: str, run: Run) -> None:
    exit_code, out, _ = run(command, "--help")
    assert exit_code == 0
    assert f"maskwright memory {command}" in out
