"""GGUF files: read as transformers reads them, kept unpacked, unpacked again where what was kept is damaged."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from maskwright.data.files import PARTIAL_SUFFIX
from maskwright.errors import BrokenRunError
from maskwright.models import gguf_files
from maskwright.models.causal_lm import load_causal_lm
from maskwright.models.fetch import unpacked_folder
from maskwright.models.gguf_files import read_weights

WIDTH, HIDDEN, HEADS, BLOCKS = 32, 64, 4, 2
LETTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, "Ġ", "Ċ", "ca", "cat"]
MERGES = ["c a", "ca t"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A Llama of two blocks with a chat template, in 4-bit blocks where their rows are long enough."""
    path = tmp_path / "modèle" / "tiny.gguf"
    path.parent.mkdir()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(TOKENS), WIDTH)}
    for block in range(BLOCKS):
        for name, shape in (
            *((f"attn_{part}", (WIDTH, WIDTH)) for part in ("q", "k", "v", "output")),
            *((f"ffn_{part}", (HIDDEN, WIDTH)) for part in ("gate", "up")),
            ("ffn_down", (WIDTH, HIDDEN)),
        ):
            shapes[f"blk.{block}.{name}"] = shape
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        weights = rng.standard_normal(shape).astype(np.float32)
        blocks = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    norms = [f"blk.{block}.{name}_norm" for block in range(BLOCKS) for name in ("attn", "ffn")]
    for name in (*norms, "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _equal(one: gguf_files._Weights, other: gguf_files._Weights) -> bool:
    states = [weights[0].state_dict() for weights in (one, other)]
    tokenizers = [weights[1].backend_tokenizer.to_str() for weights in (one, other)]  # type: ignore[attr-defined]
    same = states[0].keys() == states[1].keys() and tokenizers[0] == tokenizers[1]
    return same and all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_what_was_unpacked_is_the_same_and_is_read_instead(packed: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "tiny-unpacked"
    first = read_weights(packed, kept)
    assert {path.name for path in kept.iterdir()} >= {"model.safetensors", "tokenizer.json", "config.json"}
    packed.unlink()
    second = read_weights(packed, kept)
    assert _equal(first, second)
    assert second[0].dtype == torch.float32
    assert first[1].encode("cat") == second[1].encode("cat") == [TOKENS.index("cat")]
    assert first[1].chat_template == second[1].chat_template == TEMPLATE
    assert first[0].generation_config.eos_token_id == second[0].generation_config.eos_token_id == 2


def test_an_own_file_is_kept_nowhere(packed: Path) -> None:
    lm = load_causal_lm(packed, "cpu")
    assert lm.eos_ids == {2}
    assert [path.name for path in packed.parent.iterdir()] == [packed.name]


@pytest.mark.parametrize("damage", [None, b"", b"\xff" * 40], ids=["missing", "empty", "nonsense"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_what_is_damaged_is_unpacked_again(packed: Path, tmp_path: Path, name: str, damage: bytes | None) -> None:
    kept = tmp_path / "cache" / "tiny-unpacked"
    first = read_weights(packed, kept)
    whole = (kept / name).read_bytes()
    (kept / name).unlink()
    if damage is not None:
        (kept / name).write_bytes(damage)
    assert _equal(read_weights(packed, kept), first)
    assert (kept / name).read_bytes() == whole


def test_a_killed_one_leaves_a_partial_folder_that_the_next_one_removes(packed: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache" / "tiny-unpacked"
    left = kept.parent / f".{kept.name}.killed{PARTIAL_SUFFIX}"
    (left / "fresh").mkdir(parents=True)
    read_weights(packed, kept)
    assert [path.name for path in kept.parent.iterdir() if not path.name.endswith("lock")] == [kept.name]


def test_a_full_disk_or_no_folder_costs_only_time(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "a file"
    taken.write_bytes(b"")
    first = read_weights(packed, taken / "tiny-unpacked")
    monkeypatch.setattr(gguf_files, "SPARE_DISK", 10**15)
    assert _equal(read_weights(packed, tmp_path / "cache" / "tiny-unpacked"), first)
    assert not (tmp_path / "cache" / "tiny-unpacked").exists()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF of a kind")
    with pytest.raises(BrokenRunError, match=r"damaged\.gguf"):
        read_weights(damaged, tmp_path / "cache")


def test_only_a_packed_model_has_an_unpacked_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path))
    assert unpacked_folder("smollm2") == unpacked_folder("embedded:smollm2")
    assert unpacked_folder("smollm2") != tmp_path / "smollm2"
    assert unpacked_folder("minilm") is None
    assert unpacked_folder("owner/name") is None
