"""Ways of spoiling a cut-out of one whole object, for the training of the judge of wholeness."""

# ruff: noqa: ARG001  # all ways have one signature

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..data.records import ImageRGB, ImageRGBA
from ..tools.cutouts import resize_rgba

FRAME_PX = 128
MIN_ALPHA = 128

Rng = np.random.Generator
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scenery:
    """What may stand behind or beside an object."""

    photographs: Sequence[ImageRGB]
    objects: Sequence[ImageRGBA]


@dataclass(frozen=True, slots=True)
class Spoiler:
    """A way of spoiling: from an object, a second one, and scenery to a frame. `weight`: how often, among all."""

    spoil: Callable[[ImageRGBA, ImageRGBA, Rng, Scenery], ImageRGBA]
    weight: float


def lay(frame: ImageRGBA, rgba: ImageRGBA, x: int, y: int) -> ImageRGBA:
    """A cut-out over a frame; what leaves the frame is lost.

    Args:
        frame: (H, W, 4) uint8, straight alpha; it stays as it is.
        x, y: of the cut-out's corner, in the frame; may lie outside.
    """
    height, width = frame.shape[:2]
    shift = np.array([[1, 0, x], [0, 1, y]], np.float32)
    premultiplied = cv2.cvtColor(np.ascontiguousarray(rgba), cv2.COLOR_RGBA2mRGBA)
    over = cv2.warpAffine(premultiplied, shift, (width, height), flags=cv2.INTER_NEAREST).astype(np.float32)
    under = cv2.cvtColor(frame, cv2.COLOR_RGBA2mRGBA).astype(np.float32)
    mixed = (over + under * (1 - over[..., 3:] / 255)).round().clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(mixed, cv2.COLOR_mRGBA2RGBA))


def fit(rgba: ImageRGBA, longer_px: float) -> ImageRGBA:
    scale = longer_px / max(rgba.shape[:2])
    height, width = (max(3, round(side * scale)) for side in rgba.shape[:2])
    return resize_rgba(np.ascontiguousarray(rgba), width, height)


def new_frame() -> ImageRGBA:
    return np.zeros((FRAME_PX, FRAME_PX, 4), np.uint8)


def place(rgba: ImageRGBA, rng: Rng, shares: tuple[float, float] = (0.45, 0.95)) -> ImageRGBA:
    """An object anywhere inside a frame, its longer side a share of the frame's."""
    small = fit(rgba, FRAME_PX * rng.uniform(*shares))
    y, x = (int(rng.integers(0, max(1, FRAME_PX - side))) for side in small.shape[:2])
    return lay(new_frame(), small, x, y)


def visible(frame: ImageRGBA) -> Mask:
    return np.asarray(frame[..., 3] >= MIN_ALPHA)


def clouds(rng: Rng, scale_px: float) -> Floats:
    """(FRAME_PX, FRAME_PX) float32: smooth noise of zero mean and unit deviation."""
    noise = cv2.GaussianBlur(rng.standard_normal((FRAME_PX, FRAME_PX)).astype(np.float32), (0, 0), scale_px)
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def to_alpha(mask: Mask) -> npt.NDArray[np.uint8]:
    """A mask with an edge as soft as an object's, so that nothing can tell them by that."""
    return np.asarray(cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), 0.8))


def draw_scene(rng: Rng, scenery: Scenery) -> ImageRGB:
    """(FRAME_PX, FRAME_PX, 3) uint8: a photograph's piece, a crowd of objects, clouds of colours, or a gradient."""
    way = rng.random()
    if way < 0.4:
        return _photograph(rng, scenery)
    if way < 0.7:
        return _crowd(rng, scenery)
    first, second = rng.integers(0, 256, (2, 3))
    if way < 0.9:
        mix = 1 / (1 + np.exp(-2 * (clouds(rng, rng.uniform(2, 16)) + 0.4 * clouds(rng, 1.5))))
    else:
        mix = np.linspace(0, 1, FRAME_PX)[:, None] * np.ones((1, FRAME_PX))
    return np.asarray(first + mix[..., None] * (second - first)).astype(np.uint8)


