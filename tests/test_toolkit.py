"""The tools: what they pass on, what they answer, and what they say when they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_helpers import record
from PIL import Image
from toolkit_helpers import (
    APPLE,
    DISC,
    HEIGHT,
    PHOTO,
    WIDTH,
    ListMemory,
    RecordingPainter,
    Shelf,
    answer,
    call,
    disc_rgba,
    refusal,
    toolkit,
    write_pictures,
)
from vision_helpers import BAD, GOOD, ScriptedJudge


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "wurzel ü"
    write_pictures(folder)
    return folder


ALL = {
    *("recall_prompts", "write_prompt", "generate_image", "vary_instance", "edit_region", "segment", "score_image"),
    *("judge_image", "harmonize", "compose_scene", "inspect_dataset", "export_dataset"),
}


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        ("prompt_author", {"write_prompt"}),
        ("prompt_memory", {"recall_prompts"}),
        ("text_painter", {"generate_image"}),
        ("source_painter", {"vary_instance"}),
        ("region_painter", {"edit_region"}),
        ("masker", {"segment"}),
        ("text_scorer", {"score_image", "judge_image"}),
        ("image_embedder", {"judge_image"}),
        ("judge", {"judge_image"}),
    ],
)
def test_a_tool_is_offered_where_its_part_is_given(root: Path, missing: str, lost: set[str]) -> None:
    assert {tool.name for tool in toolkit(root, **{missing: None}).get_tools()} == ALL - lost


def test_pictures_are_painted_cut_out_and_pasted(root: Path) -> None:
    kit = toolkit(root)
    painted = answer(kit, "generate_image", **APPLE, prompt="a red apple", seed=7)
    assert painted["path"] == "outputs/image-1.png"
    assert (painted["width"], painted["height"], painted["transparent"]) == (WIDTH, HEIGHT, True)
    varied = answer(kit, "vary_instance", **APPLE, image=painted["path"])
    cut = answer(kit, "segment", **APPLE, image=PHOTO, box_xyxy=[4, 6, 30, 40])
    assert cut["box_xyxy"] == [4, 6, 30, 40]
    assert Image.open(root / cut["path"]).getchannel("A").getbbox() == (4, 6, 30, 40)
    pasted = answer(kit, "harmonize", background=PHOTO, cutout=varied["path"], centre_xy=[20, 20], width_px=16)
    assert pasted["box_xyxy"] == [12, 12, 28, 28]
    assert Image.open(root / pasted["path"]).size == (WIDTH, HEIGHT)


def test_painters_get_what_was_asked(root: Path) -> None:
    painter, region = RecordingPainter(), RecordingPainter(needs_view=True)
    kit = toolkit(root, text_painter=painter, source_painter=painter, region_painter=region)
    answer(kit, "generate_image", **APPLE, prompt="a red apple", seed=7, strength=0.25)
    answer(kit, "vary_instance", **APPLE, image=DISC, seed=3)
    answer(kit, "edit_region", **APPLE, image=PHOTO, prompt="rust", box_xyxy=[2, 4, 20, 30])
    answer(kit, "edit_region", **APPLE, image=PHOTO, prompt="rust", mask=DISC)
    words, source = painter.requests
    assert (words.prompt, words.seed, words.strength, words.source_rgba) == ("a red apple", 7, 0.25, None)
    assert source.source_rgba is not None
    assert source.source_rgba.shape == (31, 31, 4)
    box, mask = (request.view for request in region.requests)
    assert box is not None
    assert box.box_xyxy == (2, 4, 20, 30)
    assert mask is not None
    assert np.array_equal(mask.mask_hw, disc_rgba()[..., 3] > 0)


def test_a_picture_is_scored_and_judged(root: Path) -> None:
    kit = toolkit(root)
    scores = answer(kit, "score_image", image=DISC, texts=["apple", "quark", "apple"])["scores"]
    assert scores == [
        {"text": "apple", "score": 0.5, "known": True},
        {"text": "quark", "score": 0.5, "known": False},
    ]
    judged = answer(kit, "judge_image", image=DISC, category="red apples", reference_images=[PHOTO])
    assert judged["accepted"], judged
    assert {"area_share", "image_text", "image_image"} <= {one["name"] for one in judged["criteria"]}
    unknown = answer(kit, "judge_image", image=DISC, category="quark")
    assert ("image_text", "abstain") in {(one["name"], one["outcome"]) for one in unknown["criteria"]}
    assert not unknown["accepted"]
    reasons = [one["reason"] for one in answer(kit, "judge_image", image=PHOTO, category="red apples")["criteria"]]
    assert "area_share 1 is over 0.95" in reasons


def test_a_scene_is_a_data_set_that_can_be_converted(root: Path) -> None:
    kit = toolkit(root)
    parts = [{"image": DISC, "category": "disc"}, {"image": DISC, "category": "Öse"}]
    scene = answer(kit, "compose_scene", background=PHOTO, cutouts=parts, seed=4)
    assert [one["category"] for one in scene["placed"]] == ["disc", "Öse"]
    inspected = answer(kit, "inspect_dataset", path=scene["dataset"])
    assert (inspected["format"], inspected["annotations"], inspected["frequency_groups"]) == ("coco", 2, {"r": 2})
    assert inspected["classes"][0] == {
        "name": "disc",
        "instances": 1,
        "images": 1,
        "frequency": "r",
        "repeat_factor": 1.0,
    }
    exported = answer(kit, "export_dataset", path=scene["annotations"], to="yolo")
    assert answer(kit, "inspect_dataset", path=exported["path"])["format"] == "yolo"
    assert answer(kit, "export_dataset", path=scene["dataset"], to="yolo")["path"] == "outputs/dataset-yolo-2"


def test_prompts_are_written_rethought_and_recalled(root: Path) -> None:
    memory = ListMemory([record("a", kept=4), record("b", kept=0)])
    kit = toolkit(root, prompt_memory=memory)
    assert answer(kit, "write_prompt", **APPLE, seed=2) == {
        "prompt": "a apple, number 2",
        "written_by": "json_schema",
    }
    rethought = answer(kit, "write_prompt", **APPLE, previous_prompt="an apple", problem="blurred")
    assert rethought["prompt"] == "an apple, but not blurred"
    recalled = answer(kit, "recall_prompts", **APPLE)
    assert [one["prompt"] for one in recalled["best"]] == ["a apple, a"]
    assert recalled["worst"][0]["reasons"] == ["area_share 0.01 is below 0.05"]


def test_knowledge_is_offered_where_there_is_some(root: Path) -> None:
    passages = answer(toolkit(root, retriever=Shelf()), "retrieve_knowledge", query="apples", max_passages=1)[
        "passages"
    ]
    assert [(len(one["text"]), one["source"]) for one in passages] == [(2000, "a.md")]


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("generate_image", {"category": "quark", "prompt": "a quark"}, "disc cannot draw 'quark'"),
        ("generate_image", {"category": "apple"}, "prompt: Field required"),
        ("generate_image", {"category": "apple", "prompt": "x", "strength": 2}, "less than or equal to 1"),
        ("vary_instance", {"category": "apple", "image": PHOTO}, "cut the object out with segment"),
        ("segment", {"category": "quark", "image": PHOTO}, "give a box around it"),
        ("segment", {"category": "apple", "image": PHOTO, "box_xyxy": [5, 5, 99, 9]}, "within 64x48 pixels"),
        ("edit_region", {"category": "apple", "image": PHOTO, "prompt": "x"}, "either mask or box_xyxy"),
        ("harmonize", {"background": PHOTO, "cutout": DISC, "centre_xy": [900, 9]}, "no pixel in the scene"),
        ("score_image", {"image": "bilder", "texts": ["x"]}, "is a folder"),
        ("score_image", {"image": "bilder/nichts.png", "texts": ["x"]}, "give a path that an earlier tool returned"),
        ("score_image", {"image": "notiz.txt", "texts": ["x"]}, "cannot be opened as an image"),
        ("inspect_dataset", {"path": "bilder"}, "no data set that we know"),
        ("export_dataset", {"path": ".", "to": "yolo"}, "move the data set into a folder"),
        ("write_prompt", {"category": "apple", "problem": "blurred"}, "together, or neither"),
    ],
)
def test_a_refusal_says_what_to_do(root: Path, name: str, arguments: dict[str, object], said: str) -> None:
    (root / "notiz.txt").write_text("no picture", encoding="utf-8")
    assert said in refusal(toolkit(root), name, **arguments)
    assert not list(root.glob("outputs/*"))


def test_a_painting_with_a_flaw_is_an_error(root: Path) -> None:
    kit = toolkit(root, text_painter=RecordingPainter(flaw="black"))
    assert "made no picture: black" in refusal(kit, "generate_image", **APPLE, prompt="an apple")


def test_a_bug_raises(root: Path) -> None:
    class Broken(RecordingPainter):
        def paint(self, requests: object) -> list[Any]:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(toolkit(root, text_painter=Broken()), "generate_image", **APPLE, prompt="an apple")


def test_vision_judges_look_at_what_the_measures_let_pass(root: Path) -> None:
    strict = ScriptedJudge([BAD], "strict")
    kit = toolkit(root, vision_judges=(ScriptedJudge([GOOD], "kind"), strict))
    judged = answer(kit, "judge_image", image=DISC, category="red apples")
    assert not judged["accepted"]
    assert [one["judge"] for one in judged["seen"]] == ["kind", "strict"]
    assert ("intact", "fail") in {(one["name"], one["outcome"]) for one in judged["criteria"]}
    assert answer(kit, "judge_image", image=PHOTO, category="red apples")["seen"] == []
    assert len(strict.seen) == 1
