"""The one folder that tools read from and write to."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from ...data.files import write_atomically
from ...data.images import read_upright
from ...data.load import refuse_leaving
from ...data.records import ImageRGB, ImageRGBA
from ...errors import BrokenRunError, InputError

OUTPUTS = "outputs"
MAX_PIXELS = 4096 * 4096
"""Of a picture that a tool decodes."""

_LEAVES_ROOT = re.compile(r"^/|^~|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\0]|^$")


class Workspace:
    """Paths below a root, and new files in its `outputs` folder. What was written is never overwritten.

    Args:
        root: made at the first output, when missing.
        max_pixels: most pixels of a picture that is read.
    """

    def __init__(self, root: Path, *, max_pixels: int = MAX_PIXELS) -> None:
        self.root = root.resolve()
        self._max_pixels = max_pixels

    def resolve(self, name: str) -> Path:
        """An existing file or folder, by its path relative to the root.

        Raises:
            InputError: the name leaves the root (absolute, `..`, backslash, NUL, a link that leads out), or nothing
                is there.
        """
        path = self._below(name)
        try:
            is_there = path.exists()
        except OSError as exc:
            raise InputError(f"{name[:80]!r} is no usable path: {exc.strerror}; give a shorter one") from exc
        if not is_there:
            raise InputError(f"no file {name!r} below {str(self.root)!r}; give a path that an earlier tool returned")
        return path

    def _below(self, name: str) -> Path:
        """A path of the root with its links followed, whether there or not."""
        try:
            path = None if _LEAVES_ROOT.search(name) else (self.root / name).resolve()
        except (OSError, RuntimeError, ValueError) as exc:  # too long, a loop of links, lone surrogates
            raise InputError(f"{name[:80]!r} is no usable path: {exc}; give another one") from exc
        if path is None or not path.is_relative_to(self.root):
            raise InputError(
                f"{name!r} leaves {str(self.root)!r}; expected a path relative to that folder, with '/', without '..' "
                "and without links that lead out of it"
            )
        return path

    def relative(self, path: Path) -> str:
        """The path as tools say it: relative to the root, with `/`."""
        return path.relative_to(self.root).as_posix()

    def read_picture(self, name: str) -> ImageRGBA:
        """Any picture, upright: (H, W, 4) uint8, straight alpha.

        Raises:
            InputError: as `resolve`, or it is a folder.
            SampleError: it cannot be decoded, or is too large.
        """
        path = self.resolve(name)
        if not path.is_file():
            raise InputError(f"{name!r} is a folder; give a picture's path")
        return read_upright(path, max_pixels=self._max_pixels)

    def dataset_path(self, name: str) -> Path:
        """A data set's folder or annotation file, from which nothing leads out of the root.

        Raises:
            InputError: as `resolve`, or a link in it leads out.
        """
        path = self.resolve(name)
        refuse_leaving(path, self.root)
        return path

    def save_picture(self, stem: str, pixels: ImageRGB | ImageRGBA) -> Path:
        """Write `outputs/STEM-N.png`; an alpha that is 255 everywhere is left out.

        Raises:
            BrokenRunError: the folder cannot be written.
        """
        is_opaque = pixels.shape[2] == 4 and bool((pixels[..., 3] == 255).all())
        return self.save_file(stem, ".png", encode_png(pixels[..., :3] if is_opaque else pixels))

    def save_file(self, stem: str, suffix: str, content: bytes) -> Path:
        """Write `outputs/STEM-N.SUFFIX`, N the first number that is free; raises as `save_picture`."""
        path = self._reserve(stem, suffix, lambda path: path.touch(exist_ok=False))
        try:
            write_atomically(path, content)
        except OSError as exc:
            path.unlink(missing_ok=True)
            raise BrokenRunError(f"{path} cannot be written: {exc.strerror}; free some space") from exc
        return path

    def make_folder(self, stem: str) -> Path:
        """A new, empty folder `outputs/STEM-N`; raises as `save_picture`."""
        return self._reserve(stem, "", lambda path: path.mkdir())

    def _reserve(self, stem: str, suffix: str, make: Callable[[Path], None]) -> Path:
        """Take the first free number by making its file, so that threads and processes never take the same."""
        outputs = self._below(OUTPUTS)
        try:
            outputs.mkdir(parents=True, exist_ok=True)
            for number in count(1):
                path = outputs / f"{stem}-{number}{suffix}"
                try:
                    make(path)
                except FileExistsError:
                    continue
                break
        except OSError as exc:
            raise BrokenRunError(
                f"{outputs} cannot be written: {exc.strerror}; check its rights and the free space"
            ) from exc
        return path


def encode_png(pixels: ImageRGB | ImageRGBA) -> bytes:
    """PNG of (H, W, 3) or (H, W, 4) uint8."""
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()
