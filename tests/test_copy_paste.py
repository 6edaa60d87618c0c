"""Plain copy-paste: what is pasted, where and how large, and labels that agree with the pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from arm_helpers import BOLT, COLOURS, GREY, HEIGHT, NUT, WIDTH, Photo, Thing, write_dataset
from PIL import Image

from maskwright.configs.compose import ComposeSettings
from maskwright.data.masks import segmentation_to_mask
from maskwright.data.records import Findings, ImageRGB, MaskHW
from maskwright.errors import DatasetError
from maskwright.evaluation.copy_paste import SCALE_JITTER, CopyPaste, PastedImage

KEEPS_EVERY_PIXEL = ComposeSettings(min_mask_area_px=0, min_original_area_px=1)
STREET = [
    Photo("a ü.png", [Thing(BOLT, (4, 6, 14, 10)), Thing(NUT, (30, 20, 9, 16))]),
    Photo("b.png", [Thing(BOLT, (20, 10, 20, 24))]),
    Photo("c.png"),
    Photo("test.png", [Thing(NUT, (5, 5, 50, 40))], "test"),
]


def maker(
    root: Path,
    photos: Sequence[Photo] = STREET,
    *,
    settings: ComposeSettings = KEEPS_EVERY_PIXEL,
    seed: int = 0,
    onto_empty: bool = False,
    findings: Findings | None = None,
) -> CopyPaste:
    dataset = write_dataset(root, photos)
    return CopyPaste(
        dataset, settings, seed=seed, onto_empty=onto_empty, findings=Findings() if findings is None else findings
    )


def labelled(made: PastedImage, category_id: int) -> MaskHW:
    masks = [
        segmentation_to_mask(one.segmentation, HEIGHT, WIDTH)
        for one in made.annotations
        if one.category_id == category_id
    ]
    return np.any(masks, axis=0) if masks else np.zeros((HEIGHT, WIDTH), np.bool_)


def painted(image_rgb: ImageRGB, category_id: int) -> MaskHW:
    gap: npt.NDArray[np.int64] = np.abs(image_rgb.astype(np.int64) - COLOURS[category_id]).max(axis=2)
    return np.asarray(gap <= 2)


@pytest.mark.parametrize(
    "wanted",
    [{BOLT: 1}, {NUT: 3}, {BOLT: 2, NUT: 2}, {BOLT: 5, NUT: 4}, {}],
    ids=["one", "three of a rare class", "both", "crowded", "none"],
)
def test_labels_are_what_can_be_seen(tmp_path: Path, wanted: Mapping[int, int]) -> None:
    """Every pixel of a class's colour is labelled, and no other one: pastes are hard, originals are cut."""
    findings = Findings()
    paste = maker(tmp_path, findings=findings)
    num_pasted = 0
    for number in range(12):
        made = paste.make(f"bild {number}", wanted)
        assert made.image_rgb.shape == (HEIGHT, WIDTH, 3)
        for category_id in COLOURS:
            np.testing.assert_array_equal(labelled(made, category_id), painted(made.image_rgb, category_id))
        rest = ~(painted(made.image_rgb, BOLT) | painted(made.image_rgb, NUT))
        assert (made.image_rgb[rest] == GREY).all()
        num_pasted += sum(made.pasted.values())
    num_unplaced = findings.counts.get("copy_paste_unplaced", 0)
    assert num_pasted + num_unplaced == 12 * sum(wanted.values())
    assert num_unplaced <= (6 if sum(wanted.values()) > 8 else 0)


def test_numbers_and_areas_are_told(tmp_path: Path) -> None:
    made = maker(tmp_path, [*STREET, *(Photo(f"leer{i}.png") for i in range(40))]).make("x", {BOLT: 1, NUT: 2})
    assert made.pasted == {BOLT: 1, NUT: 2}
    assert Counter(one.category_id for one in made.annotations) == {BOLT: 1, NUT: 2}
    for one in made.annotations:
        assert one.area == segmentation_to_mask(one.segmentation, HEIGHT, WIDTH).sum()


@pytest.mark.parametrize("category_id", [BOLT, NUT])
def test_sizes_are_jittered_around_the_source(tmp_path: Path, category_id: int) -> None:
    """Up and down, within the paper's range, its shape kept."""
    thing = Thing(category_id, (3, 5, 20, 10))
    paste = maker(tmp_path, [Photo("a.png", [thing]), Photo("leer.png")], onto_empty=True)
    scales = []
    for number in range(40):
        [one] = paste.make(str(number), {category_id: 1}).annotations
        scales.append(math.sqrt(one.area / 200))
        assert one.bbox_xywh[2] / one.bbox_xywh[3] == pytest.approx(2, rel=0.13)
    low, high = SCALE_JITTER
    assert low - 0.05 < min(scales) < 0.9
    assert 1.1 < max(scales) < high + 0.05


