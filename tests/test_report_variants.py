"""What a report tells of the I-Agent: which items, source to verdict, and which painter worked."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pytest

from maskwright.errors import RunFolderError
from maskwright.evaluation.gallery import collect_gallery
from maskwright.evaluation.report import build_report
from maskwright.evaluation.sampling import MAX_VARIANTS, MIN_AT_ONCE, MIN_LOST, RethinkSample, VariantSample
from maskwright.evaluation.variants import MAX_ATTEMPTS, VariantRow, collect_variants, decisive_measures
from maskwright.evaluation.variants_sheet import (
    HEAD_PX,
    MARGIN_PX,
    ROW_PX,
    WIDTH_PX,
    choose_rows,
    run_to_sheet,
)
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import Attempt, ItemResult, Round, no_cost
from maskwright.memory.ledger import Ledger

HOSTILE = '<script>alert("1")</script> 図'
MISSING = "ab" * 32 + ".png"
REASON = "source_likeness 0.99 is over 0.97"


class ImageRun:
    """A run folder with the real ledger and artifact store, for items of the I-Agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: Ledger[ItemResult] = Ledger(folder / "items")
        self.artifacts = ArtifactStore(folder / "artifacts")
        rgba = np.zeros((48, 64, 4), np.uint8)
        rgba[4:40, 6:60] = (200, 120, 20, 255)
        self.source = self.artifacts.put_image(rgba)
        self.variant = self.artifacts.put_image(np.ascontiguousarray(rgba[:, ::-1]))
        self.edges = self.artifacts.put_image(np.repeat(rgba[..., 3:], 3, axis=2))

    def item(self, slot: int, accepted: list[bool], *, name: str = "tie", prompts: tuple[str, ...] = ()) -> ItemResult:
        """An item with one variant a round, accepted or not."""
        return {
            "item": {
                "item_id": f"image-train-1-{slot:03d}",
                "agent": "image_agent",
                "category_id": 1,
                "category": name,
                "source_row": 1,
                "slot": slot,
            },
            "ending": "accepted" if any(accepted) else "exhausted",
            "reason": "",
            "source": {
                "artifact": self.source,
                "file_name": f"Größe/{HOSTILE}.jpg",
                "annotation_id": 1,
                "licence": "",
                "truncation": 0.0,
                "truncated_sides": [],
                "side_ratio": 0.2,
                "row": 1,
            },
            "unreadable_image": "",
            "painter": {"name": "edge_guided", "revision": "1"},
            "attempts": [self.attempt(number, kept) for number, kept in enumerate(accepted, 1)],
            "instances": [],
            "rounds": [told(number, prompt) for number, prompt in enumerate(prompts, 1)],
            "cost": no_cost(),
            "seconds": 0.1,
        }

    def attempt(self, round_number: int, accepted: bool) -> Attempt:
        outcome, reason = ("meet", "") if accepted else ("fail", REASON)
        return {
            "round": round_number,
            "index": 0,
            "seed": 1,
            "strength": 0.8 - 0.1 * round_number,
            "artifact": self.variant,
            "parameters": {},
            "truncated_sides": [],
            "measures": {"sharpness": 41.0, "source_difference": 0.12345, "source_likeness": 0.8765},
            "criteria": [{"name": "source_likeness", "outcome": outcome, "score": 0.9, "reason": reason}],
            "accepted": accepted,
        }

    def rows(self, *results: ItemResult) -> tuple[VariantRow, ...]:
        sample = VariantSample()
        for result in results:
            self.items.write(result["item"]["item_id"], result)
            sample.add(result)
        return collect_variants(self.items, self.artifacts, sample).rows


def told(number: int, prompt: str) -> Round:
    return {
        "round": number,
        "prompt": prompt,
        "elements": [],
        "rung": "json_schema",
        "template": "adjust-1",
        "shortened": "",
        "novelty": 1.0,
        "strength": 0.6,
        "captions": [],
        "num_painted": 1,
        "num_kept": 0,
        "scores": {},
        "reasons": [],
    }


@pytest.fixture
def run(tmp_path: Path) -> ImageRun:
    return ImageRun(tmp_path / "Größe 図")


