"""What is compared of images to find copies: digests, a perceptual hash, and a small picture to take features of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np

from ..data.images import read_image
from ..data.records import Findings, ImageRecord, ImageRGB
from ..errors import ImageDecodeError
from ..tools.judging.measures import COMPARE_SIDE_PX, perceptual_hash

CHUNK = 64
"""Images read at once."""
READERS = 4
LOOK_SIDE_PX = 256
"""Longer side of what features are taken of."""


@dataclass(frozen=True, slots=True)
class View:
    """How an image looks, one way round."""

    pixel_digest: bytes
    phash: int
    small_rgb: ImageRGB


@dataclass(frozen=True, slots=True)
class Look:
    """What is compared of an image; no views where it does not decode."""

    record: ImageRecord
    file_digest: bytes
    views: tuple[View, ...]
    """As it is; and mirrored, where asked for."""


def read_looks(records: Iterable[ImageRecord], findings: Findings, *, mirrored: bool) -> Iterator[list[Look]]:
    """Looks in the records' order, in chunks; only one chunk's small pictures are held.

    Args:
        findings: gets `undecodable_image`.
        mirrored: also how each looks mirrored left to right.
    """
    rest = iter(records)
    with ThreadPoolExecutor(max_workers=READERS) as pool:
        while chunk := list(islice(rest, CHUNK)):
            looks = list(pool.map(lambda record: _look_at(record, mirrored=mirrored), chunk))
            for look in looks:
                if not look.views:
                    findings.add("undecodable_image", look.record.file_name)
            yield looks


def _look_at(record: ImageRecord, *, mirrored: bool) -> Look:
    try:
        content = record.path.read_bytes()
    except OSError:
        return Look(record, str(record.path).encode(), ())
    digest = hashlib.sha256(content).digest()
    try:
        image_rgb = read_image(record)
    except ImageDecodeError:
        return Look(record, digest, ())
    return Look(record, digest, tuple(map(_view, [image_rgb, image_rgb[:, ::-1]][: 1 + mirrored])))


def _view(image_rgb: ImageRGB) -> View:
    pixels = np.ascontiguousarray(image_rgb)
    digest = hashlib.sha256(b"%d,%d:" % pixels.shape[:2])
    digest.update(pixels.data)
    return View(digest.digest(), _phash(pixels), shrink(pixels))


def _phash(image_rgb: ImageRGB) -> int:
    square = cv2.resize(image_rgb, (COMPARE_SIDE_PX, COMPARE_SIDE_PX), interpolation=cv2.INTER_AREA)
    return perceptual_hash(np.dstack([square, np.full(square.shape[:2], 255, np.uint8)]))


def shrink(image_rgb: ImageRGB) -> ImageRGB:
    """An image at most 256 pixels long, at its aspect ratio; itself where it is no longer."""
    height, width = image_rgb.shape[:2]
    scale = LOOK_SIDE_PX / max(height, width)
    if scale >= 1:
        return image_rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
