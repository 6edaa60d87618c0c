"""The picture bank: small transparent pictures of named objects, from which a painting starts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...errors import BrokenRunError

PICTURE_SIZE = 96
"""Pixels on each side of a banked picture."""
BANK_FOLDER = "bank"
"""Of a painter's folder."""
INDEX_NAME = "index.json"
EMBEDDINGS_NAME = "names.safetensors"
TIE_MARGIN = 0.02
"""Pictures whose names are this near to the nearest one's are as good a start, and make for variety."""


class BankEntry(msgspec.Struct, frozen=True):
    """One picture. The first name is its label; the last one may hold tags."""

    file: str
    names: tuple[str, ...]
    held_out: bool
    """Kept out of every training."""
    priority: bool
    """Shows a class of COCO or of the quickstart."""

    @property
    def label(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class PictureBank:
    """Named pictures, decoded when asked for.

    Attributes:
        folder: holds `index.json`, `names.safetensors` and the pictures.
        entries: in the order of the index.
        name_embeddings: (N, 384) float32, unit length; one row a name of an entry, in order.
    """

    folder: Path
    entries: tuple[BankEntry, ...]
    name_embeddings: torch.Tensor

    @classmethod
    def from_folder(cls, folder: Path) -> PictureBank:
        """Read a bank's index.

        Raises:
            BrokenRunError: a file is missing or damaged, or index and embeddings do not belong together.
        """
        try:
            entries = msgspec.json.decode((folder / INDEX_NAME).read_bytes(), type=tuple[BankEntry, ...])
            embeddings = load_file(folder / EMBEDDINGS_NAME)["names"].float()
        except (OSError, msgspec.MsgspecError, SafetensorError, KeyError, ValueError) as exc:
            raise BrokenRunError(
                f"picture bank {str(folder)!r} cannot be read ({exc}); install maskwright again"
            ) from exc
        if len(embeddings) != sum(len(entry.names) for entry in entries):
            raise BrokenRunError(
                f"picture bank {str(folder)!r}: {len(embeddings)} embeddings for another index; build it again"
            )
        for entry in entries:
            if Path(entry.file).name != entry.file:
                raise BrokenRunError(
                    f"picture bank {str(folder)!r}: file {entry.file!r} leaves the bank; build it again"
                )
        return cls(folder, entries, torch.nn.functional.normalize(embeddings))

    @cached_property
    def _entry_of_name(self) -> torch.Tensor:
        counts = torch.tensor([len(entry.names) for entry in self.entries])
        return torch.repeat_interleave(torch.arange(len(self.entries)), counts)

    def likeness(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Cosine of each prompt with each entry's nearest name.

        Args:
            embeddings: (n, 384) float32, unit length.

        Returns:
            (n, entries) float32 in [-1, 1].
        """
        cosines = embeddings @ self.name_embeddings.T
        best = torch.full((len(embeddings), len(self.entries)), -1.0)
        return best.scatter_reduce(1, self._entry_of_name.expand(len(embeddings), -1), cosines, "amax")

    def draw(self, likeness: torch.Tensor, generator: torch.Generator) -> int:
        """Index of an entry drawn among the nearest ones; `likeness` is one row of `likeness()`."""
        nearest = torch.nonzero(likeness >= likeness.max() - TIE_MARGIN).flatten()
        return int(nearest[torch.randint(len(nearest), (1,), generator=generator)])

    def picture(self, index: int) -> torch.Tensor:
        """(4, 96, 96) float32 in [-1, 1], RGBA, colour premultiplied by alpha."""
        entry = self.entries[index]
        try:
            with Image.open(self.folder / entry.file) as image:
                straight = np.asarray(image.convert("RGBA"), np.float32) / 255
        except OSError as exc:
            raise BrokenRunError(f"picture {entry.file!r} of bank {str(self.folder)!r} cannot be read ({exc})") from exc
        return straight_to_premultiplied(torch.from_numpy(straight).permute(2, 0, 1))


def straight_to_premultiplied(straight: torch.Tensor) -> torch.Tensor:
    """(…, 4, h, w) straight RGBA in [0, 1] to premultiplied RGBA in [-1, 1]."""
    colour, alpha = straight[..., :3, :, :], straight[..., 3:, :, :]
    return torch.cat([colour * alpha, alpha], dim=-3) * 2 - 1


def premultiplied_to_straight(premultiplied: torch.Tensor) -> torch.Tensor:
    """(…, 4, h, w) premultiplied RGBA in [-1, 1] to straight RGBA in [0, 1]; colour is 0 where alpha is."""
    unit = ((premultiplied + 1) / 2).clamp(0, 1)
    colour, alpha = unit[..., :3, :, :], unit[..., 3:, :, :]
    return torch.cat([(colour / alpha.clamp_min(1e-3)).clamp(0, 1) * (alpha > 0), alpha], dim=-3)
