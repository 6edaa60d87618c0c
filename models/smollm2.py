"""`embedded:smollm2`: a small language model in this process, as a LangChain chat model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.exceptions import ContextOverflowError, ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field

from ..errors import ModelRequestError
from .causal_lm import CausalLM, load_causal_lm
from .constrained import UnsupportedSchemaError
from .failures import FAILURES
from .fetch import locate_model, unpacked_folder
from .generation import Piece, Request, answer_all, decode
from .shared_batch import Answers, Prompts, share_batch, shared_batch


class PromptTooLongError(ModelRequestError, ContextOverflowError):
    """A prompt and the answer asked for do not fit in the model's context; nothing was decoded."""


class NotTextError(ModelRequestError, ModelInvalidRequestError):
    """A message holds something other than text."""


class Sampling(BaseModel):
    """How an answer is chosen; settable on the model and, with `bind` or as keyword, for one call."""

    model_config = ConfigDict(extra="forbid")

    temperature: float = Field(0.2, ge=0, description="0 takes the likeliest token")
    top_p: float = Field(0.9, gt=0, le=1, description="choose among the likeliest tokens of this total probability")
    max_tokens: int = Field(512, ge=1, description="most tokens of an answer")
    seed: int = Field(0, description="the same seed and prompt give the same answer")
    stop: list[str] | None = Field(None, description="texts that end an answer; they are not part of it")


