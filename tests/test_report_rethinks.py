"""The rethink history of a report: which items, which rounds, and what is said of them."""

from __future__ import annotations

import html
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from maskwright.evaluation.gallery import collect_gallery
from maskwright.evaluation.report import build_report
from maskwright.evaluation.rethinks import MAX_PICTURES, RethinkCard, collect_rethinks
from maskwright.evaluation.sampling import MAX_RETHINKS, MIN_UNRESCUED, RethinkSample
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import Attempt, Ending, ItemResult, Round, no_cost
from maskwright.memory.ledger import Ledger

HOSTILE = '<script>alert("1")</script> 図'
PROMPT = "a single tie, as drawn by <b>Größe</b>"


class TextRun:
    """A run folder with the real ledger and artifact store, for items of the T-Agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: Ledger[ItemResult] = Ledger(folder / "items")
        self.artifacts = ArtifactStore(folder / "artifacts")
        rgba = np.zeros((30, 40, 4), np.uint8)
        rgba[4:26, 6:34] = (200, 120, 20, 255)
        self.picture = self.artifacts.put_image(rgba)
        self.empty = self.artifacts.put_image(rgba * np.array([1, 1, 1, 0], np.uint8))

    def add(self, result: ItemResult) -> None:
        self.items.write(result["item"]["item_id"], result)

    def cards(self, *results: ItemResult) -> list[RethinkCard]:
        sample = RethinkSample()
        for result in results:
            self.add(result)
            sample.add(result)
        return list(collect_rethinks(self.items, self.artifacts, sample).cards)

    def attempt(self, round_number: int, index: int, accepted: bool) -> Attempt:
        reason = "" if accepted else f"image_text 0.{index} is under 0.5"
        outcome = "meet" if accepted else "fail"
        return {
            "round": round_number,
            "index": index,
            "seed": 1,
            "strength": 0.7,
            "artifact": self.picture,
            "painted": self.picture,
            "parameters": {},
            "truncated_sides": [],
            "measures": {"image_text": 0.3},
            "criteria": [{"name": "image_text", "outcome": outcome, "score": 0.3, "reason": reason}],
            "accepted": accepted,
        }

    def item(
        self, slot: int, kept: Sequence[int], *, painted: int = 2, name: str = "tie", ending: str = ""
    ) -> ItemResult:
        """An item whose rounds kept so many images each."""
        ended: Ending = "failed" if ending == "failed" else "accepted" if any(kept) else "exhausted"
        return {
            "item": {
                "item_id": f"text-1-{slot:04d}",
                "agent": "text_agent",
                "category_id": 1,
                "category": name,
                "source_row": -1,
                "slot": slot,
            },
            "ending": ended,
            "reason": "",
            "source": None,
            "unreadable_image": "",
            "painter": {"name": "embedded:sprites", "revision": "1"},
            "attempts": [
                self.attempt(number, index, index >= painted - num_kept)
                for number, num_kept in enumerate(kept, 1)
                for index in range(painted)
            ],
            "instances": [],
            "rounds": [told(number, painted, num_kept) for number, num_kept in enumerate(kept, 1)],
            "cost": no_cost(),
            "seconds": 0.1,
        }


def told(number: int, num_painted: int, num_kept: int) -> Round:
    return {
        "round": number,
        "prompt": f"{PROMPT} {number}",
        "elements": [],
        "rung": "json_schema",
        "template": "writer-1",
        "shortened": "cut" if number == 2 else "",
        "novelty": 0.5,
        "strength": 0.85 - 0.15 * number,
        "captions": [f"a {HOSTILE}"] if number == 2 else [],
        "num_painted": num_painted,
        "num_kept": num_kept,
        "scores": {},
        "reasons": ["image_text 0.3 is under 0.5"] if num_kept < num_painted else [],
    }


@pytest.fixture
def run(tmp_path: Path) -> TextRun:
    return TextRun(tmp_path / "Größe 図")


@pytest.mark.parametrize(
    ("kept", "ending", "is_rescued", "outcome"),
    [
        ([0, 2], "", True, "rescued in round 2"),
        ([0, 0, 1, 0], "", True, "rescued in round 3"),
        ([1, 0], "", False, "1 of 4 images kept"),
        ([0, 0], "", False, "exhausted after 2 rounds"),
        ([0, 0, 0], "failed", False, "failed after 3 rounds"),
    ],
    ids=["rescued", "rescued late", "kept at once", "exhausted", "failed"],
)
def test_card_says_how_it_went(run: TextRun, kept: list[int], ending: str, is_rescued: bool, outcome: str) -> None:
    (card,) = run.cards(run.item(1, kept, ending=ending))
    assert (card.is_rescued, card.outcome) == (is_rescued, outcome)
    assert [one.num_kept for one in card.rounds] == kept
    assert [[picture.is_kept for picture in one.pictures] for one in card.rounds] == [
        [True] * num_kept + [False] * (2 - num_kept) for num_kept in kept
    ]


def test_card_leads_from_reasons_to_the_next_prompt(run: TextRun) -> None:
    (card,) = run.cards(run.item(1, [0, 1]))
    first, second = card.rounds
    assert (first.prompt, second.prompt) == (f"{PROMPT} 1", f"{PROMPT} 2")
    assert first.reasons == ("image_text 0.3 is under 0.5",)
    assert [picture.reasons for picture in first.pictures] == [
        ("image_text 0.0 is under 0.5",),
        ("image_text 0.1 is under 0.5",),
    ]
    assert (first.captions, second.captions) == ((f"a {HOSTILE}",), ())
    assert (first.strength, second.strength, second.rung, second.shortened) == (0.7, 0.55, "json_schema", "cut")
    assert (run.folder / first.pictures[0].file).is_file()


@pytest.mark.parametrize(
    ("num_rounds", "numbers", "skipped"),
    [(2, [1, 2], [0, 0]), (4, [1, 2, 3, 4], [0] * 4), (5, [1, 3, 4, 5], [0, 1, 0, 0]), (9, [1, 7, 8, 9], [0, 5, 0, 0])],
    ids=["two", "as many as fit", "one too many", "nine"],
)
def test_long_history_shows_its_ends(run: TextRun, num_rounds: int, numbers: list[int], skipped: list[int]) -> None:
    (card,) = run.cards(run.item(1, [0] * num_rounds))
    assert [one.number for one in card.rounds] == numbers
    assert [one.num_skipped for one in card.rounds] == skipped


def test_large_round_shows_what_was_kept(run: TextRun) -> None:
    (card,) = run.cards(run.item(1, [0, 3], painted=64))
    assert [len(one.pictures) for one in card.rounds] == [MAX_PICTURES, MAX_PICTURES]
    assert [picture.is_kept for picture in card.rounds[1].pictures] == [True] * 3 + [False] * (MAX_PICTURES - 3)
    assert card.rounds[1].num_painted == 64


def test_empty_mask_shows_what_was_painted(run: TextRun) -> None:
    item = run.item(1, [0, 1])
    item["attempts"][0]["artifact"] = run.empty
    (card,) = run.cards(item)
    empty, masked = card.rounds[0].pictures
    assert (empty.file, empty.picture) == (masked.file, masked.picture)


def test_missing_picture_is_left_out_and_its_words_stay(run: TextRun, caplog: pytest.LogCaptureFixture) -> None:
    item = run.item(1, [0, 1])
    item["attempts"][0]["artifact"] = "ab" * 32 + ".png"
    (card,) = run.cards(item)
    assert [len(one.pictures) for one in card.rounds] == [1, 2]
    assert "ab" * 32 in caplog.text


@pytest.mark.parametrize(
    ("num_rescued", "num_others", "shown"),
    [
        (3, 2, (3, 2)),
        (40, 40, (MAX_RETHINKS - MIN_UNRESCUED, MIN_UNRESCUED)),
        (40, 0, (MAX_RETHINKS, 0)),
        (0, 40, (0, MAX_RETHINKS)),
        (3, 40, (3, MAX_RETHINKS - 3)),
        (40, 1, (MAX_RETHINKS - 1, 1)),
    ],
    ids=["few", "many of both", "all rescued", "none rescued", "few rescued", "one lost"],
)
def test_sample_shows_failures_beside_the_rescued(
    run: TextRun, num_rescued: int, num_others: int, shown: tuple[int, int]
) -> None:
    rescued = [run.item(slot, [0, 1]) for slot in range(num_rescued)]
    others = [run.item(100 + slot, [0, 0]) for slot in range(num_others)]
    samples = []
    for seed in range(2):
        sample = RethinkSample()
        for item in random.Random(seed).sample(rescued + others, num_rescued + num_others):
            sample.add(item)
        samples.append(sample.item_ids())
    num_shown = sum(int(item_id[-4:]) < 100 for item_id in samples[0])
    assert samples[0] == samples[1]
    assert (num_shown, len(samples[0]) - num_shown) == shown
    assert all(int(item_id[-4:]) < 100 for item_id in samples[0][:num_shown])


def test_sample_counts_items_with_a_prompt(run: TextRun) -> None:
    sample = RethinkSample()
    for kept in ([2], [1], [], [0, 1], [0, 0], [1, 2]):
        sample.add(run.item(1, kept))
    assert collect_rethinks(run.items, run.artifacts, sample).told == "3 of 5 items were rethought; 1 was rescued"


def test_page_shows_the_history_and_prompts_for_sources(run: TextRun) -> None:
    run.add(run.item(1, [0, 0, 1], name=HOSTILE))
    run.add(run.item(2, [0, 1]))
    run.add(run.item(3, [2]))
    (run.folder / "run.json").write_text(json.dumps({"fingerprint": "f", "status": "done"}), encoding="utf-8")
    page = build_report(run.folder).read_text(encoding="utf-8")
    assert "2 of 3 items were rethought; 2 were rescued" in page
    history = page[page.index('id="rethinks"') : page.index('id="rejected"')]
    assert history.count('<figure class="rethink"') == 2
    assert history.count('class="tile kept"') == 2
    assert history.count('class="tile dropped"') == 8
    assert history.index("rescued in round 2") < history.index("rescued in round 3")
    assert history.index(html.escape(f"{PROMPT} 1")) < history.index(html.escape(f"{PROMPT} 2"))
    assert "cut to fit" in history
    assert HOSTILE not in page
    num_painted, num_in_history = 6 + 4 + 2, 6 + 4
    assert page.count('class="tile words"') == num_painted
    assert page.count("<img") == num_painted + num_in_history


def test_run_without_rethinks_has_no_such_section(run: TextRun) -> None:
    run.add(run.item(3, [2]))
    (run.folder / "run.json").write_text(json.dumps({"fingerprint": "f", "status": "done"}), encoding="utf-8")
    assert collect_gallery(run.folder).rethinks.cards == ()
    assert (
        "rethinks"
        not in build_report(run.folder).read_text(encoding="utf-8").partition("<body>")[2].partition("<script>")[0]
    )