def test_places_are_random_even_over_other_instances(tmp_path: Path) -> None:
    """The left half of the photograph is full of small instances; a paste takes no care of them."""
    crowd = [Thing(BOLT, (x, y, 3, 3)) for x in range(0, 32, 4) for y in range(0, 48, 4)]
    paste = maker(tmp_path, [Photo("a.png", [*crowd, Thing(NUT, (50, 20, 10, 10))])])
    lefts = []
    for number in range(60):
        made = paste.make(str(number), {NUT: 1})
        x, _, w, _ = [one for one in made.annotations if one.category_id == NUT][-1].bbox_xywh
        lefts.append(x + w / 2 < 32)
        assert 0 <= x <= x + w <= WIDTH
    assert 18 <= sum(lefts) <= 42


def test_instances_are_mirrored_half_of_the_time(tmp_path: Path) -> None:
    folder = tmp_path / "daten"
    paste = maker(folder, [Photo("a.png", [Thing(BOLT, (4, 6, 24, 10))]), Photo("leer.png")], onto_empty=True)
    path = folder / "images/train/a.png"
    two_halves = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    two_halves[:, :16], two_halves[:, 16:] = (250, 10, 10), (10, 250, 10)
    Image.fromarray(two_halves).save(path)
    mirrored = 0
    for number in range(40):
        made = paste.make(str(number), {BOLT: 1})
        x, y, w, h = (int(value) for value in made.annotations[0].bbox_xywh)
        left_red = made.image_rgb[y + h // 2, x + 2, 0] > 200
        right_red = made.image_rgb[y + h // 2, x + w - 3, 0] > 200
        assert left_red != right_red
        mirrored += int(right_red)
    assert 10 <= mirrored <= 30


def same(first: PastedImage, second: PastedImage) -> bool:
    return np.array_equal(first.image_rgb, second.image_rgb) and repr(first.annotations) == repr(second.annotations)


def test_a_name_and_a_seed_decide_an_image_whatever_was_made_before(tmp_path: Path) -> None:
    wanted = {BOLT: 1, NUT: 1}
    first, second, other = (maker(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    made = [first.make(name, wanted) for name in ("a", "b", "c")]
    again = [second.make(name, wanted) for name in ("c", "b", "a")][::-1]
    assert all(same(one, two) for one, two in zip(made, again, strict=True))
    assert not same(made[0], made[1])
    assert not same(made[0], other.make("a", wanted))


def test_what_measures_is_never_pasted_nor_pasted_onto(tmp_path: Path) -> None:
    photos = [
        Photo("a.png", [Thing(BOLT, (4, 6, 4, 4))]),
        Photo("val.png", [Thing(BOLT, (2, 2, 60, 40))], "val"),
        Photo("test.png", [Thing(NUT, (2, 2, 40, 40))], "test"),
    ]
    findings = Findings()
    paste = maker(tmp_path, photos, findings=findings)
    for number in range(20):
        made = paste.make(str(number), {BOLT: 1, NUT: 1})
        assert made.pasted == {BOLT: 1, NUT: 0}
        assert labelled(made, BOLT).sum() <= 2 * 6 * 6
    assert findings.counts == {"copy_paste_without_instance": 20}
    assert findings.examples["copy_paste_without_instance"][0].startswith("'Mutter ö'")


def test_neither_crowds_nor_boxes_alone_are_pasted(tmp_path: Path) -> None:
    photos = [
        Photo("a.png", [Thing(BOLT, (2, 2, 20, 20), is_crowd=True), Thing(BOLT, (30, 4, 9, 9), has_mask=False)]),
        Photo("b.png", [Thing(BOLT, (2, 2, 5, 5))]),
        Photo("leer.png"),
    ]
    paste = maker(tmp_path, photos, onto_empty=True)
    for number in range(15):
        [one] = paste.make(str(number), {BOLT: 1}).annotations
        assert one.area <= 49
        assert not one.is_crowd


def test_defects_are_pasted_onto_normal_images(tmp_path: Path) -> None:
    paste = maker(tmp_path, onto_empty=True)
    for number in range(10):
        assert len(paste.make(str(number), {NUT: 1}).annotations) == 1
    with pytest.raises(DatasetError, match="no normal training image to paste onto"):
        maker(tmp_path / "voll", STREET[:2], onto_empty=True)


def test_a_tiny_rest_of_an_original_loses_its_label(tmp_path: Path) -> None:
    """As in scenes: X-Paste's rule, by the run's own settings."""
    covered, small = Thing(BOLT, (0, 0, 64, 48)), Thing(NUT, (20, 10, 30, 30))
    strict = ComposeSettings(min_mask_area_px=64 * 48, max_box_shift_px=0, min_original_area_px=64 * 48)
    made = maker(tmp_path, [Photo("a.png", [covered, small])], settings=strict).make("x", {NUT: 1})
    assert [one.category_id for one in made.annotations][-1] == NUT
    assert not labelled(made, BOLT).any()


def test_damaged_photographs_are_passed_over_and_told_once(tmp_path: Path) -> None:
    findings = Findings()
    paste = maker(tmp_path, findings=findings)
    for name in ("a ü.png", "c.png"):
        path = tmp_path / "images/train" / name
        path.write_bytes(path.read_bytes()[:60])
    for number in range(10):
        made = paste.make(str(number), {BOLT: 1})
        assert made.pasted == {BOLT: 1}
    assert findings.counts["undecodable_image"] == 2
    (tmp_path / "images/train/b.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="no training image that can be decoded"):
        paste.make("x", {BOLT: 1})
