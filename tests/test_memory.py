"""Artifacts and ledger: whole or absent, once, under a name that cannot leave the folder."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from maskwright.data import files
from maskwright.data.files import write_atomically
from maskwright.errors import BrokenRunError, ImageDecodeError
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.ledger import Ledger


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("channels", [3, 4])
def test_an_image_comes_back_as_it_was(channels: int, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 64, channels)).astype(np.uint8)
    key = ArtifactStore(tmp_path).put_image(image)
    np.testing.assert_array_equal(ArtifactStore(tmp_path).get_image(key), image)
    assert ArtifactStore(tmp_path).path(key) == tmp_path / key[:2] / key


def test_equal_bytes_are_stored_once(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.put(b"pixels", ".png") == store.put(b"pixels", ".png")
    assert len(_files(tmp_path)) == 1


def test_a_damaged_artifact_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    key = store.put(b"not a picture", ".png")
    with pytest.raises(ImageDecodeError, match=key):
        store.get_image(key)
    with pytest.raises(ImageDecodeError, match="missing or damaged"):
        store.get_image("00ff.png")


def test_a_full_disk_breaks_the_run_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(BrokenRunError, match="free some space"):
        ArtifactStore(tmp_path).put(b"pixels", ".png")
    assert _files(tmp_path) == []


def test_a_failed_write_keeps_what_stood(tmp_path: Path) -> None:
    path = tmp_path / "entry.json"
    write_atomically(path, b"old")

    def break_off() -> None:
        with files.open_atomically(path) as file:
            file.write(b"half of the new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert path.read_bytes() == b"old"
    assert _files(tmp_path) == [path]


def test_a_ledger_reads_what_it_wrote_and_forgets_partials(tmp_path: Path) -> None:
    ledger: Ledger[dict[str, object]] = Ledger(tmp_path)
    ledger.write("item-1", {"ending": "accepted", "name": "Mutter ö"})
    ledger.write("item-2", {"ending": "failed"})
    ledger.write("item-2", {"ending": "accepted"})
    (tmp_path / "ab").mkdir(exist_ok=True)
    (tmp_path / "ab" / "item-3.json.xyz.partial").write_bytes(b"{")
    assert ledger.remove_partials() == 1
    assert sorted(ledger.ids()) == ["item-1", "item-2"]
    assert ledger.read("item-1") == {"ending": "accepted", "name": "Mutter ö"}
    assert ledger.read("item-2") == {"ending": "accepted"}
    assert ledger.read("item-3") is None


@pytest.mark.parametrize("entry_id", ["../up", "a/b", "", ".hidden", "x" * 300, "nul\0"])
def test_an_entry_id_cannot_leave_the_folder(entry_id: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no safe file name"):
        Ledger(tmp_path).write(entry_id, {})
    assert _files(tmp_path) == []


def test_a_damaged_entry_is_named(tmp_path: Path) -> None:
    ledger: Ledger[dict[str, object]] = Ledger(tmp_path)
    ledger.write("item-1", {"ending": "accepted"})
    [path] = _files(tmp_path)
    path.write_bytes(b'{"ending": "acc')
    with pytest.raises(BrokenRunError, match=r"item-1\.json"):
        ledger.read("item-1")
