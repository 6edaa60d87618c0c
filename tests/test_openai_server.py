"""The ladder through langchain-openai's own client, against servers on loopback: a scripted one, and a real one."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Reply, calls, fails, says, serve_script
from langchain_core.exceptions import ModelAuthenticationError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from model_helpers import fetched
from pydantic import BaseModel

from maskwright.errors import (
    MaskwrightError,
    ModelAccessError,
    ModelOutageError,
    ModelRequestError,
    UnparseableAnswerError,
)
from maskwright.models.language import build_chat_model
from maskwright.models.structured import aask, ask


class Prompt(BaseModel):
    """A prompt for a painter."""

    prompt: str


SECRET = "sk-very-secret"
GOOD = '{"prompt": "a red apple"}'
QUESTION = [HumanMessage("A red apple.")]
SCHEMA_REFUSED = fails(400, "'response_format' of type 'json_schema' is not supported")
PAGE = Reply(200, "<html>log in</html>", "text/html")


def _model(server: ChatServer, **options: Any) -> BaseChatModel:
    return build_chat_model("openai:m", **{"base_url": server.base_url, "max_retries": 1, "timeout_s": 10} | options)


@pytest.mark.parametrize(
    ("replies", "rung", "forms"),
    [
        pytest.param([says(GOOD)], "json_schema", ["json_schema"], id="schema"),
        pytest.param(
            [SCHEMA_REFUSED, calls("Prompt", GOOD)], "tool_calling", ["json_schema", "tool_calling"], id="tool"
        ),
        pytest.param(
            [fails(422), fails(400, "tools"), says(f"Sure!\n```json\n{GOOD}\n```")],
            "extract",
            ["json_schema", "tool_calling", "plain"],
            id="neither",
        ),
        pytest.param(
            [SCHEMA_REFUSED, calls("Prompt", '{"prompt": "a'), says(GOOD)],
            "extract",
            ["json_schema", "tool_calling", "plain"],
            id="broken-tool-call",
        ),
        pytest.param(
            [says('{"prompt": "a', finish_reason="length"), calls("Prompt", GOOD)],
            "tool_calling",
            ["json_schema", "tool_calling"],
            id="cut-off",
        ),
        pytest.param(
            [says("Red."), says("Red."), says("Red."), says(GOOD)],
            "repair",
            ["json_schema", "tool_calling", "plain", "plain"],
            id="prose",
        ),
        pytest.param([fails(503), says(GOOD)], "json_schema", ["json_schema"] * 2, id="outage-that-passes"),
        pytest.param([fails(429), says(GOOD)], "json_schema", ["json_schema"] * 2, id="rate-limit-that-passes"),
    ],
)
@pytest.mark.filterwarnings("ignore:This model does not support OpenAI's structured output")
def test_each_rung_over_http(replies: list[Reply], rung: str, forms: list[str]) -> None:
    with serve_script(*replies) as server:
        answer = ask(_model(server), QUESTION, Prompt)
    assert (answer.rung, server.forms) == (rung, forms)
    assert answer.value == Prompt(prompt="a red apple")
    assert answer.input_tokens == 7 * sum(reply.status == 200 for reply in replies)


@pytest.mark.parametrize(
    ("reply", "error", "message", "num_requests"),
    [
        pytest.param(fails(500), ModelOutageError, "Error code: 500", 2, id="server-error"),
        pytest.param(fails(429), ModelOutageError, "Error code: 429", 2, id="rate-limit"),
        pytest.param(Reply(delay_s=20), ModelOutageError, "timed out", 2, id="timeout"),
        pytest.param(PAGE, ModelOutageError, "no chat completion", 1, id="web-page"),
        pytest.param(Reply(200, "{]"), ModelOutageError, "no chat completion", 1, id="no-json"),
        pytest.param(Reply(200, '{"choices": []}'), ModelOutageError, "no choices", 1, id="no-choices"),
        pytest.param(fails(401, SECRET), ModelAccessError, "refuses the key", 1, id="key"),
        pytest.param(fails(403, SECRET), ModelAccessError, "refuses the key", 1, id="permission"),
        pytest.param(fails(404, "no model m"), ModelAccessError, "no model m", 3, id="unknown-model"),
        pytest.param(fails(400, "no images"), ModelRequestError, "no images", 3, id="refused-in-every-form"),
        pytest.param(fails(400, "context_length_exceeded"), ModelRequestError, "so long", 1, id="too-long"),
        pytest.param(says("", finish_reason="content_filter"), UnparseableAnswerError, "no Prompt", 4, id="filtered"),
        pytest.param(says(None, refusal="I cannot."), UnparseableAnswerError, "'I cannot.'", 4, id="refusal"),
    ],
)
def test_each_failure_over_http(reply: Reply, error: type[MaskwrightError], message: str, num_requests: int) -> None:
    with serve_script(reply) as server:
        model = _model(server, timeout_s=0.3 if reply.delay_s else 10)
        with pytest.raises(error, match=message) as caught:
            ask(model, QUESTION, Prompt)
    assert len(server.requests) == num_requests
    assert server.base_url in str(caught.value)
    assert SECRET not in f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"


def test_nobody_listens() -> None:
    with serve_script(says(GOOD)) as server:
        pass
    with pytest.raises(ModelOutageError, match="refused"):
        ask(_model(server, max_retries=0), QUESTION, Prompt)


def test_async_asks_the_same() -> None:
    with serve_script(SCHEMA_REFUSED, PAGE) as server, pytest.raises(ModelOutageError, match="no chat completion"):
        asyncio.run(aask(_model(server), QUESTION, Prompt))
    with serve_script(says(GOOD)) as server:
        assert asyncio.run(aask(_model(server), QUESTION, Prompt)).rung == "json_schema"


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    question = [HumanMessage([{"type": "text", "text": "Judge."}, image])]
    with serve_script(says(GOOD)) as server:
        ask(_model(server, temperature=0.5, max_tokens=9, seed=3), question, Prompt)
    [body], [headers] = server.requests, server.headers
    assert {key: body[key] for key in ("temperature", "max_tokens", "seed")} == {
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 3,
    }
    assert body["messages"][0]["content"][1] == image
    assert body["response_format"]["json_schema"]["strict"] is True
    assert headers["authorization"] == "Bearer none"


class _Tracer(BaseTracer):
    """Keeps what LangSmith's tracer would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def _persist_run(self, run: Run) -> None:
        self.sent.append(run.model_dump_json(exclude={"parent_run"}))


