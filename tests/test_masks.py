"""Masks survive every encoding, to the pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskwright.data.masks import (
    bridge_rings,
    connected_components,
    mask_to_bbox,
    mask_to_rings,
    mask_to_rle,
    mask_to_segmentation,
    rle_area,
    rle_to_mask,
    segmentation_to_mask,
    segmentation_to_ring,
)
from maskwright.data.records import MaskHW, Polygons, Rle
from maskwright.errors import EmptyMaskError

HEIGHT, WIDTH = 48, 64


def _blank() -> MaskHW:
    return np.zeros((HEIGHT, WIDTH), dtype=np.bool_)


def _drawn(*boxes: tuple[int, int, int, int], holes: tuple[tuple[int, int, int, int], ...] = ()) -> MaskHW:
    mask = _blank()
    for x, y, w, h in boxes:
        mask[y : y + h, x : x + w] = True
    for x, y, w, h in holes:
        mask[y : y + h, x : x + w] = False
    return mask


MASKS = {
    "one pixel": _drawn((10, 5, 1, 1)),
    "one row": _drawn((3, 47, 40, 1)),
    "whole frame": ~_blank(),
    "at the far corner": _drawn((54, 38, 10, 10)),
    "two parts": _drawn((2, 2, 9, 7), (40, 30, 12, 9)),
    "parts that touch at a corner": _drawn((10, 10, 5, 5), (15, 15, 5, 5)),
    "a hole": _drawn((10, 10, 30, 20), holes=((20, 15, 6, 6),)),
    "a hole at a corner of another": _drawn((10, 10, 30, 20), holes=((15, 15, 4, 4), (19, 19, 4, 4))),
    "an island in a hole": _drawn((5, 5, 40, 36), holes=((10, 10, 25, 20),)) | _drawn((18, 16, 5, 5)),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_every_encoding_keeps_every_pixel(mask: MaskHW) -> None:
    np.testing.assert_array_equal(rle_to_mask(mask_to_rle(mask)), mask)
    np.testing.assert_array_equal(segmentation_to_mask(mask_to_segmentation(mask), HEIGHT, WIDTH), mask)
    ring = segmentation_to_ring(mask_to_rle(mask), HEIGHT, WIDTH)
    np.testing.assert_array_equal(segmentation_to_mask(Polygons((ring,)), HEIGHT, WIDTH), mask)
    assert rle_area(mask_to_rle(mask)) == mask.sum()


@pytest.mark.parametrize("seed", range(25))
def test_ragged_masks_bridge_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)), (0, 0), rng.uniform(0.5, 3))
    mask = noise > np.quantile(noise, rng.uniform(0.3, 0.9))
    rings = [ring for outer, holes in mask_to_rings(mask) for ring in (outer, *holes)]
    np.testing.assert_array_equal(segmentation_to_mask(Polygons((bridge_rings(rings),)), HEIGHT, WIDTH), mask)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("a hole", Rle), ("an island in a hole", Rle), ("two parts", Polygons), ("one row", Polygons)],
)
def test_polygons_unless_there_is_a_hole(name: str, encoding: type) -> None:
    assert isinstance(mask_to_segmentation(MASKS[name]), encoding)


def test_a_square_outline_follows_pixel_edges() -> None:
    [(outer, holes)] = mask_to_rings(_drawn((10, 20, 4, 3)))
    assert not holes
    assert {tuple(point) for point in outer.tolist()} == {(10, 20), (14, 20), (14, 23), (10, 23)}


def test_an_empty_mask_is_an_error_that_gives_its_size() -> None:
    with pytest.raises(EmptyMaskError, match="64x48"):
        mask_to_bbox(_blank())
    with pytest.raises(EmptyMaskError, match="64x48"):
        segmentation_to_ring(mask_to_rle(_blank()), HEIGHT, WIDTH)


def test_box_and_components_tell_width_from_height() -> None:
    mask = MASKS["two parts"]
    assert mask_to_bbox(mask) == (2, 2, 50, 37)
    assert connected_components(mask) == [108, 63]
