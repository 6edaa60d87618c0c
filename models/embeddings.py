"""Text embeddings by MiniLM, for memory, likeness and conditioning; offline once fetched."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings

from ..errors import ModelNotFetchedError
from .fetch import locate_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

TEXT_DIM = 384
MAX_TOKENS = 256
"""Word pieces that the encoder reads of a text, its two marks included; the rest is ignored."""

_NAME = "minilm"
_log = logging.getLogger(__name__)
_lock = threading.Lock()


def token_count(text: str) -> int:
    """Word pieces of a text as the encoder counts them, its two marks included; more than `MAX_TOKENS` is cut off.

    Reads the tokenizer only, not the weights.

    Raises:
        ModelNotFetchedError: MiniLM is not in the cache.
    """
    return len(_load_tokenizer(locate_model(_NAME) / "tokenizer.json").encode(text).ids)


class MiniLM(Embeddings):
    """all-MiniLM-L6-v2 as LangChain embeddings. All instances share one model a process and device; thread-safe.

    An empty text has an embedding too, near to nothing in particular. A text longer than `MAX_TOKENS` is embedded
    by its beginning, with a warning in the log.
    """

    def __init__(self, device: str = "cpu", batch_size: int = 64) -> None:
        self.device = device
        self.batch_size = batch_size

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts.

        Returns:
            (n, 384) float32, each row of length 1; equal across batch sizes within 1e-6.

        Raises:
            ModelNotFetchedError: MiniLM is not in the cache, or damaged there.
            BrokenRunError: no such device.
        """
        from .device import run_in_batches

        if not texts:
            return np.zeros((0, TEXT_DIM), dtype=np.float32)
        _warn_of_long(texts)
        model = _load_shared(self.device)

        def encode(batch: Sequence[str]) -> list[npt.NDArray[np.float32]]:
            # The tokenizer keeps its padding while it works: two threads in it at once raise "Already borrowed".
            with _lock:
                rows = model.encode(
                    list(batch), batch_size=len(batch), normalize_embeddings=True, show_progress_bar=False
                )
            return list(rows)

        return np.stack(run_in_batches(encode, texts, self.batch_size))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [row.tolist() for row in self.embed(texts)]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def _warn_of_long(texts: Sequence[str]) -> None:
    # A word piece has at least one character, so that most texts need no counting.
    long = [text for text in texts if len(text) > MAX_TOKENS - 2 and token_count(text) > MAX_TOKENS]
    if long:
        _log.warning(
            "%d of %d texts are longer than %d word pieces and are embedded by their beginning; the first is %r…",
            *(len(long), len(texts), MAX_TOKENS, long[0][:60]),
        )


def _load_shared(device: str) -> SentenceTransformer:
    from .device import resolve_device

    with _lock:
        return _load(locate_model(_NAME), str(resolve_device(device)))


@functools.cache
def _load(folder: Path, device: str) -> SentenceTransformer:
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    from .loading import without_bars

    try:
        with without_bars():
            return SentenceTransformer(str(folder), device=device, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as exc:
        raise ModelNotFetchedError(
            f"MiniLM in {str(folder)!r} cannot be loaded ({exc}). "
            f"Run `maskwright models fetch {_NAME}`: it compares every byte and replaces what is damaged."
        ) from exc


@functools.cache
def _load_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
