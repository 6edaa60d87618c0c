"""The hosted painter of defects against a scripted image edit server on loopback."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from chat_server import Reply, fails
from PIL import Image

from maskwright.configs.anomaly import HostedEditSettings
from maskwright.data.records import ImageRGB, MaskHW
from maskwright.errors import (
    MaskwrightError,
    ModelAccessError,
    ModelOutageError,
    ModelRequestError,
    PromptError,
)
from maskwright.tools.defects import DefectPainter, DefectPlan, EditRequest
from maskwright.tools.painting.defect_hosted import HostedDefectPainter, fit_frame
from maskwright.tools.painting.plan_region import plan_to_region

HEIGHT, WIDTH, SIDE = 48, 64, 128
SECRET = "sk-very-secret"
PRICE = 0.04
Pixels = npt.NDArray[np.uint8]


@dataclass
class Form:
    """What one request held."""

    path: str
    authorization: str
    fields: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Pixels] = field(default_factory=dict)


Script = Reply | Callable[[Form], Reply]


@dataclass
class EditServer:
    base_url: str
    forms: list[Form] = field(default_factory=list)


@contextmanager
def _serve(*script: Script) -> Iterator[EditServer]:
    """Answer multipart forms by the script, the last of it again and again."""
    remaining = list(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = _read_form(self)
            server.forms.append(form)
            reply = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            reply = reply if isinstance(reply, Reply) else reply(form)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(reply.body.encode())

        log_message: Callable[..., None] = lambda *_: None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = EditServer(f"http://127.0.0.1:{http.server_address[1]}/v1")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _read_form(handler: BaseHTTPRequestHandler) -> Form:
    body = handler.rfile.read(int(handler.headers["Content-Length"]))
    head = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    form = Form(handler.path, handler.headers["Authorization"])
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        content, name = part.get_payload(decode=True), str(part.get_param("name", header="content-disposition"))
        assert isinstance(content, bytes)
        if part.get_filename():
            form.pictures[name] = np.array(Image.open(io.BytesIO(content)))
        else:
            form.fields[name] = content.decode()
    return form


def _sends(pixels: Pixels) -> Reply:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return _answers({"created": 1, "data": [{"b64_json": base64.b64encode(file.getvalue()).decode()}]})


def _answers(content: object) -> Reply:
    return Reply(200, json.dumps(content))


def _refuses(status: int, **error: str) -> Reply:
    return Reply(status, json.dumps({"error": error}))


def _spot(pixels: Pixels) -> Pixels:
    """A dark spot in the middle."""
    painted = pixels.copy()
    height, width = painted.shape[:2]
    painted[height * 7 // 16 : height * 9 // 16, width * 7 // 16 : width * 9 // 16, :3] = (40, 10, 10)
    return painted


def _edits(form: Form) -> Reply:
    return _sends(_spot(form.pictures["image"]))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL", "MY_KEY"):
        monkeypatch.delenv(name, raising=False)


def _painter(server: EditServer, **settings: Any) -> HostedDefectPainter:
    defaults: dict[str, Any] = {"model": "editor-1", "max_retries": 1, "timeout_s": 10, "concurrency": 1}
    values = defaults | {"usd_per_image": PRICE, "size": f"{SIDE}x{SIDE}", "base_url": server.base_url} | settings
    return HostedDefectPainter(HostedEditSettings(**values))


def _image(*, is_grey: bool = False) -> ImageRGB:
    noise = np.random.default_rng(0).integers(110, 130, (HEIGHT, WIDTH, 1)).astype(np.uint8)
    return np.repeat(noise, 3, axis=2) + np.array([0, 0, 0] if is_grey else [0, 30, 60], np.uint8)


def _request(seed: int = 7, image: ImageRGB | None = None, **plan: Any) -> EditRequest:
    values: dict[str, Any] = {"defect": "Fleck ü", "family": "stain", "centre_xy": (0.5, 0.5), "size_ratio": 0.2} | plan
    rgb = _image() if image is None else image
    return EditRequest(
        item_id=f"item-{seed}",
        seed=seed,
        plan=DefectPlan(**values),
        image_rgb=rgb,
        foreground_hw=np.ones(rgb.shape[:2], np.bool_),
        prompt="füge einen Fleck hinzu",
    )


def _overlap(first: MaskHW, second: MaskHW) -> float:
    return float((first & second).sum() / (first | second).sum())


def _spot_mask() -> MaskHW:
    """The spot in the frame of the image: the middle of the square around it."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[HEIGHT // 2 - 4 : HEIGHT // 2 + 4, WIDTH // 2 - 4 : WIDTH // 2 + 4] = True
    return mask


