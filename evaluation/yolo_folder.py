"""What a YOLO training keeps in its folder: whose it is, how far it came, and what came out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..data.files import remove_partials, write_atomically
from ..errors import BrokenRunError, RunFolderError
from .detectors import Trained
from .yolo_protocol import CHECKPOINT, CURVE, WEIGHTS, TrainedEvent

_CLAIM, _RESULT, _IMAGES, _LOCK = "training.json", "trained.json", "images.txt", ".lock"


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """The folder of one training."""

    path: Path

    @contextmanager
    def claimed(self, fingerprint: str, settings: Mapping[str, object], category_ids: Sequence[int]) -> Iterator[None]:
        """The folder to one training, and for the time of the context to one process.

        Args:
            fingerprint: of all that decides the training.
            settings: JSON values, for the reader of the folder.
            category_ids: the data set's own ids, by class index.

        Raises:
            RunFolderError: it is another training's, holds something else, or another process is at work in it.
            BrokenRunError: it cannot be written.
        """
        lock = FileLock(self.path / _LOCK, timeout=0)
        try:
            with _breaking_the_run(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except Timeout as exc:
            raise RunFolderError(
                f"another process trains in {str(self.path)!r}; wait for it or choose another folder."
            ) from exc
        try:
            with _breaking_the_run(self.path):
                self._claim(fingerprint, settings, category_ids)
            yield
        finally:
            lock.release()

    def _claim(self, fingerprint: str, settings: Mapping[str, object], category_ids: Sequence[int]) -> None:
        if (self.path / _CLAIM).is_file():
            if self._read(_CLAIM).get("fingerprint") != fingerprint:
                raise RunFolderError(
                    f"{str(self.path)!r} is of another training: its settings or data differ, see {_CLAIM} in it. "
                    "Choose another folder."
                )
        elif foreign := [path.name for path in self.path.iterdir() if path.name != _LOCK]:
            raise RunFolderError(
                f"{str(self.path)!r} holds {min(foreign)!r} and no {_CLAIM}; expected an empty folder or this "
                "training's own. Choose another folder."
            )
        else:
            content = {"fingerprint": fingerprint, "category_ids": list(category_ids), "training": settings}
            write_atomically(self.path / _CLAIM, json.dumps(content, indent=2).encode())
        remove_partials(self.path)

    def write_images(self, images: Sequence[Path]) -> Path:
        """List the training images, one a line; returns the list's path."""
        with _breaking_the_run(self.path):
            write_atomically(self.path / _IMAGES, "".join(f"{path}\n" for path in images).encode())
        return self.path / _IMAGES

    def category_ids(self) -> list[int]:
        """The data set's own ids, by class index.

        Raises:
            RunFolderError: no training was here.
        """
        ids = self._read(_CLAIM).get("category_ids")
        if not isinstance(ids, list):
            raise RunFolderError(f"{str(self.path / _CLAIM)!r} has no category_ids; expected a training's folder.")
        return ids

    def curve(self) -> list[dict[str, float]]:
        """One row a finished round, in order; of a round that was done again, the last row."""
        path = self.path / CURVE
        rows: dict[float, dict[str, float]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                row = json.loads(line)
            except ValueError:  # a killed writer's
                continue
            rows[row["round"]] = row
        return [rows[number] for number in sorted(rows)]

    def finish(self, result: TrainedEvent, seconds: float) -> None:
        """Mark the training as finished; its checkpoint has no further use.

        Raises:
            BrokenRunError: the weights are missing, or the disk is full.
        """
        if not (self.path / WEIGHTS).is_file():
            raise BrokenRunError(f"the training ended and {str(self.path / WEIGHTS)!r} is missing. Run again to go on.")
        content = {"steps": result["steps"], "epochs": result["epochs"], "seconds": seconds, "curve": self.curve()}
        with _breaking_the_run(self.path):
            write_atomically(self.path / _RESULT, json.dumps(content, indent=2).encode())
            (self.path / CHECKPOINT).unlink(missing_ok=True)

    def result(self) -> Trained | None:
        """What a finished training left; None of an unfinished one.

        Raises:
            RunFolderError: its files are damaged or gone.
        """
        if not (self.path / _RESULT).is_file():
            return None
        content = self._read(_RESULT)
        try:
            trained = Trained(weights=self.path / WEIGHTS, **content)  # type: ignore[arg-type]
        except TypeError as exc:
            raise RunFolderError(f"{str(self.path / _RESULT)!r} is damaged ({exc}); remove it to go on.") from exc
        if not trained.weights.is_file():
            raise RunFolderError(f"{str(trained.weights)!r} is gone; remove {_RESULT!r} beside it to train again.")
        return trained

    def _read(self, name: str) -> dict[str, object]:
        path = self.path / name
        try:
            content: object = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise RunFolderError(f"{str(path)!r} cannot be read ({exc}); expected a training's folder.") from exc
        return content if isinstance(content, dict) else {}


@contextmanager
def _breaking_the_run(folder: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as exc:
        raise BrokenRunError(f"{str(folder)!r} cannot be written: {exc}. Free space and run again to go on.") from exc
