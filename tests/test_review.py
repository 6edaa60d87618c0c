"""People's verdicts: the book keeps the first, and the server hands out pictures, hides what would bias, and guards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from review_helpers import HEIGHT, NASTY, WIDTH, ReviewRun, criterion, draw, opinion, review_of
from starlette.testclient import TestClient

from maskwright.errors import ImageDecodeError, RunFolderError
from maskwright.graphs.validating import is_waiting
from maskwright.memory.reviews import ReviewBook, ReviewTakenError
from maskwright.serving.review import ReviewSummary, build_review_app
from maskwright.serving.review_pictures import OUTLINE_RGB, draw_view, outline
from maskwright.serving.review_queue import ReviewQueue

TOKEN = '0123456789abcdef;"tok=en'
HOST = "127.0.0.1:8123"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def run(tmp_path: Path) -> ReviewRun:
    """A disagreement on a class with a nasty name, three audits, one image that waits for nobody."""
    run = ReviewRun(tmp_path / "lauf ü")
    run.add(1, criteria=(criterion("sharpness", score=float("nan")),), opinions=(opinion("vlm", keep=False),))
    run.add(2, opinions=(opinion("vlm", keep=True),))
    run.add(3, agent="image_agent")
    judges = (opinion("vlm", keep=True), opinion("second", keep=False))
    run.add(4, held="disagreement", category=NASTY, opinions=judges)
    run.add(5, held="")
    return run


def _client(run: ReviewRun, reviewer: str = "Eva", headers: dict[str, str] | None = None) -> TestClient:
    queue = ReviewQueue(run.folder, reviewer)
    app = build_review_app(queue, run_folder=run.folder, token=TOKEN, hosts=[HOST])
    return TestClient(app, base_url=f"http://{HOST}", headers=BEARER if headers is None else headers)


def test_the_first_of_many_verdicts_stands(tmp_path: Path) -> None:
    winners: list[str] = []
    losers: list[tuple[str, str]] = []
    start = threading.Barrier(8)

    def decide(name: str) -> None:
        start.wait()
        try:
            ReviewBook(tmp_path).decide(review_of("item", len(name) % 2 == 0, name))
        except ReviewTakenError as exc:
            losers.append((name, exc.review["reviewer"]))
        else:
            winners.append(name)

    threads = [threading.Thread(target=decide, args=("x" * (number + 1),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    book = ReviewBook(tmp_path)
    [entry_id] = book.ids()
    stands = book.read(entry_id)
    assert stands is not None
    assert winners == [stands["reviewer"]]
    assert {told for _, told in losers} == set(winners)
    assert len(losers) == 7
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


@pytest.mark.parametrize(
    ("keep", "reviewer", "taken"),
    [
        pytest.param(True, "Eva", False, id="the same again, as after a lost answer"),
        pytest.param(False, "Eva", True, id="another verdict without undo"),
        pytest.param(True, "Bo", True, id="another person, though they agree"),
    ],
)
def test_a_second_verdict(keep: bool, reviewer: str, taken: bool, tmp_path: Path) -> None:
    book = ReviewBook(tmp_path)
    first = book.decide(review_of("item", True, "Eva"))
    second = review_of("item", keep, reviewer)
    if taken:
        with pytest.raises(ReviewTakenError, match="kept by 'Eva'"):
            book.decide(second)
    else:
        assert book.decide(second) == first
    assert book.read("item-r1-0-0123456789ab") == first


def test_one_undoes_only_ones_own(tmp_path: Path) -> None:
    book = ReviewBook(tmp_path)
    review = book.decide(review_of("item", False, "Eva"))
    with pytest.raises(ReviewTakenError, match="Eva"):
        book.undo("item-r1-0-0123456789ab", "Bo")
    assert book.undo("item-r1-0-0123456789ab", "Eva") == review
    assert book.undo("item-r1-0-0123456789ab", "Eva") is None
    assert book.decide(review_of("item", True, "Bo"))["reviewer"] == "Bo"


def test_the_queue_holds_what_waits_and_hides_what_would_bias(run: ReviewRun) -> None:
    content = _client(run).get("/api/queue").json()
    entries = content["entries"]
    assert [entry["why"] for entry in entries] == ["disagreement", "audit", "audit", "audit"]
    assert entries[0]["category"] == NASTY
    assert [judge["keep"] for judge in entries[0]["told"]["judges"]] == [True, False]
    assert [one["name"] for one in entries[0]["told"]["measures"]] == ["sharpness"]
    assert [entry["told"] for entry in entries[1:]] == [None, None, None]
    assert [entry["views"][2:] for entry in entries] == [[], ["source"], [], []]
    assert content["progress"] == {"decided": 0, "total": 4, "kept": 0, "by": {}}


def test_the_queue_comes_in_pages(run: ReviewRun) -> None:
    client = _client(run)
    seen, after = [], -1
    while entries := client.get(f"/api/queue?after={after}&limit=3").json()["entries"]:
        assert len(entries) <= 3
        seen += [entry["id"] for entry in entries]
        after = entries[-1]["position"]
    assert len(seen) == len(set(seen)) == 4
    assert client.get("/api/queue?after=x").status_code == 400


def test_a_verdict_is_durable_before_the_answer_and_then_the_judge_is_told(run: ReviewRun) -> None:
    client = _client(run)
    entry = client.get("/api/queue").json()["entries"][2]
    answer = client.post("/api/decide", json={"id": entry["id"], "keep": True}).json()
    review = ReviewBook(run.folder / "reviews").read(entry["id"])
    assert review is not None
    assert (review["keep"], review["reviewer"], review["decided"][-6:]) == (True, "Eva", "+00:00")
    assert answer["told"]["keep"] is False
    assert answer["told"]["measures"][0]["score"] is None
    assert answer["progress"] == {"decided": 1, "total": 4, "kept": 1, "by": {"Eva": 1}}
    again = _client(run).get("/api/queue").json()
    assert entry["id"] not in [one["id"] for one in again["entries"]]
    assert again["progress"]["decided"] == 1


def test_two_servers_on_one_folder(run: ReviewRun) -> None:
    eva, bo = _client(run, "Eva"), _client(run, "Bo")
    [first, second] = bo.get("/api/queue?limit=2").json()["entries"]
    eva.post("/api/decide", json={"id": first["id"], "keep": True})
    told = bo.post("/api/decide", json={"id": first["id"], "keep": False})
    assert (told.status_code, told.json()["by"], told.json()["keep"]) == (409, "Eva", True)
    assert bo.post("/api/decide", json={"id": second["id"], "keep": False}).status_code == 200
    assert bo.post("/api/undo").json()["entry"]["id"] == second["id"]
    assert bo.post("/api/undo").json()["entry"] is None  # Eva's is not Bo's to undo
    assert bo.get("/api/queue").json()["entries"][0]["id"] == second["id"]


def test_undo_takes_back_the_last_one_also_after_a_restart(run: ReviewRun) -> None:
    client = _client(run)
    ids = [entry["id"] for entry in client.get("/api/queue").json()["entries"]]
    for entry_id in ids[:2]:
        client.post("/api/decide", json={"id": entry_id, "keep": True})
    answer = _client(run).post("/api/undo").json()
    assert answer["entry"]["id"] == ids[1]
    assert answer["progress"]["decided"] == 1
    assert run.book.read(ids[1]) is None


def test_what_the_run_has_gone_on_with_stays(run: ReviewRun) -> None:
    client = _client(run)
    [entry] = client.get("/api/queue?limit=1").json()["entries"]
    client.post("/api/decide", json={"id": entry["id"], "keep": True})
    item_id = entry["id"].rpartition("-r1-0-")[0]
    result, review = run.items.read(item_id), run.book.read(entry["id"])
    assert result is not None
    assert review is not None
    result["attempts"][0]["review"] = review
    run.items.write(item_id, result)
    assert not is_waiting(result["attempts"][0])
    assert client.post("/api/undo").status_code == 409
    assert run.book.read(entry["id"]) == review


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/api/decide", b'{"id": "nobody-r1-0", "keep": true}', 404),
        ("POST", "/api/decide", b'{"id": "../../x", "keep": true}', 404),
        ("POST", "/api/decide", b'{"id": "FIRST"}', 400),
        ("POST", "/api/decide", b'{"id": "FIRST", "keep": "yes"}', 400),
        ("POST", "/api/decide", b"{", 400),
        ("GET", "/api/decide", b"", 405),
        ("GET", "/api/picture/FIRST/mask", b"", 404),
        ("GET", "/api/picture/..%2F..%2Frun.json/cutout", b"", 404),
        ("GET", "/review_page/../../run.json", b"", 404),
    ],
)
def test_bad_requests(method: str, path: str, content: bytes, status: int, run: ReviewRun) -> None:
    first = run.entry_id("text_agent-3-0001")
    sent = content.replace(b"FIRST", first.encode())
    answer = _client(run).request(method, path.replace("FIRST", first), content=sent)
    assert answer.status_code == status
    assert list(run.book.ids()) == []


def _get_picture(client: TestClient, path: str) -> np.ndarray:
    answer = client.get(path)
    assert answer.headers["content-type"] == "image/png"
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_pictures(run: ReviewRun) -> None:
    client, entry_id = _client(run), run.entry_id("image_agent-3-0003")
    cut_out = _get_picture(client, f"/api/picture/{entry_id}/cutout")
    assert np.array_equal(cv2.cvtColor(cut_out, cv2.COLOR_BGRA2RGBA)[..., 3], draw(3)[..., 3])
    outlined = _get_picture(client, f"/api/picture/{entry_id}/outline")
    assert outlined.shape == (720, 960, 3)
    assert _get_picture(client, f"/api/picture/{entry_id}/source").shape == (HEIGHT, WIDTH, 4)


@pytest.mark.parametrize("cropped", [False, True], ids=["of the picture's size", "a crop of it"])
def test_the_outline_lies_on_the_masks_border(cropped: bool) -> None:
    whole, cut_out = draw(7, whole=True), draw(7)
    border = cut_out[..., 3] > 0
    rows, columns = np.flatnonzero(border.any(axis=1)), np.flatnonzero(border.any(axis=0))
    crop = cut_out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if cropped else cut_out
    drawn = outline(whole[..., :3], crop)
    ys, xs = np.nonzero((np.abs(drawn.astype(int) - OUTLINE_RGB) < 12).all(axis=2))
    left, right, top, bottom = 15 * columns[0], 15 * (columns[-1] + 1), 15 * rows[0], 15 * (rows[-1] + 1)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == pytest.approx((left, right, top, bottom), abs=3)


def test_a_key_that_leads_out_of_the_folder_is_no_key(run: ReviewRun) -> None:
    result = run.items.read("text_agent-3-0001")
    assert result is not None
    attempt = {**result["attempts"][0], "artifact": "../run.json"}
    with pytest.raises(ImageDecodeError, match="no artifact key"):
        draw_view("cutout", result, attempt, run.artifacts)  # type: ignore[arg-type]


def test_a_missing_picture_is_said_and_the_image_can_be_rejected(run: ReviewRun) -> None:
    result = run.items.read("text_agent-3-0001")
    assert result is not None
    run.artifacts.path(result["attempts"][0]["artifact"]).unlink()
    client, entry_id = _client(run), run.entry_id("text_agent-3-0001")
    missing = client.get(f"/api/picture/{entry_id}/cutout")
    assert (missing.status_code, "missing or damaged" in missing.json()["error"]) == (404, True)
    assert client.post("/api/decide", json={"id": entry_id, "keep": False}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        pytest.param({}, "", 401, id="no token"),
        pytest.param({}, "?token=wrong", 401, id="another token"),
        pytest.param({"Authorization": "Bearer ä"}, "", 401, id="no ascii"),
        pytest.param({"Cookie": "maskwright_review_8123=x"}, "", 401, id="another cookie"),
        pytest.param({**BEARER, "Host": "evil.example:8123"}, "", 421, id="another host"),
        pytest.param({**BEARER, "Host": "localhost:1"}, "", 421, id="another port"),
        pytest.param({**BEARER, "Origin": "http://evil.example"}, "", 403, id="another site"),
        pytest.param({**BEARER, "Origin": "null"}, "", 403, id="a sandboxed page"),
        pytest.param({**BEARER, "Origin": f"http://{HOST}"}, "", 200, id="our page"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/review.js", "/api/queue", "/api/picture/FIRST/cutout"])
def test_who_is_let_in(headers: dict[str, str], query: str, status: int, path: str, run: ReviewRun) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    path = path.replace("FIRST", run.entry_id("text_agent-3-0001"))
    answer = _client(run, headers={}).get(path + query, headers=raw)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_token_in_the_address_becomes_a_cookie(run: ReviewRun) -> None:
    client = _client(run, headers={})
    cookie = client.get("/", params={"token": TOKEN}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert client.get("/api/queue").status_code == 200


@pytest.mark.parametrize(
    ("agent", "command"), [("text_agent", "maskwright run …"), ("validation_agent", "maskwright validate …")]
)
def test_the_command_to_go_on_with(agent: str, command: str, tmp_path: Path) -> None:
    run = ReviewRun(tmp_path / "run")
    run.add(1, agent=agent)
    assert _client(run).get("/api/queue").json()["command"] == f"{command} --out {run.folder}"


def test_a_failed_item_is_made_again_so_nobody_is_asked(run: ReviewRun) -> None:
    result = run.items.read("text_agent-3-0001")
    assert result is not None
    run.items.write("text_agent-3-0001", {**result, "ending": "failed"})
    assert _client(run).get("/api/progress").json()["total"] == 3


def test_a_folder_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run with items"):
        ReviewQueue(tmp_path, "Eva")


SERVE = """
import sys
from pathlib import Path
from maskwright.serving.review import serve_review
summary = serve_review(Path(sys.argv[1]), host="127.0.0.1", port=0, token="t" * 16, reviewer="Eva",
                       on_ready=lambda url: print(url, flush=True))
print(summary)
"""


def test_ctrl_c_ends_the_server_and_the_summary_says_what_was_done(run: ReviewRun) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SERVE, str(run.folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = re.match(r"(http://\S+)/\?token=t{16}$", server.stdout.readline())
        assert found
        with httpx.Client(
            base_url=found[1], headers={"Authorization": f"Bearer {'t' * 16}"}, trust_env=False
        ) as client:
            for entry, keep in zip(client.get("/api/queue").json()["entries"], (True, False), strict=False):
                client.post("/api/decide", json={"id": entry["id"], "keep": keep})
        server.send_signal(signal.SIGINT)
        printed = server.stdout.read()
        assert server.wait(30) == 0
    assert str(ReviewSummary(kept=1, rejected=1, waiting=2, by={"Eva": 2})) in printed
