"""What the judge of wholeness learns from: banked objects, whole and spoilt, in as many ways as painters find.

Nothing here is shared with the benchmark of validity but the classes that it names: neither pictures of those classes
nor the photographs of the quickstart are used, and the ways of spoiling have their own shapes and ranges.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from ..data.records import ImageRGB, ImageRGBA
from ..models.embeddings import MiniLM
from ..models.sprites.bank import PictureBank
from ..tools.cutouts import crop_to_mask
from .wholeness_spoilers import SPOILERS, Scenery, place

HELD_OUT_CLASSES = (
    *("airplane", "backpack", "banana", "bear", "bicycle", "bird", "broccoli", "bus", "camera", "carrot", "cat"),
    *("chair", "coin", "cow", "dog", "elephant", "giraffe", "horse", "key", "kitchen knife", "pizza", "rocket"),
    *("sailboat", "scissors", "teddy bear", "train", "trophy", "umbrella", "watch", "zebra"),
    *("alarm clock", "butterfly", "crab", "crown", "cup", "doughnut", "glasses", "guitar", "hammer", "handbag"),
    *("helicopter", "hot dog", "kite", "laptop", "motorcycle", "mushroom", "necktie", "owl", "pear", "penguin"),
    *("potted plant", "sandwich", "skateboard", "spoon", "strawberry", "toothbrush", "tractor", "trumpet", "turtle"),
    "wine glass",
)
"""Classes of the benchmark of validity; no picture whose name is near one of them is learned from."""
NEAR_NAME = 0.7
"""Least cosine (MiniLM) of a name that counts as near."""
CHECK_ONE_IN = 8
"""Objects of every eighth number only check: they stop the training and set the threshold."""
WHOLE_SHARE = 0.5
WHOLE = "whole"
"""The kind of what is not spoilt."""
TEXTURED_SHARE = 0.35
NOISY_SHARE = 0.4
JPEG_SHARE = 0.3
SOFT_SHARE = 0.3

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture to learn from.

    Attributes:
        rgba: (H, W, 4) uint8.
        kind: `WHOLE`, or one of `SPOILERS`.
    """

    rgba: ImageRGBA
    kind: str


def read_objects(bank: PictureBank, text: MiniLM) -> list[ImageRGBA]:
    """The bank's pictures that show none of `HELD_OUT_CLASSES`, cropped to what is visible."""
    likeness = bank.likeness(torch.from_numpy(text.embed(list(HELD_OUT_CLASSES))))
    near = (likeness >= NEAR_NAME).any(dim=0)
    near[likeness.argmax(dim=1)] = True
    found = []
    for entry, is_near in zip(bank.entries, near.tolist(), strict=True):
        if not is_near:
            with Image.open(bank.folder / entry.file) as picture:
                found.append(crop_to_mask(np.array(picture.convert("RGBA"))))
    return found


def read_photographs() -> list[ImageRGB]:
    """Photographs, textures and scans of scikit-image and scikit-learn; none is of the quickstart."""
    names = ("brick", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "retina", "page", "text")
    scenes = [np.asarray(getattr(skimage.data, name)()) for name in (*names, "clock", "colorwheel")]
    scenes += [np.asarray(image) for image in load_sample_images().images]
    return [np.repeat(one[..., None], 3, axis=2) if one.ndim == 2 else one[..., :3] for one in scenes]


def split_objects(objects: Sequence[ImageRGBA]) -> tuple[list[ImageRGBA], list[ImageRGBA]]:
    """To learn from, and to check by."""
    learn = [one for number, one in enumerate(objects) if number % CHECK_ONE_IN]
    return learn, list(objects[::CHECK_ONE_IN])


def make_shown(
    objects: Sequence[ImageRGBA], photographs: Sequence[ImageRGB], seed: tuple[int, ...], places: range
) -> Iterator[Shown]:
    """Pictures of the objects, about half of them whole; each follows from the seed and its place alone."""
    scenery = Scenery(photographs, objects)
    for place_in_order in places:
        yield _make_one(scenery, np.random.default_rng([*seed, place_in_order]))


def _make_one(scenery: Scenery, rng: Rng) -> Shown:
    chosen, other = (scenery.objects[int(rng.integers(len(scenery.objects)))] for _ in range(2))
    whole = disguise(chosen, rng, scenery.photographs)
    if rng.random() < WHOLE_SHARE:
        return Shown(finish(place_whole(whole, rng), rng), WHOLE)
    weights = np.array([spoiler.weight for spoiler in SPOILERS.values()])
    kind = str(rng.choice(list(SPOILERS), p=weights / weights.sum()))
    second = disguise(chosen if rng.random() < 0.5 else other, rng, scenery.photographs)
    return Shown(finish(SPOILERS[kind].spoil(whole, second, rng, scenery), rng), kind)


