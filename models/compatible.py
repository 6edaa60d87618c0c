"""Any OpenAI-compatible server as a chat model: langchain-openai's client, wary of what such servers may answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import ModelAPIError
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_openai import ChatOpenAI


class MalformedReplyError(ModelAPIError):
    """A server answered 200 with something that is no chat completion: a proxy's web page, half a reply."""


class CompatibleChatModel(ChatOpenAI):
    """`ChatOpenAI` for a `base_url`; a reply that is no chat completion is a failure of the server, not a crash."""

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _malformed_as_failure():
            return _with_choices(super()._generate(messages, stop, run_manager, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with _malformed_as_failure():
            return _with_choices(await super()._agenerate(messages, stop, run_manager, **kwargs))


def _with_choices(result: ChatResult) -> ChatResult:
    if not result.generations:
        raise LookupError("it has no choices")
    return result


@contextmanager
def _malformed_as_failure() -> Iterator[None]:
    """The client does not check replies; these are what it trips over (a null body, a list that is not there)."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as exc:
        raise MalformedReplyError(f"the reply is no chat completion ({type(exc).__name__}: {exc})") from exc
