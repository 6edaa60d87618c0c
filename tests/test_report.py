"""The report: what it says, what it shows, and that nothing on it comes from or goes to elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from maskwright.data.run_summary import RunSummary, to_run_summary
from maskwright.errors import BrokenRunError, RunFolderError
from maskwright.evaluation.charts import MAX_BARS
from maskwright.evaluation.report import build_report, run_to_facts, run_to_headline
from maskwright.evaluation.sampling import MAX_ACCEPTED, MAX_REJECTED, MAX_SCENES
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import Attempt, ItemResult, SceneInstance, SceneResult, no_cost
from maskwright.memory.ledger import Ledger

HEIGHT, WIDTH = 48, 64
HOSTILE = '<script>alert("1")</script>'
UNICODE = "Größe 図"
MAX_PAGE_BYTES = 15_000_000


class FakeRun:
    """A run folder with the real ledger and artifact store; only the pictures are drawn here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: Ledger[ItemResult] = Ledger(folder / "items")
        self.scenes: Ledger[SceneResult] = Ledger(folder / "scenes")
        self.artifacts = ArtifactStore(folder / "artifacts")
        self.source = self.artifacts.put_image(cutout((20, 120, 200)))
        self.good = self.artifacts.put_image(cutout((200, 120, 20)))
        self.bad = self.artifacts.put_image(cutout((9, 9, 9)))
        self.scene = self.artifacts.put_image(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))

    def add_item(self, number: int, category_id: int, name: str, *, rejected: int = 0, accepted: bool = True) -> None:
        attempts = [self._attempt(index + 1, accepted=False) for index in range(rejected)]
        if accepted:
            attempts.append(self._attempt(rejected + 1, accepted=True))
        item_id = f"image-train-{number}-000"
        self.items.write(
            item_id,
            {
                "item": {
                    "item_id": item_id,
                    "agent": "image_agent",
                    "category_id": category_id,
                    "category": name,
                    "source_row": number,
                    "slot": 0,
                },
                "ending": "accepted" if accepted else "exhausted" if rejected else "failed",
                "reason": "" if accepted else f"paint: ValueError: {HOSTILE}",
                "source": {
                    "artifact": self.source,
                    "file_name": f"{UNICODE}/a & b.jpg",
                    "annotation_id": number,
                    "licence": "",
                    "truncation": 0.0,
                    "truncated_sides": [],
                    "side_ratio": 0.2,
                },
                "painter": {"name": "variation", "revision": "1"},
                "attempts": attempts,
                "unreadable_image": "",
                "instances": [],
                "rounds": [],
                "cost": no_cost(),
                "seconds": 0.1,
            },
        )

    def _attempt(self, round_number: int, *, accepted: bool) -> Attempt:
        reason = "" if accepted else "sharpness 0.5 is under 2"
        return {
            "round": round_number,
            "index": 0,
            "seed": 1,
            "strength": 0.6,
            "artifact": self.good if accepted else self.bad,
            "parameters": {},
            "truncated_sides": [],
            "measures": {"sharpness": 143.21987 if accepted else 0.5},
            "criteria": [
                {"name": "sharpness", "outcome": "meet" if accepted else "fail", "score": 0.0, "reason": reason}
            ],
            "accepted": accepted,
        }

    def add_scene(self, number: int, category_ids: tuple[int, ...]) -> None:
        scene_id = f"scene-{number:06d}"
        instances = [scene_instance("synthetic", one) for one in category_ids] + [scene_instance("real", 7)]
        self.scenes.write(scene_id, scene_result(scene_id, self.scene, instances))

    def write(self, **content: object) -> Path:
        (self.folder / "run.json").write_text(json.dumps({"fingerprint": "f" * 64, **content}), encoding="utf-8")
        return self.folder


def cutout(colour: tuple[int, int, int]) -> np.ndarray:
    """(30, 40, 4) uint8: a block with a hole, clear of the border."""
    rgba = np.zeros((30, 40, 4), np.uint8)
    rgba[4:26, 6:34] = (*colour, 255)
    rgba[12:18, 16:24, 3] = 0
    return rgba