def _photograph(rng: Rng, scenery: Scenery) -> ImageRGB:
    photograph = scenery.photographs[int(rng.integers(len(scenery.photographs)))]
    side = max(16, int(min(photograph.shape[:2]) * rng.uniform(0.1, 0.9)))
    top, left = (int(rng.integers(0, size - side + 1)) for size in photograph.shape[:2])
    part = photograph[top : top + side, left : left + side]
    tint = rng.uniform(0.7, 1.3, 3)
    scene = cv2.resize(part, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_AREA) * tint
    return np.asarray(np.rot90(scene, int(rng.integers(4)))).clip(0, 255).astype(np.uint8)


def _crowd(rng: Rng, scenery: Scenery) -> ImageRGB:
    """Objects of the bank, large and out of focus, on a plain ground."""
    scene = np.dstack([np.full((FRAME_PX, FRAME_PX, 3), rng.integers(30, 226, 3)), np.full((FRAME_PX,) * 2, 255)])
    scene = scene.astype(np.uint8)
    for _ in range(int(rng.integers(2, 7))):
        one = fit(scenery.objects[int(rng.integers(len(scenery.objects)))], FRAME_PX * rng.uniform(0.4, 1.6))
        x, y = (int(rng.integers(-side // 2, FRAME_PX - side // 2)) for side in one.shape[1::-1])
        scene = lay(scene, one, x, y)
    noisy = cv2.GaussianBlur(scene[..., :3], (0, 0), float(rng.uniform(0.3, 2))) + rng.normal(
        0, 6, (*scene.shape[:2], 1)
    )
    return np.asarray(noisy.clip(0, 255).astype(np.uint8))


def behind(frame: ImageRGBA, mask: Mask, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """The object with a piece of a scene, of the shape of a mask, behind it."""
    piece = np.dstack([draw_scene(rng, scenery), to_alpha(mask)])
    return lay(piece, frame, 0, 0)


def twins(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """Two objects, seldom three, in any direction from each other: overlapping a little, touching, or apart."""
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.55)
    frame = new_frame()
    small = [fit(one, FRAME_PX * size * rng.uniform(0.8, 1.2)) for one in (first, second)]
    extent = sum(abs(np.cos(angle)) * one.shape[1] + abs(np.sin(angle)) * one.shape[0] for one in small) / 2
    reach = min(extent * rng.uniform(0.75, 1.15), FRAME_PX * 0.6) / 2
    for sign, one in zip((-1, 1), small, strict=True):
        x = FRAME_PX / 2 + sign * reach * np.cos(angle) - one.shape[1] / 2
        y = FRAME_PX / 2 + sign * reach * np.sin(angle) - one.shape[0] / 2
        frame = lay(
            frame,
            one,
            *(int(np.clip(at, 0, FRAME_PX - side)) for at, side in zip((x, y), one.shape[1::-1], strict=True)),
        )
    if rng.random() < 0.15:
        third = fit(second, FRAME_PX * rng.uniform(0.25, 0.4))
        frame = lay(frame, third, *(int(rng.integers(0, FRAME_PX - side)) for side in third.shape[1::-1]))
    return frame


def cut_by_frame(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """One side of the frame, or two, cut off a sixth to two thirds of the object."""
    small = fit(first, FRAME_PX * rng.uniform(0.5, 1.2))
    lost = rng.uniform(0.17, 0.66)
    height, width = small.shape[:2]
    x, y = (int(rng.integers(min(0, FRAME_PX - side), max(0, FRAME_PX - side) + 1)) for side in (width, height))
    if (side := int(rng.integers(5))) in (0, 4):
        x = int(-lost * width) if rng.random() < 0.5 else int(FRAME_PX - (1 - lost) * width)
    if side in (1, 2, 3, 4):
        y = int(-lost * height) if rng.random() < 0.5 else int(FRAME_PX - (1 - lost) * height)
    return lay(new_frame(), small, x, y)


def cut_inside(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """A straight line takes a quarter to two thirds of the object away, in the middle of the frame."""
    frame = place(first, rng)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:FRAME_PX, :FRAME_PX]
    along = x * np.cos(angle) + y * np.sin(angle)
    level = np.quantile(along[visible(frame)], rng.uniform(0.34, 0.75))
    frame[..., 3] = np.minimum(frame[..., 3], to_alpha(along <= level))
    return frame


def fragments(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """A third to three quarters of the object are gone, in blobs."""
    frame = place(first, rng, (0.55, 0.95))
    noise = clouds(rng, rng.uniform(2.5, 10))
    level = np.quantile(noise[visible(frame)], rng.uniform(0.25, 0.67))
    frame[..., 3] = np.minimum(frame[..., 3], to_alpha(noise <= level))
    return frame


def ragged_rim(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """What surrounds the object clings to it with an uneven border: a fifth to two and a half times its area."""
    frame = place(first, rng, (0.35, 0.8))
    mask = visible(frame)
    far = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    rank = far + rng.uniform(1, 9) * clouds(rng, rng.uniform(3, 14))
    outside = np.sort(rank[~mask])
    reach = outside[min(len(outside) - 1, int(mask.sum() * rng.uniform(0.2, 2.5)))]
    return behind(frame, mask | (rank <= reach), rng, scenery)


def loose_mask(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """The mask is the object's hull, or its outline pushed outward by 6 to 20 % of the object's size."""
    frame = place(first, rng, (0.35, 0.75))
    mask = visible(frame).astype(np.uint8)
    if rng.random() < 0.4:
        points = cv2.findNonZero(mask)
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
    rows, columns = np.nonzero(mask)
    push = max(3, int(max(np.ptp(rows), np.ptp(columns)) * rng.uniform(0.06, 0.2)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * push + 1, 2 * push + 1))
    return behind(frame, cv2.dilate(mask, kernel) > 0, rng, scenery)


def patch(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """A box or an ellipse of a scene behind the object, or a lump of it at one side."""
    frame = place(first, rng, (0.35, 0.8))
    rows, columns = np.nonzero(visible(frame))
    centre = np.array([columns.mean(), rows.mean()])
    half = np.array([np.ptp(columns), np.ptp(rows)]) / 2 * rng.uniform(0.5, 1.25, 2) + 3
    centre += rng.uniform(-0.6, 0.6, 2) * half
    y, x = np.mgrid[:FRAME_PX, :FRAME_PX]
    across, down = np.abs(x - centre[0]) / half[0], np.abs(y - centre[1]) / half[1]
    power = rng.choice([2, 4, 40])
    wobble = 1 + rng.uniform(0, 0.2) * clouds(rng, 8)
    return behind(frame, (across**power + down**power) <= wobble, rng, scenery)


def whole_frame(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """Nothing was cut out: the picture is opaque to its borders."""
    return behind(place(first, rng), np.ones((FRAME_PX, FRAME_PX), np.bool_), rng, scenery)


def out_of_focus(first: ImageRGBA, second: ImageRGBA, rng: Rng, scenery: Scenery) -> ImageRGBA:
    """Blurred by 2 to 5 % of the frame, with its outline or without."""
    frame, sigma = place(first, rng), FRAME_PX * float(rng.uniform(0.02, 0.05))
    soft = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGBA2mRGBA).astype(np.float32), (0, 0), sigma)
    colour = soft[..., :3] * 255 / np.maximum(soft[..., 3:], 1)
    alpha = soft[..., 3:] if rng.random() < 0.5 else frame[..., 3:]
    return np.concatenate([colour, alpha], axis=2).round().clip(0, 255).astype(np.uint8)


SPOILERS: Mapping[str, Spoiler] = {
    "twins": Spoiler(twins, 5),
    "cut by the frame": Spoiler(cut_by_frame, 2),
    "cut inside": Spoiler(cut_inside, 1),
    "fragments": Spoiler(fragments, 2),
    "ragged rim": Spoiler(ragged_rim, 4),
    "loose mask": Spoiler(loose_mask, 2),
    "patch": Spoiler(patch, 3),
    "whole frame": Spoiler(whole_frame, 1),
    "out of focus": Spoiler(out_of_focus, 1),
}
