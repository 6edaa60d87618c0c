"""Specs become chat models; wrong ones say what is right; a key goes nowhere but to its own server."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_openai import ChatOpenAI

from maskwright.errors import MaskwrightError, ModelAccessError, ModelNotFetchedError, RecipeError, UnknownModelError
from maskwright.models.language import build_chat_model
from maskwright.models.smollm2 import EmbeddedChatModel

SECRET = "sk-very-secret"
NO_EFFECT = "what the recipe says of it has no effect"
FACTORY = """
from langchain_core.language_models.fake_chat_models import FakeListChatModel

def make({signature}):
    options = locals()
    return FakeListChatModel(responses=[repr(options.get("anything", options))])
"""
VARIABLES = ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL", "MY_KEY")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASKWRIGHT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("spec", "base_url", "environment", "name", "url", "key"),
    [
        pytest.param("openai:gpt", None, {"OPENAI_API_KEY": SECRET}, "gpt", None, SECRET, id="openai"),
        pytest.param("openai:m", "http://h:1/v1", {}, "m", "http://h:1/v1", "none", id="server"),
        pytest.param(
            "openai:m", "http://h:1/v1", {"OPENAI_API_KEY": SECRET}, "m", "http://h:1/v1", "none", id="not-its-key"
        ),
        pytest.param("openai:m", None, {"OPENAI_BASE_URL": "http://h/v1"}, "m", "http://h/v1", "none", id="gateway"),
        pytest.param(
            "openai:m",
            None,
            {"OPENAI_BASE_URL": "http://h/v1", "OPENAI_API_KEY": SECRET},
            "m",
            "http://h/v1",
            SECRET,
            id="gateway-with-key",
        ),
        pytest.param("ollama:qwen3:4b", None, {}, "qwen3:4b", "http://127.0.0.1:11434/v1", "none", id="ollama"),
        pytest.param("ollama:m", "http://h:1", {}, "m", "http://h:1/v1", "none", id="ollama-elsewhere"),
    ],
)
def test_a_server_gets_its_name_address_and_only_its_own_key(
    spec: str,
    base_url: str | None,
    environment: dict[str, str],
    name: str,
    url: str | None,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    model = build_chat_model(spec, base_url=base_url)
    assert isinstance(model, ChatOpenAI)
    assert (model.model_name, model.openai_api_base) == (name, url)
    assert model.root_client.api_key == key
    assert SECRET not in repr(model)
    assert SECRET not in str(model.model_dump())


def test_a_server_gets_the_key_that_the_recipe_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    model = build_chat_model("openai:m", base_url="http://h/v1", api_key_env="MY_KEY")
    assert isinstance(model, ChatOpenAI)
    assert model.root_client.api_key == SECRET


@pytest.mark.parametrize(
    ("spec", "options", "error", "message"),
    [
        pytest.param("openai:gpt", {}, ModelAccessError, "'OPENAI_API_KEY' is not set", id="no-key"),
        pytest.param("openai:m", {"api_key_env": "MY_KEY"}, ModelAccessError, "'MY_KEY' is not set", id="no-own-key"),
        pytest.param("opnai:gpt", {}, RecipeError, "did you mean `openai:gpt`", id="near"),
        pytest.param("OpenAI:gpt", {}, RecipeError, "did you mean `openai:gpt`", id="capitals"),
        pytest.param("gpt", {}, RecipeError, r"expected openai:NAME, .*package\.module:factory", id="no-provider"),
        pytest.param("openai:", {}, RecipeError, "expected openai:NAME", id="no-name"),
        pytest.param("mistral:large", {}, RecipeError, "unknown language model", id="other-provider"),
        pytest.param("", {}, RecipeError, "unknown language model ''", id="empty"),
        pytest.param("openai:m", {"base_url": ""}, RecipeError, "not a web address", id="empty-url"),
        pytest.param("openai:m", {"base_url": "localhost:1/v1"}, RecipeError, "got 'localhost:1/v1'", id="no-scheme"),
        pytest.param("openai:m", {"base_url": "http://h:99999"}, RecipeError, "not a web address", id="bad-port"),
        pytest.param("openai:m", {"base_url": f"http://u:{SECRET}@h/v1"}, RecipeError, "password", id="password"),
        pytest.param("openai:m", {"base_url": f"u:{SECRET}@h/v1"}, RecipeError, "web address", id="half-password"),
        pytest.param("openai:m", {"base_url": f"http://h/v1?key={SECRET}"}, RecipeError, "query", id="query"),
        pytest.param("embedded:smolm2", {}, RecipeError, "known: smollm2", id="embedded-unknown"),
        pytest.param("embedded:minilm", {}, RecipeError, "known: smollm2", id="embedded-but-no-language-model"),
        pytest.param("embedded:smollm2", {}, ModelNotFetchedError, "models fetch smollm2", id="not-fetched"),
        pytest.param("huggingface:/nowhere", {}, RecipeError, "no folder '/nowhere'", id="no-folder"),
        pytest.param("huggingface:nowhere", {}, UnknownModelError, "OWNER/NAME", id="no-hub-id"),
        pytest.param("no.such:factory", {}, RecipeError, "No module named 'no'", id="no-module"),
        pytest.param("os.path:nothing", {}, RecipeError, "no attribute 'nothing'", id="no-attribute"),
        pytest.param("os.path:sep", {}, RecipeError, "is a str; expected a function", id="not-callable"),
        pytest.param("os.path:join", {}, RecipeError, "missing a required argument: 'a'", id="wants-more"),
        pytest.param("builtins:dict", {}, RecipeError, "made a dict|no signature", id="makes-no-model"),
    ],
)
def test_what_is_wrong_is_said_before_any_call(
    spec: str, options: dict[str, Any], error: type[MaskwrightError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        build_chat_model(spec, **options)
    assert SECRET not in str(caught.value)


def test_a_local_model_takes_no_server(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a local model takes neither"):
        build_chat_model(f"huggingface:{tmp_path}", base_url="http://h/v1")


def test_a_folder_is_loaded_by_the_embedded_class(tmp_path: Path) -> None:
    model = build_chat_model(f"huggingface:{tmp_path}", seed=3, max_tokens=9)
    assert isinstance(model, EmbeddedChatModel)
    assert (model.model_path, model.seed, model.max_tokens) == (tmp_path, 3, 9)
    assert model.temperature == EmbeddedChatModel.model_fields["temperature"].default


@pytest.mark.parametrize(
    ("signature", "given", "ignored"),
    [
        pytest.param("seed, temperature=1.0", ["seed"], ["max_tokens"], id="some"),
        pytest.param("", [], ["max_tokens", "seed"], id="none"),
        pytest.param("**anything", ["max_retries", "max_tokens", "seed", "timeout_s"], [], id="all"),
    ],
)
def test_a_factory_gets_what_it_takes_and_the_log_names_the_rest(
    signature: str,
    given: list[str],
    ignored: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "our_models.py").write_text(FACTORY.format(signature=signature), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "our_models", raising=False)
    model = build_chat_model("our_models:make", seed=3, max_tokens=9, timeout_s=5, max_retries=1)
    assert isinstance(model, FakeListChatModel)
    options = {"seed": 3, "max_tokens": 9, "timeout_s": 5, "max_retries": 1, "temperature": 1.0}
    taken = {name: options[name] for name in given} | ({"temperature": 1.0} if "temperature" in signature else {})
    assert ast.literal_eval(model.responses[0]) == taken
    assert caplog.messages == ([f"our_models:make takes no {', '.join(ignored)}: {NO_EFFECT}"] if ignored else [])
