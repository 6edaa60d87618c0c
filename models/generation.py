"""Decoding of several prompts together: seeded per prompt, stopped, streamed, held to a JSON schema."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from tokenizers.decoders import DecodeStream
from transformers import DynamicCache, TopPLogitsWarper

from .causal_lm import CausalLM
from .constrained import JsonConstraint
from .device import run_in_batches

FinishReason = Literal["stop", "length"]
"""As OpenAI's: the answer ended by itself or at a stop text; or `max_tokens` cut it off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt and how to continue it. Equal requests get equal answers, whatever else is in their batch."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    temperature: float
    """0 takes the likeliest token."""
    top_p: float
    seed: int
    stop: tuple[str, ...] = ()
    schema_json: str | None = None
    """JSON schema of the answer; None for free text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer, or a whole one; the last part has a reason."""

    text: str
    num_tokens: int
    finish_reason: FinishReason | None = None


def answer_all(lm: CausalLM, requests: Sequence[Request], batch_size: int) -> dict[Request, Piece]:
    """Whole answers, `batch_size` requests a forward, in their order. A GPU out of memory halves the batch.

    Raises:
        UnsupportedSchemaError: a request's schema cannot be held.
        BrokenRunError: one request alone does not fit on the GPU.
    """
    different = list(dict.fromkeys(requests))
    return dict(zip(different, run_in_batches(partial(_answer, lm), different, batch_size), strict=True))


def _answer(lm: CausalLM, requests: Sequence[Request]) -> list[Piece]:
    pieces: list[list[Piece]] = [[] for _ in requests]
    for index, piece in decode(lm, requests):
        pieces[index].append(piece)
    return [join_pieces(parts) for parts in pieces]


def join_pieces(pieces: list[Piece]) -> Piece:
    return Piece(
        "".join(piece.text for piece in pieces), sum(piece.num_tokens for piece in pieces), pieces[-1].finish_reason
    )


@torch.inference_mode()
def decode(lm: CausalLM, requests: Sequence[Request]) -> Iterator[tuple[int, Piece]]:
    """Decode all requests in one padded batch; yields each one's index and next piece as it comes.

    Raises:
        UnsupportedSchemaError: a request's schema cannot be held.
        torch.OutOfMemoryError: the batch does not fit on the GPU.
    """
    rows = [AnswerInProgress(lm, index, request) for index, request in enumerate(requests)]
    prompts = [request.prompt_ids for request in requests]
    num_shared = _num_shared(prompts)
    cache = _read_shared(lm, prompts[0][:num_shared], len(prompts))
    ids, added = _pad_left([prompt[num_shared:] for prompt in prompts])
    attention = torch.cat([torch.ones(len(prompts), num_shared, dtype=torch.int64), added], dim=1)
    while True:
        logits = lm.step(ids, attention, cache)
        for row, row_logits in zip(rows, logits, strict=True):
            yield row.index, row.advance(row_logits)
        kept = [place for place, row in enumerate(rows) if not row.is_finished]
        if not kept:
            return
        if len(kept) < len(rows):
            rows = [rows[place] for place in kept]
            attention = attention[kept]
            cache.batch_select_indices(torch.tensor(kept, device=lm.model.device))
        ids, added = _pad_left([row.new_ids for row in rows])
        attention = torch.cat([attention, added], dim=1)


def _num_shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, the last one of each aside; 0 for one alone."""
    if len(prompts) < 2:
        return 0
    alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    return min(len(list(alike)), min(map(len, prompts)) - 1)


def _read_shared(lm: CausalLM, tokens: Sequence[int], num_rows: int) -> DynamicCache:
    """What the model keeps of a beginning that all prompts share: read once, not once a prompt."""
    cache = DynamicCache()
    if tokens:
        ids, attention = _pad_left([tokens])
        lm.step(ids, attention, cache)
        cache.batch_repeat_interleave(num_rows)
    return cache


def _pad_left(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) int64 tokens and attention; padding is token 0, never looked at."""
    width = max(map(len, sequences))
    ids = [[0] * (width - len(sequence)) + list(sequence) for sequence in sequences]
    attention = [[0] * (width - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    return torch.tensor(ids), torch.tensor(attention)


class AnswerInProgress:
    """One answer in the making."""

    def __init__(self, lm: CausalLM, index: int, request: Request) -> None:
        self.index = index
        self.new_ids: list[int] = []
        self.is_finished = False
        self._request, self._eos_ids = request, lm.eos_ids
        self._num_tokens = 0
        self._text = _TextStream(lm, request.stop)
        self._constraint = JsonConstraint(lm.constraint_tokenizer, request.schema_json) if request.schema_json else None
        self._keep_likeliest = TopPLogitsWarper(request.top_p)
        self._generator = torch.Generator().manual_seed(_mix(request.seed, request.prompt_ids))

    def advance(self, logits: torch.Tensor) -> Piece:
        """Choose the next token from (V,) float32 logits; what a schema forces after it comes along."""
        token = self._choose(self._constraint.mask(logits) if self._constraint else logits)
        room = self._request.max_tokens - self._num_tokens
        taken = self._constraint.take(token, room) if self._constraint else [token]
        self.new_ids = taken[:room]
        self._num_tokens += len(self.new_ids)
        text = "".join(self._text.push(new_id) for new_id in self.new_ids if new_id not in self._eos_ids)
        reason = self._finish_reason(is_cut=len(taken) > room)
        if reason:
            self.is_finished = True
            text += self._text.close()
        return Piece(text, len(self.new_ids), reason)

    def _choose(self, logits: torch.Tensor) -> int:
        if self._request.temperature == 0:
            return int(logits.argmax())
        scores = self._keep_likeliest(torch.LongTensor(), logits[None] / self._request.temperature)
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))

    def _finish_reason(self, *, is_cut: bool) -> FinishReason | None:
        if is_cut or (self._constraint and self._constraint.is_cut):
            return "length"
        if self._text.is_stopped or self.new_ids[-1] in self._eos_ids:
            return "stop"
        if self._constraint and self._constraint.is_complete:
            return "stop"
        return "length" if self._num_tokens >= self._request.max_tokens else None


class _TextStream:
    """Tokens to text that may be shown: whole characters, and nothing that may turn out to begin a stop text."""

    def __init__(self, lm: CausalLM, stop: Sequence[str]) -> None:
        self.is_stopped = False
        self._tokenizer = lm.tokenizer.backend_tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._held = ""

    def push(self, token: int) -> str:
        if self.is_stopped:
            return ""
        self._held += self._decoder.step(self._tokenizer, token) or ""
        found = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._num_doubtful())

    def close(self) -> str:
        """What was held back, once no token can follow; empty after a stop text."""
        return "" if self.is_stopped else self._release(len(self._held))

    def _num_doubtful(self) -> int:
        """Length of the longest ending that begins a stop text."""
        starts = (stop[:length] for stop in self._stop for length in range(len(stop) - 1, 0, -1))
        return max((len(start) for start in starts if self._held.endswith(start)), default=0)

    def _release(self, num_chars: int) -> str:
        text, self._held = self._held[:num_chars], self._held[num_chars:]
        return text


def _mix(seed: int, prompt_ids: tuple[int, ...]) -> int:
    """A generator's seed: the request's own, so that different prompts do not draw the same numbers."""
    return int.from_bytes(hashlib.sha256(repr((seed, prompt_ids)).encode()).digest()[:8]) >> 1
