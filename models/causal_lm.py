"""A causal language model with a chat template, loaded from a GGUF file or a folder once a process."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from llguidance import LLTokenizer
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from .constrained import build_constraint_tokenizer
from .device import resolve_device
from .gguf_files import read_weights
from .loading import without_bars


@dataclass(frozen=True, slots=True, eq=False)
class CausalLM:
    """Weights and tokenizer. Threads may share them: they take turns, a step each."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    constraint_tokenizer: LLTokenizer
    eos_ids: frozenset[int]
    context_tokens: int
    """Most tokens of prompt and answer together."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self, ids: torch.Tensor, attention: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """One forward over new tokens, which join the cache.

        Args:
            ids: (B, T) int64, the new tokens, padded on the left.
            attention: (B, S + T) int64, 1 for a token and 0 for padding; S tokens are in the cache.

        Returns:
            (B, V) float32 on the CPU: logits of the token after the last.
        """
        positions = (attention.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        device = self.model.device
        with self._lock:
            output = self.model(
                input_ids=ids.to(device),
                attention_mask=attention.to(device),
                position_ids=positions.to(device),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits[:, -1].float().cpu()
        return logits


_LOADING = threading.Lock()


def load_causal_lm(path: Path, device: str, unpacked: Path | None = None) -> CausalLM:
    """Load once a process for each file and device, in float32.

    Args:
        path: a GGUF file, which is dequantized, or a folder as `save_pretrained` writes it.
        device: as `resolve_device` takes it.
        unpacked: a folder that keeps what the GGUF file holds, for the next process; see `read_weights`.

    Raises:
        BrokenRunError: the file is damaged or not a language model, or the device is not there.
    """
    with _LOADING, without_bars():
        return _load(path.resolve(), resolve_device(device), unpacked)


@cache
def _load(path: Path, device: torch.device, unpacked: Path | None) -> CausalLM:
    model, tokenizer = read_weights(path, unpacked)
    eos = model.generation_config.eos_token_id
    return CausalLM(
        model=torch.nn.Module.to(model, device),
        tokenizer=tokenizer,
        constraint_tokenizer=build_constraint_tokenizer(tokenizer, model.config.vocab_size),
        eos_ids=frozenset([eos] if isinstance(eos, int) else eos or []),
        context_tokens=model.config.max_position_embeddings,
    )
