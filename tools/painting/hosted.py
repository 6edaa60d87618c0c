"""The hosted painter: any images API that speaks OpenAI's protocol, one picture a request, its cost counted.

The server draws its own noise: unlike every other painter's, its pictures do not come again from the same seed.
"""

from __future__ import annotations

import base64
import io
import logging
import struct
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import numpy as np
import openai
from openai.types import Image as ImageReply
from openai.types import ImagesResponse
from PIL import Image

from ...configs.hosted import HostedSettings, Json
from ...data.images import MAX_IMAGE_PIXELS
from ...data.records import ImageRGBA
from ...errors import ModelOutageError, ModelRequestError, PromptError
from ...models.endpoints import resolve_endpoint
from ...models.failures import FAILURES, explain, explain_refusal, raise_unless_served
from ..protocols import Painted, PaintRequest

FORMATS = ("PNG", "WEBP", "JPEG")
"""Of pictures that are read, as Pillow names them."""

FLAWED_SIDE_PX = 64
"""Of the grey square that stands for a picture that is none."""

POLICY_CODES = frozenset({"content_policy_violation", "moderation_blocked", "content_filter", "contentfilter"})
POLICY_WORDS = ("safety system", "content policy")
"""By these codes or words of an error servers say that they do not paint such a thing."""

_UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_log = logging.getLogger(__name__)


