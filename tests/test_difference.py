"""The mask of an edit: exact after encoding, moving and toning; empty where nothing was edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from maskwright.data.records import ImageRGB, MaskHW
from maskwright.errors import ImageSizeError
from maskwright.tools.judging.measures import mask_iou
from maskwright.tools.masking.difference import (
    GlobalChange,
    changed_outside,
    compare_images,
    difference_mask,
)

HEIGHT, WIDTH = 144, 192
CENTRE_XY = (84, 60)
Edit = tuple[ImageRGB, MaskHW]


def surface(grain: float = 6.0, height: int = HEIGHT, width: int = WIDTH) -> ImageRGB:
    """A machined surface: a shallow gradient, grooves, a dark ledge, sensor noise."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:height, :width]
    grey = 130 + 25 * x / width + 6 * np.sin(y / 3.0)
    grey = np.where(x > 0.8 * width, grey - 60, grey)
    noise = cv2.GaussianBlur(rng.normal(0, grain, (height, width)).astype(np.float32), (0, 0), 0.7)
    return np.clip(np.stack([grey + noise + tint for tint in (4, 0, -6)], axis=2), 0, 255).astype(np.uint8)


def _blend(image: ImageRGB, mask: MaskHW, colour: Sequence[float], opacity: float = 1.0) -> ImageRGB:
    """Half a pixel soft at its outline, and grainy."""
    weight = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.5)[..., None] * opacity * mask[..., None]
    grain = np.random.default_rng(7).normal(0, 3, image.shape)
    return np.clip(image * (1 - weight) + (np.array(colour) + grain) * weight, 0, 255).round().astype(np.uint8)


def _drawn(draw: Callable[[np.ndarray], object]) -> MaskHW:
    canvas = np.zeros((HEIGHT, WIDTH), np.uint8)
    draw(canvas)
    return canvas > 0


def hole() -> Edit:
    mask = _drawn(lambda canvas: cv2.ellipse(canvas, CENTRE_XY, (14, 9), 30, 0, 360, 1, -1))
    return _blend(surface(), mask, (35, 33, 30)), mask


def scratch() -> Edit:
    mask = _drawn(lambda canvas: cv2.line(canvas, (30, 20), (130, 100), 1, 4))
    return _blend(surface(), mask, (225, 226, 230)), mask


def stain() -> Edit:
    mask = _drawn(lambda canvas: cv2.ellipse(canvas, CENTRE_XY, (34, 22), 10, 0, 360, 1, -1))
    return _blend(surface(), mask, (120, 70, 20), 0.6), mask


def ring() -> Edit:
    mask = _drawn(lambda canvas: cv2.circle(canvas, CENTRE_XY, 30, 1, 7))
    return _blend(surface(), mask, (60, 45, 40), 0.8), mask


def two_parts() -> Edit:
    mask = _drawn(lambda canvas: [cv2.circle(canvas, at, 11, 1, -1) for at in (CENTRE_XY, (40, 110))])
    return _blend(surface(), mask, (240, 240, 240)), mask


def at_the_border() -> Edit:
    mask = _drawn(lambda canvas: cv2.rectangle(canvas, (0, 0), (30, 20), 1, -1))
    return _blend(surface(), mask, (20, 20, 20)), mask


EDITS = [pytest.param(make, id=make.__name__) for make in (hole, scratch, stain, ring, two_parts, at_the_border)]


def untouched(image: ImageRGB) -> ImageRGB:
    return image


def encode(quality: int) -> Callable[[ImageRGB], ImageRGB]:
    def encoded(image: ImageRGB) -> ImageRGB:
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
        bgr = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1]
        return np.asarray(cv2.cvtColor(cv2.imdecode(bgr, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))

    return encoded


def brighten(image: ImageRGB) -> ImageRGB:
    return np.clip(image.astype(np.int16) + 12, 0, 255).astype(np.uint8)


def move(image: ImageRGB, x: float = 1.4, y: float = -0.7) -> ImageRGB:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    border = cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LANCZOS4, borderMode=border))


def all_at_once(image: ImageRGB) -> ImageRGB:
    return encode(92)(brighten(move(image)))


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        pytest.param(untouched, (), id="png"),
        pytest.param(encode(95), ("reencoded",), id="jpeg-95"),
        pytest.param(encode(80), ("reencoded",), id="jpeg-80"),
        pytest.param(brighten, ("toned",), id="brighter"),
    ],
)
@pytest.mark.parametrize("make", EDITS)
def test_an_edit_is_found(
    make: Callable[[], Edit], handle: Callable[[ImageRGB], ImageRGB], expected: tuple[GlobalChange, ...]
) -> None:
    edited, mask = make()
    found = compare_images(surface(), handle(edited))
    assert found.mask_hw.dtype == np.bool_
    assert mask_iou(found.mask_hw, mask) >= 0.9
    assert found.global_changes == expected


