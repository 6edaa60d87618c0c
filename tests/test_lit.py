"""The image-text scorer: shapes, alpha, batches, damage. Random weights stand in where meaning is not asked."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from model_helpers import fetched
from PIL import Image
from safetensors.torch import save_file
from timm.models.efficientnet import tf_efficientnet_lite0

from maskwright.errors import BrokenRunError, EmptyMaskError, SampleError
from maskwright.models import lit
from maskwright.models.embeddings import TEXT_DIM, MiniLM
from maskwright.models.fetch import WEIGHTS_FOLDER
from maskwright.models.heads import CONFIG_NAME
from maskwright.models.lit import HEADS_NAME, HeadsConfig, LitHeads, LitScorer, crop_to_alpha
from maskwright.models.sprites.bank import PictureBank

TEXTS = ["dog", "a red apple", "bicycle"]


def _embed(texts: Sequence[str]) -> np.ndarray:
    """A unit vector for each text, the same each time."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=TEXT_DIM) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32).reshape(len(texts), TEXT_DIM)


@pytest.fixture(scope="session")
def random_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return tf_efficientnet_lite0(pretrained=False).eval()


@pytest.fixture
def heads_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = HeadsConfig(hidden=8, joint=4)
    heads = LitHeads(config)
    heads.calibration.copy_(torch.tensor([3.0, -1.0]))
    save_file(heads.state_dict(), tmp_path / HEADS_NAME)
    (tmp_path / CONFIG_NAME).write_bytes(msgspec.json.encode(config))
    return tmp_path


@pytest.fixture
def scorer(random_network: torch.nn.Module, heads_folder: Path, monkeypatch: pytest.MonkeyPatch) -> LitScorer:
    monkeypatch.setattr(lit, "locate_model", lambda name: heads_folder)
    monkeypatch.setattr(lit, "load_network", lambda device: random_network)
    monkeypatch.setattr(MiniLM, "embed", lambda self, texts: _embed(texts))
    return LitScorer(batch_size=2)


def _cutout(seed: int = 0) -> np.ndarray:
    """(48, 64, 4): a coloured block within a transparent border."""
    rng = np.random.default_rng(seed)
    rgba = rng.integers(0, 256, (48, 64, 4), dtype=np.uint8)
    rgba[..., 3] = 0
    rgba[8:40, 10:50, 3] = 255
    return rgba


def test_scores_are_probabilities_in_order_whatever_the_batch(scorer: LitScorer) -> None:
    images = [_cutout(), _cutout(1)[..., :3], _cutout(2)]
    scores = scorer.score(images, TEXTS)
    assert scores.shape == (3, 3)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert len(np.unique(scores)) == 9
    alone = np.concatenate([scorer.score([image], TEXTS) for image in images])
    np.testing.assert_allclose(scores, alone, atol=1e-5)


@pytest.mark.parametrize(("num_images", "num_texts"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_to_score_is_an_empty_table(scorer: LitScorer, num_images: int, num_texts: int) -> None:
    images = [_cutout()] * num_images
    assert scorer.score(images, TEXTS[:num_texts]).shape == (num_images, num_texts)
    assert scorer.rank(images, TEXTS[:num_texts]).shape == (num_images, num_texts)


def test_ranks_follow_the_scores(scorer: LitScorer) -> None:
    images = [_cutout(seed) for seed in range(3)]
    order = scorer.rank(images, TEXTS)
    assert (np.diff(np.take_along_axis(scorer.score(images, TEXTS), order, axis=1), axis=1) <= 0).all()


def test_neither_border_nor_hidden_colour_counts(scorer: LitScorer) -> None:
    padded = np.pad(_cutout(), ((30, 0), (0, 70), (0, 0)))
    hidden = _cutout()
    hidden[hidden[..., 3] == 0, :3] = 99
    scores = scorer.score([_cutout(), padded, hidden], TEXTS)
    np.testing.assert_allclose(scores[1:], scores[:1].repeat(2, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "counts_as"), [("RGB", "RGB"), ("RGBA", "RGBA"), ("L", "RGB"), ("LA", "RGBA"), ("P", "RGBA")]
)
def test_a_picture_of_pillow_counts_as_its_pixels(scorer: LitScorer, mode: str, counts_as: str) -> None:
    picture = Image.fromarray(_cutout()).convert(mode)
    pixels = np.array(picture.convert(counts_as))
    np.testing.assert_array_equal(scorer.score([picture], TEXTS), scorer.score([pixels], TEXTS))


def test_a_crop_keeps_visible_pixels_and_a_margin() -> None:
    cropped = crop_to_alpha(_cutout(), margin_ratio=0.1)
    assert cropped.shape == (32 + 8, 40 + 8, 4)
    np.testing.assert_array_equal(cropped[4:-4, 4:-4], _cutout()[8:40, 10:50])
    assert not cropped[:4].any()


@pytest.mark.parametrize(
    ("image", "error"),
    [
        pytest.param(np.zeros((8, 8, 4), np.uint8), EmptyMaskError, id="invisible"),
        pytest.param(np.zeros((8, 8), np.uint8), SampleError, id="grey"),
        pytest.param(np.ones((8, 8, 3), np.float32), SampleError, id="floats"),
    ],
)
def test_what_cannot_be_scored_is_refused(scorer: LitScorer, image: np.ndarray, error: type[SampleError]) -> None:
    with pytest.raises(error):
        scorer.score([image], TEXTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(HEADS_NAME, b"", id="empty-weights"),
        pytest.param(CONFIG_NAME, b'{"hidden": 9, "joint": 4}', id="other-sizes"),
        pytest.param(CONFIG_NAME, b"{", id="broken-settings"),
    ],
)
def test_damaged_heads_are_named(scorer: LitScorer, heads_folder: Path, name: str, content: bytes) -> None:
    (heads_folder / name).write_bytes(content)
    with pytest.raises(BrokenRunError, match="install maskwright again"):
        scorer.score([_cutout()], TEXTS)


NAMES = ["apple", "bicycle", "dog", "airplane", "umbrella", "pizza", "cat", "chair", "scissors", "elephant"]


def test_the_shipped_heads_know_known_objects() -> None:
    fetched("lite0")
    fetched("minilm")
    bank = PictureBank.from_folder(WEIGHTS_FOLDER / "sprites" / "bank")
    files = [next(entry.file for entry in bank.entries if name in entry.names) for name in NAMES]
    pictures = [Image.open(bank.folder / file) for file in files]
    scores = LitScorer().score(pictures, NAMES)
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(len(NAMES)))
    assert scores.diagonal().min() > 0.8
    assert scores[~np.eye(len(NAMES), dtype=bool)].mean() < 0.5
