"""What the reports tell of validation: who looked, what was said of which image, what waits for a person."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from maskwright.errors import RunFolderError
from maskwright.evaluation.judged import BY_A_PERSON, MAX_WORDS
from maskwright.evaluation.report import build_report
from maskwright.evaluation.validation import build_validation_report
from maskwright.evaluation.validation_sheet import (
    MAX_REJECTED,
    NOBODY_LOOKED,
    Validation,
    ValidationCounts,
    ValidationSummary,
    collect_validation,
    counts_to_outcomes,
    looked_to_text,
)
from maskwright.memory.artifacts import ArtifactStore
from maskwright.memory.entries import Attempt, CriterionResult, HeldBecause, ItemResult, OpinionEntry, no_cost
from maskwright.memory.ledger import Ledger

HOSTILE = '<script>alert("1")</script> 図'
MISSING = "ab" * 32 + ".png"
FIRST, SECOND = "openai:first", "ollama:second"
CRITERIA = ("right_category", "single_object", "intact")


def opinion(judge: str, *, description: str = "A cup on grey.", **unmet: str) -> OpinionEntry:
    """What a judge said; `unmet` gives a criterion's reason, a leading '?' for one that it could not tell."""
    outcomes = {name: "abstain" if unmet[name].startswith("?") else "fail" for name in unmet}
    criteria: list[CriterionResult] = [
        {"name": name, "outcome": outcomes.get(name, "meet"), "score": 0.0, "reason": unmet.get(name, "").lstrip("?")}
        for name in CRITERIA
    ]
    return {
        "judge": judge,
        "version": "judge-1",
        "description": description,
        "criteria": criteria,
        "rung": "json_schema",
        "raw_text": "{}",
    }


class JudgedRun:
    """A run folder with the real ledger and artifact store; each item has one image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: Ledger[ItemResult] = Ledger(folder / "items")
        self.artifacts = ArtifactStore(folder / "artifacts")
        rgba = np.zeros((48, 64, 4), np.uint8)
        rgba[4:40, 6:60] = (200, 120, 20, 255)
        self.picture = self.artifacts.put_image(rgba)
        self.num_items = 0

    def add(
        self,
        *opinions: OpinionEntry,
        held: HeldBecause | None = None,
        keep: bool | None = None,
        reviewer: str = "",
        blurred: bool = False,
        name: str = "cup",
        file: str = "",
        artifact: str = "",
    ) -> None:
        """An image with these opinions; `keep` is what a person decided."""
        item_id = f"image-{self.num_items:03d}"
        self.num_items += 1
        criteria = [measured(blurred), *(one for opinion in opinions for one in opinion["criteria"])]
        met = all(one["outcome"] == "meet" for one in criteria)
        attempt: Attempt = {
            "round": 1,
            "index": 0,
            "seed": 1,
            "strength": 0.7,
            "artifact": artifact or self.picture,
            "parameters": {"file": file} if file else {},
            "truncated_sides": [],
            "measures": {"sharpness": 41.0},
            "criteria": criteria,
            "accepted": met and held is None if keep is None else keep,
        }
        if opinions:
            attempt["opinions"] = list(opinions)
        if held is not None:
            attempt["held"] = held
        if keep is not None:
            attempt["review"] = {
                "item_id": item_id,
                "round": 1,
                "index": 0,
                "keep": keep,
                "reviewer": reviewer,
                "decided": "2025-01-01T00:00:00Z",
            }
        self.put(item_id, [attempt], name=name)

    def add_failed(self, file: str, reason: str) -> None:
        """An image that the judge gave no answer on."""
        self.add(file=file)
        item_id = f"image-{self.num_items - 1:03d}"
        result = self.items.read(item_id)
        assert result is not None
        unjudged: Attempt = {**result["attempts"][0], "criteria": [], "accepted": False}
        self.put(item_id, [unjudged], failed=reason)

    def put(
        self, item_id: str, attempts: list[Attempt], *, name: str = "cup", failed: str = "", unreadable: str = ""
    ) -> None:
        accepted = any(attempt["accepted"] for attempt in attempts)
        self.items.write(
            item_id,
            {
                "item": {
                    "item_id": item_id,
                    "agent": "validation_agent",
                    "category_id": len(name),
                    "category": name,
                    "source_row": -1,
                    "slot": 0,
                },
                "ending": "failed" if failed else "accepted" if accepted else "exhausted",
                "reason": failed,
                "source": None,
                "unreadable_image": unreadable,
                "painter": {},
                "attempts": attempts,
                "instances": [],
                "rounds": [],
                "cost": no_cost(),
                "seconds": 0.1,
            },
        )

    def collect(self, *, seen_only: bool = True) -> Validation:
        summary = ValidationSummary(judges=(FIRST,), validation=ValidationCounts(looked=1))
        return collect_validation(self.folder, summary, self.num_items, seen_only=seen_only)

    def write(self, content: Mapping[str, object]) -> Path:
        (self.folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
        return self.folder

    def write_run(self, judges: Sequence[str] = (), **counts: object) -> Path:
        content = {"fingerprint": "f", "status": "done", "painters": {"image_agent": {"name": "variation"}}}
        return self.write({**content, "images": {"painted": 9}, "judges": judges, "validation": counts})

    def write_folder(self, judges: Sequence[str] = (), **content: object) -> Path:
        items = {"accepted": 0, "exhausted": 0, "held": 0, "failed": 0}
        return self.write(
            {"folder": f"/data/{HOSTILE}", "judges": judges, "validation": {}, "items": items, "accepted": 0, **content}
        )


def measured(blurred: bool) -> CriterionResult:
    reason = "sharpness 0.5 is under 2" if blurred else ""
    return {"name": "sharpness", "outcome": "fail" if blurred else "meet", "score": 0.5, "reason": reason}


def section(page: Path) -> str:
    """The validation section of a run's page, as text of HTML."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<section id="validation">.*?(?=<section id="(rejected|numbers)")', text, re.DOTALL)
    assert found, "the page has no validation section"
    return found[0]


