"""Language models out of GGUF files; what was unpacked once is kept for the next process."""

from __future__ import annotations

import logging
import shutil
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..data.files import sync, work_folder
from ..errors import BrokenRunError

SPARE_DISK = 4
"""Times what the unpacked weights take must be free, or they are not kept."""

_FAILURES = (OSError, ValueError, KeyError, RuntimeError, struct.error, SafetensorError)
_Weights = tuple[PreTrainedModel, PreTrainedTokenizerBase]
_log = logging.getLogger(__name__)


def read_weights(path: Path, unpacked: Path | None = None) -> _Weights:
    """A model in float32 on the CPU, and its tokenizer.

    transformers takes 18 s on a core to read a GGUF file of 98 MB, and less than one to read the same weights unpacked.

    Args:
        path: a GGUF file, which is dequantized, or a folder as `save_pretrained` writes it.
        unpacked: a folder to read instead of the GGUF file where it is there and whole; else it is made, where there
            is room. It holds the same weights and tokenizer, and may be removed at any time.

    Raises:
        BrokenRunError: the file is damaged, or not a language model.
    """
    if unpacked and unpacked.is_dir():
        try:
            return _read(unpacked)
        except Exception as exc:  # noqa: BLE001  tokenizers raises no class of its own; the GGUF file decides
            _log.warning("%r is damaged (%s); unpacking %r again", str(unpacked), exc, str(path))
            shutil.rmtree(unpacked, ignore_errors=True)
    try:
        weights = _read(path)
    except _FAILURES as exc:
        raise BrokenRunError(f"cannot load the language model {str(path)!r}: {exc}") from exc
    if unpacked:
        _keep(weights, unpacked)
    return weights


def _read(path: Path) -> _Weights:
    folder, gguf = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    # Left packed, the weights are unpacked at every step: 1 to 2 tokens/s instead of 27.
    quantization = {"quantization_config": GgufConfig(dequantize=True)} if gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **gguf)
    model = AutoModelForCausalLM.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, **gguf, **quantization
    )
    return model, tokenizer


def _keep(weights: _Weights, unpacked: Path) -> None:
    """The folder appears whole or not at all; where nothing can be written, the next process unpacks again."""
    model, tokenizer = weights
    try:
        with work_folder(unpacked) as work:
            num_bytes = sum(weight.nbytes for weight in model.parameters())
            if unpacked.exists() or shutil.disk_usage(work).free < SPARE_DISK * num_bytes:
                return
            fresh = work / "fresh"
            model.save_pretrained(fresh)
            tokenizer.save_pretrained(fresh)
            for file in fresh.iterdir():
                sync(file)
            fresh.rename(unpacked)
    except (OSError, SafetensorError) as exc:
        _log.info("%r is not kept: %s", str(unpacked), exc)
