"""Our tools as an MCP server: over stdio, or over streamable HTTP on loopback behind a bearer token."""

from __future__ import annotations

import hmac
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOWrapper
from uuid import uuid4

import anyio
import uvicorn
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_mcp_adapters.tools import to_fastmcp
from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ToolError
from mcp.server.fastmcp.tools import Tool
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import create_model
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import InputError
from .loopback import loopback_hosts, open_loopback

INSTRUCTIONS = "Tools that make, mask, judge and compose labelled pictures. Paths are below the server's root folder."
TOKEN_VARIABLE = "MASKWRIGHT_MCP_TOKEN"
MIN_TOKEN_CHARACTERS = 16


def serve_stdio(build_tools: Callable[[], Iterable[BaseTool]]) -> None:
    """Serve until the client closes our standard input.

    Standard output carries the protocol alone: what libraries and their child processes print goes to standard error.

    Args:
        build_tools: makes the tools, with Pydantic schemas and without injected arguments; it may print, too.
    """
    with _private_stdio() as (stdin, stdout):
        anyio.run(_run_stdio, build_server(build_tools()), stdin, stdout)


def serve_http(
    tools: Iterable[BaseTool], *, host: str, port: int, token: str, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until interrupted.

    Args:
        tools: with Pydantic schemas and without injected arguments.
        host: a loopback address.
        port: 0 for a free one.
        token: what every request must bring as `Authorization: Bearer TOKEN`; it is not logged.
        on_ready: called with the server's address once the port is ours.

    Raises:
        InputError: the host is not loopback, or the port is taken.
    """
    with open_loopback(host, port) as listener:
        hosts = loopback_hosts(host, listener.getsockname()[1])
        security = TransportSecuritySettings(
            allowed_hosts=hosts, allowed_origins=[f"http://{address}" for address in hosts]
        )
        app = RequireToken(build_server(tools, security).streamable_http_app(), token)
        # uvicorn's default log goes to standard error; its access log would tell of every call.
        config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on", timeout_graceful_shutdown=5)
        on_ready(f"http://{hosts[-1]}/mcp")
        with suppress(KeyboardInterrupt):  # which uvicorn raises again when it has shut down
            uvicorn.Server(config).run(sockets=[listener])


def choose_token(given: str | None) -> tuple[str, bool]:
    """The token to ask for, and whether it was made now.

    Args:
        given: the user's own; None makes one of 256 random bits.

    Raises:
        InputError: the given one is short, or holds what an HTTP header cannot.
    """
    if given is None:
        return secrets.token_urlsafe(32), True
    if len(given) < MIN_TOKEN_CHARACTERS or not all("!" <= character <= "~" for character in given):
        raise InputError(  # without the value: it is a secret
            f"the token in {TOKEN_VARIABLE} has {len(given)} characters; expected at least {MIN_TOKEN_CHARACTERS} of "
            "printable ASCII without spaces. Unset it, and one is made"
        )
    return given, False


def build_server(tools: Iterable[BaseTool], security: TransportSecuritySettings | None = None) -> FastMCP:
    """The server of some LangChain tools, on no transport yet.

    Args:
        security: Host and Origin headers that are let through, over HTTP.

    Raises:
        TypeError: a tool's schema is no Pydantic model.
    """
    return FastMCP(
        "maskwright",
        instructions=INSTRUCTIONS,
        tools=[to_mcp_tool(tool) for tool in tools],
        transport_security=security,
        log_level="WARNING",
    )


def to_mcp_tool(tool: BaseTool) -> Tool:
    """A LangChain tool as a tool of MCP: its errors are marked as errors, and unknown arguments are refused."""
    converted = to_fastmcp(tool)

    async def call(**arguments: object) -> str:
        # As a call with an id: only then the answer says whether it is an error. LangChain runs it in a thread.
        call_id = uuid4().hex
        answer = await tool.ainvoke({"type": "tool_call", "id": call_id, "name": tool.name, "args": arguments})
        if not isinstance(answer, ToolMessage):
            return str(answer)
        if answer.status == "error":
            raise ToolError(answer.text)
        return answer.text

    known = converted.fn_metadata.arg_model
    strict = create_model(known.__name__, __base__=known, __cls_kwargs__={"extra": "forbid"})
    metadata = converted.fn_metadata.model_copy(update={"arg_model": strict})
    return converted.model_copy(update={"fn": call, "fn_metadata": metadata})


@dataclass(frozen=True, slots=True)
class RequireToken:
    """ASGI middleware: whoever does not bring the bearer token gets 401."""

    app: ASGIApp
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            brought = Headers(scope=scope).get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(brought, f"Bearer {self.token}".encode()):
                refusal = PlainTextResponse(
                    "expected Authorization: Bearer TOKEN\n", 401, {"WWW-Authenticate": "Bearer"}
                )
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _run_stdio(server: FastMCP, stdin: TextIOWrapper, stdout: TextIOWrapper) -> None:
    low_level = server._mcp_server  # run_stdio_async() knows only sys.stdin and sys.stdout
    async with stdio_server(anyio.wrap_file(stdin), anyio.wrap_file(stdout)) as (incoming, outgoing):
        await low_level.run(incoming, outgoing, low_level.create_initialization_options())


@contextmanager
def _private_stdio() -> Iterator[tuple[TextIOWrapper, TextIOWrapper]]:
    """Standard input and output for us alone; meanwhile everybody else reads nothing and prints to standard error."""
    sys.stdout.flush()
    kept_input, kept_output = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        with (
            open(kept_input, encoding="utf-8", errors="replace", closefd=False) as stdin,
            open(kept_output, "w", encoding="utf-8", newline="\n", closefd=False) as stdout,
        ):
            yield stdin, stdout
    finally:
        sys.stdout.flush()
        os.dup2(kept_input, 0)
        os.dup2(kept_output, 1)
        os.close(kept_input)
        os.close(kept_output)
