"""What our web pages and servers share: they listen on loopback alone, and ask every request for a secret."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InputError


def open_loopback(host: str, port: int) -> socket.socket:
    """A listening socket that only this machine reaches.

    Args:
        port: 0 for a free one.

    Raises:
        InputError: the host is not loopback, or the port is taken.
    """
    if not _is_loopback(host):
        raise InputError(
            f"--host {host!r} is not a loopback address; expected 127.0.0.1, ::1 or localhost. "
            "To reach the server from elsewhere, tunnel to it, such as with `ssh -L`"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(("127.0.0.1" if host == "localhost" else host, port), family=family)
    except OSError as exc:
        raise InputError(f"cannot listen on {host}:{port} ({exc.strerror}); give another --port, 0 for any") from exc


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def loopback_hosts(host: str, port: int) -> list[str]:
    """Host headers that name us; the last one is as the user named us."""
    names = ["127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host]
    return [f"{name}:{port}" for name in names]


@dataclass(frozen=True, slots=True)
class BrowserGuard:
    """ASGI middleware of a page for one person's browser: our Host and Origin alone, and the token.

    The token comes as `?token=` in the address that the person opens, then as a cookie that scripts cannot read and
    other sites' requests do not carry; a program may bring it as a bearer.
    """

    app: ASGIApp
    token: str = field(repr=False)
    hosts: frozenset[str]
    cookie: str
    """Its name. Browsers share cookies among ports, so two servers need two names."""
    headers: Mapping[str, str]
    """Of every answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        refusal = self._refusal(request)
        is_new = refusal is None and "token" in request.query_params

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self.headers)
                if is_new:
                    headers.append("set-cookie", f"{self.cookie}={self._pass}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        await (refusal or self.app)(scope, receive, send_guarded)

    def _refusal(self, request: HTTPConnection) -> PlainTextResponse | None:
        headers = request.headers
        if headers.get("host", "") not in self.hosts:
            return PlainTextResponse("this server answers to its loopback address alone\n", 421)
        origin = headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self.hosts:
            return PlainTextResponse("other sites may not ask this server\n", 403)
        tokens = (headers.get("authorization", "").removeprefix("Bearer "), request.query_params.get("token", ""))
        has_pass = _equal(request.cookies.get(self.cookie, ""), self._pass)
        if not has_pass and not any(self._is_ours(token) for token in tokens):
            return PlainTextResponse("open the address that the terminal shows: it holds the token\n", 401)
        return None

    @property
    def _pass(self) -> str:
        """What the cookie holds: fit for a cookie whatever the token, and not the token itself."""
        return hashlib.sha256(self.token.encode()).hexdigest()

    def _is_ours(self, token: str) -> bool:
        return _equal(token, self.token)


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