def scene_instance(origin: str, category_id: int) -> SceneInstance:
    return {
        "origin": "synthetic" if origin == "synthetic" else "real",
        "source_id": "1",
        "category_id": category_id,
        "segmentation": [[8.0, 6.0, 40.0, 6.0, 40.0, 30.0, 8.0, 30.0]],
        "bbox_xywh": [8.0, 6.0, 32.0, 24.0],
        "area": 768.0,
        "is_crowd": False,
        "seam": None,
    }


def scene_result(scene_id: str, artifact: str, instances: list[SceneInstance]) -> SceneResult:
    return {
        "scene_id": scene_id,
        "artifact": artifact,
        "background": f"{UNICODE}.jpg",
        "width": WIDTH,
        "height": HEIGHT,
        "instances": instances,
        "dropped_originals": [3],
        "unplaced": [],
        "unreadable_backgrounds": [],
    }


def summary_of_class(name: str, real: int, quota: int, accepted: int) -> dict[str, object]:
    counts = {"real": real, "quota": quota, "accepted": accepted, "shortfall": max(0, quota - accepted)}
    return {"name": name, **counts, "painted": quota, "sources": real}


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text without styles and scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._raw: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in ("style", "script"):
            self._raw.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._raw and tag == self._raw[-1]:
            self._raw.pop()

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.elements if attribute in attrs]

    def count(self, tag: str, css_class: str = "") -> int:
        classes = [attrs.get("class", "").split() for name, attrs in self.elements if name == tag]
        return sum(not css_class or css_class in one for one in classes)


@pytest.fixture
def full_run(tmp_path: Path) -> Path:
    """Two accepted instances, two rejected attempts, a failed item and two scenes; hostile and unicode names."""
    run = FakeRun(tmp_path / UNICODE)
    run.add_item(1, 1, HOSTILE, rejected=1)
    run.add_item(2, 2, UNICODE)
    run.add_item(3, 2, UNICODE, rejected=1, accepted=False)
    run.add_item(4, 2, UNICODE, accepted=False)
    run.add_scene(1, (1, 2))
    run.add_scene(2, (2,))
    (run.folder / "recipe.yaml").write_text(f"plan:\n  classes: ['{HOSTILE}']\n", encoding="utf-8")
    return run.write(
        status="partial",
        recipe="instances",
        accepted=2,
        scenes=2,
        images={"painted": 4, "rejected": 2},
        classes=[summary_of_class(HOSTILE, 3, 1, 1), summary_of_class(UNICODE, 2, 3, 1)],
        rejections={"sharpness": 2},
        findings={"image_without_label": {"count": 12, "examples": [f"{HOSTILE}.jpg"]}},
        seconds={"read": 0.4, "make": 185.0},
        hints=[f"Short of their quota: {HOSTILE}"],
        unplaced=[f"unplaced {HOSTILE}"],
        a_key_of_a_later_version=1,
    )