class EmbeddedChatModel(BaseChatModel, Sampling):
    """A causal language model on transformers; SmolLM2-135M-Instruct unless another is named.

    `batch` and `generate` put up to `batch_size` prompts in one forward pass. `with_structured_output`, or
    `response_format` as OpenAI's, holds the answer to a JSON schema while it is decoded. Where `max_tokens`
    run out it is closed early, and `finish_reason` says so ("length"). The weights load at the first call.
    It reads text only and calls no tools.
    """

    model_config = ConfigDict(extra="ignore")

    model: str = Field("smollm2", description="a name of `maskwright models list`, or OWNER/NAME of the Hub")
    model_path: Path | None = Field(None, description="a GGUF file or a folder, instead of a name")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps, or auto: a GPU where there is one")
    batch_size: int = Field(8, ge=1, description="most prompts in one forward pass")

    @property
    def _llm_type(self) -> str:
        return "embedded"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self._model_name, **self._sampling().model_dump()}

    @property
    def _model_name(self) -> str:
        return self.model_path.stem if self.model_path else self.model

    def get_token_ids(self, text: str) -> list[int]:
        """Tokens of a text, without any special ones."""
        ids: list[int] = self._lm().tokenizer.encode(text, add_special_tokens=False)
        return ids

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[AIMessage]:
        with share_batch(self, [self._convert_input(value).to_messages() for value in inputs]):
            return super().batch(inputs, config, **kwargs)

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        **kwargs: Any,
    ) -> list[AIMessage]:
        with share_batch(self, [self._convert_input(value).to_messages() for value in inputs]):
            return await super().abatch(inputs, config, **kwargs)

    def generate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        with share_batch(self, messages):
            return super().generate(messages, *args, **kwargs)

    async def agenerate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        with share_batch(self, messages):
            return await super().agenerate(messages, *args, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002  the base class's signature
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, **kwargs)
        batch = shared_batch(self)
        answers = batch.answers(lambda prompts: self._answer_fitting(prompts, stop, **kwargs)) if batch else {}
        answer = answers.get(request) or answer_all(self._lm(), [request], 1)[request]
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
        request = self._request(messages, stop, **kwargs)
        num_prompt_tokens = len(request.prompt_ids)
        for _, piece in decode(self._lm(), [request]):
            message = AIMessageChunk(
                content=piece.text,
                usage_metadata=to_usage(num_prompt_tokens, piece.num_tokens),
                response_metadata=self._metadata(piece) if piece.finish_reason else {},
                chunk_position="last" if piece.finish_reason else None,
            )
            num_prompt_tokens = 0
            chunk = ChatGenerationChunk(message=message)
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    def _answer_fitting(self, prompts: Prompts, stop: list[str] | None, **kwargs: Any) -> Answers:
        """Answers of all prompts that can be asked; those that cannot raise in their own call."""
        requests = []
        for messages in prompts:
            try:
                requests.append(self._request(messages, stop, **kwargs))
            except ModelRequestError:
                continue
        return answer_all(self._lm(), requests, self.batch_size)

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, **kwargs: Any) -> Request:
        schema_json = read_response_format(kwargs.pop("response_format", None))
        kwargs.pop("stream", None)
        sampling = self._sampling(**kwargs, **({"stop": stop} if stop is not None else {}))
        lm = self._lm()
        prompt = lm.tokenizer.apply_chat_template(_chat(messages), tokenize=False, add_generation_prompt=True)
        ids = self.get_token_ids(cast(str, prompt))
        if len(ids) + sampling.max_tokens > lm.context_tokens:
            raise PromptTooLongError(
                f"a prompt of {len(ids)} tokens and an answer of up to {sampling.max_tokens} do not fit in the "
                f"{lm.context_tokens} tokens of {self._model_name}; shorten the prompt or lower `max_tokens`"
            )
        return Request(
            prompt_ids=tuple(ids),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            stop=tuple(filter(None, sampling.stop or ())),
            schema_json=schema_json,
        )

    def _sampling(self, **overrides: Any) -> Sampling:
        return Sampling.model_validate({name: getattr(self, name) for name in Sampling.model_fields} | overrides)

    def _lm(self) -> CausalLM:
        if self.model_path:
            return load_causal_lm(self.model_path, self.device)
        return load_causal_lm(locate_model(self.model), self.device, unpacked_folder(self.model))

    def _metadata(self, piece: Piece) -> dict[str, object]:
        return {"model_name": self._model_name, "finish_reason": piece.finish_reason}

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answers that are valid under `schema`: a Pydantic class, a TypedDict, or a JSON schema.

        Whatever the `method`, decoding itself is held to the schema. What the schema leaves open is bounded
        (see `constrained.py`). The schema is not written into the prompt: say there what is wanted.

        Returns:
            The Pydantic object or a dict; with `include_raw` a dict of raw, parsed and parsing_error.
        """
        if kwargs:
            raise TypeError(f"unknown option(s) {', '.join(sorted(kwargs))} of with_structured_output")
        json_schema = schema if isinstance(schema, dict) else convert_to_json_schema(schema)
        model = self.bind(
            response_format={"type": "json_schema", "json_schema": {"schema": json_schema}},
            ls_structured_output_format={"kwargs": {"method": method, "strict": strict}, "schema": schema},
        )
        parser: BaseOutputParser[Any] = JsonOutputParser()
        if isinstance(schema, type) and is_basemodel_subclass(schema):
            parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")


def _chat(messages: Sequence[BaseMessage]) -> list[dict[str, str]]:
    """Messages as a chat template takes them.

    Raises:
        NotTextError: a message holds something other than text.
    """
    chat = convert_to_openai_messages(messages, text_format="string")
    for message in chat:
        if not isinstance(message["content"], str):
            kinds = sorted({str(block.get("type")) for block in message["content"]} - {"text"})
            raise NotTextError(f"a message holds {', '.join(kinds)}; this model reads text only")
    return [{"role": message["role"], "content": message["content"]} for message in chat]


def read_response_format(response_format: object) -> str | None:
    """The schema of OpenAI's `response_format`; None for plain text.

    Raises:
        UnsupportedSchemaError: it is not of a known form.
    """
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return '{"type": "object"}'
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return json.dumps(schema)
    raise UnsupportedSchemaError(
        f"unknown response_format {response_format!r}; expected "
        '{"type": "json_schema", "json_schema": {"schema": {...}}}, or the type "json_object" or "text"'
    )


def to_usage(num_prompt_tokens: int, num_tokens: int) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=num_prompt_tokens, output_tokens=num_tokens, total_tokens=num_prompt_tokens + num_tokens
    )


ModelCall = tuple[Runnable[LanguageModelInput, object], list[BaseMessage], RunnableConfig]
"""A model, plain or held to a schema, what it is asked, and whose call it is."""


def invoke_together(model: EmbeddedChatModel, calls: Sequence[ModelCall]) -> list[object]:
    """Carry out calls of one model, those that may share a forward pass in one batch.

    Returns:
        One reply a call, in order; where a call failed, its exception.
    """
    replies: dict[int, object] = {}
    for is_plain in (False, True):
        alike = [index for index, call in enumerate(calls) if (call[0] is model) == is_plain]
        with share_batch(model, [calls[index][1] for index in alike]):
            for index in alike:
                runnable, messages, config = calls[index]
                try:
                    replies[index] = runnable.invoke(messages, config)
                except FAILURES as exc:
                    replies[index] = exc
    return [replies[index] for index in range(len(calls))]
