"""Photographs of one and the same object: taken under another light, moved a little, cut a little tighter.

Whoever learns from one of them knows the other, though not one pixel is equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import ImageDecodeError
from .images import read_image
from .records import ImageRecord, ImageRGB

SIDE_PX = 64
"""Of the square that pictures are compared at."""
WINDOW_PX = 17
"""Side of the window by whose mean and deviation light is taken away."""
SHIFT_PX = 4
"""How far one picture may be moved against the other, of `SIDE_PX`."""
LEAST_DEVIATION = 3.0
"""Of 255: flatter windows are not stretched to noise."""
SIBLING_CORRELATION = 0.6
"""Of local contrast, from which on two pictures show one object. Of photographs of tiles, six exposures each, 95 % of
the pairs of one tile come into one group by it; of the pairs of two tiles fewer than 1 % reach it.
"""
ROUGH_SIDE_PX, ROUGH_CORRELATION = 12, 0.3
"""A sieve: four fifths of the pairs do not pass it, and of pairs of one object fewer than 1 %."""

Sketch = npt.NDArray[np.float32]
"""(S, S) local contrast."""


def find_siblings(images: Sequence[ImageRecord]) -> list[int]:
    """For each picture the number of its group: pictures that are alike directly, or by way of others.

    What all of them have in common, such as the outline of a part that always lies the same way, tells nothing and is
    taken away first; so pictures of one object alone are no siblings.

    Costs 17 KB a picture and 0.2 ms for each pair that is roughly alike. One that cannot be decoded is like nothing;
    whoever uses its pixels says so.
    """
    found = [_read_sketch(image) for image in images]
    seen = [one for one in found if one is not None]
    common = np.mean(seen, axis=0) if seen else np.float32(0)
    blank = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    sketches = [blank if one is None else np.asarray(one - common, np.float32) for one in found]
    outlines = np.array([_outline(one) for one in sketches])
    leader = list(range(len(sketches)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for place, own in enumerate(sketches):
        for earlier in np.flatnonzero(outlines[:place] @ outlines[place] >= ROUGH_CORRELATION):
            first, second = find(int(earlier)), find(place)
            if first != second and correlation(own, sketches[earlier]) >= SIBLING_CORRELATION:
                leader[max(first, second)] = min(first, second)
    return [find(place) for place in range(len(sketches))]


def _read_sketch(image: ImageRecord) -> Sketch | None:
    try:
        return sketch(read_image(image))
    except ImageDecodeError:
        return None


def sketch(image_rgb: ImageRGB) -> Sketch:
    """(S, S) float32: what is left of a picture without its light."""
    grey = cv2.cvtColor(cv2.resize(image_rgb, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    levels = grey.astype(np.float32)

    def mean(field: Sketch) -> Sketch:
        return np.asarray(cv2.blur(field, (WINDOW_PX, WINDOW_PX), borderType=cv2.BORDER_REFLECT), np.float32)

    centre = mean(levels)
    variance = np.maximum(mean(levels * levels) - centre * centre, 0)
    return np.asarray((levels - centre) / np.sqrt(variance + LEAST_DEVIATION**2), np.float32)


def correlation(one: Sketch, other: Sketch) -> float:
    """The best over small shifts, in [-1, 1]; symmetric."""
    inner = np.s_[SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX]
    return max(_best_match(one, other[inner]), _best_match(other, one[inner]))


def _best_match(whole: Sketch, part: Sketch) -> float:
    if part.std() < 1e-6:
        return 0.0  # a blank picture is like nothing
    return float(np.nan_to_num(cv2.matchTemplate(whole, part, cv2.TM_CCOEFF_NORMED)).max())


def _outline(one: Sketch) -> npt.NDArray[np.float32]:
    """(R * R,) float32 of length 1 and mean 0: so coarse that a small shift hardly matters."""
    coarse = cv2.resize(one, (ROUGH_SIDE_PX, ROUGH_SIDE_PX), interpolation=cv2.INTER_AREA).ravel()
    coarse = coarse - coarse.mean()
    return np.asarray(coarse / (np.linalg.norm(coarse) + 1e-6), np.float32)
