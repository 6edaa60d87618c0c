"""Scorers and embedders, loaded from tiny checkpoints by the settings that a user writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from encoder_checkpoints import TEXTS, save_tiny_checkpoints
from model_helpers import fetched
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from maskwright.configs.judging import ImageEmbedderSettings, SimilaritySettings, TextScorerSettings
from maskwright.errors import EmptyMaskError, ModelNotFetchedError, RecipeError, SampleError
from maskwright.models.image_features import Lite0
from maskwright.tools.judging import encoders
from maskwright.tools.judging.framing import crop_object, frame_object
from maskwright.tools.judging.registry import build_image_embedder, build_text_scorer
from maskwright.tools.judging.similarity import fill_template
from maskwright.tools.protocols import ImageEmbedder, TextScorer


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `encoder_checkpoints`."""
    root = tmp_path_factory.mktemp("Modelle ü")
    save_tiny_checkpoints(root)
    return root


def _cutout(seed: int = 0) -> np.ndarray:
    """(48, 64, 4): a textured block within a transparent border."""
    rgba = np.random.default_rng(seed).integers(0, 256, (48, 64, 4), dtype=np.uint8)
    rgba[..., 3] = 0
    rgba[8:40, 10:50, 3] = 255
    return rgba


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(9)
    return [
        _cutout(1),
        rng.integers(0, 256, (64, 48, 3), np.uint8),
        _cutout(2),
        np.zeros((1, 1, 3), np.uint8),
        _cutout(3),
    ]


Backend = tuple[str, str]
SCORERS: list[Backend] = [
    ("clip", "clip"),
    ("siglip", "siglip"),
    ("siglip", "siglip2-fixed"),
    ("siglip", "siglip2-naflex"),
]
EMBEDDERS: list[Backend] = [("dino", "dino"), ("clip", "clip")]


def _scorer(checkpoints: Path, backend: Backend, **options: object) -> TextScorer:
    name, folder = backend
    settings = {"name": name, "model": str(checkpoints / f"{folder} ö"), "batch_size": 2, "device": "cpu"}
    settings["template"] = "{name}"
    return build_text_scorer(TextScorerSettings.model_validate(settings | options))


def _embedder(checkpoints: Path, backend: Backend, **options: object) -> ImageEmbedder:
    name, folder = backend
    settings = {"name": name, "model": str(checkpoints / f"{folder} ö"), "batch_size": 2, "device": "cpu"}
    return build_image_embedder(ImageEmbedderSettings.model_validate(settings | options))


@pytest.mark.parametrize("backend", SCORERS, ids=lambda backend: backend[1])
def test_scores_stand_in_order_whatever_the_batch(checkpoints: Path, backend: Backend) -> None:
    scorer = _scorer(checkpoints, backend)
    scores = scorer.score(_images(), TEXTS)
    assert scores.shape == (5, 3)
    assert scores.dtype == np.float32
    assert ((scores >= (-1 if backend[0] == "clip" else 0)) & (scores <= 1)).all()
    assert len(np.unique(scores.round(5))) == scores.size
    alone = [[scorer.score([image], [text])[0, 0] for text in TEXTS] for image in _images()]
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert scorer.score([], TEXTS).shape == (0, 3)
    assert scorer.score(_images(), []).shape == (5, 0)
    assert scorer.knows("Wolpertinger")


@pytest.mark.parametrize("backend", EMBEDDERS, ids=lambda backend: backend[1])
def test_rows_are_unit_length_in_order_whatever_the_batch(checkpoints: Path, backend: Backend) -> None:
    embedder = _embedder(checkpoints, backend)
    rows = embedder.embed(_images())
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows, np.concatenate([embedder.embed([image]) for image in _images()]), atol=1e-5)
    assert np.triu(rows @ rows.T, 1).max() < 0.9999
    assert embedder.embed([]).shape == (0, rows.shape[1])


@pytest.mark.parametrize(("backend", "max_length"), [("clip", 77), ("siglip", 24)])
def test_a_score_is_that_of_the_whole_model(checkpoints: Path, backend: str, max_length: int) -> None:
    """Against `CLIPModel` and `SiglipModel` called as their documentation does."""
    folder = checkpoints / f"{backend} ö"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXTS, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt")
    if backend == "siglip":
        tokens.pop("attention_mask", None)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    pixels = processor([frame_object(image) for image in _images()], return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**tokens, **pixels).logits_per_image
        expected = logits / model.logit_scale.exp() if backend == "clip" else logits.sigmoid()
    scores = _scorer(checkpoints, (backend, backend)).score(_images(), TEXTS)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("folder", ["siglip", "siglip2-fixed", "siglip2-naflex"])
def test_siglip_reads_lower_case(checkpoints: Path, folder: str) -> None:
    scorer = _scorer(checkpoints, ("siglip", folder))
    np.testing.assert_array_equal(scorer.score([_cutout()], ["A Dog"]), scorer.score([_cutout()], ["a dog"]))


