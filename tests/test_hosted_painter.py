"""The hosted painter against a scripted images server on loopback."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import traceback
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from chat_server import ChatServer, Reply, fails, serve_script
from PIL import Image
from pydantic import ValidationError

from maskwright.configs.hosted import HostedSettings
from maskwright.errors import (
    MaskwrightError,
    ModelAccessError,
    ModelOutageError,
    ModelRequestError,
    PromptError,
    RecipeError,
)
from maskwright.tools.painting.hosted import HostedPainter
from maskwright.tools.protocols import PaintRequest

HEIGHT, WIDTH = 48, 64
SECRET = "sk-very-secret"
PRICE = 0.04
REFUSAL = {"message": "Your request was rejected by the safety system.", "code": "moderation_blocked"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL", "MY_KEY"):
        monkeypatch.delenv(name, raising=False)


def _picture(seed: int = 0, mode: str = "RGBA") -> npt.NDArray[np.uint8]:
    channels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, len(mode))).astype(np.uint8)
    return channels if channels.shape[2] > 1 else channels[..., 0]


def _encode(pixels: npt.NDArray[np.uint8], image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format, **({"lossless": True} if image_format == "WEBP" else {}))
    return file.getvalue()


def _sends(content: bytes, **fields: str) -> Reply:
    return _answers({"created": 1, "data": [{"b64_json": base64.b64encode(content).decode()} | fields]})


def _answers(content: object) -> Reply:
    return Reply(200, json.dumps(content))


def _refuses(status: int, error: dict[str, str]) -> Reply:
    return Reply(status, json.dumps({"error": error}))


def _refuses_field(field: str) -> Reply:
    return _refuses(400, {"message": f"Unknown parameter: '{field}'.", "code": "unknown_parameter", "param": field})


GOOD = _sends(_encode(_picture()))


def _painter(server: ChatServer, **settings: Any) -> HostedPainter:
    defaults = {"model": "painter-1", "max_retries": 1, "timeout_s": 10, "concurrency": 1, "usd_per_image": PRICE}
    return HostedPainter(HostedSettings(**(defaults | {"base_url": server.base_url} | settings)))


def _request(prompt: str = "a red Mutter ü", seed: int = 7) -> PaintRequest:
    return PaintRequest(item_id="item-1", seed=seed, category="Mutter ü", prompt=prompt, strength=0.5)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(_encode(_picture()), _picture(), id="png-with-alpha"),
        pytest.param(_encode(_picture(), "WEBP"), _picture(), id="webp-with-alpha"),
        pytest.param(_encode(_picture(mode="RGB")), _picture(mode="RGB"), id="opaque"),
        pytest.param(_encode(_picture(mode="L")), np.stack([_picture(mode="L")] * 3, axis=-1), id="grey"),
    ],
)
def test_a_picture_comes_back_with_its_alpha_and_price(content: bytes, expected: npt.NDArray[np.uint8]) -> None:
    with serve_script(_sends(content, revised_prompt="a redder Mutter")) as server:
        [painted] = _painter(server).paint([_request()])
    assert painted.rgba.shape == (HEIGHT, WIDTH, 4)
    if content[:4] == b"RIFF":  # WebP keeps no colour where nothing is seen
        seen = expected[..., 3] > 0
        np.testing.assert_array_equal(painted.rgba[seen], expected[seen])
    else:
        np.testing.assert_array_equal(painted.rgba[..., : expected.shape[2]], expected)
    assert expected.shape[2] == 4 or (painted.rgba[..., 3] == 255).all()
    assert (painted.usd, painted.flaw) == (PRICE, "")
    assert painted.parameters == {"model": "painter-1", "size": "1024x1024", "revised_prompt": "a redder Mutter"}


def test_a_request_holds_what_the_settings_say() -> None:
    settings: dict[str, Any] = {"size": "64x48", "quality": "low", "send_seed": True, "extra": {"steps": 4}}
    with serve_script(GOOD) as server:
        _painter(server, **settings).paint([_request()])
    assert server.requests == [
        {
            "model": "painter-1",
            "prompt": "a red Mutter ü",
            "n": 1,
            "size": "64x48",
            "quality": "low",
            "background": "transparent",
            "response_format": "b64_json",
            "output_format": "png",
            "seed": 7,
            "steps": 4,
        }
    ]


def test_fields_that_a_server_refuses_by_name_are_left_out_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    no_alpha = _refuses(400, {"message": "Transparent background is not supported for this model."})
    with serve_script(_refuses_field("response_format"), no_alpha, GOOD) as server:
        painter = _painter(server)
        [painted] = painter.paint([_request()])
        painter.paint([_request(seed=8)])
    assert painted.flaw == ""
    left = [{"response_format", "output_format", "background"} & set(request) for request in server.requests]
    assert left[0] == {"response_format", "output_format", "background"}
    assert left[1] == {"output_format", "background"}
    assert left[2] == left[3] == {"output_format"}
    assert [message.split("does not take")[1] for message in caplog.messages if "does not take" in message] == [
        " `response_format`; it is asked without",
        " `background`; it is asked without",
    ]


@pytest.mark.parametrize(
    ("reply", "usd", "flaw"),
    [
        pytest.param(_refuses(400, REFUSAL), 0, "not painted: .*safety system", id="moderation"),
        pytest.param(
            _refuses(400, {"message": "no", "code": "content_policy_violation"}), 0, "not painted", id="policy"
        ),
        pytest.param(_refuses(403, {"message": "no", "code": "contentFilter"}), 0, "not painted", id="filter-403"),
        pytest.param(_answers({"created": 1, "data": []}), 0, "withheld", id="no-picture"),
        pytest.param(_sends(_encode(_picture())[:-200]), PRICE, "cannot be decoded", id="truncated"),
        pytest.param(_sends(b"GIF89a"), PRICE, "cannot be decoded", id="no-png"),
        pytest.param(_answers({"data": [{"b64_json": "?!"}]}), PRICE, "cannot be decoded", id="no-base64"),
    ],
)
def test_what_is_no_picture_comes_back_with_its_flaw(reply: Reply, usd: float, flaw: str) -> None:
    with serve_script(reply, GOOD) as server:
        bad, good = _painter(server).paint([_request(seed=1), _request(seed=2)])
    assert len(server.requests) == 2, "a refusal is not asked again"
    assert re.search(flaw, bad.flaw)
    assert good.flaw == ""
    assert bad.usd == usd
    assert bad.rgba.dtype == np.uint8
    assert (bad.rgba[..., 3] == 255).all()
    np.testing.assert_array_equal(good.rgba, _picture())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_outage_that_passes_is_not_noticed(status: int) -> None:
    with serve_script(fails(status), GOOD) as server:
        [painted] = _painter(server).paint([_request()])
    assert painted.flaw == ""
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        pytest.param(fails(429), ModelOutageError, "'painter-1' at http://127.* gives no answer", id="rate-limit"),
        pytest.param(fails(503), ModelOutageError, "gives no answer", id="down"),
        pytest.param(Reply(delay_s=3), ModelOutageError, "timed out", id="slow"),
        pytest.param(fails(401, f"bad key {SECRET}"), ModelAccessError, "refuses the key", id="wrong-key"),
        pytest.param(fails(404, "no such model"), ModelAccessError, "not known there", id="unknown-model"),
        pytest.param(fails(400, "size is wrong"), ModelRequestError, "size is wrong", id="bad-request"),
        pytest.param(Reply(200, "<html>log in</html>", "text/html"), ModelOutageError, "no pictures", id="web-page"),
        pytest.param(Reply(200, '{"data": [{"b64'), ModelOutageError, "no pictures", id="half-an-answer"),
        pytest.param(_answers({"ok": True}), ModelOutageError, "has no `data`", id="other-json"),
        pytest.param(_answers({"data": ["x"]}), ModelOutageError, "has no `data`", id="odd-data"),
        pytest.param(_answers([1]), ModelOutageError, "no pictures", id="a-list"),
        pytest.param(
            _answers({"data": [{"url": "http://127.0.0.1:9/x.png"}]}), ModelRequestError, "not followed", id="address"
        ),
    ],
)
def test_a_failure_says_whether_to_wait_or_to_change_something(
    reply: Reply,
    error: type[MaskwrightError],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    with serve_script(reply) as server:
        painter = _painter(server, max_retries=0, timeout_s=1, api_key_env="MY_KEY")
        with pytest.raises(error, match=message) as caught:
            painter.paint([_request()])
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(vars(painter))
    assert SECRET not in shown


def test_pictures_come_in_the_order_of_their_requests_whichever_is_first() -> None:
    def paint(body: dict[str, Any]) -> Reply:
        number = int(body["prompt"])
        return Reply(200, _sends(_encode(_picture(number))).body, delay_s=0.02 * (6 - number))

    with serve_script(paint) as server:
        painted = _painter(server, concurrency=6).paint([_request(str(number)) for number in range(6)])
    for number, one in enumerate(painted):
        np.testing.assert_array_equal(one.rgba, _picture(number))


def test_what_was_paid_before_an_error_is_not_paid_again() -> None:
    with serve_script(GOOD, fails(503), GOOD) as server:
        painter = _painter(server, max_retries=0)
        requests = [_request(seed=seed) for seed in range(3)]
        with pytest.raises(ModelOutageError):
            painter.paint(requests)
        painted = painter.paint(requests)
        assert len(server.requests) == 4, "three pictures and one failure"
        assert sum(one.usd for one in painted) == pytest.approx(3 * PRICE)
        painter.paint(requests[:1])
        assert len(server.requests) == 5, "what was handed over is not kept"


def test_equal_requests_of_one_batch_are_paid_once() -> None:
    with serve_script(GOOD) as server:
        first, second = _painter(server).paint([_request(), _request()])
    assert len(server.requests) == 1
    np.testing.assert_array_equal(first.rgba, second.rgba)


def test_an_empty_prompt_is_not_sent() -> None:
    with serve_script(GOOD) as server, pytest.raises(PromptError, match="'item-1': the prompt is empty"):
        _painter(server).paint([_request(" ")])
    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        pytest.param({}, ModelAccessError, "'OPENAI_API_KEY' is not set", id="no-key"),
        pytest.param({"base_url": "h/v1"}, RecipeError, "not a web address", id="no-address"),
        pytest.param({"base_url": f"http://u:{SECRET}@h/v1"}, RecipeError, "password", id="password"),
        pytest.param({"api_key_env": "MY_KEY"}, ModelAccessError, "'MY_KEY' is not set", id="no-own-key"),
        pytest.param({"size": "10 x 10"}, ValidationError, "size", id="size"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_spent(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        HostedPainter(HostedSettings(model="m", **settings))
    assert SECRET not in str(caught.value)


def test_words_are_counted_and_every_class_is_known() -> None:
    with serve_script(GOOD) as server:
        painter = _painter(server)
    assert painter.count_tokens("a red  nut,\nisolated") == 4
    assert painter.max_tokens is None
    assert painter.knows("Mutter ü")
    assert (painter.name, painter.revision) == ("hosted", "painter-1")
