"""Chat models by spec: every form that a recipe's `llm` section may name, turned into a LangChain chat model."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from ..errors import RecipeError
from .compatible import CompatibleChatModel
from .endpoints import check_url, read_key, resolve_endpoint
from .factories import call_factory, is_import_path
from .fetch import locate_model

SPEC_FORMS = "openai:NAME, ollama:NAME, huggingface:OWNER/NAME or folder, embedded:smollm2, package.module:factory"
OLLAMA_URL = "http://127.0.0.1:11434/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """What a builder may use; None leaves it to the model."""

    base_url: str | None
    api_key_env: str | None
    temperature: float | None
    max_tokens: int | None
    seed: int | None
    timeout_s: float
    max_retries: int


def build_chat_model(
    spec: str,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    timeout_s: float = 120.0,
    max_retries: int = 3,
) -> BaseChatModel:
    """The chat model that a spec names; nothing is asked of it yet.

    `package.module:factory` is called with those of the keyword arguments below that it takes and that are not None.

    Args:
        spec: one of `SPEC_FORMS`.
        base_url: an OpenAI-compatible server, `http://host:port/v1`, for `openai:` and `ollama:`.
        api_key_env: the environment variable that holds the server's key. Without it OpenAI gets `OPENAI_API_KEY`,
            and a `base_url` gets no key.
        max_tokens: of one answer.
        timeout_s: of one request.
        max_retries: of a request that met an outage, by the model's own client, which heeds `Retry-After`.

    Raises:
        RecipeError: an unknown form, a `base_url` that is not one or holds a password, or a factory that cannot be
            imported or makes something else.
        ModelAccessError: the key's environment variable is not set.
        ModelNotFetchedError: the weights of a local model are not in the cache.
    """
    provider, _, name = spec.partition(":")
    options = _Options(
        base_url=check_url(base_url) if base_url is not None else None,
        api_key_env=api_key_env,
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        timeout_s=timeout_s,
        max_retries=max_retries,
    )
    if provider in PROVIDERS and name:
        return PROVIDERS[provider](name, options)
    if is_import_path(spec):
        return call_factory(spec, asdict(options))
    nearest = difflib.get_close_matches(provider.lower(), PROVIDERS, n=1)
    hint = f", did you mean `{nearest[0]}:{name or 'NAME'}`?" if nearest else ""
    raise RecipeError(
        f"unknown language model {spec!r}{hint}; expected {SPEC_FORMS}. Set it under `llm` in the recipe."
    )


def _openai(name: str, options: _Options) -> BaseChatModel:
    endpoint = resolve_endpoint(options.base_url, options.api_key_env)
    if endpoint.base_url is not None:
        return _compatible(name, endpoint.base_url, endpoint.key, options)
    return ChatOpenAI(
        model=name,
        api_key=endpoint.key,
        temperature=options.temperature,
        max_completion_tokens=options.max_tokens,
        seed=options.seed,
        timeout=options.timeout_s,
        max_retries=options.max_retries,
    )


def _compatible(name: str, base_url: str, key: SecretStr, options: _Options) -> BaseChatModel:
    """Any OpenAI-compatible server.

    `max_tokens` travels in the extra body: langchain-openai renames it to `max_completion_tokens`, which OpenAI's newer
    models want and other servers may ignore.
    """
    return CompatibleChatModel(
        model=name,
        base_url=base_url,
        api_key=key,
        temperature=options.temperature,
        extra_body={"max_tokens": options.max_tokens} if options.max_tokens is not None else None,
        seed=options.seed,
        timeout=options.timeout_s,
        max_retries=options.max_retries,
        use_responses_api=False,
    )


def _ollama(name: str, options: _Options) -> BaseChatModel:
    """Ollama through its OpenAI-compatible endpoint.

    That gives it the same client, retries, errors and rungs as any other server, without a package of its own.
    """
    url = options.base_url or OLLAMA_URL
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + "/v1"
    return _compatible(name, url, read_key(options.api_key_env), options)


def _huggingface(name: str, options: _Options) -> BaseChatModel:
    """A folder, or a Hub repository that was fetched; one that takes pictures is known by its `config.json`.

    langchain-huggingface has neither constrained decoding nor async for local models.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _local(options, folder, model=folder.name, model_path=folder)
    if name.startswith(("/", ".", "~")):
        raise RecipeError(f"no folder {name!r}; expected one with a model, or OWNER/NAME of the Hugging Face Hub.")
    return _local(options, locate_model(name), model=name)


def _embedded(name: str, options: _Options) -> BaseChatModel:
    if name not in EMBEDDED:
        raise RecipeError(f"unknown embedded language model {name!r}; known: {', '.join(EMBEDDED)}.")
    return _local(options, locate_model(name), model=name)


def _local(options: _Options, checkpoint: Path, **which: str | Path) -> BaseChatModel:
    if options.base_url is not None or options.api_key_env is not None:
        raise RecipeError("`base_url` and `api_key_env` are for `openai:` and `ollama:`; a local model takes neither.")
    from .smollm2 import EmbeddedChatModel
    from .vision_chat import VisionChatModel
    from .vision_lm import is_vision_checkpoint

    chat_model = VisionChatModel if is_vision_checkpoint(checkpoint) else EmbeddedChatModel
    sampling = {"temperature": options.temperature, "max_tokens": options.max_tokens, "seed": options.seed}
    return chat_model.model_validate(which | {key: value for key, value in sampling.items() if value is not None})


EMBEDDED = ("smollm2",)
PROVIDERS: dict[str, Callable[[str, _Options], BaseChatModel]] = {
    "openai": _openai,
    "ollama": _ollama,
    "huggingface": _huggingface,
    "embedded": _embedded,
}