@pytest.mark.parametrize(
    ("accepted", "is_rescued", "outcome"),
    [
        ([True], False, "accepted in round 1"),
        ([False, True], True, "accepted in round 2"),
        ([False], False, "exhausted after 1 round"),
        ([False, False], False, "exhausted after 2 rounds"),
    ],
    ids=["at once", "rescued", "lost at once", "lost"],
)
def test_row_leads_from_source_to_verdicts(run: ImageRun, accepted: list[bool], is_rescued: bool, outcome: str) -> None:
    (row,) = run.rows(run.item(1, accepted))
    assert (row.is_rescued, row.outcome) == (is_rescued, outcome)
    assert [one.image.is_kept for one in row.variants] == accepted
    assert [one.image.reasons for one in row.variants] == [() if kept else (REASON,) for kept in accepted]
    assert row.variants[0].measures == (("source likeness", "0.876"), ("source difference", "0.123"))
    assert (run.folder / row.source_file).is_file()
    assert (run.folder / row.variants[0].image.file).is_file()
    assert (row.edges_picture, row.variants[0].control_scale, row.variants[0].prompt) == ("", None, "")


def test_row_shows_what_guided_the_painter(run: ImageRun) -> None:
    item = run.item(1, [False, False, True], prompts=("a photo of a tie", "a photo of a tie", "a silk tie"))
    for attempt, scale in zip(item["attempts"], (0.65, 0.5, 0.35), strict=True):
        attempt["condition"], attempt["control_scale"] = run.edges, scale
    (row,) = run.rows(item)
    assert (run.folder / row.edges_file).read_bytes() == run.artifacts.path(run.edges).read_bytes()
    assert row.edges_picture.startswith("data:image/webp;base64,")
    assert [one.control_scale for one in row.variants] == [0.65, 0.5, 0.35]
    assert [one.prompt for one in row.variants] == ["a photo of a tie", "", "a silk tie"]


def test_decisive_measures_are_those_that_were_taken(run: ImageRun) -> None:
    attempt = run.attempt(1, True)
    attempt["measures"] = {"source_difference": 0.2, "area_px": 9.0, "source_iou": 0.75, "image_text": 0.31}
    assert decisive_measures(attempt) == (("source iou", "0.75"), ("image text", "0.31"), ("source difference", "0.2"))


