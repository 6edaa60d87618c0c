"""Labelled samples for the benchmark of validity: whole objects, and eight ways of spoiling them.

A label is how a sample was made; no judge took part. Frames are of 96x96, as the embedded painter's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from validity_wholes import Origin, Rng, Whole, draw_wholes, read_quickstart, vary

from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.tools.cutouts import resize_rgba
from maskwright.tools.judging.measures import alpha_to_mask

VALID = "valid"
SIDE_PX = 96
MARGIN_PX = 3
EDGE_PX = 0.7


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture to be judged as one of its category."""

    rgba: ImageRGBA
    category: str
    kind: str
    """`VALID`, or one of `SPOILERS`."""
    origin: Origin

    @property
    def is_valid(self) -> bool:
        return self.kind == VALID


@dataclass(frozen=True, slots=True)
class Stock:
    """What spoiling one object may draw from."""

    others: Sequence[Whole]
    names: Sequence[str]
    backgrounds: Sequence[ImageRGB]


def fit(rgba: ImageRGBA, longer_px: float) -> ImageRGBA:
    height, width = rgba.shape[:2]
    ratio = longer_px / max(height, width)
    return resize_rgba(np.ascontiguousarray(rgba), max(1, round(width * ratio)), max(1, round(height * ratio)))


def paste(frame: ImageRGBA, rgba: ImageRGBA, x: int, y: int) -> None:
    """Lay a cut-out over a frame, in place; what leaves the frame is lost."""
    height, width = frame.shape[:2]
    top, left = max(0, -y), max(0, -x)
    part = rgba[top : height - y, left : width - x]
    if not part.size:
        return
    under = frame[y + top : y + top + part.shape[0], x + left : x + left + part.shape[1]]
    over, below = part[..., 3:] / 255.0, under[..., 3:] / 255.0
    alpha = over + below * (1 - over)
    colour = (part[..., :3] * over + under[..., :3] * below * (1 - over)) / np.maximum(alpha, 1e-6)
    under[...] = np.concatenate([colour, alpha * 255], axis=2).round().astype(np.uint8)


def empty_frame() -> ImageRGBA:
    return np.zeros((SIDE_PX, SIDE_PX, 4), np.uint8)


def place(whole: Whole, rng: Rng, longest: tuple[float, float] = (0.6, 0.9)) -> ImageRGBA:
    """The object anywhere inside a frame, its longer side a share of the frame's."""
    rgba = fit(whole.rgba, SIDE_PX * rng.uniform(*longest))
    room = (SIDE_PX - MARGIN_PX - side for side in rgba.shape[1::-1])
    x, y = (int(rng.integers(MARGIN_PX, max(MARGIN_PX + 1, most + 1))) for most in room)
    frame = empty_frame()
    paste(frame, rgba, x, y)
    return frame