@pytest.fixture
def run(tmp_path: Path) -> JudgedRun:
    return JudgedRun(tmp_path / "Größe 図")


@pytest.mark.parametrize(
    ("judges", "counts", "told"),
    [
        ((), {}, NOBODY_LOOKED),
        ((), {"waiting": 1}, f"{NOBODY_LOOKED} 1 image waits for a person."),
        ((FIRST,), {"looked": 120, "kept": 96}, "openai:first looked at 120 of 1,340 images and would keep 96."),
        (
            (FIRST, SECOND),
            {"looked": 120, "kept": 96, "waiting": 7, "decided": 1},
            "openai:first and ollama:second looked at 120 of 1,340 images and both would keep 96. "
            "7 images wait for a person. People decided on 1 image.",
        ),
        (
            (FIRST,),
            {},
            "openai:first looked at none of 1,340 images; "
            "only those that pass the measures are shown to a vision model.",
        ),
        ((), {"looked": 2, "kept": 2}, "A vision model looked at 2 of 1,340 images and would keep 2."),
    ],
    ids=["nobody", "nobody, audited", "one", "two", "nothing shown", "unnamed"],
)
def test_sentence_says_who_looked(judges: tuple[str, ...], counts: dict[str, int], told: str) -> None:
    assert looked_to_text(ValidationSummary(judges=judges, validation=ValidationCounts(**counts)), 1340) == told


def test_outcomes_begin_with_the_least_met() -> None:
    rows = counts_to_outcomes({"intact": {"meet": 3, "fail": 1}, "none": {}, "single": {"meet": 1, "abstain": 3}})
    assert [(row.name, row.meet, row.fail, row.abstain, row.met_percent) for row in rows] == [
        ("none", 0, 0, 0, 0.0),
        ("single", 1, 0, 3, 25.0),
        ("intact", 3, 1, 0, 75.0),
    ]


def test_images_are_shown_where_they_belong(run: JudgedRun) -> None:
    run.add(opinion(FIRST))
    run.add(opinion(FIRST, intact="the handle is cut off"))
    run.add(opinion(FIRST, single_object="two cups", intact="?half hidden"))
    run.add(opinion(FIRST), held="audit")
    run.add(opinion(FIRST), held="audit", keep=False, reviewer="Ada")
    run.add(opinion(FIRST, intact="cut"), held="audit", keep=True)
    run.add(opinion(FIRST), opinion(SECOND, intact="cut"), held="disagreement")
    run.add(opinion(FIRST), opinion(SECOND, intact="cut"), held="disagreement", keep=True, reviewer="Bo")
    run.add(blurred=True)
    shown = run.collect()
    assert [(name, [card.person for card in cards]) for name, cards in shown.rejected] == [
        ("intact", [""]),
        (BY_A_PERSON, ["rejected by Ada"]),
        ("single_object", [""]),
    ]
    assert sorted(card.person for card in shown.kept) == ["", "kept by a person"]
    assert [card.state for card in shown.waiting] == ["waiting"]
    assert sorted((card.state, card.person) for card in shown.disagreed) == [("kept", "kept by Bo"), ("waiting", "")]
    assert (shown.num_rejected, shown.num_kept, shown.num_disagreed) == (3, 2, 2)
    told = {name: cards[0].opinions[0].unmet for name, cards in shown.rejected}
    assert told["single_object"] == (
        ("single_object", "fail", "two cups"),
        ("intact", "abstain", "half hidden"),
    )


