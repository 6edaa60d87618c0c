"""Painters of labelled scenes, and the plan of which to make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from anomaly_folders import write_picture

from maskwright.configs.anomaly import ProceduralSettings
from maskwright.configs.compose import ComposeSettings
from maskwright.configs.label_agent import LabelAgentSettings
from maskwright.data.images import read_header, read_image
from maskwright.data.label_records import LabelDataset, LabelledImage
from maskwright.data.records import ImageRecord
from maskwright.errors import ImageDecodeError, RecipeError
from maskwright.graphs.anomaly_planner import PlanDrawer
from maskwright.graphs.label_plan import ENOUGH_EMPTY, LabelPlan, Progress, plan_labels
from maskwright.graphs.label_scenes import Backdrops, DefectScenes, SpriteScenes, TextScenes, build_label_painter
from maskwright.tools.composing.harmonization import AlphaBlend
from maskwright.tools.defects import Edited, EditRequest
from maskwright.tools.painting.procedural.painter import ProceduralPainter
from maskwright.tools.protocols import Painted, PaintRequest
from maskwright.tools.scenes import SceneRequest

HEIGHT, WIDTH = 48, 64


def labelled(folder: Path, name: str, *labels: str, seed: int = 0) -> LabelledImage:
    """A photograph of a grey plate, on disk."""
    rng = np.random.default_rng(seed)
    grey = np.clip(rng.normal(130, 3, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)
    path = write_picture(folder / name, np.repeat(grey, 3, axis=2))
    header = read_header(path)
    return LabelledImage(image=ImageRecord(1, name, str(folder), header.width, header.height), labels=frozenset(labels))


@pytest.fixture
def backdrops(tmp_path: Path) -> Backdrops:
    folder = tmp_path / "bilder ü"
    return Backdrops([labelled(folder, "a.png", seed=1), labelled(folder, "b.png", "Hund", seed=2)])


def request(*labels: str, background: int = 0, seed: int = 5, item_id: str = "label-000001") -> SceneRequest:
    drawer = PlanDrawer((0.6, 0.9))
    return SceneRequest(
        item_id=item_id,
        seed=seed,
        prompt=f"a photograph of {' and '.join(labels)}",
        labels=tuple(sorted(labels)),
        plans=tuple(drawer.draw(label, seed) for label in sorted(labels)),
        background=background,
    )


@dataclass
class ScriptedEditor:
    """Brightens a column for each edit, and notes what it was given."""

    flaw: str = ""
    is_invisible: bool = False
    name: str = "editor"
    revision: str = "1"
    requests: list[EditRequest] = field(default_factory=list)

    def paint(self, requests: Sequence[EditRequest]) -> list[Edited]:
        self.requests += requests
        return [self._edit(one) for one in requests]

    def _edit(self, one: EditRequest) -> Edited:
        rgb, mask = one.image_rgb.copy(), np.zeros((HEIGHT, WIDTH), np.bool_)
        if not self.is_invisible:
            column = {"crack": 3, "hole": 9}[one.plan.defect]
            rgb[:, column], mask[:, column] = 255, True
        return Edited(rgb, mask, {"column": 1.0}, usd=0.5, flaw=self.flaw)


def test_defects_are_added_one_after_another(backdrops: Backdrops) -> None:
    editor = ScriptedEditor()
    painter = DefectScenes(editor, backdrops, "plate")
    both, one = painter.paint([request("hole", "crack"), request("hole", item_id="label-000002")])
    original = backdrops.read(0)
    assert sorted(np.flatnonzero((both.rgb != original).any(axis=(0, 2)))) == [3, 9]
    assert list(np.flatnonzero((one.rgb != original).any(axis=(0, 2)))) == [9]
    assert [edit.plan.defect for edit in editor.requests] == ["crack", "hole", "hole"]
    assert (both.background, both.usd, one.usd) == ("a.png", 1.0, 0.5)
    assert set(both.parameters) == {"crack.column", "hole.column"}
    assert len({edit.seed for edit in editor.requests}) == 3


@pytest.mark.parametrize(
    ("editor", "asked", "flaw"),
    [
        (ScriptedEditor(flaw="black"), request("hole", "crack"), "black"),
        (ScriptedEditor(is_invisible=True), request("hole"), "hole changes nothing that can be seen"),
        (
            ScriptedEditor(),
            SceneRequest(item_id="x", seed=1, prompt="", labels=("hole",), background=0),
            "no plan for hole",
        ),
    ],
    ids=["flawed", "invisible", "unplanned"],
)
def test_a_scene_that_lacks_a_defect_is_flawed(
    backdrops: Backdrops, editor: ScriptedEditor, asked: SceneRequest, flaw: str
) -> None:
    [scene] = DefectScenes(editor, backdrops, "plate").paint([asked])
    assert scene.flaw == flaw
    assert len(editor.requests) <= 1, "nothing is painted on a flawed scene"


def test_procedural_scenes_are_the_same_alone_and_together(backdrops: Backdrops) -> None:
    painter = DefectScenes(ProceduralPainter(ProceduralSettings()), backdrops, "plate")
    asked = [request("hole", "crack"), request("scratch", seed=8, item_id="label-000002")]
    together = painter.paint(asked)
    for scene, one in zip(together, asked, strict=True):
        assert np.array_equal(scene.rgb, painter.paint([one])[0].rgb)
        assert not np.array_equal(scene.rgb, backdrops.read(0))
        assert not scene.flaw


def test_a_damaged_background_is_a_bad_sample(backdrops: Backdrops) -> None:
    backdrops.images[0].path.write_bytes(b"no picture")
    with pytest.raises(ImageDecodeError):
        DefectScenes(ScriptedEditor(), backdrops, "plate").paint([request("hole")])


@dataclass
class ScriptedBrush:
    """Paints a red disc; for `Katze` nothing at all."""

    alpha: int = 255
    name: str = "brush"
    revision: str = "1"
    max_tokens: int | None = 75
    requests: list[PaintRequest] = field(default_factory=list)

    def knows(self, category: str) -> bool:
        return category != "Pferd"

    def count_tokens(self, prompt: str) -> int:
        return len(prompt.split())

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        self.requests += requests
        return [self._paint(one) for one in requests]

    def _paint(self, one: PaintRequest) -> Painted:
        rgba = np.zeros((32, 40, 4), np.uint8)
        rgba[8:24, 8:32] = (200, 30, 30, 0 if one.category == "Katze" else self.alpha)
        return Painted(rgba, {})


def sprites(brush: ScriptedBrush, backdrops: Backdrops) -> SpriteScenes:
    return SpriteScenes(brush, backdrops, AlphaBlend(), ComposeSettings())


def test_sprites_are_composed_on_what_the_background_lacks(backdrops: Backdrops) -> None:
    brush = ScriptedBrush()
    empty, with_dog = sprites(brush, backdrops).paint(
        [request("Hund", "Vogel"), request("Hund", "Vogel", background=1)]
    )
    assert [one.category for one in brush.requests] == ["Hund", "Vogel", "Vogel"]
    for scene, row, key in ((empty, 0, "a.png"), (with_dog, 1, "b.png")):
        original = backdrops.read(row)
        changed = (scene.rgb != original).any(axis=2)
        assert scene.rgb.shape == (HEIGHT, WIDTH, 3)
        assert 0 < changed.mean() < 0.6
        assert (scene.background, scene.flaw) == (key, "")


def test_an_empty_sprite_is_a_flaw(backdrops: Backdrops) -> None:
    [scene] = sprites(ScriptedBrush(), backdrops).paint([request("Hund", "Katze")])
    assert scene.flaw == "nothing is left of Katze"


def test_whole_pictures_hold_no_real_pixel(backdrops: Backdrops) -> None:
    brush = ScriptedBrush()
    painter = TextScenes(brush)
    [scene] = painter.paint([request("Hund", "Vogel")])
    assert (scene.background, scene.flaw) == ("", "partly transparent")
    assert brush.requests[0].prompt == "a photograph of Hund and Vogel"
    assert painter.max_words is not None
    assert painter.max_words < 75
    assert not painter.knows("Pferd")


@pytest.mark.parametrize(
    ("painter", "data_format", "expected"),
    [("auto", "mvtec", DefectScenes), ("auto", "coco", SpriteScenes), ("defects", "folders", DefectScenes)],
)
def test_the_painter_follows_the_data(backdrops: Backdrops, painter: str, data_format: str, expected: type) -> None:
    settings = LabelAgentSettings.model_validate({"painter": painter})
    dataset = LabelDataset(Path("daten"), data_format, ("hole",), tuple(backdrops.images))
    assert isinstance(build_label_painter(settings, ComposeSettings(), dataset, backdrops), expected)


@pytest.mark.parametrize("painter", ["diffusion", "hosted"])
def test_a_painter_without_its_settings(backdrops: Backdrops, painter: str) -> None:
    settings = LabelAgentSettings.model_validate({"painter": painter})
    dataset = LabelDataset(Path("daten"), "coco", ("hole",), tuple(backdrops.images))
    with pytest.raises(RecipeError, match=f"agents.label_agent.{painter}.model"):
        build_label_painter(settings, ComposeSettings(), dataset, backdrops)


def photographs(*label_sets: Sequence[str]) -> list[LabelledImage]:
    """Records without files."""
    return [
        LabelledImage(image=ImageRecord(row, f"{row:04d}.png", "ordner", WIDTH, HEIGHT), labels=frozenset(labels))
        for row, labels in enumerate(label_sets)
    ]


EMPTY = [()] * ENOUGH_EMPTY
STREET = [("car", "person")] * 6 + [("car",)] * 2 + [("dog",)] * 3 + [("car", "dog", "person", "bus")]


def make_plan(label_sets: Sequence[Sequence[str]], *drawable: str, **settings: object) -> LabelPlan:
    own = LabelAgentSettings.model_validate({"count": 5, **settings})
    known = {"car", "person", "dog", "bus"}
    return plan_labels(photographs(*label_sets), own, 3, drawable=drawable, known=known, needs_backdrop=True)


def test_a_wave_makes_what_is_missing_and_no_more() -> None:
    plan = make_plan([*EMPTY, *STREET], "car", "dog")
    wave = plan.wave(Progress(), 100)
    made = Counter(label for item in wave for label in item["labels"])
    assert made == {"car": 5, "dog": 5}
    assert [item["item_id"] for item in wave] == [f"label-{slot:06d}" for slot in range(len(wave))]
    assert all(item["source_row"] < ENOUGH_EMPTY for item in wave)
    assert wave == plan.wave(Progress(), 100)
    assert wave[:4] == plan.wave(Progress(), 4)


def test_full_and_hopeless_classes_are_closed() -> None:
    plan = make_plan([*EMPTY, *STREET], "car", "dog", "person", max_tries_ratio=2)
    done = Progress(Counter(car=5, dog=2), Counter(car=5, dog=4, person=10), 19)
    assert plan.open_classes(done) == {"dog": 3}
    assert {label for item in plan.wave(done, 100) for label in item["labels"]} == {"dog"}
    assert plan.wave(Progress(Counter(car=5, dog=5, person=5)), 100) == []


def test_open_shares_are_of_the_class_that_lacks_most() -> None:
    plan = make_plan([*EMPTY, *STREET], "car", "dog", "person")
    assert plan.open_shares(Progress(Counter(car=5, dog=3, person=1))) == {"car": 0.0, "dog": 0.5, "person": 1.0}


def test_label_sets_are_those_of_images() -> None:
    plan = make_plan([*EMPTY, *STREET], "car", "dog", "person", max_labels=2)
    assert {frozenset(item["labels"]) for item in plan.wave(Progress(), 100)} <= set(plan.set_counts)
    assert plan.set_counts[frozenset({"car", "person"})] == 6
    assert frozenset({"car", "dog", "person"}) not in plan.set_counts


def test_the_histogram_draws_what_occurs_together() -> None:
    plan = make_plan([*EMPTY, *STREET], "car", "dog", "person", "bus", labels_from="histogram", count=200)
    sets = Counter(frozenset(item["labels"]) for item in plan.wave(Progress(), 300))
    with_car = sum(n for labels, n in sets.items() if "car" in labels and "person" in labels)
    with_dog = sum(n for labels, n in sets.items() if "dog" in labels and "person" in labels)
    assert with_car > 2 * with_dog
    assert all(len(labels) <= 3 for labels in sets)
    assert {label for labels in sets for label in labels} == {"car", "dog", "person", "bus"}


def test_labelled_backgrounds_bring_their_labels() -> None:
    """With too few empty images, any that lacks the classes serves, and the scene is labelled with what it shows."""
    plan = make_plan(STREET, "dog")
    wave = plan.wave(Progress(), 100)
    assert {frozenset(item["labels"]) for item in wave} == {
        frozenset({"car", "person", "dog"}),
        frozenset({"car", "dog"}),
    }
    assert all("dog" not in STREET[item["source_row"]] for item in wave)


def test_no_background_no_class() -> None:
    assert make_plan([("dog",)] * 4, "dog").classes == ()
    assert make_plan([("dog", "cat")] * 4 + [("cat",)], "dog").classes == (), "the filter does not know cats"


def test_a_painter_of_whole_pictures_needs_no_background() -> None:
    own = LabelAgentSettings(count=2)
    plan = plan_labels(photographs(("dog",)), own, 3, drawable=["dog"], known={"dog"}, needs_backdrop=False)
    assert [(item["labels"], item["source_row"]) for item in plan.wave(Progress(), 9)] == [(["dog"], -1)] * 2


def test_the_same_pixels_from_the_same_file(backdrops: Backdrops) -> None:
    assert np.array_equal(backdrops.read(1), read_image(backdrops.images[1].image))