class HostedPainter:
    """Asks a server for pictures, several at once.

    Servers differ in the fields that they know. Those that only help are sent until the server refuses one by name;
    from then on it is left out.

    Raises:
        RecipeError: `base_url` is no address, or holds a password.
        ModelAccessError: the key's environment variable is not set.
    """

    name = "hosted"
    max_tokens: int | None = None

    def __init__(self, settings: HostedSettings) -> None:
        endpoint = resolve_endpoint(settings.base_url, settings.api_key_env)
        self._settings = settings
        self._who = f"images model {settings.model!r}" + (f" at {endpoint.base_url}" if endpoint.base_url else "")
        self._client = openai.OpenAI(
            api_key=endpoint.key.get_secret_value(),
            base_url=endpoint.base_url,
            timeout=settings.timeout_s,
            max_retries=settings.max_retries,
        )
        self._helpful: dict[str, Json] = {"response_format": "b64_json", "output_format": "png"}
        if settings.background is not None:
            self._helpful["background"] = settings.background
        self._kept: dict[tuple[str, int, str], Painted] = {}
        self._lock = threading.Lock()

    @property
    def revision(self) -> str:
        """The model's name: servers do not tell more."""
        return self._settings.model

    def count_tokens(self, prompt: str) -> int:
        """Words; the server's own tokens cannot be known."""
        return len(prompt.split())

    def knows(self, category: str) -> bool:  # noqa: ARG002
        return True

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """One picture a request. What a server will not paint, or sends damaged, comes back with its flaw.

        What was painted before an error is kept, so that asking again pays only for what is missing.

        Raises:
            PromptError: a prompt is empty.
            ModelOutageError: the server cannot be reached, is overloaded, or answers something else.
            ModelAccessError: it refuses the key, or does not know the model.
            ModelRequestError: it refuses a field of the request.
        """
        missing = {_key(request): request for request in requests if _key(request) not in self._kept}
        self._paint_and_keep(list(missing.values()))
        painted = [self._kept[_key(request)] for request in requests]
        for request in requests:
            self._kept.pop(_key(request), None)
        return painted

    def _paint_and_keep(self, requests: Sequence[PaintRequest]) -> None:
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            futures = {pool.submit(self._paint_one, request): request for request in requests}
            wait(futures, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        ended = {future: request for future, request in futures.items() if not future.cancelled()}
        self._kept |= {_key(request): future.result() for future, request in ended.items() if not future.exception()}
        for future in ended:
            future.result()

    def _paint_one(self, request: PaintRequest) -> Painted:
        if not request.prompt.strip():
            raise PromptError(f"item {request.item_id!r}: the prompt is empty; the hosted painter needs words")
        # A failure comes as a value, so that no traceback holds a refused key: some servers repeat it.
        reply = self._ask(request)
        if isinstance(reply, ImagesResponse):
            return self._read(reply)
        if _is_policy(reply):
            return _flawed(f"not painted: {explain(reply)}", self._parameters(), usd=0.0)
        raise_unless_served(self._who, reply)
        raise explain_refusal(self._who, reply)

    def _ask(self, request: PaintRequest) -> ImagesResponse | Exception:
        """The server's answer, or the failure by which it gave none."""
        while True:
            helpful = dict(self._helpful)
            reply = self._send(request.prompt, helpful | self._fields(request))
            if isinstance(reply, ImagesResponse) or _is_policy(reply):
                return reply
            refused = [field for field in helpful if _is_about(reply, field)]
            if not refused:
                return reply
            self._leave_out(refused)

    def _send(self, prompt: str, fields: dict[str, Json]) -> ImagesResponse | Exception:
        try:
            reply: object = self._client.images.generate(
                model=self._settings.model, prompt=prompt, n=1, extra_body=fields
            )
        except FAILURES as exc:
            return exc
        except ValueError as exc:
            raise self._garbage(explain(exc)) from exc
        if not isinstance(reply, ImagesResponse):
            raise self._garbage("the answer is no JSON object")
        return reply

    def _fields(self, request: PaintRequest) -> dict[str, Json]:
        settings = self._settings
        fields: dict[str, Json] = {"size": settings.size}
        if settings.quality is not None:
            fields["quality"] = settings.quality
        if settings.send_seed:
            fields["seed"] = request.seed
        return fields | settings.extra

    def _leave_out(self, fields: Sequence[str]) -> None:
        with self._lock:
            for field in fields:
                if self._helpful.pop(field, None) is not None:
                    _log.warning("%s does not take `%s`; it is asked without", self._who, field)

    def _garbage(self, what: str) -> ModelOutageError:
        return ModelOutageError(f"{self._who} sends no pictures: {what}. Check `base_url`, or try again later.")

    def _read(self, reply: ImagesResponse) -> Painted:
        """The first picture of an answer. No address is followed: only what is in the answer itself is read."""
        if reply.data == []:
            return _flawed("the server withheld the picture", self._parameters(), usd=0.0)
        image = reply.data[0] if isinstance(reply.data, list) else None
        if not isinstance(image, ImageReply):
            raise self._garbage("the answer has no `data`")
        if not isinstance(image.b64_json, str):
            raise ModelRequestError(
                f"{self._who} sends an address instead of a picture, and addresses are not followed. "
                "Say in `extra` how it sends base64."
            )
        parameters = self._parameters() | ({"revised_prompt": image.revised_prompt} if image.revised_prompt else {})
        try:
            return Painted(_decode(image.b64_json), parameters, usd=self._settings.usd_per_image)
        except _UNDECODABLE as exc:
            return _flawed(f"the picture cannot be decoded: {explain(exc)}", parameters, self._settings.usd_per_image)

    def _parameters(self) -> dict[str, float | str]:
        fields = {"model": self._settings.model, "size": self._settings.size, "quality": self._settings.quality}
        return {name: value for name, value in fields.items() if value is not None}


def _key(request: PaintRequest) -> tuple[str, int, str]:
    return request.item_id, request.seed, request.prompt


def _is_policy(exc: Exception) -> bool:
    code = str(getattr(exc, "code", None) or "").lower()
    return code in POLICY_CODES or (_status(exc) == 400 and any(word in str(exc).lower() for word in POLICY_WORDS))


def _is_about(exc: Exception, field: str) -> bool:
    """Whether a server refuses a request because of one field of it."""
    return _status(exc) in (400, 422) and (getattr(exc, "param", None) == field or field in str(exc).lower())


def _status(exc: Exception) -> int | None:
    return exc.status_code if isinstance(exc, openai.APIStatusError) else None


def _decode(encoded: str) -> ImageRGBA:
    with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=FORMATS) as image:
        if image.width * image.height > MAX_IMAGE_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        return np.array(image.convert("RGBA"))


def _flawed(flaw: str, parameters: dict[str, float | str], usd: float) -> Painted:
    grey = np.full((FLAWED_SIDE_PX, FLAWED_SIDE_PX, 4), 128, dtype=np.uint8)
    grey[..., 3] = 255
    return Painted(grey, parameters, usd=usd, flaw=flaw)