def test_card_tells_measures_from_judges(run: JudgedRun) -> None:
    run.add(opinion(FIRST, intact="cut"), blurred=True)
    ((name, (card,)),) = run.collect().rejected
    assert (name, card.measured) == ("sharpness", ("sharpness 0.5 is under 2",))
    assert [(one.judge, one.keeps, one.unmet) for one in card.opinions] == [
        (FIRST, False, (("intact", "fail", "cut"),)),
    ]


def test_disagreement_names_both_sides(run: JudgedRun) -> None:
    run.add(opinion(FIRST), opinion(SECOND, description="Half a cup.", intact="cut"), held="disagreement")
    (card,) = run.collect().disagreed
    assert [(one.judge, one.keeps, one.description) for one in card.opinions] == [
        (FIRST, True, "A cup on grey."),
        (SECOND, False, "Half a cup."),
    ]
    text = section(build_report(run.write_run([FIRST, SECOND], looked=1, waiting=1)))
    first, second = text.index(FIRST, text.index("<figure")), text.index(SECOND, text.index("<figure"))
    assert text.index("would keep it") in range(first, second)
    assert text.index("would reject it") > second


def test_run_page_shows_words_as_text_and_how_to_review(run: JudgedRun) -> None:
    run.add(opinion(FIRST, description=f"a {HOSTILE}", intact=f"because {HOSTILE}"), name=HOSTILE)
    run.add(opinion(f"{FIRST}{HOSTILE}"), held="audit", keep=True, reviewer=HOSTILE)
    run.add(held="audit")
    outcomes = {"single_object": {"meet": 2}, "intact": {"meet": 1, "fail": 1, HOSTILE: 4}, HOSTILE: {"abstain": 1}}
    page = build_report(run.write_run([FIRST], looked=2, kept=1, waiting=1, decided=1, criteria=outcomes))
    text = section(page)
    escaped = html.escape(HOSTILE).replace("&quot;", "&#34;")
    assert HOSTILE not in page.read_text(encoding="utf-8")
    for expected in (f"a {escaped}", f"because {escaped}", f"kept by {escaped}", f"Rejected {escaped}"):
        assert expected in text
    assert f"maskwright review &#39;{run.folder}&#39;" in text
    assert "openai:first looked at 2 of 9 images and would keep 1. 1 image waits for a person." in text
    rows = re.findall(r"<tr><td title=[^>]*>(.*?)</td><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td><td>(\d+) %", text)
    assert rows == [
        (escaped, "0", "0", "1", "0"),
        ("intact", "1", "1", "0", "50"),
        ("single object", "2", "0", "0", "100"),
    ]
    assert re.findall(r'src="(.{23})', text) == ["data:image/webp;base64,"] * 3
    assert all((run.folder / file).is_file() for file in re.findall(r'href="(artifacts[^"]*)"', text))
    assert all(alt for alt in re.findall(r'alt="([^"]*)"', text))


def test_run_where_nobody_looked_says_so_and_no_more(run: JudgedRun) -> None:
    run.add()
    run.add(blurred=True)
    text = section(build_report(run.write_run()))
    assert NOBODY_LOOKED in text
    assert not re.search("<figure|<table|<pre", text)


def test_older_run_says_that_nobody_looked(run: JudgedRun) -> None:
    run.write({"fingerprint": "f", "status": "done", "painters": {"image_agent": {}}})
    assert NOBODY_LOOKED in section(build_report(run.folder))


def test_run_without_agents_has_no_such_section(run: JudgedRun) -> None:
    run.write({"fingerprint": "f", "status": "done", "judges": [], "validation": {}})
    assert 'id="validation"' not in build_report(run.folder).read_text(encoding="utf-8")


