"""EfficientNet-lite0: sizes, alpha, batches. A random network of its shape stands in where meaning is not asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm.data
import torch
from model_helpers import fetched
from timm.models.efficientnet import tf_efficientnet_lite0

from maskwright.errors import ModelNotFetchedError, SampleError
from maskwright.models import image_features
from maskwright.models.device import resolve_device
from maskwright.models.image_features import GREY, IMAGE_DIM, SIDE, Lite0, load_network, to_input


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the network's layers in their order, under other names."""
    torch.manual_seed(0)
    tensors = tf_efficientnet_lite0(pretrained=False).state_dict().values()
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save({f"_layer{number}": tensor for number, tensor in enumerate(tensors)}, path)
    return path


@pytest.fixture
def lite0(random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Lite0:
    monkeypatch.setattr(image_features, "locate_model", lambda name: random_weights)
    return Lite0(batch_size=2)


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(48, 64, 3), (64, 48, 4), (1, 1, 3), (300, 20, 3)]
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def test_rows_are_unit_length_in_order_whatever_the_batch(lite0: Lite0) -> None:
    together = lite0.embed(_images())
    assert together.shape == (4, IMAGE_DIM)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([lite0.embed([image]) for image in _images()])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert lite0.embed([]).shape == (0, IMAGE_DIM)


def test_an_image_stands_in_the_middle_of_a_grey_square() -> None:
    white = np.full((48, 64, 3), 255, np.uint8)
    pixels = to_input(white)
    assert pixels.shape == (3, SIDE, SIDE)
    height = round(48 * SIDE / 64)
    top = (SIDE - height) // 2
    assert (pixels[:, top : top + height] == 1).all()
    assert pixels[:, :top].abs().max() < 0.01


def test_what_is_transparent_is_grey_whatever_its_colour() -> None:
    cutout = np.zeros((64, 64, 4), np.uint8)
    cutout[..., 0] = 255
    half = cutout.copy()
    half[:, :32, 3] = 255
    np.testing.assert_array_equal(to_input(cutout), to_input(np.full((64, 64, 3), GREY, np.uint8)))
    assert to_input(half)[0, :, :100].min() == 1
    assert to_input(half)[0, :, 124:].abs().max() < 0.01


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((8, 8), np.uint8), id="grey"),
        pytest.param(np.zeros((8, 8, 3), np.float32), id="floats"),
        pytest.param(np.zeros((0, 8, 3), np.uint8), id="empty"),
    ],
)
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(SampleError, match=r"expected \(H, W, 3\)"):
        to_input(image)


@pytest.mark.parametrize("content", [pytest.param(b"", id="empty"), pytest.param(b"\x80\x02garbage", id="garbage")])
def test_damaged_weights_are_named(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lite0.pth").write_bytes(content)
    monkeypatch.setattr(image_features, "locate_model", lambda name: tmp_path / "lite0.pth")
    with pytest.raises(ModelNotFetchedError, match="maskwright models fetch lite0"):
        Lite0().embed(_images())


@pytest.mark.parametrize(("picture", "word"), [("coffee", "espresso"), ("chelsea", "cat")])
def test_the_real_weights_know_what_they_see(picture: str, word: str) -> None:
    """By order only, a mapping could be wrong and fit; then the network would not know a cat."""
    fetched("lite0")
    pixels = to_input(getattr(skimage.data, picture)())
    with torch.inference_mode():
        best = int(load_network(resolve_device("cpu"))(pixels[None]).argmax())
    assert word in timm.data.ImageNetInfo().index_to_description(best)