def test_a_text_longer_than_the_network_reads_counts_by_its_beginning(checkpoints: Path) -> None:
    for backend in SCORERS:
        scores = _scorer(checkpoints, backend).score([_cutout()], ["a dog " * 100, "a dog " * 101])
        assert scores[0, 0] == pytest.approx(scores[0, 1], abs=1e-6)


def test_neither_border_nor_hidden_colour_counts(checkpoints: Path) -> None:
    padded = np.pad(_cutout(), ((30, 0), (0, 70), (0, 0)))
    hidden = _cutout()
    hidden[hidden[..., 3] == 0, :3] = 99
    for backend in EMBEDDERS:
        rows = _embedder(checkpoints, backend).embed([_cutout(), padded, hidden])
        np.testing.assert_allclose(rows[1:], rows[:1].repeat(2, axis=0), atol=1e-6)


def test_an_object_lies_whole_on_a_white_square() -> None:
    framed = np.array(frame_object(_cutout()))
    margin = round(40 * 0.06)
    assert framed.shape == (40 + 2 * margin,) * 2 + (3,)
    inner = framed[margin + 4 : -margin - 4, margin:-margin]
    np.testing.assert_array_equal(inner, _cutout()[8:40, 10:50, :3])
    assert (framed[:margin] == 255).all()
    assert (framed[:, -margin:] == 255).all()


def test_an_opaque_picture_counts_as_a_whole() -> None:
    opaque = _cutout()
    opaque[..., 3] = 255
    np.testing.assert_array_equal(crop_object(opaque), opaque[..., :3])
    assert np.array(frame_object(opaque)).shape == (64, 64, 3)


def test_no_centre_crop_cuts_an_object(checkpoints: Path) -> None:
    """DINO's processor would cut an eighth off each side; what lies there must count."""
    plain = np.full((64, 64, 3), 128, np.uint8)
    marked = plain.copy()
    marked[:3] = marked[-3:] = marked[:, :3] = marked[:, -3:] = [255, 0, 0]
    rows = _embedder(checkpoints, ("dino", "dino")).embed([plain, marked])
    assert rows[0] @ rows[1] < 0.9999


def test_half_precision_is_asked_for_by_its_name(checkpoints: Path) -> None:
    full = _scorer(checkpoints, ("clip", "clip")).score(_images(), TEXTS)
    half = _scorer(checkpoints, ("clip", "clip"), dtype="bfloat16").score(_images(), TEXTS)
    assert 0 < np.abs(full - half).max() < 0.1