def test_page_loads_nothing_and_links_only_to_itself_and_the_run(full_run: Path) -> None:
    path = build_report(full_run)
    page = Page(path)
    assert path == full_run / "report.html"
    assert [uri[:23] for uri in page.values("src")] == ["data:image/webp;base64,"] * (10 + 7)
    for href in page.values("href"):
        anchors = {f"#{one}" for one in page.values("id")}
        assert href in anchors or (full_run / unquote(href)).is_file(), href
    style = re.search(r"<style>(.*)</style>", path.read_text(encoding="utf-8"), re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert any("default-src 'none'" in one for one in page.values("content"))


def test_text_of_the_user_is_shown_and_never_run(full_run: Path) -> None:
    page = Page(build_report(full_run))
    assert page.count("script") == 1
    # Scene tag, card, filter, chart, table, finding, failed item, hint, unplaced, recipe, headline's shortfall.
    assert page.text.count(HOSTILE) >= 10
    assert UNICODE in page.text
    assert "a & b.jpg" in page.text


def test_page_shows_pictures_with_what_was_found_out(full_run: Path) -> None:
    page = Page(build_report(full_run))
    assert (page.count("figure", "scene"), page.count("figure", "card")) == (2, 4)
    assert page.count("span", "tag") == 3
    assert page.text.count("sharpness 0.5 is under 2") == 2 + 2
    for expected in ("143.2", "3 min 5 s", "… and 11 more", "image without label", "2 new, 1 real, 1 hidden"):
        assert expected in page.text
    order = [page.text.index(title) for title in ("Scenes", "In numbers", "What was odd", "How to go on")]
    assert order == sorted(order)


def test_same_run_gives_the_same_bytes(full_run: Path) -> None:
    first = build_report(full_run).read_bytes()
    assert build_report(full_run).read_bytes() == first
    assert not list(full_run.glob("*.partial"))


@pytest.mark.parametrize(
    ("content", "headline"),
    [
        ({"status": "running"}, "Unfinished: no new instance yet"),
        ({"status": "done", "items": {"planned": 0}}, "No new instance was needed; every class has its quota"),
        ({"status": "partial", "items": {"planned": 3}}, "No new instance; 3 work items planned, no image painted"),
        ({"status": "partial", "images": {"painted": 1}}, "No new instance; 1 painted image, none accepted"),
    ],
    ids=["just begun", "nothing to do", "no usable source", "all rejected"],
)
def test_run_without_any_instance_has_a_report(tmp_path: Path, content: dict[str, object], headline: str) -> None:
    page = Page(build_report(FakeRun(tmp_path).write(**content)))
    assert headline in page.text
    assert page.count("figure") == 0


@pytest.mark.parametrize(
    ("status", "scenes", "classes", "headline"),
    [
        ("done", 137, [("tie", 3, 5, 5)], "1,412 new instances in 137 scenes; every class reached its quota"),
        ("done", 1, [("tie", 3, 5, 4)], "1,412 new instances in 1 scene; 1 of 1 class fell short: tie by 1"),
        (
            "done",
            2,
            [("a", 1, 9, 0), ("b", 1, 9, 7), ("c", 50, 0, 0)],
            "1,412 new instances in 2 scenes; 2 of 2 classes fell short: a by 9 and b by 2",
        ),
        (
            "done",
            3,
            [("tie", 3, 5, 5), ("bear", 0, 9, 0)],
            "1,412 new instances in 3 scenes; every other class reached its quota; "
            "1 class has no instance to start from",
        ),
        (
            "interrupted",
            0,
            [(name, 1, 9, 0) for name in "edcba"],
            "Interrupted: 1,412 new instances, not yet composed; "
            "5 of 5 classes are still short: a by 9, b by 9, c by 9 and 2 more",
        ),
    ],
    ids=["reached", "one short", "two short", "no source", "interrupted"],
)
def test_headline_states_the_outcome(
    status: str, scenes: int, classes: list[tuple[str, int, int, int]], headline: str
) -> None:
    content = {"status": status, "accepted": 1412, "scenes": scenes}
    summary = to_run_summary(content | {"classes": [summary_of_class(*one) for one in classes]})
    assert run_to_headline(summary) == headline


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no run is here \(no run\.json\)"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "no fingerprint"),
        (b'{"status": "done"}', "no fingerprint"),
        (b'{"fingerprint": "f", "accepted": "many"}', r"\$\.accepted"),
        (b'{"fingerprint": "f", "classes": [{"real": 1}]}', r"\$\.classes\[0\]"),
        (b'{"fingerprint": "f", "status": "finished"}', "'finished'"),
    ],
    ids=["no run.json", "cut off", "not text", "a list", "of another program", "a word", "no name", "unknown status"],
)
def test_folder_that_is_no_run_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=message):
        build_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_damaged_ledger_entry_stops_the_report_by_name(full_run: Path) -> None:
    entry = next((full_run / "items").rglob("*.json"))
    entry.write_bytes(b"{")
    with pytest.raises(BrokenRunError, match=re.escape(entry.name)):
        build_report(full_run)