@pytest.mark.parametrize("make", EDITS)
def test_an_edit_is_found_in_its_own_frame_when_all_is_moved(make: Callable[[], Edit]) -> None:
    edited, mask = make()
    found = compare_images(surface(), all_at_once(edited))
    moved_mask = move(np.repeat(mask[..., None] * np.uint8(255), 3, axis=2))[..., 0] > 127
    assert np.hypot(found.moved_xy[0] - 1.4, found.moved_xy[1] + 0.7) < 0.3
    assert {"moved", "toned"} <= set(found.global_changes)
    assert mask_iou(found.mask_hw, moved_mask) >= 0.9


@pytest.mark.parametrize(
    ("handle", "expected"),
    [
        pytest.param(untouched, (), id="nothing"),
        pytest.param(encode(95), ("reencoded",), id="jpeg-95"),
        pytest.param(encode(60), ("reencoded",), id="jpeg-60"),
        pytest.param(brighten, ("toned",), id="brighter"),
        pytest.param(lambda image: encode(90)(brighten(image)), ("toned", "reencoded"), id="brighter-jpeg"),
        pytest.param(lambda image: 255 - image, ("replaced",), id="negative"),
        pytest.param(lambda image: np.ascontiguousarray(image[::-1, ::-1]), ("replaced",), id="turned"),
    ],
)
def test_a_change_of_everything_is_named_and_has_no_mask(
    handle: Callable[[ImageRGB], ImageRGB], expected: tuple[GlobalChange, ...]
) -> None:
    found = compare_images(surface(), handle(surface()))
    assert not found.mask_hw.any()
    assert found.mask_hw.shape == (HEIGHT, WIDTH)
    assert found.global_changes == expected


def test_a_pinhole_in_a_part_is_filled_and_a_ring_stays_one() -> None:
    edited, mask = hole()
    edited[CENTRE_XY[1], CENTRE_XY[0]] = surface()[CENTRE_XY[1], CENTRE_XY[0]]
    np.testing.assert_array_equal(difference_mask(surface(), edited), mask)
    edited, mask = ring()
    assert not difference_mask(surface(), edited)[CENTRE_XY[1], CENTRE_XY[0]]


def test_a_speck_beside_an_edit_is_dropped() -> None:
    edited, mask = hole()
    edited[120:122, 150:152] = 0
    edited[130, 20] = 255
    np.testing.assert_array_equal(difference_mask(surface(), edited), mask)


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 7), (48, 64), (32, 300)], ids=str)
def test_any_size_will_do(size_hw: tuple[int, int]) -> None:
    image = surface(height=size_hw[0], width=size_hw[1])
    edited = image.copy()
    edited[: max(1, size_hw[0] // 3), : max(1, size_hw[1] // 3)] = 255
    found = compare_images(image, edited)
    assert found.mask_hw.shape == size_hw
    assert compare_images(image, image).mask_hw.sum() == 0


def test_images_are_not_written() -> None:
    image, (edited, _) = surface(), stain()
    handled = all_at_once(edited)
    compare_images(image, handled)
    np.testing.assert_array_equal(image, surface())
    np.testing.assert_array_equal(handled, all_at_once(edited))


class _Cells:
    """Says of each 16-pixel cell whether it holds something bright."""

    def embed_map(self, image: ImageRGB) -> np.ndarray:
        cells = cv2.resize(image[..., 0], (WIDTH // 16, HEIGHT // 16), interpolation=cv2.INTER_AREA) > 190
        return np.stack([cells, ~cells], axis=2).astype(np.float32)


def test_features_leave_out_a_part_that_looks_the_same_to_them() -> None:
    edited, _ = two_parts()
    dark = _drawn(lambda canvas: cv2.circle(canvas, (130, 110), 11, 1, -1))
    edited = _blend(edited, dark, (90, 90, 90))
    assert difference_mask(surface(), edited)[110, 130]
    seen = difference_mask(surface(), edited, features=_Cells())
    assert not seen[110, 130]
    assert seen[CENTRE_XY[1], CENTRE_XY[0]]


@pytest.mark.parametrize(
    ("levels", "tolerance", "share"),
    [
        pytest.param(0, 0, 0.0, id="untouched"),
        pytest.param(1, 0, 0.1, id="one-level-counts"),
        pytest.param(3, 3, 0.0, id="tolerated"),
        pytest.param(4, 3, 0.1, id="beyond-tolerance"),
    ],
)
def test_what_changed_outside(levels: int, tolerance: int, share: float) -> None:
    image = np.full((48, 64, 3), 100, np.uint8)
    mask = np.zeros((48, 64), np.bool_)
    mask[:, :24] = True
    edited = image.copy()
    edited[mask] = 0
    edited[:, 60:, 1] += levels
    assert changed_outside(image, edited, mask, tolerance=tolerance) == pytest.approx(share)
    assert changed_outside(image, edited, np.ones_like(mask)) == 0.0


def test_images_of_two_frames_are_refused() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(ImageSizeError, match=r"\(64, 48, 3\).*\(48, 64, 3\).*scale"):
        compare_images(image, np.zeros((64, 48, 3), np.uint8))
    with pytest.raises(ImageSizeError, match="mask"):
        changed_outside(image, image, np.zeros((64, 48), np.bool_))
