"""The review page: a person keeps or rejects the images of a run that wait for them, in a browser on this machine."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import quote

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..errors import ImageDecodeError, MaskwrightError
from ..memory.reviews import ReviewTakenError
from .loopback import BrowserGuard, loopback_hosts, open_loopback
from .review_pictures import VIEWS, View, draw_view
from .review_queue import Held, ReviewQueue

PAGE = Path(__file__).parent / "review_page"
MAX_PAGE = 50
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSummary:
    """What became of the images that waited when the review began.

    Attributes:
        by: number of verdicts by reviewer, also of those who decided elsewhere meanwhile.
    """

    kept: int
    rejected: int
    waiting: int
    by: dict[str, int]


def serve_review(
    run_folder: Path,
    *,
    host: str,
    port: int,
    token: str,
    reviewer: str,
    on_ready: Callable[[str], None] = lambda _: None,
) -> ReviewSummary:
    """Serve the page until interrupted. Verdicts go to RUN/reviews, one by one; the items stay as they are.

    Args:
        run_folder: of a run, which may still be running.
        host: a loopback address.
        port: 0 for a free one.
        token: the secret in the page's address; it is not logged.
        reviewer: who is sitting there; people who review one run at once need different names.
        on_ready: called with the address to open, token included, once the port is ours.

    Raises:
        InputError: the folder holds no run, the host is not loopback, or the port is taken.
        BrokenRunError: an entry of the ledger is damaged.
    """
    queue = ReviewQueue(run_folder, reviewer)
    with open_loopback(host, port) as listener:
        hosts = loopback_hosts(host, listener.getsockname()[1])
        app = build_review_app(queue, run_folder=run_folder, token=token, hosts=hosts)
        on_ready(f"http://{hosts[-1]}/?token={quote(token, safe='')}")
        run_until_interrupted(app, listener)
    queue.refresh(at_once=True)
    progress = queue.progress()
    return ReviewSummary(
        kept=progress["kept"],
        rejected=progress["decided"] - progress["kept"],
        waiting=progress["total"] - progress["decided"],
        by=progress["by"],
    )


def run_until_interrupted(app: Starlette, listener: socket.socket) -> None:
    """Serve an app; Ctrl-C lets requests in flight end."""
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off", timeout_graceful_shutdown=5)
    with suppress(KeyboardInterrupt):  # which uvicorn raises again when it has shut down
        uvicorn.Server(config).run(sockets=[listener])


def build_review_app(queue: ReviewQueue, *, run_folder: Path, token: str, hosts: Collection[str]) -> Starlette:
    """The page and what it asks for.

    Args:
        run_folder: named on the page, in the command to go on with.
        token: what a browser must bring.
        hosts: Host headers, `name:port`, that are answered.
    """
    desk = _Desk(queue, run_folder)
    port = next(iter(hosts)).rpartition(":")[2]
    guard = Middleware(
        BrowserGuard,
        token=token,
        hosts=frozenset(hosts),
        cookie=f"maskwright_review_{port}",
        headers=SECURITY_HEADERS,
    )
    files = {"/": "index.html", **{f"/{name}": name for name in ("review.css", "review.js", "icon.svg")}}
    return Starlette(
        routes=[
            *(Route(path, partial(_send_file, PAGE / name)) for path, name in files.items()),
            Route("/api/queue", desk.queue_page),
            Route("/api/picture/{entry_id}/{view}", desk.picture),
            Route("/api/decide", desk.decide, methods=["POST"]),
            Route("/api/undo", desk.undo, methods=["POST"]),
            Route("/api/progress", desk.progress),
        ],
        middleware=[guard],
        exception_handlers={ReviewTakenError: _say_taken, MaskwrightError: _say_error, HTTPException: _say_http},
    )


@dataclass(frozen=True, slots=True)
class _Desk:
    """The page's questions; each that touches the disk is answered in a thread."""

    queue: ReviewQueue
    run_folder: Path

    def queue_page(self, request: Request) -> Response:
        after, limit = (_whole_number(request, name, default) for name, default in (("after", -1), ("limit", 8)))
        return _json(
            {
                "entries": self.queue.page(max(-1, after), min(max(1, limit), MAX_PAGE)),
                "progress": self.queue.progress(),
                "reviewer": self.queue.reviewer,
                "command": f"maskwright {self.queue.command} … --out {shlex.quote(str(self.run_folder))}",
            }
        )

    def picture(self, request: Request) -> Response:
        view = request.path_params["view"]
        if view not in VIEWS:
            raise HTTPException(404, f"no view {view!r}; expected {', '.join(VIEWS)}")
        result, attempt = self.queue.read(self._find(request.path_params["entry_id"]))
        return Response(draw_view(cast("View", view), result, attempt, self.queue.artifacts), media_type="image/png")

    async def decide(self, request: Request) -> Response:
        try:
            asked = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            asked = None
        match asked:
            case {"id": str(entry_id), "keep": bool(keep)}:
                told = await run_in_threadpool(self.queue.decide, self._find(entry_id), keep)
            case _:
                raise HTTPException(400, 'expected {"id": TEXT, "keep": true or false}')
        return _json({"told": told, "progress": await run_in_threadpool(self.queue.progress)})

    def undo(self, request: Request) -> Response:
        del request
        held = self.queue.undo()
        entry = self.queue.entry(held) if held else None
        return _json({"entry": entry, "progress": self.queue.progress()})

    def progress(self, request: Request) -> Response:
        del request
        return _json(self.queue.progress())

    def _find(self, entry_id: str) -> Held:
        held = self.queue.find(entry_id)
        if held is None:
            raise HTTPException(404, f"no image {entry_id!r} waited when the review began")
        return held


def _send_file(path: Path, request: Request) -> Response:
    del request
    return FileResponse(path)


def _whole_number(request: Request, name: str, default: int) -> int:
    value = request.query_params.get(name, str(default))
    try:
        return int(value)
    except ValueError as exc:
        raise HTTPException(400, f"{name} is {value!r}; expected a whole number") from exc


def _json(content: object, status: int = 200) -> Response:
    # Measures may hold NaN, which Starlette's own JSON refuses; orjson writes null.
    return Response(orjson.dumps(content), status, media_type="application/json")


def _say_taken(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ReviewTakenError)
    del request
    return _json({"error": str(exc), "by": exc.review["reviewer"], "keep": exc.review["keep"]}, 409)


def _say_error(request: Request, exc: Exception) -> Response:
    del request
    return JSONResponse({"error": str(exc)}, 404 if isinstance(exc, ImageDecodeError) else 500)


def _say_http(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    del request
    return JSONResponse({"error": exc.detail}, exc.status_code)
