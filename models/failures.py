"""What a chat model's failure means: nobody there, no access, or a request that is refused in this form.

LangChain's provider-neutral classes decide where a provider uses them, else the HTTP status.
"""

from __future__ import annotations

import httpx
import openai
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from ..errors import ModelAccessError, ModelOutageError, ModelRequestError

FAILURES = (ModelError, openai.OpenAIError, httpx.HTTPError, ConnectionError, TimeoutError, NotImplementedError)
"""Everything by which a provider says that a call gave no message; anything else is a bug and stays as it is."""

SHOWN_CHARS = 300
"""How much of a server's message goes into ours: some answer with a web page."""

_UNREACHABLE = (openai.APIConnectionError, httpx.TransportError, ConnectionError, TimeoutError)
_CUT_SHORT = (openai.LengthFinishReasonError, openai.ContentFilterFinishReasonError)


def describe_model(model: BaseChatModel) -> str:
    """A model's name and server, for messages; never its key."""
    name = getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__
    url = getattr(model, "openai_api_base", None)
    return f"language model {name!r}" + (f" at {url}" if url else "")


def recover_message(exc: Exception) -> AIMessage | None:
    """The message inside an error by which the OpenAI client reports an answer that was cut short."""
    if not isinstance(exc, _CUT_SHORT) or exc.completion is None:
        return None
    completion = exc.completion
    usage = completion.usage
    tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    return AIMessage(
        content=completion.choices[0].message.content or "",
        usage_metadata={"input_tokens": tokens[0], "output_tokens": tokens[1], "total_tokens": sum(tokens)},
    )


def raise_unless_refused(model: BaseChatModel, exc: Exception) -> None:
    """Return if a failure only means that the model does not take the request in this form.

    Raises:
        ModelOutageError: no connection, a timeout, a rate limit or a server that broke down.
        ModelAccessError: a key that is refused.
        ModelRequestError: a conversation that is too long in every form.
    """
    who = describe_model(model)
    if isinstance(exc, ContextOverflowError):
        raise ModelRequestError(f"{who} cannot take so long a conversation: {explain(exc)}.") from exc
    raise_unless_served(who, exc)


def raise_unless_served(who: str, exc: Exception) -> None:
    """Return if a failure is an answer to the request itself.

    Raises:
        ModelOutageError: no connection, a timeout, a rate limit or a server that broke down.
        ModelAccessError: a key that is refused.
    """
    status = getattr(exc, "status_code", None)
    if status in (401, 403) or isinstance(exc, ModelAuthenticationError | ModelPermissionDeniedError):
        # Without the server's words and without the cause: some servers repeat the key.
        raise ModelAccessError(
            f"{who} refuses the key ({status or type(exc).__name__}). Check the environment variable that holds it: "
            "`OPENAI_API_KEY`, or the one that `api_key_env` names."
        )
    if isinstance(exc, _UNREACHABLE) or _broke_down(exc, status):
        raise ModelOutageError(f"{who} gives no answer: {explain(exc)}. Is its server up? Try again later.") from exc


def refusal_error(model: BaseChatModel, exc: Exception | None) -> ModelAccessError | ModelRequestError:
    """What to raise once even the plain request is refused."""
    return explain_refusal(describe_model(model), exc)


def explain_refusal(who: str, exc: Exception | None) -> ModelAccessError | ModelRequestError:
    """What to raise where a server refuses the request itself, in its plainest form.

    Only then is 404 an unknown model: some servers answer so to a form of request that a model does not support.
    """
    if getattr(exc, "status_code", None) == 404 or isinstance(exc, ModelNotFoundError):
        return ModelAccessError(f"{who} is not known there: {explain(exc)}. Check its name and `base_url`.")
    return ModelRequestError(f"{who} refuses the request: {explain(exc)}.")


def _broke_down(exc: Exception, status: object) -> bool:
    """Whether it is the server's trouble; 501 is a server's way of saying that it lacks what was asked for."""
    if isinstance(status, int):
        return status == 429 or (status >= 500 and status != 501)
    return isinstance(exc, ModelError) and exc.is_retryable


def explain(exc: BaseException | None) -> str:
    """A failure in one short line, with its deepest cause: clients say "Connection error." and hide the rest."""
    root = exc
    while root is not None and root.__cause__ is not None:
        root = root.__cause__
    text = str(exc) if str(root) in str(exc) else f"{exc} ({root})"
    return " ".join(text.split())[:SHOWN_CHARS].rstrip(".") or type(exc).__name__
