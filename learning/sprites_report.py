"""Measure the sprites model for its card: right objects, clean alpha, distance from the training pictures, time.

python -m maskwright.learning.sprites_report --out runs/sprites_report
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import msgspec
import numpy as np
import torch
import typer
from PIL import Image

from ..data.files import write_atomically
from ..data.records import ImageRGBA
from ..models.image_features import Lite0
from ..models.lit import LitScorer
from ..models.sprites.bank import PictureBank, premultiplied_to_straight
from ..models.sprites.pipeline import DEFAULT_FOLDER, SpritePipeline
from ..models.sprites.warp import warp
from .object_names import CLASS_PICTURES
from .sheets import draw_sheet

KNOWN_OBJECTS = tuple(name for name in CLASS_PICTURES if name not in {"mouse", "saucer", "fork", "tennis racket"})[:50]
"""Left out: classes whose name or picture means another thing too."""
TEMPLATES = ("a {}", "a photo of a {}", "a blue {}", "a single {} on a plain background")
SHEET_OBJECTS = 32
TOP = 5
VISIBLE = 128
"""Alpha from which a pixel counts as the object's."""

logger = logging.getLogger(__name__)


class Figures(msgspec.Struct, kw_only=True):
    """What was measured on one set of samples; shares are in [0, 1]."""

    samples: int
    strength: float
    top_5: float
    """Share whose right name the scorer puts among its five best of all names of the bank."""
    top_1: float
    one_component: float
    """Share whose visible pixels form one part; specks under 1 % of them do not count."""
    empty: float
    """Share with under 2 % of its pixels visible."""
    opaque: float
    """Share with over 95 % of its pixels visible."""
    distance: float
    """Median cosine distance of image features to the nearest training picture."""
    seconds_an_image: float


class Report:
    """The models that measuring takes, loaded once."""

    def __init__(self, pipeline: SpritePipeline) -> None:
        self.pipeline, self.scorer, self.features = pipeline, LitScorer(), Lite0()
        self.bank: PictureBank = pipeline.picture_bank
        self.names = list(dict.fromkeys(name for entry in self.bank.entries for name in entry.names[:-1]))
        self.trained = self.features.embed(
            [self._rgba(index) for index, entry in enumerate(self.bank.entries) if not entry.held_out]
        )

    def _rgba(self, index: int) -> ImageRGBA:
        return _to_uint8(premultiplied_to_straight(self.bank.picture(index)))

    def paint(self, prompts: Sequence[str], *, strength: float) -> list[Image.Image]:
        """One image a prompt, seeds counting from 0."""
        generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        images: list[Image.Image] = self.pipeline(prompts, strength=strength, generator=generators).images
        return images

    def measure(self, prompts: Sequence[str], objects: Sequence[str], *, strength: float) -> Figures:
        """Paint the prompts and measure; `objects` are the right names."""
        started = time.perf_counter()
        images = self.paint(prompts, strength=strength)
        seconds = time.perf_counter() - started
        return self._figures([np.asarray(image) for image in images], objects, strength, seconds)

    def warped_pictures(self, objects: Sequence[str]) -> Figures:
        """The control: banked pictures of the same objects, only warped as a painting's start is."""
        indices = [next(i for i, entry in enumerate(self.bank.entries) if name in entry.names) for name in objects]
        pictures = torch.stack([self.bank.picture(index) for index in indices])
        warped = warp(pictures, torch.Generator().manual_seed(0), turn=0.5, zoom=0.3, shift=0.0)
        return self._figures([_to_uint8(premultiplied_to_straight(picture)) for picture in warped], objects, 0.0, 0.0)

    def _figures(self, images: list[ImageRGBA], objects: Sequence[str], strength: float, seconds: float) -> Figures:
        ranks = self._ranks(images, objects)
        coverage = np.array([(image[..., 3] >= VISIBLE).mean() for image in images])
        nearest = (self.features.embed(images) @ self.trained.T).max(axis=1)
        return Figures(
            samples=len(images),
            strength=strength,
            top_5=_share(ranks < TOP),
            top_1=_share(ranks < 1),
            one_component=_share(np.array([_is_one_component(image) for image in images])),
            empty=_share(coverage < 0.02),
            opaque=_share(coverage > 0.95),
            distance=round(float(1 - np.median(nearest)), 4),
            seconds_an_image=round(seconds / len(images), 3),
        )

    def _ranks(self, images: list[ImageRGBA], objects: Sequence[str]) -> np.ndarray:
        """(n,) int: how many names score above the best right one; every name of a fitting picture is right.

        An image without a visible pixel ranks last.
        """
        ranks = np.full(len(images), len(self.names))
        visible = [number for number, image in enumerate(images) if image[..., 3].any()]
        scores = self.scorer.score([images[number] for number in visible], self.names)
        for number, row in zip(visible, scores, strict=True):
            name = objects[number]
            right = {other for entry in self.bank.entries if name in entry.names for other in entry.names}
            is_right = np.array([other in right for other in self.names])
            ranks[number] = (row[~is_right] > row[is_right].max()).sum()
        return ranks


def _to_uint8(straight: torch.Tensor) -> ImageRGBA:
    rgba: ImageRGBA = (straight.permute(1, 2, 0) * 255).round().byte().numpy()
    return rgba


def _share(hits: np.ndarray) -> float:
    return round(float(hits.mean()), 4)


def _is_one_component(image: ImageRGBA) -> bool:
    visible = (image[..., 3] >= VISIBLE).astype(np.uint8)
    areas = cv2.connectedComponentsWithStats(visible)[2][1:, cv2.CC_STAT_AREA]
    return int((areas >= 0.01 * visible.sum()).sum()) == 1


def main(
    out: Annotated[Path, typer.Option(help="Folder of figures.json and the sheet.")],
    weights: Annotated[Path, typer.Option(help="Pipeline folder.")] = DEFAULT_FOLDER,
) -> None:
    """Measure known objects at several strengths, held-out objects, and a control; draw the sheet of 64."""
    out.mkdir(parents=True, exist_ok=True)
    report = Report(SpritePipeline.from_pretrained(weights))
    prompts = [template.format(name) for name in KNOWN_OBJECTS for template in TEMPLATES]
    objects = [name for name in KNOWN_OBJECTS for _ in TEMPLATES]
    held_out = [entry.label for entry in report.bank.entries if entry.held_out]
    sheet_objects = [name for name in KNOWN_OBJECTS[:SHEET_OBJECTS] for _ in range(2)]
    images = report.paint([f"a {name}" for name in sheet_objects], strength=0.7)
    draw_sheet(images, columns=8).save(out / "samples.webp", quality=90)
    figures = {"default": report.measure(prompts, objects, strength=0.7)}
    for strength in (0.5, 0.85, 1.0):
        figures[f"strength {strength}"] = report.measure(prompts[::8], objects[::8], strength=strength)
    figures["held out"] = report.measure([f"a {name}" for name in held_out], held_out, strength=0.7)
    figures["control: warped pictures"] = report.warped_pictures(objects[::4])
    figures["control: warped held-out pictures"] = report.warped_pictures(held_out)
    for name, row in figures.items():
        logger.info("%s: %s", name, row)
    write_atomically(out / "figures.json", msgspec.json.format(msgspec.json.encode(figures), indent=2))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.run(main)
