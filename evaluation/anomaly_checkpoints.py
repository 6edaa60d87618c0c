"""Checkpoints of one training in one folder: the newest, from which it goes on, and the best on validation."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from ..data.files import write_atomically
from ..errors import RunFolderError

_SETTINGS, _SCORE = "settings", "score"
_UNREADABLE = (SafetensorError, OSError, RuntimeError, ValueError, pickle.UnpicklingError)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Weights as safetensors that name the settings they were learned by; the optimizer's state lies beside the newest.

    Each method that reads raises RunFolderError: a file is damaged, or of other settings.
    """

    folder: Path
    settings: Mapping[str, object]
    """JSON values; a folder that holds weights of other ones is refused."""

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest; how many steps it has done, 0 without one."""
        paths = self._by_step()
        if not paths:
            return 0
        path = paths[-1]
        self._read(path, network)
        try:
            optimizer.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
        except _UNREADABLE as exc:
            raise _unreadable(path, exc) from exc
        return int(path.stem)

    def save_newest(self, network: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        """In place of the one before. The weights come last: where they lie, the optimizer's state lies beside them."""
        buffer = BytesIO()
        torch.save(optimizer.state_dict(), buffer)
        path = self.folder / f"{step:08d}.safetensors"
        write_atomically(path.with_suffix(".pt"), buffer.getvalue())
        self._write(path, network)
        for old in self._by_step():
            if old != path:
                old.unlink()
                old.with_suffix(".pt").unlink(missing_ok=True)

    def offer_best(self, network: nn.Module, score: float) -> None:
        """Keep these weights if they score higher than those kept so far; of equals the earlier ones stay.

        Call it before `save_newest`: after a kill between the two, the repeated step offers the same weights again.
        """
        best = self._best_score()
        if best is None or score > best:
            self._write(self._best, network, score)

    def restore_best(self, network: nn.Module) -> None:
        """Load the best; there is one once `offer_best` was called."""
        self._read(self._best, network)

    def has_best(self) -> bool:
        return self._best.is_file()

    @property
    def _best(self) -> Path:
        return self.folder / "best.safetensors"

    def _best_score(self) -> float | None:
        return float(self._metadata(self._best)[_SCORE]) if self.has_best() else None

    def _by_step(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.safetensors") if path.stem.isdigit())

    def _write(self, path: Path, network: nn.Module, score: float | None = None) -> None:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        metadata = {_SETTINGS: json.dumps(self.settings, sort_keys=True)}
        if score is not None:
            metadata[_SCORE] = repr(score)
        write_atomically(path, save(weights, metadata=metadata))

    def _read(self, path: Path, network: nn.Module) -> None:
        self._metadata(path)
        try:
            network.load_state_dict(load_file(path))
        except _UNREADABLE as exc:
            raise _unreadable(path, exc) from exc

    def _metadata(self, path: Path) -> dict[str, str]:
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, str] = file.metadata() or {}
        except _UNREADABLE as exc:
            raise _unreadable(path, exc) from exc
        if metadata.get(_SETTINGS) != json.dumps(self.settings, sort_keys=True):
            raise RunFolderError(
                f"{str(path)!r} is of a training by {metadata.get(_SETTINGS)}; expected {self.settings!r}. "
                "Choose another folder."
            )
        return metadata


def _unreadable(path: Path, exc: Exception) -> RunFolderError:
    return RunFolderError(f"checkpoint {str(path)!r} cannot be read ({exc}); remove it to begin anew")
