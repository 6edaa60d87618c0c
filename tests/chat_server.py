"""A scripted OpenAI-compatible server on loopback that records what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    status: int = 200
    body: str = ""
    content_type: str = "application/json"
    delay_s: float = 0
    retry_after_s: float = 0


@dataclass(slots=True)
class ChatServer:
    """What a test sees of the server."""

    base_url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies, in order."""
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def forms(self) -> list[str]:
        """How each request asked: json_schema, tool_calling or plain."""
        return [
            "json_schema" if "response_format" in body else "tool_calling" if "tools" in body else "plain"
            for body in self.requests
        ]


def says(content: str | None, *, finish_reason: str = "stop", refusal: str | None = None) -> Reply:
    return _completion({"role": "assistant", "content": content, "refusal": refusal}, finish_reason)


def calls(name: str, arguments: str) -> Reply:
    call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
    return _completion({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


def fails(status: int, message: str = "no") -> Reply:
    return Reply(status, json.dumps({"error": {"message": message, "type": "error", "code": None}}))


def _completion(message: dict[str, object], finish_reason: str) -> Reply:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return Reply(200, json.dumps(body))


@contextmanager
def serve_script(*replies: Reply | Callable[[dict[str, Any]], Reply]) -> Iterator[ChatServer]:
    """Answer with `replies`, or what they make of the request, in order, the last one again and again."""
    remaining = list(replies)
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            if not isinstance(reply, Reply):
                reply = reply(server.requests[-1])
            stopped.wait(reply.delay_s)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("retry-after-ms", str(int(1000 * reply.retry_after_s) or 1))
            self.end_headers()
            with suppress(BrokenPipeError):  # a client that timed out is gone
                self.wfile.write(reply.body.encode())

        log_message: Callable[..., None] = lambda *_: None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = ChatServer(f"http://127.0.0.1:{http.server_address[1]}/v1")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stopped.set()
            http.shutdown()
            thread.join()
