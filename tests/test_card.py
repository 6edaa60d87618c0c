"""The data set card: read back by Hugging Face's own reader, and its snippets run on what our writers wrote."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from maskwright.data.card import dataset_card, escape_markdown
from maskwright.data.coco import save_coco
from maskwright.data.images import place_image
from maskwright.data.lvis import save_lvis
from maskwright.data.masks import mask_to_rle
from maskwright.data.records import AnnotationTableBuilder, Category, Dataset, Findings, ImageRecord
from maskwright.errors import RunFolderError

HEIGHT, WIDTH = 48, 64
HOSTILE = "<script>|`*_\n1"
RUN: dict[str, object] = {
    "maskwright": "0.1.0",
    "fingerprint": "f" * 64,
    "recipe": "instances",
    "status": "done",
    "dataset": {
        "path": "/data/Größe 図/",
        "format": "yolo",
        "splits": {"train": {"images": 900, "annotations": 5000}, "val": {"images": 60, "annotations": 300}},
        "digest": "d" * 64,
    },
    "images": {"painted": 1500, "rejected": 266},
    "accepted": 1234,
    "scenes": 412,
    "classes": [
        {"name": "tie", "real": 7, "quota": 50, "accepted": 1200, "painted": 1400},
        {"name": HOSTILE, "real": 3000, "accepted": 34},
    ],
    "painters": {"image_agent": {"name": "variation", "revision": "kornia-0.8.1"}},
    "seed": 0,
}


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_front_matter_is_read_by_hugging_face() -> None:
    card = DatasetCard(dataset_card(RUN))
    assert card.data.to_dict() == {
        "license": "other",
        "pretty_name": "Größe 図, augmented",
        "task_categories": ["image-segmentation"],
        "tags": ["instance-segmentation", "synthetic", "data-augmentation", "maskwright", "coco", "yolo"],
        "size_categories": ["1K<n<10K"],
    }
    assert card.text.lstrip().startswith("# Größe 図, augmented")


@pytest.mark.parametrize(
    ("scenes", "size"), [(0, "n<1K"), (40, "1K<n<10K"), (2_000_000, "n>1M")], ids=["small", "1000", "huge"]
)
def test_size_counts_originals_and_scenes(scenes: int, size: str) -> None:
    assert DatasetCard(dataset_card(RUN | {"scenes": scenes})).data.to_dict()["size_categories"] == [size]


def test_card_names_the_splits_that_are_unchanged() -> None:
    assert "Its val images are those of the source, unchanged." in dataset_card(RUN)
    assert "It is all training data." in dataset_card(RUN | {"dataset": {"splits": {"train": {"images": 1}}}})


def test_table_counts_real_synthetic_and_all() -> None:
    card = dataset_card(RUN)
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "| tie | 7 | 1,200 | 1,207 |",
        r"| &lt;script&gt;\|\`\*\_ 1 | 3,000 | 34 | 3,034 |",
        "| **all** | 3,007 | 1,234 | 4,241 |",
    ]


def test_card_without_the_originals_counts_what_is_there() -> None:
    card = dataset_card(RUN | {"originals": False})
    assert "| tie | 1,200 |\n" in card
    assert "3,007" not in card
    assert DatasetCard(card).data.to_dict()["size_categories"] == ["n<1K"]


def test_card_says_how_it_was_made() -> None:
    card = dataset_card(RUN)
    for line in (
        "painter: variation kornia-0.8.1 from real instances",
        "seed: 0",
        "recipe: instances",
        "1,500, of which 266 were rejected",
    ):
        assert f"- {line}\n" in card or f"- images painted: {line}\n" in card


TEXT_PAINTER = {"text_agent": {"name": "embedded:sprites", "revision": "297cb5797482"}}


@pytest.mark.parametrize(
    ("painters", "line"),
    [
        (TEXT_PAINTER, "embedded:sprites 297cb5797482 from prompts"),
        (
            TEXT_PAINTER | {"image_agent": {"name": "variation", "revision": "1"}},
            "embedded:sprites 297cb5797482 from prompts, variation 1 from real instances",
        ),
        ({"text_agent": {"name": "hosted:gpt-image", "revision": ""}}, "hosted:gpt-image from prompts"),
    ],
    ids=["prompts alone", "both agents", "no revision"],
)
def test_card_names_prompts_and_their_painter(painters: dict[str, dict[str, str]], line: str) -> None:
    card = dataset_card(RUN | {"painters": painters})
    assert f"- painter: {line}\n" in card
    assert "the terms of the painter's model apply" in card[card.index("## Licences") : card.index("## Limits")]
    assert "painted from a prompt" in card[card.index("## Limits") :]


def test_card_of_a_run_without_prompts_does_not_speak_of_them_as_painted() -> None:
    card = dataset_card(RUN)
    assert "the painter's model" not in card
    assert "from prompts" not in card


def test_card_leaves_out_what_the_run_does_not_say() -> None:
    card = dataset_card({"fingerprint": "f", "accepted": 1, "scenes": 1})
    assert "seed:" not in card
    assert "painter:" not in card
    assert "1 composed training image." in card


@pytest.mark.parametrize(
    ("formats", "folders", "num_snippets"),
    [(["coco", "yolo"], ["coco/", "yolo/"], 3), (["lvis"], ["lvis/"], 1), (["voc"], ["voc/"], 0)],
    ids=["default", "lvis", "voc"],
)
def test_card_names_the_folders_that_are_there(formats: list[str], folders: list[str], num_snippets: int) -> None:
    card = dataset_card(RUN | {"formats": formats})
    section = card[card.index("## Folders") : card.index("## Licences")]
    assert re.findall(r"^- `(\w+/)", section, re.MULTILINE) == folders
    assert "`provenance.jsonl`" in section
    assert len(snippets(card)) == num_snippets
    for snippet in snippets(card):
        compile(snippet, "card", "exec")


@pytest.mark.parametrize(
    ("format_name", "save"), [("coco", save_coco), ("lvis", save_lvis)], ids=["coco and supervision", "lvis"]
)
def test_snippets_load_what_the_writer_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str, save: object
) -> None:
    assert callable(save)
    dataset, mask = tiny_dataset(tmp_path / "source")
    save(dataset, tmp_path / format_name, place_image, findings=Findings())
    monkeypatch.chdir(tmp_path)
    for snippet in snippets(dataset_card(RUN | {"formats": [format_name]})):
        loaded: dict[str, object] = {}
        exec(snippet, loaded)
        masks = loaded["masks"] if "masks" in loaded else loaded["dataset"][0][2].mask  # type: ignore[index]
        assert np.array_equal(np.asarray(masks)[0], mask)  # type: ignore[call-overload]


def tiny_dataset(folder: Path) -> tuple[Dataset, np.ndarray]:
    """One photograph with one object that has a hole, and its (48, 64) bool mask."""
    folder.mkdir()
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(folder / "図.png")
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[6:30, 8:40] = True
    mask[14:22, 20:28] = False
    builder = AnnotationTableBuilder()
    builder.add(
        annotation_id=1,
        image_index=0,
        category_id=1,
        segmentation=mask_to_rle(mask),
        bbox_xywh=(8, 6, 32, 24),
        area=int(mask.sum()),
    )
    image = ImageRecord(1, "図.png", str(folder), WIDTH, HEIGHT)
    return Dataset(folder, "coco", (Category(1, "tie"),), [image], builder.build(1)), mask


def test_wrong_value_is_named() -> None:
    with pytest.raises(RunFolderError, match=r"\$\.scenes"):
        dataset_card(RUN | {"scenes": "many"})


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", r"a\|b"), ("<b>", "&lt;b&gt;"), ("a\n# b", r"a \# b"), ("[x](y)", r"\[x\](y)"), ("é 図", "é 図")],
    ids=["cell", "tag", "line", "link", "unicode"],
)
def test_markdown_is_escaped(text: str, shown: str) -> None:
    assert escape_markdown(text) == shown
