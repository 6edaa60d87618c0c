"""MiniLM in LangChain's own suites, and a tiny checkpoint in its place where meaning is not asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from model_helpers import fetched

from maskwright.errors import BrokenRunError, ModelNotFetchedError
from maskwright.models import embeddings
from maskwright.models.embeddings import MAX_TOKENS, TEXT_DIM, MiniLM, token_count

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "apple", "bicycle", "word"]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder of one random layer, laid out as MiniLM's."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    size = {"hidden_size": TEXT_DIM, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(WORDS), **size)).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=MAX_TOKENS)
    SentenceTransformer(modules=[transformer, Pooling(TEXT_DIM), Normalize()]).save(str(folder / "minilm"))
    return folder / "minilm"


@pytest.fixture
def tiny(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> MiniLM:
    monkeypatch.setattr(embeddings, "locate_model", lambda name: tiny_checkpoint)
    return MiniLM(batch_size=2)


TEXTS = ["a red apple", "", "a bicycle", "a green apple on a table", "word"]


def test_rows_are_unit_length_in_order_whatever_the_batch(tiny: MiniLM) -> None:
    together = tiny.embed(TEXTS)
    assert together.shape == (len(TEXTS), TEXT_DIM)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([tiny.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert tiny.embed([]).shape == (0, TEXT_DIM)


def test_langchain_s_doors_give_the_same_numbers(tiny: MiniLM) -> None:
    rows = tiny.embed(TEXTS)
    np.testing.assert_allclose(tiny.embed_documents(TEXTS), rows, atol=1e-6)
    np.testing.assert_allclose(tiny.embed_query(TEXTS[0]), rows[0], atol=1e-6)


def test_threads_share_one_model(tiny: MiniLM) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        rows = list(pool.map(lambda text: MiniLM().embed([text])[0], TEXTS * 8))
    np.testing.assert_allclose(rows, np.concatenate([tiny.embed(TEXTS)] * 8), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        pytest.param("", 2, id="empty"),
        pytest.param("a red apple", 5, id="short"),
        pytest.param("word " * (MAX_TOKENS - 2), MAX_TOKENS, id="just fits"),
        pytest.param("word " * 1000, 1002, id="far beyond"),
    ],
)
def test_tokens_are_counted_beyond_the_encoder_s_end(text: str, count: int, tiny: MiniLM) -> None:
    assert token_count(text) == count


def test_a_long_text_is_embedded_by_its_beginning_and_said_so(tiny: MiniLM, caplog: pytest.LogCaptureFixture) -> None:
    fits = "word " * (MAX_TOKENS - 2)
    first, second = tiny.embed([fits, fits + "bicycle"])
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert "1 of 2 texts are longer than 256 word pieces" in caplog.text


def test_wrong_devices_and_damaged_files_are_named(
    tiny: MiniLM, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokenRunError, match="'cuda:77'"):
        MiniLM(device="cuda:77").embed(["a"])
    for file in tiny_checkpoint.rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(tiny_checkpoint)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(bytes(16) if file.suffix == ".safetensors" else file.read_bytes())
    monkeypatch.setattr(embeddings, "locate_model", lambda name: tmp_path)
    with pytest.raises(ModelNotFetchedError, match="maskwright models fetch minilm"):
        MiniLM().embed(["a"])


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[MiniLM]:
        return MiniLM

    @property
    def embedding_model_params(self) -> dict[str, object]:
        return {"batch_size": 8}


class TestIntegration(EmbeddingsIntegrationTests):
    """On the real weights."""

    @pytest.fixture(autouse=True)
    def _weights(self) -> None:
        fetched("minilm")

    @property
    def embeddings_class(self) -> type[MiniLM]:
        return MiniLM

    @property
    def embedding_model_params(self) -> dict[str, object]:
        return {}


def test_likeness_follows_meaning() -> None:
    fetched("minilm")
    apple, fruit, bicycle = MiniLM().embed(["a red apple", "a ripe fruit", "a bicycle"])
    assert apple @ fruit > 0.4 > apple @ bicycle
    assert token_count("word " * 300) == 302
