"""A vision-language model with its processor, loaded from a folder once a process."""

from __future__ import annotations

import json
import struct
import threading
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias, cast

import torch
from jinja2 import TemplateError
from langchain_core.exceptions import ModelInvalidRequestError
from PIL import Image
from safetensors import SafetensorError
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    ProcessorMixin,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..errors import BrokenRunError, MissingDependencyError, ModelRequestError
from .causal_lm import CausalLM
from .constrained import build_constraint_tokenizer
from .device import resolve_device
from .generation import AnswerInProgress, Piece, Request, join_pieces
from .loading import without_bars

Turn: TypeAlias = "dict[str, str | list[dict[str, str | Image.Image]]]"
"""A message as processors take it: `role`, and `content` in blocks of type `text` or `image`."""


class UnreadableMessageError(ModelRequestError, ModelInvalidRequestError):
    """A message holds something that the model, or its chat template, does not take."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VisionLM(CausalLM):
    """A language model that takes pictures too. Threads may share it: they take turns, an answer each."""

    processor: ProcessorMixin

    def prepare(self, chat: list[Turn]) -> BatchFeature:
        """Messages as the model takes them, with room made for their pictures.

        Returns:
            `input_ids`, (1, T) int64, and what else this kind of model wants, on the CPU.

        Raises:
            UnreadableMessageError: the chat template or the processor does not take them.
        """
        try:
            with self._lock:
                inputs = self.processor.apply_chat_template(
                    cast("list[dict[str, str]]", chat),  # their type knows no pictures
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
        except (TemplateError, ValueError, IndexError) as exc:
            raise UnreadableMessageError(f"the messages do not go into this model's chat template: {exc}") from exc
        return cast(BatchFeature, inputs)

    def answer(self, inputs: BatchFeature, request: Request) -> Piece:
        """One whole answer; `inputs` are those that `request.prompt_ids` come from.

        Raises:
            UnsupportedSchemaError: the request's schema cannot be held.
            BrokenRunError: the GPU's memory does not hold it.
        """
        row = AnswerInProgress(self, 0, request)
        choice = _Choice(row)
        try:
            with self._lock:
                self.model.generate(  # type: ignore[operator]  # a module's attributes may be tensors, its stub says
                    **inputs.to(self.model.device, dtype=self.model.dtype),
                    max_new_tokens=request.max_tokens,
                    logits_processor=LogitsProcessorList([choice]),
                    stopping_criteria=StoppingCriteriaList([_UntilFinished(row)]),
                )
        except torch.OutOfMemoryError as exc:
            raise BrokenRunError(
                f"the GPU's memory does not hold a prompt of {len(request.prompt_ids)} tokens ({exc}); show smaller "
                "pictures, or use device 'cpu'"
            ) from exc
        return join_pieces(choice.pieces)


class _Choice(LogitsProcessor):
    """Leaves one token to choose: the row's. Those that a schema forces after it follow one by one."""

    def __init__(self, row: AnswerInProgress) -> None:
        self.pieces: list[Piece] = []
        self._row = row
        self._due: deque[int] = deque()

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # noqa: ARG002
        if not self._due:
            self.pieces.append(self._row.advance(scores[0].float().cpu()))
            self._due.extend(self._row.new_ids)
        chosen = torch.full_like(scores, -torch.inf)
        chosen[0, self._due.popleft()] = 0
        return cast(torch.FloatTensor, chosen)


class _UntilFinished(StoppingCriteria):
    """Ends with the row; tokens still due need not go through the model."""

    def __init__(self, row: AnswerInProgress) -> None:
        self._row = row

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: object) -> torch.BoolTensor:  # noqa: ARG002
        return cast(torch.BoolTensor, torch.full((1,), self._row.is_finished, device=input_ids.device))


def is_vision_checkpoint(path: Path) -> bool:
    """Whether a folder's `config.json` is that of a model which takes pictures and text, and writes text.

    Raises:
        BrokenRunError: the `config.json` is not readable.
    """
    config_path = path / "config.json"
    if not config_path.is_file():
        return False
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise BrokenRunError(f"cannot read {str(config_path)!r}: {exc}; fetch or save the model again") from exc
    if not isinstance(config, dict):
        raise BrokenRunError(f"{str(config_path)!r} holds no JSON object; fetch or save the model again")
    return bool(config.get("vision_config")) or config.get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


_LOADING = threading.Lock()


def load_vision_lm(path: Path, device: str) -> VisionLM:
    """Load once a process for each folder and device: in bfloat16 on a CUDA GPU that has it, else in float32.

    Args:
        path: a folder as `save_pretrained` writes it, with its processor; code in it is never run.
        device: as `resolve_device` takes it.

    Raises:
        BrokenRunError: the folder is damaged, incomplete or of no vision-language model that chats, or the device is
            not there.
        MissingDependencyError: the model's processor needs a package that is not installed.
    """
    with _LOADING, without_bars():
        return _load(path.resolve(), resolve_device(device))


@cache
def _load(folder: Path, device: torch.device) -> VisionLM:
    model, processor = _load_files(folder, _choose_dtype(device))
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not hasattr(processor, "image_processor"):
        raise _unloadable(folder, f"its processor, a {type(processor).__name__}, does not take pictures and text")
    if not processor.chat_template:
        raise _unloadable(folder, "it has no chat template; use a checkpoint that was tuned to chat")
    text_config = model.config.get_text_config()
    eos = model.generation_config.eos_token_id or tokenizer.eos_token_id
    eos_ids = frozenset([eos] if isinstance(eos, int) else eos or [])
    # What its owner recommends goes, penalties above all: choosing is the row's, seeded and under its schema.
    model.generation_config = GenerationConfig(pad_token_id=min(eos_ids, default=0))  # type: ignore[no-untyped-call]
    try:
        return VisionLM(
            torch.nn.Module.to(model, device),
            tokenizer,
            build_constraint_tokenizer(tokenizer, text_config.vocab_size),
            eos_ids,
            getattr(text_config, "max_position_embeddings", tokenizer.model_max_length),
            processor=processor,
        )
    except torch.OutOfMemoryError as exc:
        raise BrokenRunError(f"the GPU's memory does not hold {str(folder)!r} ({exc}); use device 'cpu'") from exc


def _load_files(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, ProcessorMixin]:
    common = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **common)  # type: ignore[no-untyped-call]
        loaded = AutoModelForImageTextToText.from_pretrained(folder, **common, dtype=dtype, output_loading_info=True)
    except ImportError as exc:
        raise MissingDependencyError(f"the vision-language model {str(folder)!r} needs a package: {exc}") from exc
    except (OSError, ValueError, KeyError, RuntimeError, struct.error, SafetensorError) as exc:
        raise _unloadable(folder, exc) from exc
    model, info = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)
    if missing := sorted(info["missing_keys"]):
        raise _unloadable(folder, f"{len(missing)} weights are missing, such as {missing[0]!r}")
    return model, processor


def _choose_dtype(device: torch.device) -> torch.dtype:
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bf16 else torch.float32


def _unloadable(folder: Path, reason: object) -> BrokenRunError:
    return BrokenRunError(f"cannot load the vision-language model {str(folder)!r}: {reason}")
