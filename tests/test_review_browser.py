"""The review page in a real browser: keys, what stays hidden, reloads, two people at once, both screen sizes."""

from __future__ import annotations

import os
import shlex
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright
from review_helpers import NASTY, ReviewRun, criterion, opinion

from maskwright.serving.loopback import loopback_hosts, open_loopback
from maskwright.serving.review import build_review_app
from maskwright.serving.review_queue import ReviewQueue

TOKEN = "0123456789abcdef-token"
READY = 'body[aria-busy="false"] .stage:not(.loading)'
"""When the page takes a verdict: what is pressed before is not heard."""
SHOTS = os.environ.get("MASKWRIGHT_SHOTS")
"""Folder for screenshots to look at; unset: none are taken."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or the one that `playwright install chromium` brought."""
    with sync_playwright() as playwright:
        own = shutil.which("chromium")
        if own is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium here: install it, or run `playwright install chromium`")
        launched = playwright.chromium.launch(executable_path=own, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def run(tmp_path: Path) -> ReviewRun:
    """In the page's order: a disagreement, then two audits, which the judge would keep and reject."""
    run = ReviewRun(tmp_path / "lauf ü")
    judges = (opinion("openai:gpt", keep=True), opinion("ollama:llava", keep=False, reason=NASTY))
    measures = tuple(criterion(name) for name in ("area_share", "components", "sharpness", "image_text"))
    run.add(1, held="disagreement", category=NASTY, opinions=judges, criteria=measures)
    run.add(2, opinions=(opinion("openai:gpt", keep=True),), criteria=measures, category="bolt")
    run.add(3, opinions=(opinion("openai:gpt", keep=False),), criteria=measures, category="nut", agent="image_agent")
    return run


@contextmanager
def _served(run: ReviewRun, reviewer: str = "Eva") -> Iterator[str]:
    with open_loopback("127.0.0.1", 0) as listener:
        hosts = loopback_hosts("127.0.0.1", listener.getsockname()[1])
        app = build_review_app(ReviewQueue(run.folder, reviewer), run_folder=run.folder, token=TOKEN, hosts=hosts)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://{hosts[-1]}/?token={TOKEN}"
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def _opened(browser: Browser, url: str, width: int = 1280, height: int = 800, scheme: str = "light") -> Iterator[Page]:
    """The page, which must neither break nor be refused anything."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Security Policy" in message.text else None)
    page.goto(url)
    yield page
    context.close()
    assert complaints == []


def _press(page: Page, key: str, then: str) -> None:
    """Press a key once the picture is there and the last action is through, and wait for what the page says."""
    page.wait_for_selector(READY)
    page.keyboard.press(key)
    expect(page.locator("#said")).to_contain_text(then)


def _shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.wait_for_selector(READY, state="attached")
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def _verdicts(run: ReviewRun) -> dict[str, bool]:
    """By item: whether its one image is kept."""
    reviews = [run.book.read(entry_id) for entry_id in run.book.ids()]
    return {review["item_id"]: review["keep"] for review in reviews if review is not None}


def test_a_review_by_keyboard(run: ReviewRun, browser: Browser) -> None:
    with _served(run) as url, _opened(browser, url) as page:
        expect(page.locator("h1#category")).to_have_text(NASTY)
        expect(page.locator("#told")).to_contain_text("ollama:llava")
        expect(page.locator("#told")).to_contain_text(NASTY)
        assert "token" not in page.url
        _shoot(page, "disagreement")
        _press(page, "2", "")
        expect(page.get_by_role("button", name="Outline")).to_have_attribute("aria-pressed", "true")
        _shoot(page, "outline")
        _press(page, "k", "Kept")
        assert _verdicts(run) == {"text_agent-3-0001": True}

        expect(page.locator("#category")).to_have_text("bolt")
        expect(page.locator("#why")).to_contain_text("random check")
        expect(page.locator("main#work")).not_to_contain_text("openai:gpt")
        expect(page.get_by_role("button", name="Source")).to_be_hidden()
        _press(page, "ArrowLeft", "the judge said: keep")
        assert _verdicts(run)["text_agent-3-0002"] is False

        _press(page, "u", "Taken back")
        expect(page.locator("#category")).to_have_text("bolt")
        assert "text_agent-3-0002" not in _verdicts(run)
        _press(page, "ArrowRight", "Kept the bolt")

        _press(page, "3", "")
        expect(page.get_by_role("img")).to_have_attribute("alt", "source of nut")
        _press(page, "k", "the judge said: reject (a second one stands behind it)")
        expect(page.locator("#done-title")).to_have_text("All decided")
        expect(page.locator("#done")).to_contain_text(f"maskwright run … --out {shlex.quote(str(run.folder))}")
        _shoot(page, "done")
        assert list(_verdicts(run).values()) == [True, True, True]
        assert page.title() != "owned"


def test_a_page_closed_half_way_loses_nothing(run: ReviewRun, browser: Browser) -> None:
    with _served(run) as url, _opened(browser, url) as page:
        _press(page, "r", "Rejected")
        page.reload()
        expect(page.locator("#category")).to_have_text("bolt")
        expect(page.locator("#count")).to_have_text("1 of 3 decided")
        _press(page, "n", "Skipped")
        expect(page.locator("#category")).to_have_text("nut")
        page.close()
    with _served(run) as url, _opened(browser, url) as page:
        expect(page.locator("#category")).to_have_text("bolt")
        expect(page.locator("#count")).to_have_text("1 of 3 decided")


def test_what_was_skipped_comes_again(run: ReviewRun, browser: Browser) -> None:
    with _served(run) as url, _opened(browser, url) as page:
        _press(page, " ", "Skipped")
        expect(page.locator("#category")).to_have_text("bolt")
        _press(page, "k", "Kept the bolt")
        _press(page, "k", "Kept the nut")
        expect(page.locator("#category")).to_have_text(NASTY)
        _press(page, "r", "Rejected")
        expect(page.locator("#done")).to_be_visible()
        page.wait_for_selector('body[aria-busy="false"]')
        page.keyboard.press("u")
        expect(page.locator("#category")).to_have_text(NASTY)


def test_of_two_people_at_once_the_second_is_told_and_moved_on(run: ReviewRun, browser: Browser) -> None:
    with (
        _served(run, "Eva") as eva_url,
        _served(run, "Bo") as bo_url,
        _opened(browser, eva_url) as eva,
        _opened(browser, bo_url) as bo,
    ):
        bo.wait_for_selector(READY)
        _press(eva, "k", "Kept")
        _press(bo, "r", "Eva has kept this")
        expect(bo.locator("#category")).to_have_text("bolt")
        _shoot(bo, "taken")
        assert _verdicts(run) == {"text_agent-3-0001": True}


def test_a_server_that_is_gone_is_said_and_the_image_stays(run: ReviewRun, browser: Browser) -> None:
    with _served(run) as url, _opened(browser, url) as page:
        page.wait_for_selector(READY)
        page.context.set_offline(True)
        _press(page, "k", "cannot be reached")
        expect(page.locator("#category")).to_have_text(NASTY)
        page.context.set_offline(False)
        _press(page, "k", "Kept")


def test_a_held_key_decides_once(run: ReviewRun, browser: Browser) -> None:
    with _served(run) as url, _opened(browser, url) as page:
        page.wait_for_selector(READY)
        for _ in range(3):  # without a release in between, as a keyboard repeats
            page.keyboard.down("k")
        expect(page.locator("#category")).to_have_text("bolt")
        page.wait_for_selector(READY)
        page.keyboard.down("k")
        page.keyboard.up("k")
        assert len(_verdicts(run)) == 1


def test_a_picture_that_cannot_be_read_can_only_be_rejected(run: ReviewRun, browser: Browser) -> None:
    result = run.items.read("text_agent-3-0001")
    assert result is not None
    run.artifacts.path(result["attempts"][0]["artifact"]).unlink()
    with _served(run) as url, _opened(browser, url) as page:
        expect(page.locator("#broken")).to_be_visible()
        expect(page.get_by_role("button", name="Keep")).to_be_disabled()
        page.keyboard.press("k")
        _press(page, "r", "Rejected")
    assert _verdicts(run) == {"text_agent-3-0001": False}


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 800, "light"), (390, 844, "dark")])
def test_everything_fits_the_screen(width: int, height: int, scheme: str, run: ReviewRun, browser: Browser) -> None:
    with _served(run) as url, _opened(browser, url, width, height, scheme) as page:
        page.wait_for_selector(READY)
        picture = page.locator("#picture").bounding_box()
        assert picture is not None
        assert picture["width"] / picture["height"] == pytest.approx(64 / 48, abs=0.02)
        assert picture["width"] > 0.5 * width
        for name in ("Keep", "Reject", "Undo", "Skip"):
            box = page.get_by_role("button", name=name).bounding_box()
            assert box is not None
            assert 0 <= box["x"] < box["x"] + box["width"] <= width
            assert box["height"] >= 44
            assert box["y"] + box["height"] <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.documentElement.scrollHeight") <= height
        _shoot(page, f"page-{width}-{scheme}")
        _press(page, "k", "Kept")
        _shoot(page, f"audit-{width}-{scheme}")
