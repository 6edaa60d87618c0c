"""A `model:` setting leads to files on this machine, or to a message that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from maskwright.errors import ModelNotFetchedError, RecipeError
from maskwright.models.checkpoints import checkpoint_revision, find_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = COMMIT[::-1]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache that holds `owner/name` at two commits: main, and a tag."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--owner--name"
    for commit, ref in ((COMMIT, "main"), (OTHER_COMMIT, "v1.0")):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("model", "revision", "commit"),
    [
        pytest.param("owner/name", None, COMMIT, id="main branch"),
        pytest.param("owner/name", "v1.0", OTHER_COMMIT, id="tag"),
        pytest.param("owner/name", OTHER_COMMIT, OTHER_COMMIT, id="commit"),
    ],
)
def test_a_hub_id_is_its_snapshot(model: str, revision: str | None, commit: str, hub_cache: Path) -> None:
    folder = find_checkpoint(model, revision)
    assert folder == hub_cache / "models--owner--name" / "snapshots" / commit
    assert checkpoint_revision(folder) == commit


def test_a_path_that_exists_goes_before_a_hub_id(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("owner/name").resolve() == tmp_path / "owner" / "name"


def test_a_path_may_be_a_file_or_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Gewichte ü.pth").write_bytes(b"weights")
    assert find_checkpoint("~/Gewichte ü.pth") == tmp_path / "Gewichte ü.pth"


@pytest.mark.parametrize(
    ("model", "revision", "says"),
    [
        pytest.param("owner/absent", None, r"models fetch owner/absent`", id="no such repository"),
        pytest.param("owner/name", "v2.0", r"models fetch owner/name@v2\.0`", id="no such revision"),
    ],
)
def test_what_is_not_fetched_says_how(model: str, revision: str | None, says: str, hub_cache: Path) -> None:
    with pytest.raises(ModelNotFetchedError, match=says):
        find_checkpoint(model, revision)


@pytest.mark.parametrize(
    "model",
    ["", "no/such/folder", "sprites", "embedded:minilm", "owner/na--me", "/no/such/folder"],
    ids=["empty", "no folder", "catalogue", "embedded", "no valid Hub id", "absolute"],
)
def test_what_is_neither_path_nor_hub_id_is_a_recipe_error(model: str, hub_cache: Path) -> None:
    with pytest.raises(RecipeError, match=rf"'{model}' is neither"):
        find_checkpoint(model)


def _change_weights(folder: Path) -> None:
    with (folder / "unet" / "model.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"x")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param(lambda folder: (folder / ".lock").write_text(""), True, id="hidden file"),
        pytest.param(lambda folder: (folder / "config.json").write_text("[]"), False, id="settings"),
        pytest.param(_change_weights, False, id="end of the weights"),
        pytest.param(lambda folder: (folder / "config.json").rename(folder / "c.json"), False, id="name"),
    ],
)
def test_a_folder_s_revision_follows_its_files(change: Callable[[Path], object], same: bool, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "unet" / "model.safetensors").write_bytes(bytes(200_000))
    assert checkpoint_revision(tmp_path / "first") == checkpoint_revision(tmp_path / "second")
    change(tmp_path / "second")
    assert (checkpoint_revision(tmp_path / "first") == checkpoint_revision(tmp_path / "second")) is same


def test_a_file_has_a_revision_too(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "b.pth").write_bytes(b"wEights")
    assert checkpoint_revision(tmp_path / "a.pth") != checkpoint_revision(tmp_path / "b.pth")
