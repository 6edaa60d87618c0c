"""The validation agent alone on a folder: every picture a verdict, the kept ones copied, nothing judged twice."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image
from text_helpers import POOR, ScriptedScorer, ScriptedTextPainter, draw, register
from tiny_vlm import save_qwen2_vl
from vision_helpers import BAD, GOOD, Answer, ScriptedJudge

from maskwright import cli
from maskwright.errors import BrokenRunError, DatasetError, ModelOutageError, RunFolderError
from maskwright.graphs import validators
from maskwright.graphs.folder_validation import validate_folder
from maskwright.graphs.held import apply_reviews
from maskwright.graphs.pipeline import RunOutcome
from maskwright.memory.reviews import ReviewBook
from maskwright.serving.review_queue import ReviewQueue
from maskwright.serving.studio_validation import validation_agent

Validate = Callable[..., RunOutcome]
UNPLANTED = "agents.text_agent.validation.planted=0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good bolts, one poor one, one cut at the border; a good nut; each (48, 64)."""
    root = tmp_path / "bilder ü"
    pictures = {
        "Bolt ß/a.png": draw(1),
        "Bolt ß/tief/b.png": draw(2),
        "Bolt ß/c poor.png": draw(3, POOR),
        "Bolt ß/d cut.png": draw(4)[:, :30],
        "nut/e.png": draw(5),
    }
    for name, rgba in pictures.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgba).save(path)
    (root / "nut" / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def validate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> Validate:
    """Validates the folder with a scripted scorer, and the judges that are given."""
    settings = [one for one in register(monkeypatch, ScriptedTextPainter()) if "similarity" in one]
    monkeypatch.chdir(tmp_path)

    def call(*judges: ScriptedJudge, overrides: tuple[str, ...] = (), **options: object) -> RunOutcome:
        monkeypatch.setattr(validators, "build_judges", lambda *_: judges)
        overrides = (*settings, *overrides)
        return validate_folder(folder, overrides=overrides, **options)  # type: ignore[arg-type]

    return call


def lines(outcome: RunOutcome) -> dict[str, dict[str, object]]:
    read = (outcome.folder / "verdicts.jsonl").read_bytes().splitlines()
    return {str(line["file"]): line for line in map(orjson.loads, read)}


def kept(outcome: RunOutcome) -> set[str]:
    root = outcome.folder / "kept"
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def careful(picture: np.ndarray, category: str) -> Answer:
    """Turns down what is planted: it is no (48, 64) picture of ours as it stands, or of another class."""
    return GOOD if picture.shape[:2] == (48, 64) and category == "Bolt ß" else BAD


def test_every_picture_gets_a_verdict_and_the_kept_ones_are_copied(validate: Validate, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outcome = validate()
    assert outcome.exit_code == 0
    assert outcome.folder == Path("runs/validate-1")
    assert kept(outcome) == {"Bolt ß/a.png", "Bolt ß/tief/b.png", "nut/e.png"}
    told = lines(outcome)
    assert len(told) == 5
    assert "image_text" in str(told["Bolt ß/c poor.png"]["reason"])
    assert "border_contact" in str(told["Bolt ß/d cut.png"]["reason"])
    assert outcome.content["classes"] == [
        {"name": "Bolt ß", "painted": 4, "accepted": 2},
        {"name": "nut", "painted": 1, "accepted": 1},
    ]
    assert any("No vision model looked" in hint for hint in outcome.content["hints"])  # type: ignore[attr-defined]
    assert "No vision model looked" in (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_one_class_for_all(validate: Validate) -> None:
    outcome = validate(category="screw")
    assert {line["category"] for line in lines(outcome).values()} == {"screw"}
    assert kept(outcome) == {"screw/Bolt ß/a.png", "screw/Bolt ß/tief/b.png", "screw/nut/e.png"}


def test_judges_look_at_what_the_measures_let_pass(validate: Validate) -> None:
    judge = ScriptedJudge(careful)
    outcome = validate(judge)
    told = lines(outcome)
    assert kept(outcome) == {"Bolt ß/a.png", "Bolt ß/tief/b.png"}
    assert told["nut/e.png"]["reason"] == "intact looks wrong"
    assert outcome.content["validation"]["looked"] == 3  # type: ignore[index]


def test_a_judge_that_always_says_yes_is_found_first(validate: Validate) -> None:
    judge = ScriptedJudge([GOOD])
    with pytest.raises(BrokenRunError, match="accepted 4 of 4 pictures that are bad on purpose"):
        validate(judge)
    assert len(judge.seen) == 4


def test_nothing_is_judged_twice_but_what_has_changed(validate: Validate, folder: Path) -> None:
    judge = ScriptedJudge([GOOD])
    out = Path("out")
    first = validate(judge, overrides=(UNPLANTED,), out=out)
    assert len(judge.seen) == 3
    assert validate(judge, overrides=(UNPLANTED,), out=out).content["accepted"] == first.content["accepted"]
    assert len(judge.seen) == 3
    shutil.copy(folder / "Bolt ß/c poor.png", folder / "Bolt ß/a.png")
    second = validate(judge, overrides=(UNPLANTED,), out=out)
    assert len(judge.seen) == 3
    assert kept(second) == {"Bolt ß/tief/b.png", "nut/e.png"}


def test_a_killed_call_is_finished_by_the_same_one(validate: Validate) -> None:
    judge = ScriptedJudge([GOOD, ModelOutageError("down")])
    settings = (UNPLANTED, "budget.workers=1")
    first = validate(judge, overrides=settings, out=Path("out"))
    assert first.exit_code == 3
    assert first.content["items"]["failed"] == 2  # type: ignore[index]
    assert len(kept(first)) == 1
    second = validate(ScriptedJudge([GOOD]), overrides=settings, out=Path("out"))
    assert (second.exit_code, second.content["accepted"]) == (0, 3)


def test_ctrl_c_finishes_what_is_in_flight(validate: Validate) -> None:
    stop = threading.Event()
    stop.set()
    outcome = validate(out=Path("out"), stop=stop)
    assert outcome.exit_code == 130
    assert validate(out=Path("out")).exit_code == 0


def test_what_is_held_is_reviewed_and_goes_on(validate: Validate) -> None:
    out = Path("out")
    first = validate(overrides=("agents.text_agent.validation.audit_share=1.0",), out=out)
    assert first.exit_code == 3
    assert kept(first) == set()
    queue = ReviewQueue(out, "Eva")
    for entry in queue.page(-1, 100):
        held = queue.find(entry["id"])
        assert held is not None
        queue.decide(held, keep="nut" in entry["category"])
    assert len(list(ReviewBook(out / "reviews").ids())) == 5
    second = validate(overrides=("agents.text_agent.validation.audit_share=1.0",), out=out)
    assert (second.exit_code, kept(second)) == (0, {"nut/e.png"})
    assert apply_reviews(out) == 0


def test_opaque_pictures_get_a_mask_and_what_is_no_picture_is_said(validate: Validate, folder: Path) -> None:
    shutil.rmtree(folder)
    (folder / "bolt").mkdir(parents=True)
    rgba = draw(7)
    on_grey = np.where(rgba[..., 3:] > 0, rgba[..., :3], 90).astype(np.uint8)
    Image.fromarray(on_grey).save(folder / "bolt" / "on grey.png")
    (folder / "bolt" / "broken.png").write_bytes(b"\x89PNG\r\n")
    outcome = validate()
    told = lines(outcome)
    assert told["bolt/on grey.png"]["measures"]["area_share"] < 0.9  # type: ignore[index]
    assert told["bolt/broken.png"]["kept"] is False
    assert outcome.content["unreadable"] == ["bolt/broken.png"]


@pytest.mark.parametrize("kind", ["edit", "scene"])
def test_other_kinds_are_asked_other_things(validate: Validate, kind: str) -> None:
    outcome = validate(overrides=(f"agents.text_agent.validation.kind={kind}",))
    told = lines(outcome)["Bolt ß/d cut.png"]
    names = {criterion["name"] for criterion in told["criteria"]}  # type: ignore[attr-defined,union-attr]
    assert "border_contact" not in names
    assert "sharpness" in names
    assert ("image_text" in names) == (kind == "edit")


def test_classes_that_the_scorer_does_not_know_go_unscored(
    validate: Validate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register(monkeypatch, ScriptedTextPainter(), ScriptedScorer(unknown=frozenset({"nut", "Bolt ß"})))
    outcome = validate()
    assert "Bolt ß/c poor.png" in kept(outcome)
    assert all("image_text" not in line["measures"] for line in lines(outcome).values())  # type: ignore[operator]


def test_bad_folders(validate: Validate, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is no folder"):
        validate_folder(tmp_path / "nowhere", category="bolt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no picture"):
        validate_folder(tmp_path / "empty", category="bolt")
    outside = tmp_path / "outside.png"
    Image.fromarray(draw(1)).save(outside)
    (folder / "nut" / "link.png").symlink_to(outside)
    with pytest.raises(DatasetError, match="links to a file outside"):
        validate()
    (folder / "nut" / "link.png").unlink()
    shutil.copy(outside, folder / "top.png")
    with pytest.raises(DatasetError, match="lies in no class's folder"):
        validate()


def test_a_folder_of_others_is_left_alone(validate: Validate, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="no run of ours"):
        validate(out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = [one for one in register(monkeypatch, ScriptedTextPainter()) if "similarity" in one]
    arguments = ["validate", str(folder), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["maskwright", *arguments, *(part for one in settings for part in ("--set", one))])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr().out
    assert ended.value.code == 0
    assert "3 of 5 pictures kept (2 rejected, 0 held, 0 without a verdict)" in said
    assert "No vision model looked" in said


def test_studio_judges_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [one for one in register(monkeypatch, ScriptedTextPainter()) if "similarity" in one]
    context = {"recipe": "text_agent", "overrides": settings}
    given = {"folder": str(folder), "out": str(tmp_path / "out")}
    verdict = validation_agent().invoke(given, context=context)  # type: ignore[call-overload]
    assert (verdict["status"], verdict["kept"], verdict["rejected"], verdict["waiting"]) == ("done", 3, 2, 0)
    assert (Path(verdict["verdicts"]) / "report.html").is_file()
    wrong = validation_agent().invoke({"folder": str(tmp_path / "no"), "category": "x"}, context=context)  # type: ignore[call-overload]
    assert wrong["status"] == "failed"
    assert "is no folder" in wrong["reason"]


def test_a_local_vision_model_judges_as_it_is_loaded_by_a_user(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights see nothing; that they are asked, held to the schema, and not taken for a yes is what counts."""
    settings = [one for one in register(monkeypatch, ScriptedTextPainter()) if "similarity" in one]
    question = tmp_path / "frage.md"
    question.write_text("---\nby: hand\n---\n{category}? {criteria}", encoding="utf-8")
    model = f"huggingface:{save_qwen2_vl(tmp_path / 'vlm ü')}"
    judge = {"model": model, "max_tokens": 128}
    validation = {"prompt": str(question), "criteria": [{"name": "fits", "question": "It fits."}], "max_side_px": 64}
    overrides = [f"llm.judge={json.dumps(judge)}", f"agents.text_agent.validation={json.dumps(validation)}"]
    outcome = validate_folder(folder, out=tmp_path / "out", overrides=[*settings, *overrides])
    told = lines(outcome)
    asked = [told[name] for name in ("Bolt ß/a.png", "Bolt ß/tief/b.png", "nut/e.png")]
    for line in asked:  # an answer without a reason is none; one with a reason is an opinion
        heard = [opinion["rung"] for opinion in line["opinions"]]  # type: ignore[attr-defined]
        assert heard == ["json_schema"] or re.search(r"UnparseableAnswer.*\"fits\": {\"outcome\"", str(line["reason"]))
    assert not told["Bolt ß/c poor.png"]["opinions"]