@pytest.mark.parametrize(
    ("num_rounds", "numbers", "skipped"),
    [(1, [1], [0]), (5, [1, 2, 3, 4, 5], [0] * 5), (9, [1, 6, 7, 8, 9], [0, 4, 0, 0, 0])],
    ids=["one", "as many as fit", "nine"],
)
def test_long_row_shows_its_ends(run: ImageRun, num_rounds: int, numbers: list[int], skipped: list[int]) -> None:
    (row,) = run.rows(run.item(1, [False] * num_rounds))
    assert [one.round for one in row.variants] == numbers
    assert [one.num_skipped for one in row.variants] == skipped
    assert len(numbers) <= MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ((2, 1, 3), (2, 1, 3)),
        ((40, 40, 40), (MAX_VARIANTS - MIN_LOST - MIN_AT_ONCE, MIN_LOST, MIN_AT_ONCE)),
        ((0, 40, 40), (0, MAX_VARIANTS - MIN_AT_ONCE, MIN_AT_ONCE)),
        ((0, 0, 40), (0, 0, MAX_VARIANTS)),
        ((40, 1, 0), (MAX_VARIANTS - 1, 1, 0)),
    ],
    ids=["few", "many of all", "none rescued", "all at once", "one lost"],
)
def test_sample_begins_with_the_retried(run: ImageRun, counts: tuple[int, ...], shown: tuple[int, ...]) -> None:
    sample, kinds = VariantSample(), ([False, True], [False, False], [True])
    for kind, (count, accepted) in enumerate(zip(counts, kinds, strict=True)):
        for slot in range(count):
            sample.add(run.item(100 * kind + slot, accepted))
    found = [int(item_id[-3:]) // 100 for item_id in sample.item_ids()]
    assert found == sorted(found)
    assert tuple(map(found.count, range(3))) == shown
    assert sample.num_items == sum(counts)


def test_sample_leaves_words_and_unpainted_items_out(run: ImageRun) -> None:
    from_words, unpainted = run.item(1, [True]), run.item(2, [])
    from_words["source"] = None
    sample = VariantSample()
    for result in (from_words, unpainted):
        sample.add(result)
    assert (sample.num_items, sample.item_ids()) == (0, [])


def test_rethought_prompt_of_a_variant_is_told_once(run: ImageRun) -> None:
    sample = RethinkSample()
    sample.add(run.item(1, [False, True], prompts=("a tie", "a silk tie")))
    assert (sample.num_prompted, sample.num_rethought) == (0, 0)


@pytest.mark.parametrize(
    ("damage", "num_rows", "num_variants"),
    [("source", 0, 0), ("edges", 0, 0), ("variant", 1, 1)],
)
def test_missing_picture_is_left_out(
    run: ImageRun, caplog: pytest.LogCaptureFixture, damage: str, num_rows: int, num_variants: int
) -> None:
    item = run.item(1, [False, True])
    assert item["source"] is not None
    if damage == "source":
        item["source"]["artifact"] = MISSING
    elif damage == "edges":
        item["attempts"][0]["condition"] = MISSING
    else:
        item["attempts"][0]["artifact"] = MISSING
    rows = run.rows(item)
    assert (len(rows), sum(len(row.variants) for row in rows)) == (num_rows, num_variants)
    assert MISSING in caplog.text


def test_page_shows_variants_and_says_who_painted(run: ImageRun) -> None:
    retried = run.item(1, [False, True], name=HOSTILE, prompts=(f"a {HOSTILE}", "b"))
    retried["attempts"][0]["condition"] = run.edges
    for result in (retried, run.item(2, [True])):
        run.items.write(result["item"]["item_id"], result)
    why = "no weights of edge_guided are here"
    painters = {"image_agent": {"name": "variation", "revision": "kornia-1", "why": why}, "text_agent": {"name": "x"}}
    content = {"fingerprint": "f", "status": "done", "painters": painters}
    (run.folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    page = build_report(run.folder).read_text(encoding="utf-8")
    section = page[page.index('id="variants"') : page.index('id="rejected"')]
    assert "2 items: 1 accepted at once, 1 accepted after a rejected round." in section
    assert section.index("accepted in round 2") < section.index("accepted in round 1")
    assert (section.count("<img"), section.count('"tile kept"'), section.count('"tile dropped"')) == (2 + 1 + 3, 2, 1)
    assert html.escape(f"a {HOSTILE}", quote=False).replace('"', "&#34;") in section
    assert HOSTILE not in page
    assert f"painted by variation (kornia-1): {why}<" in page
    assert "painted by x<" in page
    assert 'id="rethinks"' not in page


def test_run_without_sources_has_no_such_section(run: ImageRun) -> None:
    result = run.item(1, [True])
    result["source"] = None
    run.items.write(result["item"]["item_id"], result)
    (run.folder / "run.json").write_text(json.dumps({"fingerprint": "f", "status": "done"}), encoding="utf-8")
    assert collect_gallery(run.folder).variants.rows == ()
    assert 'id="variants"' not in build_report(run.folder).read_text(encoding="utf-8")


def test_sheet_shows_every_class_and_keeps_what_guided(run: ImageRun) -> None:
    guided = run.item(1, [False, True], name="Größe")
    guided["attempts"][0]["condition"] = run.edges
    results = [guided, run.item(2, [True], name="Größe"), run.item(3, [True], name="cup"), run.item(4, [], name="x")]
    for result in results:
        run.items.write(result["item"]["item_id"], result)
    rows = choose_rows(run.items, 5)
    assert [(row.item["category"], row.edges) for row in rows] == [("Größe", run.edges), ("cup", run.edges)]
    assert [len(row.attempts) for row in rows] == [4, 4]  # all three items started from one source
    assert [row.attempts[0]["accepted"] for row in rows] == [False, True]
    assert len(choose_rows(run.items, 1)) == 1

    def refuse(rgb: np.ndarray) -> np.ndarray:
        raise AssertionError(f"edges were asked for of {rgb.shape}, and the run has its own")

    sheet = run_to_sheet(run.folder, 5, refuse)
    assert sheet.shape == (2 * MARGIN_PX + HEAD_PX + 2 * ROW_PX, WIDTH_PX, 3)


def test_sheet_of_a_painter_without_edges_detects_them(run: ImageRun) -> None:
    run.items.write("image-train-1-001", run.item(1, [True]))
    asked: list[tuple[int, ...]] = []

    def detect(rgb: np.ndarray) -> np.ndarray:
        asked.append(rgb.shape)
        return np.full(rgb.shape[:2], len(asked) - 1, np.float32)

    black, white = (run_to_sheet(run.folder, 5, detect) for _ in range(2))
    assert asked == [(48, 64, 3)] * 2
    assert (white[black != white] == 255).all()
    assert (black != white).any()


def test_sheet_of_a_run_without_sources_says_what_to_give(run: ImageRun) -> None:
    with pytest.raises(RunFolderError, match="give a run of the I-Agent"):
        run_to_sheet(run.folder, 5, lambda rgb: np.zeros(rgb.shape[:2], np.float32))
