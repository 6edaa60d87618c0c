"""Artifacts: bytes named by their sha256, written once, whole."""

from __future__ import annotations

import errno
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..data.files import remove_partials, write_atomically
from ..errors import BrokenRunError, ImageDecodeError

CACHE_BYTES = 64 * 2**20
CACHE_IMAGES = 64
"""Enough for the items in flight: each reads back its source and its candidate a moment after they were made."""


class ArtifactStore:
    """Content-addressed files below one folder: `ab/abcdef….png`. Safe for threads and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cache: OrderedDict[str, npt.NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def put(self, content: bytes, suffix: str) -> str:
        """Store bytes durably and return their key, `<sha256><suffix>`; storing them again costs nothing.

        Raises:
            BrokenRunError: the disk is full or not writable.
        """
        key = hashlib.sha256(content).hexdigest() + suffix
        path = self.path(key)
        if not path.exists():
            write_or_stop(path, content)
        return key

    def put_image(self, image: npt.NDArray[np.uint8]) -> str:
        """Store (H, W, 3 or 4) uint8 RGB or RGBA as PNG."""
        order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
        encoded = cv2.imencode(".png", cv2.cvtColor(image, order), [cv2.IMWRITE_PNG_COMPRESSION, 3])[1]
        key = self.put(encoded.tobytes(), ".png")
        self._remember(key, image)
        return key

    def get_image(self, key: str) -> npt.NDArray[np.uint8]:
        """Read an image as (H, W, 3 or 4) uint8 RGB or RGBA. The array is shared: do not write to it.

        Raises:
            ImageDecodeError: the file is missing or damaged.
        """
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        path = self.path(key)
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if image is None:
            raise ImageDecodeError(f"{path}: the artifact is missing or damaged; remove its item and run again")
        order = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
        rgb: npt.NDArray[np.uint8] = cv2.cvtColor(image, order)
        self._remember(key, rgb)
        return rgb

    def _remember(self, key: str, image: npt.NDArray[np.uint8]) -> None:
        with self._lock:
            if key in self._cache:
                return
            self._cache[key] = image
            self._cached_bytes += image.nbytes
            while self._cached_bytes > CACHE_BYTES or len(self._cache) > CACHE_IMAGES:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= dropped.nbytes

    def remove_partials(self) -> int:
        """Remove what a killed writer left; call it only while nobody else writes."""
        return remove_partials(self.folder) if self.folder.is_dir() else 0


def write_or_stop(path: Path, content: bytes) -> None:
    """Write a file of a run.

    Raises:
        BrokenRunError: the disk is full or not writable.
    """
    with breaking_the_run(path):
        write_atomically(path, content)


@contextmanager
def breaking_the_run(path: Path) -> Iterator[None]:
    """Turn a file that cannot be written into the end of the run: nothing later could be saved either.

    Raises:
        BrokenRunError: in place of any OSError.
    """
    try:
        yield
    except OSError as exc:
        hint = "free some space" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder's permissions"
        where = exc.filename or path
        raise BrokenRunError(f"{where}: {exc.strerror}; {hint} and run the same command again") from exc
