"""Masks of edits: the painter's own, the difference, and SAM's in the box of what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from anomaly_folders import write_picture
from anomaly_helpers import HEIGHT, WIDTH, square, tile
from segmenter_helpers import save_checkpoint

from maskwright.configs.anomaly_agent import AnomalyAgentSettings
from maskwright.data.records import MaskHW
from maskwright.errors import MaskwrightError, ModelNotFetchedError, RecipeError
from maskwright.graphs.pipeline import run_recipe
from maskwright.tools.defects import DefectPlan, Edited, EditRequest
from maskwright.tools.masking import changed_box
from maskwright.tools.masking.changed_box import ChangedBoxMasker, build_edit_masker
from maskwright.tools.masking.sam import SamMasker
from maskwright.tools.protocols import Masked, MaskRequest

PLAN = DefectPlan(defect="Loch ß", family="hole", centre_xy=(0.3, 0.6), size_ratio=0.1)
REQUEST = EditRequest(
    item_id="a", seed=1, plan=PLAN, image_rgb=tile(), foreground_hw=np.ones((HEIGHT, WIDTH), np.bool_)
)
EDITED = square(REQUEST)
BOX_XYXY = (14, 24, 24, 34)
"""Of the square."""


def in_box(x0: int, y0: int, x1: int, y1: int) -> MaskHW:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


@dataclass
class ScriptedMasker:
    """Finds the same mask in every picture, and records what it is asked."""

    found: MaskHW
    asked: list[MaskRequest] = field(default_factory=list)
    name: str = "scripted"
    revision: str = "1"

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        self.asked += requests
        return [Masked(self.found.astype(np.uint8) * np.uint8(255), 0.9) for _ in requests]


def boxed(masker: ScriptedMasker, max_changed_outside: float = 0.02) -> ChangedBoxMasker:
    return ChangedBoxMasker(masker=masker, max_changed_outside=max_changed_outside, tolerance_levels=0)


@pytest.mark.parametrize(
    ("masks", "known", "expected"),
    [
        pytest.param("known", in_box(0, 0, 9, 5), in_box(0, 0, 9, 5), id="the painter knows it"),
        pytest.param("known", None, in_box(*BOX_XYXY), id="the painter does not"),
        pytest.param("difference", in_box(0, 0, 9, 5), in_box(*BOX_XYXY), id="whatever the painter knows"),
    ],
)
def test_masks_without_a_network(masks: str, known: MaskHW | None, expected: MaskHW) -> None:
    find_mask = build_edit_masker(AnomalyAgentSettings.model_validate({"masks": masks}))
    assert np.array_equal(find_mask(REQUEST, replace(EDITED, mask_hw=known)), expected)


def test_the_box_of_the_change_is_asked_for_in_the_edited_picture() -> None:
    masker = ScriptedMasker(in_box(*BOX_XYXY))
    boxed(masker)(REQUEST, EDITED)
    [asked] = masker.asked
    assert (asked.box_xyxy, asked.category) == (BOX_XYXY, "Loch ß")
    assert np.array_equal(asked.rgba[..., :3], EDITED.rgb)
    assert (asked.rgba[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("found", "max_changed_outside", "expected"),
    [
        pytest.param(in_box(14, 24, 24, 32), 0.02, in_box(14, 24, 24, 32), id="its outline"),
        pytest.param(in_box(10, 20, 40, 48), 0.02, in_box(*BOX_XYXY), id="cut to the box"),
        pytest.param(in_box(14, 24, 24, 32), 0.001, in_box(*BOX_XYXY), id="too much of the change left out"),
        pytest.param(in_box(14, 24, 18, 34), 1.0, in_box(*BOX_XYXY), id="less than half of the change"),
        pytest.param(in_box(40, 0, 60, 20), 1.0, in_box(*BOX_XYXY), id="another thing"),
        pytest.param(in_box(0, 0, 0, 0), 1.0, in_box(*BOX_XYXY), id="nothing"),
    ],
)
def test_what_is_found_counts_where_it_is_plausible(
    found: MaskHW, max_changed_outside: float, expected: MaskHW
) -> None:
    mask = boxed(ScriptedMasker(found), max_changed_outside)(REQUEST, EDITED)
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(Edited(tile(), None, {}), id="nothing changed"),
        pytest.param(Edited(255 - tile(), None, {}), id="everything changed"),
        pytest.param(replace(EDITED, flaw="blanked"), id="no edit"),
    ],
)
def test_no_network_is_asked_about_what_is_no_edit(edited: Edited) -> None:
    masker = ScriptedMasker(in_box(*BOX_XYXY))
    boxed(masker)(REQUEST, edited)
    assert masker.asked == []


@pytest.mark.parametrize("version", ["sam", "sam2"])
def test_a_checkpoint_answers_as_its_masker_does(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are random, so that any likeness must do."""
    monkeypatch.setattr(changed_box, "MIN_IOU", 0.0)
    folder = save_checkpoint(version, tmp_path / "Gewichte ü")
    sam = {"model": str(folder), "version": version}
    settings = AnomalyAgentSettings.model_validate({"masks": "sam", "sam": sam, "max_changed_outside": 1.0})
    mask = build_edit_masker(settings)(REQUEST, EDITED)
    assert settings.sam is not None
    rgba = np.dstack([EDITED.rgb, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    [alone] = SamMasker(settings.sam).mask([MaskRequest(rgba=rgba, category="x", box_xyxy=BOX_XYXY)])
    assert np.array_equal(mask, (alone.alpha > 127) & in_box(*BOX_XYXY))
    assert mask.any()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        pytest.param({}, RecipeError, r"agents\.anomaly_agent\.sam\.model", id="no settings"),
        pytest.param({"model": "owner/absent"}, ModelNotFetchedError, "models fetch", id="not fetched"),
        pytest.param({"model": ".", "prompts": ["point"]}, RecipeError, r"\['point'\]; expected 'box'", id="no box"),
        pytest.param({"model": ".", "choose": "scorer"}, RecipeError, "predicted_iou", id="no scorer"),
    ],
)
def test_what_cannot_mask_is_said_before_anything_is_painted(
    given: dict[str, object], error: type[MaskwrightError], says: str
) -> None:
    settings = AnomalyAgentSettings.model_validate({"masks": "sam", "sam": given or None})
    with pytest.raises(error, match=says):
        build_edit_masker(settings)


def test_a_run_with_sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights find nothing plausible, so that the difference stays, and with it the rest of the image."""
    monkeypatch.chdir(tmp_path)
    ramp = np.repeat(np.linspace(110, 150, 96)[None, :, None], 72, axis=0)
    for seed in range(4):
        grain = np.random.default_rng(seed).normal(0, 2, (72, 96, 1))
        write_picture(tmp_path / f"Platte ü/train/good/{seed}.png", np.repeat(ramp + grain, 3, 2).astype(np.uint8))
    asked: list[MaskRequest] = []
    mask = SamMasker.mask

    def noting(self: SamMasker, requests: Sequence[MaskRequest]) -> list[Masked]:
        asked.extend(requests)
        return mask(self, requests)

    monkeypatch.setattr(SamMasker, "mask", noting)
    agent = "agents.anomaly_agent"
    overrides = [f"{agent}.masks=sam", f"{agent}.sam.model={save_checkpoint('sam', tmp_path)}", f"{agent}.count=1"]
    outcome = run_recipe(
        "anomaly", data=tmp_path / "Platte ü", out=tmp_path / "lauf", overrides=[*overrides, f"{agent}.defects=[hole]"]
    )
    assert outcome.content["accepted"] == 1
    assert asked
    assert all(request.box_xyxy is not None for request in asked)
