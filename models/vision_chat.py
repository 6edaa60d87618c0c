"""`huggingface:` with a vision-language checkpoint: a model in this process that is shown pictures, as a chat model."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from PIL import Image, ImageOps

from ..data.images import FORMATS, MAX_IMAGE_PIXELS
from ..errors import ImageDecodeError
from .fetch import locate_model
from .generation import Piece, Request
from .smollm2 import EmbeddedChatModel, PromptTooLongError, read_response_format, to_usage
from .vision_lm import Turn, UnreadableMessageError, VisionLM, load_vision_lm

SHOWN_CHARS = 80
"""How much of an address goes into an error."""


class VisionChatModel(EmbeddedChatModel):
    """A vision-language model on transformers: any that `AutoModelForImageTextToText` loads and that chats.

    Pictures come in the messages: as `image_url` blocks with a `data:` address, or as LangChain's `image` blocks with
    `base64`. It fetches none. Several may be in a message, of any sizes. They are turned upright by their EXIF tag, and
    transparency is shown on white. Schemas, seeds and stop texts work as in the base class; calls are answered one
    after another, and a stream is one piece.
    """

    @property
    def _llm_type(self) -> str:
        return "embedded-vision"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  the base class's signature
        **kwargs: Any,
    ) -> ChatResult:
        request, answer = self._look(messages, stop, **kwargs)
        message = AIMessage(
            content=answer.text,
            usage_metadata=to_usage(len(request.prompt_ids), answer.num_tokens),
            response_metadata=self._metadata(answer),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request, answer = self._look(messages, stop, **kwargs)
        message = AIMessageChunk(
            content=answer.text,
            usage_metadata=to_usage(len(request.prompt_ids), answer.num_tokens),
            response_metadata=self._metadata(answer),
            chunk_position="last",
        )
        chunk = ChatGenerationChunk(message=message)
        if run_manager:
            run_manager.on_llm_new_token(answer.text, chunk=chunk)
        yield chunk

    def _look(self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any) -> tuple[Request, Piece]:
        schema_json = read_response_format(kwargs.pop("response_format", None))
        kwargs.pop("stream", None)
        sampling = self._sampling(**kwargs, **({"stop": stop} if stop is not None else {}))
        chat = to_chat(messages)
        lm = self._lm()
        inputs = lm.prepare(chat)
        prompt_ids = tuple(inputs["input_ids"][0].tolist())
        if len(prompt_ids) + sampling.max_tokens > lm.context_tokens:
            raise PromptTooLongError(
                f"a prompt of {len(prompt_ids)} tokens, its pictures included, and an answer of up to "
                f"{sampling.max_tokens} do not fit in the {lm.context_tokens} tokens of {self._model_name}; show fewer "
                "or smaller pictures, or lower `max_tokens`"
            )
        request = Request(
            prompt_ids=prompt_ids,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=tuple(filter(None, sampling.stop or ())),
            schema_json=schema_json,
        )
        return request, lm.answer(inputs, request)

    def _lm(self) -> VisionLM:
        return load_vision_lm(self.model_path or locate_model(self.model), self.device)


def to_chat(messages: Sequence[BaseMessage]) -> list[Turn]:
    """Messages as a processor takes them, their pictures decoded to RGB.

    Raises:
        UnreadableMessageError: a block is malformed, is neither text nor picture, or has its picture somewhere else.
        ImageDecodeError: a picture cannot be decoded, or is larger than `MAX_IMAGE_PIXELS`.
    """
    try:
        chat = convert_to_openai_messages(messages, text_format="block")
    except ValueError as exc:
        raise UnreadableMessageError(f"a message cannot be read: {exc}") from exc
    return [{"role": turn["role"], "content": [_to_block(block) for block in turn["content"]]} for turn in chat]


def _to_block(block: Mapping[str, Any]) -> dict[str, str | Image.Image]:
    match block:
        case {"type": "text", "text": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": str(url) | {"url": str(url)}}:
            return {"type": "image", "image": decode_picture(_read_data_url(url))}
    raise UnreadableMessageError(f"a message holds {block.get('type')!r}; this model takes text and pictures only")


def _read_data_url(url: str) -> bytes:
    head, comma, payload = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise UnreadableMessageError(
            f"a picture is at {url[:SHOWN_CHARS]!r}, and this model fetches none; expected "
            "'data:image/png;base64,...' with the picture's bytes"
        )
    try:
        return base64.b64decode(payload, validate=True)
    except ValueError as exc:
        raise ImageDecodeError(f"a picture in a message is not base64: {exc}; expected the encoded bytes") from exc


def decode_picture(encoded: bytes) -> Image.Image:
    """A picture as a viewer shows it: upright, RGB, transparency on white.

    Args:
        encoded: bytes of an image file, in one of `FORMATS`.

    Raises:
        ImageDecodeError: no picture, a damaged one, or one of more than `MAX_IMAGE_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ImageDecodeError(_too_large(f"{image.width}x{image.height} pixels"))
            rgba = ImageOps.exif_transpose(image).convert("RGBA")
    except Image.DecompressionBombError as exc:
        raise ImageDecodeError(_too_large(str(exc))) from exc
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as exc:
        raise ImageDecodeError(f"a picture in a message, {len(encoded)} bytes, cannot be decoded: {exc}") from exc
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _too_large(size: str) -> str:
    return f"a picture in a message is too large ({size}); expected at most {MAX_IMAGE_PIXELS:,} pixels; scale it down"
