"""Training the judge of wholeness: pictures that follow from their seed, and a small training that learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maskwright.data.records import ImageRGBA
from maskwright.learning import wholeness
from maskwright.learning.wholeness import Seen, Training, load_seen, save_head, shares_kept, train
from maskwright.learning.wholeness_data import CHECK_ONE_IN, WHOLE, make_shown, split_objects
from maskwright.learning.wholeness_spoilers import FRAME_PX, SPOILERS, Scenery, place
from maskwright.models.wholeness import FEATURE_DIM, HEAD_NAME

PHOTOGRAPHS = [np.random.default_rng(9).integers(0, 256, (48, 64, 3), dtype=np.uint8)]


def thing(seed: int) -> ImageRGBA:
    """(48, 64, 4) uint8: coarse noise inside an ellipse."""
    rng = np.random.default_rng(seed)
    rgb = np.kron(rng.integers(20, 230, (12, 16, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    y, x = np.mgrid[-1:1:48j, -1:1:64j]
    return np.dstack([rgb, np.where(x**2 + y**2 < 1, 255, 0).astype(np.uint8)])


THINGS = [thing(seed) for seed in range(9)]


def made_up(count: int, seed: int) -> Seen:
    """Features in which some numbers tell the spoilt from the whole."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 3, (count,), generator=generator)
    features = torch.randn(count, FEATURE_DIM, generator=generator)
    features[:, :400] += 2 * (kinds == 0).float()[:, None]
    return Seen(features, kinds)


def test_a_picture_follows_from_its_seed_and_place() -> None:
    shown = list(make_shown(THINGS, PHOTOGRAPHS, (3, 0), range(40)))
    again = list(make_shown(THINGS, PHOTOGRAPHS, (3, 0), range(20, 40)))
    for one, same in zip(shown[20:], again, strict=True):
        assert one.kind == same.kind
        np.testing.assert_array_equal(one.rgba, same.rgba)
    assert {one.kind for one in shown} > {WHOLE, "twins"}
    assert len({one.rgba.tobytes() for one in shown}) == len(shown)


@pytest.mark.parametrize("kind", SPOILERS)
def test_every_way_spoils_and_leaves_something_to_see(kind: str) -> None:
    scenery = Scenery(PHOTOGRAPHS, THINGS)
    for seed in range(8):
        rgba = SPOILERS[kind].spoil(THINGS[0], THINGS[1], np.random.default_rng(seed), scenery)
        assert rgba.shape == (FRAME_PX, FRAME_PX, 4)
        assert rgba.dtype == np.uint8
        assert (rgba[..., 3] >= 128).sum() > 50
        whole = place(THINGS[0], np.random.default_rng(seed))
        assert not np.array_equal(rgba, whole)


def test_what_checks_is_not_learned_from() -> None:
    learn, check = split_objects(THINGS)
    assert len(learn) + len(check) == len(THINGS)
    assert [one.tobytes() for one in check] == [one.tobytes() for one in THINGS[::CHECK_ONE_IN]]
    assert not {one.tobytes() for one in learn} & {one.tobytes() for one in check}


def test_a_stopped_run_sees_only_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def look(images: list[ImageRGBA]) -> np.ndarray:
        asked.append(len(images))
        return np.array([np.full(FEATURE_DIM, image.mean() / 255) for image in images], np.float32)

    monkeypatch.setattr(wholeness, "see_cut_outs", look)
    monkeypatch.setattr(wholeness, "PICTURES_A_FILE", 4)

    def load() -> Seen:
        return load_seen(lambda places: make_shown(THINGS, PHOTOGRAPHS, (0,), places), 10, tmp_path / "Ablage ö")

    first = load()
    assert asked == [4, 4, 2]
    (tmp_path / "Ablage ö" / "000004.safetensors").write_bytes(b"damaged")
    second = load()
    assert asked == [4, 4, 2, 4]
    assert torch.equal(first.features, second.features)
    assert torch.equal(first.kinds, second.kinds)


def test_a_small_training_learns_and_repeats(tmp_path: Path) -> None:
    settings = Training(epochs=4, batch=32, seed=1)
    learn, checks = made_up(256, 0), made_up(96, 1)
    head = train(learn, checks, settings)
    kept = shares_kept(head, checks, 0.5)
    first, second = list(SPOILERS)[:2]
    assert kept[WHOLE] > 0.9
    assert max(kept[first], kept[second]) < 0.1
    again = train(learn, checks, settings)
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in head.state_dict().items())
    save_head(head, tmp_path / "Kopf")
    assert load_file(tmp_path / "Kopf" / HEAD_NAME)["feature_mean"].dtype == torch.float16