def place_whole(whole: ImageRGBA, rng: Rng) -> ImageRGBA:
    """Inside a frame; one in eight cropped to its box, as users' cut-outs often are."""
    return whole if rng.random() < 1 / 8 else place(whole, rng)


def disguise(rgba: ImageRGBA, rng: Rng, photographs: Sequence[ImageRGB]) -> ImageRGBA:
    """An object turned, stretched, mirrored, in other colours, and partly with a photograph's texture on it."""
    turned = turn(rgba, rng)
    colour = cv2.cvtColor(np.ascontiguousarray(turned[..., :3]), cv2.COLOR_RGB2HSV).astype(np.float32)
    colour[..., 0] = (colour[..., 0] + rng.normal(0, 12)) % 180
    colour[..., 1:] = (colour[..., 1:] * rng.uniform([0.35, 0.6], [1.25, 1.2])).clip(0, 255)
    rgb = cv2.cvtColor(colour.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    if rng.random() < TEXTURED_SHARE:
        texture = crop_photograph(photographs, rng, turned.shape[0], turned.shape[1]).astype(np.float32)
        grey = texture.mean(axis=2, keepdims=True) if rng.random() < 0.5 else texture
        rgb += rng.uniform(0.2, 0.9) * (grey - grey.mean())
    return np.dstack([rgb.clip(0, 255).astype(np.uint8), turned[..., 3]])


def turn(rgba: ImageRGBA, rng: Rng) -> ImageRGBA:
    """Turned by any angle, mostly a small one, stretched and mirrored; cropped to what is visible."""
    side = 2 * max(rgba.shape[:2])
    angle = float(rng.normal(0, 15)) if rng.random() < 0.8 else float(rng.uniform(0, 360))
    matrix = cv2.getRotationMatrix2D((rgba.shape[1] / 2, rgba.shape[0] / 2), angle, 1.0)
    matrix[0] *= rng.uniform(0.75, 1.3)
    matrix[:, 2] += side / 2 - matrix @ [rgba.shape[1] / 2, rgba.shape[0] / 2, 1]
    premultiplied = cv2.cvtColor(np.ascontiguousarray(rgba), cv2.COLOR_RGBA2mRGBA)
    turned = cv2.warpAffine(premultiplied, matrix, (side, side), flags=cv2.INTER_LINEAR)
    turned = turned[:, ::-1] if rng.random() < 0.5 else turned
    return crop_to_mask(np.asarray(cv2.cvtColor(np.ascontiguousarray(turned), cv2.COLOR_mRGBA2RGBA)))


def crop_photograph(photographs: Sequence[ImageRGB], rng: Rng, height: int, width: int) -> ImageRGB:
    """(height, width, 3) uint8: a piece of a photograph, up to all of it."""
    photograph = photographs[int(rng.integers(len(photographs)))]
    share = rng.uniform(0.15, 1)
    rows, columns = (max(8, int(side * share)) for side in photograph.shape[:2])
    top, left = (
        int(rng.integers(0, side - size + 1)) for side, size in zip(photograph.shape, (rows, columns), strict=False)
    )
    part = photograph[top : top + rows, left : left + columns]
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))


def finish(rgba: ImageRGBA, rng: Rng) -> ImageRGBA:
    """What cameras, codecs and matting do to any cut-out: a soft edge, light, noise, JPEG."""
    rgb, alpha = rgba[..., :3].astype(np.float32), rgba[..., 3]
    if rng.random() < SOFT_SHARE:
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), float(rng.uniform(0.3, 1.0))))
    if rng.random() < SOFT_SHARE:
        rgb = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.3, 0.8)))
    exposed = 255 * (rgb / 255) ** rng.uniform(0.7, 1.4) * rng.uniform(0.75, 1.15)
    if rng.random() < NOISY_SHARE:
        exposed += rng.normal(0, rng.uniform(1, 10), rgb.shape)
    picture = exposed.clip(0, 255).astype(np.uint8)
    if rng.random() < JPEG_SHARE:
        picture = through_jpeg(picture, int(rng.integers(40, 95)))
    return np.dstack([picture, alpha])


def through_jpeg(rgb: ImageRGB, quality: int) -> npt.NDArray[np.uint8]:
    content = io.BytesIO()
    Image.fromarray(rgb).save(content, "JPEG", quality=quality)
    return np.array(Image.open(content))