@pytest.mark.parametrize("is_grey", [False, True], ids=["colour", "grey"])
def test_an_edit_comes_back_in_the_original_s_frame_with_its_mask(is_grey: bool) -> None:
    request = _request(image=_image(is_grey=is_grey))
    with _serve(_edits) as server:
        painter: DefectPainter = _painter(server)
        [edited] = painter.paint([request])
    assert edited.rgb.shape == (HEIGHT, WIDTH, 3)
    assert edited.mask_hw is not None
    assert _overlap(edited.mask_hw, _spot_mask()) > 0.7
    np.testing.assert_array_equal(edited.rgb[~edited.mask_hw], request.image_rgb[~edited.mask_hw])
    assert edited.rgb[HEIGHT // 2, WIDTH // 2].max() < 60
    assert (edited.rgb.min(axis=2) == edited.rgb.max(axis=2)).all() == is_grey
    assert (edited.usd, edited.flaw) == (PRICE, "")
    assert edited.parameters == {"model": "editor-1", "size": f"{SIDE}x{SIDE}"}
    assert (painter.name, painter.revision) == ("hosted", "editor-1")


def test_the_original_goes_out_with_its_region() -> None:
    request = _request(family="scratch", elongation=4.0)
    with _serve(_edits) as server:
        painter = _painter(server, quality="low", send_seed=True, extra={"input_fidelity": "high"})
        for _ in range(2):
            painter.paint([request])
    first, second = server.forms
    assert first.path == "/v1/images/edits"
    assert first.fields == {
        "model": "editor-1",
        "prompt": request.prompt,
        "n": "1",
        "size": f"{SIDE}x{SIDE}",
        "quality": "low",
        "response_format": "b64_json",
        "output_format": "png",
        "seed": "7",
        "input_fidelity": "high",
    }
    picture, mask = first.pictures["image"], first.pictures["mask"]
    frame = fit_frame((HEIGHT, WIDTH), f"{SIDE}x{SIDE}")
    np.testing.assert_array_equal(picture, frame.pad(request.image_rgb))
    opaque = np.dstack([picture, np.full((SIDE, SIDE), 255, np.uint8)])
    assert np.abs(frame.unpad(opaque)[..., :3].astype(int) - request.image_rgb).mean() < 3, "whole, and unedited"
    region = plan_to_region(request, 0.5).mask_hw
    seen = frame.unpad(mask)
    np.testing.assert_array_equal(seen[..., 3] < 128, region)
    np.testing.assert_array_equal(seen[..., 0] > 127, region)
    np.testing.assert_array_equal(second.pictures["image"], picture)


@pytest.mark.parametrize(
    ("size", "padding", "size_wh"),
    [
        ("100x100", (8, 8, 0, 0), (100, 100)),
        ("auto", (8, 8, 0, 0), (64, 64)),
        ("150x100", (0, 0, 4, 4), (150, 100)),
        ("100x200", (40, 40, 0, 0), (100, 200)),
    ],
)
def test_a_frame_has_the_shape_that_the_server_paints(
    size: str, padding: tuple[int, ...], size_wh: tuple[int, int]
) -> None:
    frame = fit_frame((HEIGHT, WIDTH), size)
    assert (frame.padding, frame.size_wh) == (padding, size_wh)
    assert frame.pad(_image()).shape == (size_wh[1], size_wh[0], 3)


def test_a_move_and_a_shift_of_tones_are_undone() -> None:
    ramp = cv2.GaussianBlur(np.random.default_rng(3).integers(60, 200, (96, 128, 3)).astype(np.uint8), (0, 0), 2)
    request = _request(image=ramp)

    def redraw(form: Form) -> Reply:
        moved = np.roll(_spot(form.pictures["image"]), 4, axis=1)
        return _sends(np.clip(moved.astype(int) + 12, 0, 255).astype(np.uint8))

    with _serve(redraw) as server:
        [edited] = _painter(server, size="512x512").paint([request])
    spot = np.zeros((96, 128), np.bool_)
    spot[40:56, 56:72] = True
    assert edited.flaw == ""
    assert edited.mask_hw is not None
    assert _overlap(edited.mask_hw, spot) > 0.7
    assert np.abs(edited.rgb[spot].astype(int) - (40, 10, 10)).mean() < 8


def test_what_the_server_leaves_transparent_is_the_original() -> None:
    def cut_out(form: Form) -> Reply:
        painted = np.zeros((SIDE, SIDE, 4), np.uint8)
        painted[56:72, 56:72] = (40, 10, 10, 255)
        return _sends(painted)

    with _serve(cut_out) as server:
        [edited] = _painter(server).paint([_request()])
    assert edited.mask_hw is not None
    assert _overlap(edited.mask_hw, _spot_mask()) > 0.7


def _noise(form: Form) -> Reply:
    return _sends(np.random.default_rng(1).integers(0, 256, form.pictures["image"].shape).astype(np.uint8))


@pytest.mark.parametrize(
    ("script", "usd", "flaw"),
    [
        pytest.param(_refuses(400, message="no", code="moderation_blocked"), 0, "not painted", id="refused"),
        pytest.param(_answers({"created": 1, "data": []}), 0, "withheld", id="withheld"),
        pytest.param(_answers({"data": [{"b64_json": "R0lGODlh"}]}), PRICE, "cannot be decoded", id="no-image"),
        pytest.param(_answers({"data": [{"b64_json": "?!"}]}), PRICE, "cannot be decoded", id="no-base64"),
        pytest.param(
            _sends(np.zeros((SIDE, SIDE // 2, 3), np.uint8)), PRICE, "64x128 pixels.*not the shape", id="wrong-shape"
        ),
        pytest.param(lambda form: _sends(form.pictures["image"]), PRICE, "changes nothing", id="no-edit"),
        pytest.param(_noise, PRICE, "whole picture", id="all-painted-anew"),
    ],
)
def test_what_is_no_edit_comes_back_with_its_flaw(script: Script, usd: float, flaw: str) -> None:
    with _serve(script, _edits) as server:
        bad, good = _painter(server).paint([_request(1), _request(2)])
    assert len(server.forms) == 2, "it is not asked again"
    assert re.search(flaw, bad.flaw)
    assert bad.usd == usd
    assert bad.mask_hw is not None
    assert not bad.mask_hw.any()
    assert bad.rgb.shape == (HEIGHT, WIDTH, 3)
    assert good.flaw == ""


def test_another_size_of_the_same_shape_is_scaled_back() -> None:
    with _serve(lambda form: _sends(_spot(cv2.resize(form.pictures["image"], (200, 200))))) as server:
        [edited] = _painter(server).paint([_request()])
    assert edited.flaw == ""
    assert edited.mask_hw is not None
    assert _overlap(edited.mask_hw, _spot_mask()) > 0.7


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_outage_that_passes_is_not_noticed(status: int) -> None:
    with _serve(fails(status), _edits) as server:
        [edited] = _painter(server).paint([_request()])
    assert edited.flaw == ""
    assert len(server.forms) == 2


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        pytest.param(fails(429), ModelOutageError, "'editor-1' at http://127.* gives no answer", id="rate-limit"),
        pytest.param(fails(500), ModelOutageError, "gives no answer", id="down"),
        pytest.param(fails(401, f"bad key {SECRET}"), ModelAccessError, "refuses the key", id="wrong-key"),
        pytest.param(fails(404, "no such model"), ModelAccessError, "not known there", id="unknown-model"),
        pytest.param(fails(400, "size is wrong"), ModelRequestError, "size is wrong", id="bad-request"),
        pytest.param(Reply(200, "<html>log in</html>", "text/html"), ModelOutageError, "no pictures", id="web-page"),
        pytest.param(Reply(200, '{"data": [{"b64'), ModelOutageError, "no pictures", id="half-an-answer"),
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
    with _serve(reply) as server:
        painter = _painter(server, max_retries=0, api_key_env="MY_KEY")
        with pytest.raises(error, match=message) as caught:
            painter.paint([_request()])
    assert server.forms[0].authorization == f"Bearer {SECRET}"
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text + repr(vars(painter))


@pytest.mark.parametrize("sends_mask", [True, False])
def test_a_server_without_masks_is_asked_without(sends_mask: bool, caplog: pytest.LogCaptureFixture) -> None:
    def picky(form: Form) -> Reply:
        refused = _refuses(400, message="Unknown parameter: 'mask'.", param="mask")
        return refused if "mask" in form.pictures else _edits(form)

    with _serve(picky) as server:
        painter = _painter(server, send_mask=sends_mask)
        assert [edited.flaw for edited in painter.paint([_request(1), _request(2)])] == ["", ""]
    sent = [set(form.pictures) for form in server.forms]
    assert sent == [{"image", "mask"}] * sends_mask + [{"image"}] * 2
    assert ("does not take `mask`" in caplog.text) == sends_mask
    assert not any("mask" in form.fields or "image" in form.fields for form in server.forms)


def test_what_was_paid_before_an_error_is_not_paid_again() -> None:
    with _serve(_edits, fails(503), _edits) as server:
        painter, requests = _painter(server, max_retries=0), [_request(seed) for seed in range(3)]
        with pytest.raises(ModelOutageError):
            painter.paint(requests)
        edits = painter.paint(requests)
    assert len(server.forms) == 4, "three pictures and one failure"
    assert sum(edited.usd for edited in edits) == pytest.approx(3 * PRICE)


def test_a_plan_off_the_object_and_an_empty_prompt_are_not_sent() -> None:
    with _serve(_edits) as server:
        painter = _painter(server)
        off, good = painter.paint([_request(1, centre_xy=(0.5, 1.5)), _request(2)])
        nameless = EditRequest(
            item_id="item-3",
            seed=3,
            plan=_request().plan,
            image_rgb=_image(),
            foreground_hw=np.ones((48, 64), np.bool_),
        )
        with pytest.raises(PromptError, match="'item-3': the prompt is empty"):
            painter.paint([_request(4), nameless])
    assert len(server.forms) == 1
    assert "outside the object" in off.flaw
    assert (off.usd, good.flaw) == (0, "")
