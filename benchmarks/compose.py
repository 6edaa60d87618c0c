"""Scenes per second on one core, against the same pastes in a plain OpenCV and NumPy loop.

The plain loop resizes each cut-out and blends it with its float alpha, at the same sizes and centres; it
searches no place and writes no label. Run: python benchmarks/compose.py [--scenes 40]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from time import perf_counter
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from skimage import data as photos

from maskwright.configs.compose import ComposeSettings
from maskwright.data.masks import mask_to_bbox, segmentation_to_mask
from maskwright.data.records import Annotation, ImageRGB, ImageRGBA, Polygons
from maskwright.tools.composing import scene as scene_module
from maskwright.tools.composing.canvas import Canvas
from maskwright.tools.composing.harmonization import HARMONIZERS, Harmonizer, build_harmonizer
from maskwright.tools.composing.placement import FittedCutOut, Pasted, SideDistribution, SizeStatistics
from maskwright.tools.composing.scene import CutOut, compose_scene

SIDE = 640
ORIGINALS, PASTES, REPEATS = 7, 5, 5
SETTINGS = ComposeSettings()
SIZES = SizeStatistics({}, SideDistribution(0.2, 0.1))
Paste = tuple[ImageRGBA, tuple[int, int], tuple[int, int]]
"""Cut-out, (width, height) after resizing, centre."""


def blob(radius_px: float, centre_xy: tuple[float, float], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """A wobbly outline of 48 points, (48, 2) xy."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = np.array([rng.normal(0, 0.1) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(2, 7)])
    radius = radius_px * (1 + waves.sum(axis=0))
    outline: npt.NDArray[np.float64] = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + centre_xy
    return outline.astype(np.float32)


def make_cutout(index: int, photo_rgb: ImageRGB, rng: np.random.Generator) -> CutOut:
    """Cut a blob of 200 to 440 px out of a photograph, with a soft edge of about 1 px."""
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    outline = blob(rng.uniform(100, 220), (SIDE / 2, SIDE / 2), rng)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    x, y, w, h = cv2.boundingRect(mask)
    return CutOut(f"cutout-{index}", 1, np.dstack([photo_rgb, mask])[y : y + h, x : x + w].copy())


def make_original(annotation_id: int, rng: np.random.Generator) -> Annotation:
    ring = blob(rng.uniform(20, 100), tuple(rng.uniform(60, SIDE - 60, 2)), rng).clip(0, SIDE)
    polygons = Polygons((ring,))
    mask = segmentation_to_mask(polygons, SIDE, SIDE)
    return Annotation(annotation_id, 1, polygons, mask_to_bbox(mask), float(mask.sum()))


def paste_plainly(background_rgb: ImageRGB, pastes: list[Paste]) -> ImageRGB:
    image = background_rgb.copy()
    for cutout_rgba, (w, h), (centre_x, centre_y) in pastes:
        shrinks = w * h < cutout_rgba.shape[0] * cutout_rgba.shape[1]
        rgba = cv2.resize(cutout_rgba, (w, h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        left, top = centre_x - w // 2, centre_y - h // 2
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, SIDE), min(top + h, SIDE)
        inside = rgba[y0 - top : y1 - top, x0 - left : x1 - left]
        alpha = inside[..., 3:].astype(np.float32) / 255
        window = image[y0:y1, x0:x1]
        window[:] = (alpha * inside[..., :3] + (1 - alpha) * window).astype(np.uint8)
    return image


def record_pastes(compose: Callable[[], object], cutouts: list[CutOut]) -> list[Paste]:
    """The sizes and centres that a composition chooses."""
    pastes: list[Paste] = []

    class RecordingCanvas(Canvas):
        def paste(
            self, cutout: FittedCutOut, centre_xy: tuple[int, int], harmonizer: Harmonizer, *, measure: bool
        ) -> Pasted:
            h, w = cutout.mask.shape
            pastes.append((cutouts[len(pastes)].rgba, (w, h), centre_xy))
            return super().paste(cutout, centre_xy, harmonizer, measure=measure)

    with patch.object(scene_module, "Canvas", RecordingCanvas):
        compose()
    return pastes


def fastest_s(run: Callable[[], object]) -> float:
    """Least of a few runs: the machine's other work only ever adds."""
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        run()
        seconds.append(perf_counter() - start)
    return min(seconds)


def time_scenes(num_scenes: int) -> dict[str, float]:
    """Seconds for all scenes: of the plain loop, and of each harmonizer without and with seam measures."""
    rng = np.random.default_rng(0)
    backgrounds = [
        cv2.resize(photo, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for photo in (photos.astronaut(), photos.coffee(), photos.chelsea(), photos.rocket())
    ]
    pool = [make_cutout(i, backgrounds[i % len(backgrounds)], rng) for i in range(20)]
    seconds: dict[str, float] = {}
    for index in range(num_scenes):
        originals = [make_original(i + 1, rng) for i in range(ORIGINALS)]
        cutouts = [pool[i] for i in rng.choice(len(pool), PASTES, replace=False)]
        for label, run in build_runs(index, backgrounds[index % len(backgrounds)], originals, cutouts).items():
            seconds[label] = seconds.get(label, 0.0) + fastest_s(run)
    return seconds


def build_runs(
    seed: int, background_rgb: ImageRGB, originals: list[Annotation], cutouts: list[CutOut]
) -> dict[str, Callable[[], object]]:
    """What is timed for one scene, by its name in the table."""

    def compose(name: str, measure: bool) -> object:
        rng, settings = np.random.default_rng(seed), SETTINGS.model_copy(update={"harmonization": name})
        return compose_scene(
            background_rgb, originals, cutouts, SIZES, settings, build_harmonizer(settings), rng, measure_seams=measure
        )

    pastes = record_pastes(partial(compose, "alpha", False), cutouts)
    runs: dict[str, Callable[[], object]] = {"plain loop": partial(paste_plainly, background_rgb, pastes)}
    for name in sorted(set(HARMONIZERS) - {"diffusion"}):  # which needs a model
        runs[name] = partial(compose, name, False)
        runs[f"{name}, seams measured"] = partial(compose, name, True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=40)
    num_scenes = parser.parse_args().scenes
    cv2.setNumThreads(1)
    seconds = time_scenes(num_scenes)
    table = Table(title=f"{SIDE}x{SIDE}, {PASTES} pastes over {ORIGINALS} originals, one core")
    for column in ("composer", "scenes/s", "ms/scene", "time / plain loop"):
        table.add_column(column, justify="left" if column == "composer" else "right")
    for label, spent in seconds.items():
        ratio = spent / seconds["plain loop"]
        table.add_row(label, f"{num_scenes / spent:.0f}", f"{1000 * spent / num_scenes:.2f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
