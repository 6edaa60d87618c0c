"""The object pictures: 3D-rendered, with alpha, openly licensed, from two npm packages.

npm pack @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0
python -m maskwright.learning.pictures --tarballs . --out models/weights/sprites/bank
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
import numpy as np
import torch
import typer
from PIL import Image
from safetensors.torch import save

from ..data.files import write_atomically
from ..data.records import ImageRGBA
from ..errors import DatasetError
from ..models.embeddings import MiniLM
from ..models.sprites.bank import EMBEDDINGS_NAME, INDEX_NAME, PICTURE_SIZE, BankEntry
from ..models.sprites.tones import TONES
from ..tools.cutouts import resize_rgba
from .object_names import classes_of, is_held_out

PICTURES_TARBALL = "lobehub-fluent-emoji-3d-1.1.0.tgz"
NAMES_TARBALL = "emojibase-data-17.0.0.tgz"
OBJECT_GROUPS = (3, 4, 5, 6, 7)
"""Groups of emojibase: animals, food, travel, activities, objects."""
MARGIN = 6
"""Transparent pixels kept free on each side of a banked picture, so that a warp rarely cuts it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ObjectPicture:
    """One object with its names."""

    code: str
    label: str
    tags: tuple[str, ...]
    rgba: ImageRGBA
    """(256, 256, 4) uint8, straight alpha."""


class _Names(msgspec.Struct):
    hexcode: str
    label: str
    tags: tuple[str, ...] = ()
    group: int | None = None


def read_object_pictures(tarballs: Path) -> Iterator[ObjectPicture]:
    """The pictures of `OBJECT_GROUPS`, by code.

    Raises:
        DatasetError: a tarball is missing or is not what it should be.
    """
    names = _read_names(_open_tarball(tarballs / NAMES_TARBALL))
    with _open_tarball(tarballs / PICTURES_TARBALL) as archive:
        members = sorted((m for m in archive.getmembers() if m.name.endswith(".webp")), key=lambda m: m.name)
        for member in members:
            code = PurePosixPath(member.name).stem
            entry = names.get(code) or names.get(code.replace("-fe0f", ""))
            content = archive.extractfile(member)
            if entry is None or content is None:
                continue
            rgba = np.array(Image.open(io.BytesIO(content.read())).convert("RGBA"))
            yield ObjectPicture(code, entry.label, entry.tags, rgba)


def _open_tarball(path: Path) -> tarfile.TarFile:
    if not path.is_file():
        package = "@lobehub/fluent-emoji-3d@1.1.0" if path.name == PICTURES_TARBALL else "emojibase-data@17.0.0"
        raise DatasetError(f"{str(path)!r} is missing; fetch it with: npm pack {package}")
    try:
        return tarfile.open(path)
    except tarfile.TarError as exc:
        raise DatasetError(f"{str(path)!r} is not a tarball ({exc}); remove it and run npm pack again") from exc


def _read_names(archive: tarfile.TarFile) -> dict[str, _Names]:
    """Names by code, without the entries that belong to no group."""
    with archive:
        content = archive.extractfile("package/en/data.json")
        rows = msgspec.json.decode(content.read() if content else b"[]", type=list[_Names])
    return {row.hexcode.lower(): row for row in rows if row.group in OBJECT_GROUPS}


def picture_to_banked(rgba: ImageRGBA) -> ImageRGBA:
    """An object cropped to its alpha and fitted, with `MARGIN`, into the middle of a (96, 96, 4) square."""
    rows, columns = np.nonzero(rgba[..., 3])
    cropped = rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = cropped.shape[:2]
    scale = (PICTURE_SIZE - 2 * MARGIN) / max(height, width)
    small = resize_rgba(cropped, max(1, round(width * scale)), max(1, round(height * scale)))
    banked = np.zeros((PICTURE_SIZE, PICTURE_SIZE, 4), np.uint8)
    top, left = ((PICTURE_SIZE - side) // 2 for side in small.shape[:2])
    banked[top : top + small.shape[0], left : left + small.shape[1]] = small
    return banked


def names_of(picture: ObjectPicture, labels: Set[str]) -> tuple[str, ...]:
    """Label, classes that it shows (unless another picture has that very label), and the label with its tags."""
    classes = (name for name in classes_of(picture.label) if name not in labels)
    return tuple(dict.fromkeys([picture.label, *classes, ", ".join([picture.label, *picture.tags[:3]])]))


def colourless(names: Sequence[str]) -> str:
    """The plainest name of an object: its class if it has one, without a colour ("green apple" is "apple")."""
    plain = names[min(1, len(names) - 2)]
    return " ".join(word for word in plain.split() if word.lower() not in TONES) or plain


def build_bank(tarballs: Path, out: Path) -> int:
    """Write pictures, index and embedded names; the number of pictures.

    Raises:
        DatasetError: a tarball is missing or is not what it should be.
    """
    pictures = list(read_object_pictures(tarballs))
    labels = {picture.label for picture in pictures}
    entries = []
    for picture in pictures:
        file = f"{picture.code}.webp"
        content = io.BytesIO()
        Image.fromarray(picture_to_banked(picture.rgba)).save(content, "WEBP", quality=95, method=6)
        write_atomically(out / file, content.getvalue())
        entries.append(
            BankEntry(
                file=file,
                names=names_of(picture, labels),
                held_out=is_held_out(picture.label),
                priority=bool(classes_of(picture.label)),
            )
        )
    embeddings = MiniLM().embed([name for entry in entries for name in entry.names])
    write_atomically(out / EMBEDDINGS_NAME, save({"names": torch.from_numpy(embeddings).half()}))
    write_atomically(out / INDEX_NAME, msgspec.json.format(msgspec.json.encode(entries), indent=1))
    return len(entries)


def main(
    tarballs: Annotated[Path, typer.Option(help="Folder with both tarballs of npm pack.")],
    out: Annotated[Path, typer.Option(help="Folder of the bank.")],
) -> None:
    """Build the picture bank of the sprites model."""
    out.mkdir(parents=True, exist_ok=True)
    logger.info("%d pictures in %s", build_bank(tarballs, out), out)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.run(main)