@pytest.mark.parametrize("reply", [says(GOOD), fails(401, "wrong key")], ids=["answered", "refused"])
def test_a_trace_holds_no_key(reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    tracer = _Tracer()
    with serve_script(reply) as server:
        model = _model(server, api_key_env="MY_KEY")
        with suppress(ModelAuthenticationError):
            model.invoke(QUESTION, config={"callbacks": [tracer]})
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    [sent] = tracer.sent
    assert "red apple" in sent
    assert SECRET not in sent


@pytest.fixture(scope="module")
def transformers_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """`transformers serve` on loopback with SmolLM2, unpacked: packed weights decode at 1 token/s."""
    from maskwright.models.causal_lm import load_causal_lm

    folder = tmp_path_factory.mktemp("served") / "smollm2"
    lm = load_causal_lm(fetched("smollm2"), "cpu")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = Path(sys.executable).with_name("transformers")
    command = [str(program), "serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", port]
    server = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1", folder
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"`transformers serve` did not come up; exit code {server.poll()}")


@pytest.mark.slow
def test_a_real_server_that_drops_the_schema(transformers_server: tuple[str, Path]) -> None:
    """`transformers serve` drops `response_format`: the object still comes if the question asks for it, else prose."""
    base_url, folder = transformers_server
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 32, "timeout_s": 600, "max_retries": 0}
    model = build_chat_model(f"openai:{folder}", base_url=base_url, **options)

    question = 'Describe a red apple in a few words. Answer as JSON, like {"prompt": "a blue cup"}'
    answer = ask(model, [HumanMessage(question)], Prompt)
    assert answer.rung in ("json_schema", "extract")
    assert answer.value.prompt in answer.raw_text
    assert 0 < answer.output_tokens <= 32

    greeting = ask(model, [HumanMessage("Say hello.")], Prompt, template=lambda: Prompt(prompt="hello"), max_repairs=0)
    assert greeting.rung in ("extract", "template")
    assert greeting.attempts == 3
    again = ask(model, [HumanMessage("Say hello.")], Prompt, template=lambda: Prompt(prompt="hello"), max_repairs=0)
    assert again.attempts == 1, "what the server lacks was forgotten"


@pytest.mark.slow
def test_one_setting_gives_the_t_agent_a_server_s_model(
    transformers_server: tuple[str, Path], photographs: Path, tmp_path: Path
) -> None:
    """The planner and the writer are the served model; painter and scorer are the embedded ones."""
    from maskwright.graphs.pipeline import run_recipe

    base_url, folder = transformers_server
    for name in ("minilm", "lite0"):
        fetched(name)
    annotations = photographs / "annotations" / "instances_train.json"
    annotations.write_text(annotations.read_text(encoding="utf-8").replace('"bolt"', '"apple"'), encoding="utf-8")
    outcome = run_recipe(
        "text_agent",
        data=photographs,
        out=tmp_path / "run",
        overrides=[
            f'llm={{"model": "openai:{folder}", "base_url": "{base_url}", "max_tokens": 60}}',
            "memory.enabled=false",
            "plan.at_least=13",
            'plan.classes=["apple"]',
            "agents.text_agent.images_per_prompt=1",
        ],
    )
    costs = outcome.content["costs"]
    assert isinstance(costs, dict)
    assert costs["llm_calls"] >= 4
    assert costs["output_tokens"] > 0
    assert outcome.content["items"]["failed"] == 0  # type: ignore[index]
    assert outcome.content["images"]["painted"] >= 1  # type: ignore[index]
