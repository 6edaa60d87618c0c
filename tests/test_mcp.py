"""The MCP server through the SDK's own client: over stdio and over HTTP, against the real command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.memory import create_connected_server_and_client_session
from mcp.types import LATEST_PROTOCOL_VERSION, CallToolResult, TextContent
from noisy_server import build_tools
from PIL import Image

from maskwright.errors import InputError
from maskwright.serving.mcp import TOKEN_VARIABLE, build_server, choose_token, open_loopback

TOKEN = "0123456789abcdef-token"
COMMAND = str(Path(sys.executable).with_name("maskwright"))
NOISY = str(Path(__file__).with_name("noisy_server.py"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@asynccontextmanager
async def _connect(command: str, *arguments: str, errors: Path) -> AsyncIterator[ClientSession]:
    """A session with a server over stdio; the client is told of every line that is not the protocol's."""
    strays: list[Exception] = []

    async def listen(message: object) -> None:
        if isinstance(message, Exception):
            strays.append(message)

    parameters = StdioServerParameters(command=command, args=list(arguments), env=ENVIRONMENT)
    with errors.open("w", encoding="utf-8") as log:
        async with (
            stdio_client(parameters, errlog=log) as (incoming, outgoing),
            ClientSession(incoming, outgoing, message_handler=listen) as session,
        ):
            await session.initialize()
            yield session
    assert strays == []


def _text(result: CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


async def test_what_is_printed_goes_to_standard_error(tmp_path: Path) -> None:
    async with _connect(sys.executable, NOISY, errors=tmp_path / "stderr") as session:
        result = await session.call_tool("shout", {"words": "größer"})
        assert (result.isError, json.loads(_text(result))) == (False, {"said": "größer"})
    printed = (tmp_path / "stderr").read_text(encoding="utf-8")
    assert "building" in printed
    assert printed.count("größer") == 3


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        pytest.param("refuse", {"words": "no"}, "error: no; say something else", id="the tool's own error"),
        pytest.param("break_down", {"words": "zero"}, "zero", id="a bug"),
        pytest.param("shout", {}, "words", id="a missing argument"),
        pytest.param("shout", {"words": "a", "lout": True}, "lout", id="a misspelt argument"),
        pytest.param("whisper", {}, "whisper", id="no such tool"),
    ],
)
async def test_errors_are_marked_and_readable(tool: str, arguments: dict[str, object], says: str) -> None:
    async with create_connected_server_and_client_session(build_server(build_tools())) as session:
        result = await session.call_tool(tool, arguments)
    assert result.isError
    assert says in _text(result)


async def test_a_slow_tool_blocks_nobody() -> None:
    ended: list[str] = []
    async with (
        create_connected_server_and_client_session(build_server(build_tools())) as session,
        anyio.create_task_group() as group,
    ):

        async def dawdle() -> None:
            await session.call_tool("dawdle", {"words": "slowly"})
            ended.append("dawdle")

        group.start_soon(dawdle)
        await anyio.sleep(0.1)
        await session.list_tools()
        ended.append("list")
    assert ended == ["list", "dawdle"]


async def test_the_command_over_stdio(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    picture = Image.new("RGB", (64, 48), (30, 60, 90))
    picture.paste((220, 180, 40), (20, 10, 44, 38))
    picture.save(photographs / "schraube ü.png")
    arguments = ["serve", "mcp", "--root", str(photographs)]
    async with _connect(COMMAND, *arguments, errors=tmp_path / "stderr") as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
        assert {"inspect_dataset", "segment"} <= tools.keys()
        assert all(tool.description for tool in tools.values())

        told = await session.call_tool("inspect_dataset", {"path": "."})
        assert not told.isError, _text(told)
        assert "Mutter ö" in _text(told)

        missing = await session.call_tool("segment", {"image": "nö.png", "category": "bolt"})
        assert missing.isError
        assert "nö.png" in _text(missing)

        outside = await session.call_tool("segment", {"image": "../secret.png", "category": "bolt"})
        assert outside.isError
        assert "../secret.png" in _text(outside)

        cut_out = await session.call_tool(
            "segment", {"image": "schraube ü.png", "category": "bolt", "box_xyxy": [18, 8, 46, 40]}
        )
        assert not cut_out.isError, _text(cut_out)
        path = photographs / json.loads(_text(cut_out))["path"]
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((64, 48), "RGBA")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The command over HTTP: its address, and what it prints."""
    root = tmp_path_factory.mktemp("größe")
    printed = root / "printed"
    command = [COMMAND, "serve", "mcp", "--root", str(root), "--http", "--port", "0"]
    with printed.open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env={**ENVIRONMENT, TOKEN_VARIABLE: TOKEN}, stdout=log, stderr=log)
    try:
        yield _wait_for_address(server, printed), printed
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def _wait_for_address(server: subprocess.Popen[bytes], printed: Path) -> str:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"http://\S+/mcp", printed.read_text(encoding="utf-8")):
            return found.group()
        time.sleep(0.2)
    pytest.fail(f"the server did not come up: {printed.read_text(encoding='utf-8')}")


async def test_the_command_over_http(served: tuple[str, Path]) -> None:
    url, printed = served
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as client,
        streamable_http_client(url, http_client=client) as (incoming, outgoing, _),
        ClientSession(incoming, outgoing) as session,
    ):
        await session.initialize()
        missing = await session.call_tool("inspect_dataset", {"path": "nowhere"})
    assert missing.isError
    assert "nowhere" in _text(missing)
    assert TOKEN not in printed.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="no token"),
        pytest.param({"Authorization": "Bearer wrong"}, 401, id="another token"),
        pytest.param({"Authorization": TOKEN}, 401, id="no scheme"),
        pytest.param({"Authorization": "Bearer ä".encode("latin-1")}, 401, id="no ascii"),
        pytest.param({"Authorization": f"Bearer {TOKEN}", "Host": "evil.example"}, 421, id="another host"),
        pytest.param({"Authorization": f"Bearer {TOKEN}", "Host": "localhost:1"}, 421, id="another port"),
        pytest.param({"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}, 403, id="another origin"),
        pytest.param({"Authorization": f"Bearer {TOKEN}"}, 200, id="all right"),
    ],
)
def test_who_is_let_in(headers: dict[str, str | bytes], status: int, served: tuple[str, Path]) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": LATEST_PROTOCOL_VERSION,
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    accept = {"Accept": "application/json, text/event-stream"}
    answer = httpx.post(served[0], json=hello, headers={**accept, **headers}, trust_env=False)
    assert answer.status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_only_this_machine_is_served(host: str) -> None:
    with pytest.raises(InputError, match="not a loopback address"):
        open_loopback(host, 0)


def test_a_taken_port_is_said() -> None:
    with open_loopback("127.0.0.1", 0) as first, pytest.raises(InputError, match="give another --port"):
        open_loopback("localhost", first.getsockname()[1])


def test_a_token_is_long_or_made() -> None:
    (first, is_new), (second, _) = choose_token(None), choose_token(None)
    assert is_new
    assert first != second
    assert len(first) >= 32
    assert choose_token(TOKEN) == (TOKEN, False)


@pytest.mark.parametrize("token", ["", "short", "with spaces in between it", "größer als nötig ist"])
def test_a_bad_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(InputError, match=TOKEN_VARIABLE) as caught:
        choose_token(token)
    assert not token or token not in str(caught.value)
