"""Batches for the sprites model: every random choice of a step follows from the seed and the step's number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..models.embeddings import MiniLM
from ..models.sprites.bank import PictureBank, straight_to_premultiplied
from ..models.sprites.network import PATCH, condition_text
from ..models.sprites.tones import TONES, recolour
from ..models.sprites.warp import warp
from .pictures import colourless

PRIORITY_WEIGHT = 3.0
"""How much more often a class of COCO or of the quickstart is drawn than another object."""
RECOLOURED_SHARE = 0.2
UNCONDITIONAL_SHARE = 0.1
TEXT_NOISE = 0.1
TIME_SHIFT = -0.4
"""Times are logit-normal (Esser et al. 2024), moved towards the picture: a painting seldom starts above 0.7."""
TEMPLATES = ("{}", "a {}", "a photo of a {}", "a single {} on a plain background")


@dataclass(frozen=True, slots=True)
class SpriteBatch:
    """One step's inputs.

    Attributes:
        pictures: (n, 4, 96, 96) float32 in [-1, 1], premultiplied.
        text: (n, 384) float32, as the network takes it.
        time: (n,) float32 in (0, 1).
        noise: (n, 36, 32, 32) float32.
    """

    pictures: torch.Tensor
    text: torch.Tensor
    time: torch.Tensor
    noise: torch.Tensor


class SpriteData:
    """The bank's pictures that are not held out, with their captions embedded."""

    def __init__(self, bank: PictureBank, text: MiniLM) -> None:
        entries = [(index, entry) for index, entry in enumerate(bank.entries) if not entry.held_out]
        self._straight = [np.array(Image.open(bank.folder / entry.file).convert("RGBA")) for _, entry in entries]
        self._pictures = torch.stack([bank.picture(index) for index, _ in entries])
        self._weights = torch.tensor([PRIORITY_WEIGHT if entry.priority else 1.0 for _, entry in entries])
        plain = [_captions(entry.names) for _, entry in entries]
        toned = [_toned_captions(entry.names) for _, entry in entries]
        self._plain = _embed(text, plain)
        self._toned = _embed(text, toned)
        self._tones = list(TONES.values())

    def __len__(self) -> int:
        return len(self._pictures)

    def batch(self, size: int, seed: int, step: int) -> SpriteBatch:
        """The batch of one step, the same whenever it is asked for."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        chosen = torch.multinomial(self._weights, size, replacement=True, generator=generator)
        pictures, text = self._pictures[chosen].clone(), torch.empty(size, 384)
        for row, index in enumerate(chosen.tolist()):
            captions = self._plain[index]
            if torch.rand(1, generator=generator) < RECOLOURED_SHARE:
                tone = int(torch.randint(len(self._tones), (1,), generator=generator))
                captions = self._toned[index][2 * tone : 2 * tone + 2]
                toned = torch.from_numpy(recolour(self._straight[index], self._tones[tone])).permute(2, 0, 1)
                pictures[row] = straight_to_premultiplied(toned / 255)
            text[row] = captions[torch.randint(len(captions), (1,), generator=generator)]
        text += TEXT_NOISE * torch.randn(text.shape, generator=generator)
        text[torch.rand(size, generator=generator) < UNCONDITIONAL_SHARE] = 0
        noise = torch.randn(size, 4 * PATCH**2, *(side // PATCH for side in pictures.shape[2:]), generator=generator)
        time = torch.sigmoid(torch.randn(size, generator=generator) + TIME_SHIFT)
        return SpriteBatch(warp(pictures, generator, turn=0.5, zoom=0.3, shift=0.12), text, time, noise)


def _captions(names: tuple[str, ...]) -> list[str]:
    *plain, tagged = names
    return [template.format(name) for name in plain for template in TEMPLATES] + [tagged]


def _toned_captions(names: tuple[str, ...]) -> list[str]:
    """Two a tone; a name that holds a colour gives it up."""
    name = colourless(names)
    return [template.format(f"{tone} {name}") for tone in TONES for template in ("a {}", "a photo of a {}")]


def _embed(text: MiniLM, captions: list[list[str]]) -> list[torch.Tensor]:
    """(captions, 384) for each picture, ready for the network."""
    rows = condition_text(torch.from_numpy(text.embed([caption for group in captions for caption in group])))
    return list(torch.split(rows, [len(group) for group in captions]))