def test_many_images_are_sampled_over_criteria_and_long_words_are_cut(run: JudgedRun) -> None:
    for _ in range(MAX_REJECTED + 10):
        run.add(opinion(FIRST, intact="x" * 10_000))
    run.add(opinion(FIRST, single_object="two"))
    shown = run.collect()
    assert {name: len(cards) for name, cards in shown.rejected} == {"intact": MAX_REJECTED - 1, "single_object": 1}
    assert shown.num_rejected == MAX_REJECTED + 11
    (_, _, reason), *_ = shown.rejected[0][1][0].opinions[0].unmet
    assert reason == "x" * MAX_WORDS + " …"


def test_missing_picture_is_left_out(run: JudgedRun, caplog: pytest.LogCaptureFixture) -> None:
    run.add(opinion(FIRST), artifact=MISSING)
    run.add(opinion(FIRST))
    shown = run.collect()
    assert (len(shown.kept), shown.num_kept) == (1, 2)
    assert MISSING in caplog.text


def test_folder_page_shows_every_verdict_by_file(run: JudgedRun) -> None:
    run.add(opinion(FIRST), file="Größe/1.png")
    run.add(opinion(FIRST, single_object=f"two {HOSTILE}"), file=f"{HOSTILE}.png", name="bowl")
    run.add(blurred=True, file="blurred.png")
    run.add(opinion(FIRST), held="audit", file="later.png")
    run.add_failed("late.png", f"ModelOutageError: {HOSTILE}")
    run.put("image-900", [], unreadable="cut off.png")
    folder = run.write_folder(
        [FIRST],
        validation={"looked": 3, "kept": 2, "waiting": 1, "decided": 0, "criteria": {"intact": {"meet": 3}}},
        items={"planned": 7, "accepted": 1, "exhausted": 2, "held": 1, "failed": 1},
        status="interrupted",
        accepted=1,
        classes=[{"name": "cup", "painted": 4, "accepted": 1}, {"name": "bowl", "painted": 1, "accepted": 0}],
        rejections={"single_object": 1, "sharpness": 1},
        hints=[f"maskwright review {HOSTILE}"],
    )
    path = build_validation_report(folder)
    text = path.read_text(encoding="utf-8")
    escaped = html.escape(HOSTILE).replace("&quot;", "&#34;")
    assert path == folder / "report.html"
    assert HOSTILE not in text
    assert "<h1>1 of 5 images kept; 1 waits for a person, 1 failed, 2 not judged yet</h1>" in text
    assert "openai:first looked at 3 of 5 images and would keep 2. 1 image waits for a person." in text
    for expected in (
        f"two {escaped}",
        "sharpness 0.5 is under 2",
        f"maskwright review {escaped}",
        f"<li>late.png: ModelOutageError: {escaped}</li>",
        "<li>cut off.png: no reason given</li>",
    ):
        assert expected in text
    files = re.findall(r'<small class="file" title="([^"]*)"', text)
    assert files == ["later.png", "blurred.png", f"{escaped}.png", "Größe/1.png"]
    states = re.findall(r'alt="(Kept|Rejected|Undecided) (cup|bowl) from ', text)
    assert states == [("Undecided", "cup"), ("Rejected", "cup"), ("Rejected", "bowl"), ("Kept", "cup")]
    assert re.findall(r'<option value="(\d*)"', text) == ["", "4", "3"]
    assert set(re.findall(r'href="(#[^"]*)"', text)) == {"#verdicts", "#yield", "#reasons", "#unjudged", "#next"}


@pytest.mark.parametrize(
    ("judges", "told"),
    [((), NOBODY_LOOKED), ((FIRST,), "openai:first looked at none of 0 images;")],
    ids=["no judge", "a judge"],
)
def test_empty_folder_has_a_page(run: JudgedRun, judges: tuple[str, ...], told: str) -> None:
    text = build_validation_report(run.write_folder(judges)).read_text(encoding="utf-8")
    assert "<h1>No image was found to validate</h1>" in text
    assert told in text
    assert "<figure" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no run.json is here"),
        (b"{", "no folder of ours"),
        (b'{"fingerprint": "f"}', "folder"),
        (b'{"folder": "x", "items": {"held": "many"}}', r"\$\.items"),
    ],
    ids=["nothing", "cut off", "a run", "a word"],
)
def test_other_folder_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunFolderError, match=message):
        build_validation_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