def test_missing_picture_is_left_out(full_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = FakeRun(full_run)
    run.artifacts.path(run.bad).unlink()
    page = Page(build_report(full_run))
    assert page.count("figure", "card") == 2
    assert run.bad in caplog.text


def test_large_run_is_sampled_over_its_classes(tmp_path: Path) -> None:
    run = FakeRun(tmp_path)
    names = ["common"] * 1880 + [f"rare {number:02d}" for number in range(120)]
    for number, name in enumerate(names):
        run.add_item(number, number if "rare" in name else 0, name, rejected=number % 2)
    for number in range(80):
        run.add_scene(number, (0,))
    path = build_report(run.write(status="done", accepted=2000, scenes=80))
    page = Page(path)
    assert path.stat().st_size < MAX_PAGE_BYTES
    assert page.count("figure", "scene") == MAX_SCENES
    assert page.count("figure", "card") == MAX_ACCEPTED + MAX_REJECTED
    assert page.count("option") == 1 + 121
    assert f"{MAX_ACCEPTED} of 2,000 shown" in page.text


def test_page_of_many_classes_charts_the_changed_ones_and_lists_all(tmp_path: Path) -> None:
    classes = [summary_of_class(f"class {number}", number, int(number < 3), 0) for number in range(1203)]
    page = Page(build_report(FakeRun(tmp_path).write(status="done", classes=classes)))
    assert page.count("path", "cut") == MAX_BARS - 3
    assert page.count("line", "mark") == 3 + 1
    assert page.count("tr") == 1 + 1203


def test_numbers_tell_what_it_cost() -> None:
    costs = {
        "usd": 12.5,
        "llm_calls": 1180,
        "input_tokens": 24377,
        "output_tokens": 4631,
        "device_seconds": 3725.4,
        "usd_per_accepted": 0.0421,
        "device_seconds_per_accepted": 0.266,
    }
    facts = run_to_facts(to_run_summary({"costs": costs}))
    assert facts[-3:] == [
        ("12.50 USD", "API cost", "0.042 USD a new instance"),
        ("1,180", "language model calls", "24,377 tokens in, 4,631 out"),
        ("1 h 2 min", "device time", "0.27 s a new instance"),
    ]


@pytest.mark.parametrize(
    ("costs", "facts"),
    [
        ({}, [("0.0 s", "time", "no API cost")]),
        ({"usd": 0.0, "llm_calls": 0, "device_seconds": 0.0}, [("0.0 s", "time", "no API cost")]),
        (
            {"usd": 0.0, "llm_calls": 3, "input_tokens": 5, "output_tokens": 7},
            [
                ("0.00 USD", "API cost", "no model with a price was used"),
                ("3", "language model calls", "5 tokens in, 7 out"),
            ],
        ),
        ({"usd": 0.000012, "llm_calls": 0}, [("0.000012 USD", "API cost", "")]),
        ({"device_seconds": 61.0}, [("0.0 s", "time", "no API cost"), ("1 min 1 s", "device time", "")]),
    ],
    ids=["older run", "nothing used", "free model", "nothing accepted", "local painter alone"],
)
def test_numbers_leave_out_what_was_not_used(costs: dict[str, float], facts: list[tuple[str, str, str]]) -> None:
    assert run_to_facts(to_run_summary({"costs": costs}))[-len(facts) :] == facts


def test_spared_items_are_told_in_words() -> None:
    items = {"planned": 10, "accepted": 6, "exhausted": 1, "failed": 0, "held": 0, "spared": 3}
    value, label, note = run_to_facts(to_run_summary({"items": items}))[3]
    assert (value, label) == ("10", "work items")
    assert note == "6 accepted, 1 exhausted, 3 not needed, as their class was full by then"


def test_summary_of_an_older_run_has_defaults() -> None:
    assert to_run_summary({"fingerprint": "f", "yield": 0.5}) == RunSummary(fingerprint="f", accepted_share=0.5)