def test_equal_settings_load_weights_once(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    load = transformers.AutoModel.from_pretrained
    monkeypatch.setattr(
        encoders.AutoModel,
        "from_pretrained",
        lambda folder, **options: loaded.append(folder) or load(folder, **options),
    )
    encoders._load_network.cache_clear()
    scorer, embedder = _scorer(checkpoints, ("clip", "clip")), _embedder(checkpoints, ("clip", "clip"))
    assert loaded == []
    scorer.score([_cutout()], TEXTS)
    embedder.embed([_cutout()])
    _scorer(checkpoints, ("clip", "clip")).score([_cutout()], TEXTS)
    assert loaded == [checkpoints / "clip ö"]


def test_a_batch_that_does_not_fit_is_halved(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    pool = encoders._pool_images

    def pool_at_most_two(network: PreTrainedModel, inputs: transformers.BatchFeature) -> torch.Tensor:
        sizes.append(len(inputs["pixel_values"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pool(network, inputs)

    embedder = _embedder(checkpoints, ("dino", "dino"), batch_size=4)
    expected = embedder.embed(_images())
    monkeypatch.setattr(encoders, "_pool_images", pool_at_most_two)
    np.testing.assert_allclose(embedder.embed(_images()), expected, atol=1e-5)
    assert sizes == [4, 2, 2, 1]


def test_a_name_and_a_revision_say_what_judged(checkpoints: Path) -> None:
    scorer, other = _scorer(checkpoints, ("clip", "clip")), _scorer(checkpoints, ("siglip", "siglip"))
    assert scorer.name == f"clip:{checkpoints / 'clip ö'}"
    assert scorer.revision == _scorer(checkpoints, ("clip", "clip")).revision
    assert scorer.revision != other.revision


@pytest.mark.parametrize(
    ("image", "error"),
    [
        pytest.param(np.zeros((8, 8, 4), np.uint8), EmptyMaskError, id="invisible"),
        pytest.param(np.zeros((8, 8), np.uint8), SampleError, id="grey"),
        pytest.param(np.ones((8, 8, 3), np.float32), SampleError, id="floats"),
        pytest.param(np.zeros((0, 8, 3), np.uint8), SampleError, id="empty"),
    ],
)
def test_what_cannot_be_compared_is_refused(image: np.ndarray, error: type[SampleError]) -> None:
    with pytest.raises(error):
        frame_object(image)


@pytest.mark.parametrize(
    ("backend", "error", "said"),
    [
        pytest.param(("clip", "dino"), RecipeError, "is of type 'dinov2'; 'clip' takes clip, metaclip_2", id="dino"),
        pytest.param(("siglip", "bert"), RecipeError, "is of type 'bert'; 'siglip' takes siglip, siglip2", id="bert"),
        pytest.param(("clip", "nowhere"), RecipeError, "expected a path that exists, or OWNER/NAME", id="no-folder"),
    ],
)
def test_another_checkpoint_is_named(checkpoints: Path, backend: Backend, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        _scorer(checkpoints, backend).score([_cutout()], TEXTS)


def test_a_hub_model_that_was_not_fetched_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TextScorerSettings(name="clip", model="nobody/no-such-clip", revision="v1")
    with pytest.raises(ModelNotFetchedError, match="maskwright models fetch nobody/no-such-clip@v1"):
        build_text_scorer(settings).score([_cutout()], TEXTS)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_damaged_checkpoint_is_named(checkpoints: Path, tmp_path: Path, missing: str) -> None:
    for file in (checkpoints / "dino ö").iterdir():
        (tmp_path / file.name).write_bytes(b"{" if file.name == missing else file.read_bytes())
    settings = ImageEmbedderSettings(name="dino", model=str(tmp_path))
    with pytest.raises(RecipeError, match="cannot be loaded"):
        build_image_embedder(settings).embed([_cutout()])


def test_a_checkpoint_that_lacks_a_weight_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    """transformers would fill it at random and say so in its log."""
    for file in (checkpoints / "clip ö").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["text_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(RecipeError, match=r"1 weights are missing, such as 'text_projection\.weight'"):
        build_text_scorer(TextScorerSettings(name="clip", model=str(tmp_path))).score([_cutout()], TEXTS)


def test_a_name_is_put_into_the_template(checkpoints: Path) -> None:
    backend = ("clip", "clip")
    spelt_out = _scorer(checkpoints, backend).score(_images(), ["a photo of a single traffic light"])
    for name in ("traffic light", "traffic_light"):
        by_default = _scorer(checkpoints, backend, template=TextScorerSettings().template).score(_images(), [name])
        np.testing.assert_array_equal(by_default, spelt_out)
    assert fill_template("a {name} of paper", ["", "paper_{plate}"]) == ["a  of paper", "a paper {plate} of paper"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({"name": "clip"}, "'clip' needs a `model`", id="no-model"),
        pytest.param({"name": "embedded:lit", "model": "a/b"}, "brings its own weights", id="embedded-with-model"),
        pytest.param({"template": "a photo"}, "expected {name} and no other", id="no-field"),
        pytest.param({"template": "a {colour} {name}"}, "expected {name} and no other", id="other-field"),
        pytest.param({"template": "a {name"}, "malformed", id="open-brace"),
        pytest.param({"dtype": "int8"}, "float32", id="dtype"),
        pytest.param({"checkpoint": "x"}, "extra", id="unknown-key"),
    ],
)
def test_settings_are_checked_before_anything_is_spent(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TextScorerSettings.model_validate(settings)


def test_a_bare_text_is_a_name_and_an_unknown_one_lists_the_known() -> None:
    settings = SimilaritySettings.model_validate({"text": "embedded:lit", "image": "embedded:lite0"})
    assert (settings.text, settings.image) == (TextScorerSettings(), ImageEmbedderSettings())
    with pytest.raises(RecipeError, match=r"did you mean 'embedded:lit'\?; known: clip, embedded:lit, siglip"):
        build_text_scorer(TextScorerSettings(name="embedded:lid"))
    with pytest.raises(RecipeError, match="known: clip, dino, embedded:lite0"):
        build_image_embedder(ImageEmbedderSettings(name="embedded:dino"))


@pytest.mark.parametrize(
    ("category", "known"),
    [
        ("apple", True),
        ("traffic_light", True),
        ("aeroplane", True),
        ("sofa", True),
        ("person", False),
        ("refrigerator", False),
        ("baseball glove", False),
        ("hydraulic torque converter", False),
    ],
)
def test_the_embedded_scorer_knows_what_it_was_trained_on(category: str, known: bool) -> None:
    fetched("minilm")
    assert build_text_scorer(TextScorerSettings(device="cpu")).knows(category) == known


def test_the_embedded_backends_judge_a_cutout() -> None:
    fetched("lite0")
    fetched("minilm")
    scorer, embedder = (
        build_text_scorer(TextScorerSettings(device="cpu")),
        build_image_embedder(ImageEmbedderSettings(device="cpu")),
    )
    scores = scorer.score([_cutout()], ["apple", "dog"])
    assert scores.shape == (1, 2)
    assert ((scores > 0) & (scores < 1)).all()
    assert (scorer.name, embedder.name) == ("embedded:lit", "embedded:lite0")
    assert len(scorer.revision) == 12
    padded = np.pad(_cutout(), ((30, 0), (0, 70), (0, 0)))
    rows = embedder.embed([_cutout(), padded])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)
    np.testing.assert_allclose(rows[:1], Lite0().embed([crop_object(_cutout())]), atol=1e-5)