def smooth_mask(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """(96, 96) uint8 alpha with an edge as soft as those of the objects, so that no limit can tell by that."""
    return np.asarray(cv2.GaussianBlur(mask.astype(np.uint8) * 255, (0, 0), EDGE_PX))


def draw_blob(rng: Rng, scale_px: float) -> npt.NDArray[np.float32]:
    """(96, 96) float32: smooth noise of zero mean and unit deviation."""
    noise = cv2.GaussianBlur(rng.standard_normal((SIDE_PX, SIDE_PX)).astype(np.float32), (0, 0), scale_px)
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def draw_background(rng: Rng, stock: Stock) -> ImageRGB:
    """(96, 96, 3) uint8: a piece of a photograph."""
    photograph = stock.backgrounds[rng.integers(len(stock.backgrounds))]
    side = int(min(photograph.shape[:2]) * rng.uniform(0.3, 0.7))
    y, x = (int(rng.integers(0, size - side + 1)) for size in photograph.shape[:2])
    return np.asarray(
        cv2.resize(photograph[y : y + side, x : x + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    )


def on_background(rgba: ImageRGBA, background: ImageRGB) -> ImageRGBA:
    frame = np.dstack([background, np.full(rgba.shape[:2], 255, np.uint8)])
    paste(frame, rgba, 0, 0)
    return frame


def two_objects(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:
    """Beside or above each other, apart or overlapping by up to a seventh; as often alike as of another class."""
    second = vary(whole.rgba, rng) if rng.random() < 0.5 else stock.others[rng.integers(len(stock.others))].rgba
    first, second = (fit(one, SIDE_PX * rng.uniform(0.38, 0.47)) for one in (whole.rgba, second))
    sideways = rng.random() < 0.5
    axis = 1 if sideways else 0
    sizes = first.shape[axis], second.shape[axis]
    gap = round(min(sizes) * rng.uniform(-0.15, 0.15))
    start = max(0, (SIDE_PX - sum(sizes) - gap) // 2)
    frame = empty_frame()
    for rgba, offset in ((first, start), (second, start + sizes[0] + gap)):
        across = (SIDE_PX - rgba.shape[1 - axis]) // 2 + int(rng.integers(-8, 9))
        paste(frame, rgba, *((offset, across) if sideways else (across, offset)))
    return frame


def cut_at_border(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:  # one signature for all kinds
    """A side of the frame cuts off 20 to 60 % of the object's extent."""
    rgba = fit(whole.rgba, SIDE_PX * rng.uniform(0.7, 1.1))
    height, width = rgba.shape[:2]
    x, y = (SIDE_PX - width) // 2, (SIDE_PX - height) // 2
    lost, side = rng.uniform(0.2, 0.6), int(rng.integers(4))
    x = (-round(lost * width), x, SIDE_PX - width + round(lost * width), x)[side]
    y = (y, -round(lost * height), y, SIDE_PX - height + round(lost * height))[side]
    frame = empty_frame()
    paste(frame, rgba, x, y)
    return frame


def whole_object(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:
    """Nothing is wrong with the picture; for `wrong class` its name is changed."""
    return place(whole, rng)


def empty(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:
    """Nothing at all, a haze, or a speck."""
    frame, way = place(whole, rng), int(rng.integers(3))
    if way == 0:
        return empty_frame()
    if way == 1:
        frame[..., 3] = (frame[..., 3] * rng.uniform(0.1, 0.45)).astype(np.uint8)
        return frame
    return place(whole, rng, (0.06, 0.14))


def fragments(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:
    """Pieces: about half of the object is gone, in blobs."""
    frame = place(whole, rng)
    kept = smooth_mask(draw_blob(rng, rng.uniform(3, 6)) <= rng.uniform(-0.2, 0.2))
    frame[..., 3] = np.minimum(frame[..., 3], kept)
    return frame


def cluttered(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:
    """A piece of a photograph, of a third to twice the object's area, clings to it."""
    frame = place(whole, rng, (0.5, 0.75))
    mask = alpha_to_mask(frame)
    far = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    rank = far - 4 * draw_blob(rng, 6)
    rank[:2], rank[-2:], rank[:, :2], rank[:, -2:] = (np.inf,) * 4
    outside = np.sort(rank[~mask & np.isfinite(rank)])
    reach = outside[min(len(outside) - 1, round(mask.sum() * rng.uniform(0.33, 2)))]
    picture = on_background(frame, draw_background(rng, stock))
    picture[..., 3] = np.maximum(frame[..., 3], smooth_mask(rank <= reach))
    return picture


def opaque(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:
    """The whole frame is there: the object on a plain colour, or on a piece of a photograph."""
    plain = np.full((SIDE_PX, SIDE_PX, 3), rng.integers(0, 256, 3), np.uint8)
    return on_background(place(whole, rng), plain if rng.random() < 0.5 else draw_background(rng, stock))


def blurred(whole: Whole, rng: Rng, stock: Stock) -> ImageRGBA:
    """Out of focus by 2.5 to 4.5 px: the colours alone inside a crisp outline, or outline and all."""
    frame, sigma = place(whole, rng), rng.uniform(2.5, 4.5)
    weight = frame[..., 3:].astype(np.float32) / 255
    soft = cv2.GaussianBlur(np.dstack([frame[..., :3] * weight, weight]), (0, 0), sigma)
    colour = (soft[..., :3] / np.maximum(soft[..., 3:], 1e-3)).clip(0, 255)
    alpha = soft[..., 3] * 255 if rng.random() < 0.5 else frame[..., 3]
    return np.dstack([colour, alpha]).round().astype(np.uint8)


SPOILERS: Mapping[str, Callable[[Whole, Rng, Stock], ImageRGBA]] = {
    "two objects": two_objects,
    "cut at the border": cut_at_border,
    "wrong class": whole_object,
    "empty": empty,
    "fragments": fragments,
    "cluttered background": cluttered,
    "opaque alpha": opaque,
    "blurred": blurred,
}


def make_samples(num_samples: int, classes: Sequence[str], seed: int) -> list[Sample]:
    """Half of them valid, the other half in equal shares of `SPOILERS`, in turns."""
    rng = np.random.default_rng(seed)
    photographed, backgrounds = read_quickstart(classes)
    wholes = draw_wholes(num_samples, classes, photographed, rng)
    kinds = list(SPOILERS)
    samples = []
    for index, whole in enumerate(wholes):
        kind = VALID if index % 2 == 0 else kinds[index // 2 % len(kinds)]
        others = [one for one in wholes if one.category != whole.category]
        stock = Stock(others, classes, backgrounds)
        samples.append(make_sample(whole, kind, rng, stock))
    return samples


def make_sample(whole: Whole, kind: str, rng: Rng, stock: Stock) -> Sample:
    rgba = SPOILERS.get(kind, whole_object)(whole, rng, stock)
    category = whole.category
    if kind == "wrong class":
        category = str(rng.choice([name for name in stock.names if name != whole.category]))
    return Sample(rgba, category, kind, whole.origin)
