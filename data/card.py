"""The data set card: a README.md for RUN/dataset, in the form that Hugging Face reads."""

from __future__ import annotations

import html
from collections.abc import Mapping

import yaml

from .run_summary import RunSummary, to_run_summary

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MARKDOWN = str.maketrans({character: "\\" + character for character in "\\`*_[]|#~"})

_LOADERS = {
    "coco": """\
```python
from pycocotools.coco import COCO

coco = COCO("coco/annotations/instances_train.json")
image = coco.imgs[coco.getImgIds()[0]]
masks = [coco.annToMask(annotation) for annotation in coco.imgToAnns[image["id"]]]
```

```python
import supervision

dataset = supervision.DetectionDataset.from_coco(
    images_directory_path="coco/images/train",
    annotations_path="coco/annotations/instances_train.json",
    force_masks=True,
)
```""",
    "yolo": """\
```python
from ultralytics import YOLO

YOLO("yolo11n-seg.pt").train(data="yolo/data.yaml")
```""",
    "lvis": """\
```python
from lvis import LVIS

lvis = LVIS("lvis/annotations/lvis_v1_train.json")
masks = [lvis.ann_to_mask(annotation) for annotation in lvis.load_anns(lvis.get_ann_ids()[:10])]
```""",
}

_FOLDERS = {
    "coco": "`coco/annotations/instances_SPLIT.json`, `coco/images/SPLIT/`: COCO instances, exact masks",
    "yolo": "`yolo/data.yaml`, `yolo/images/`, `yolo/labels/`: Ultralytics segmentation, one outline an object",
    "lvis": "`lvis/annotations/lvis_v1_SPLIT.json`, `lvis/images/SPLIT/`: LVIS v1, without crowds",
    "voc": "`voc/`: Pascal VOC, with the exact masks beside its one map an image",
}

_LICENCES = """\
Each source photograph keeps its own licence, and so does everything that was cut from it or pasted into it.
Read the terms of the source data set before you publish or sell this one. `provenance.jsonl` states, for every
synthetic instance, the photograph or the prompt it came from and the licence as far as it is known."""

_PROMPT_LICENCES = """
What was painted from prompts has no source photograph; the terms of the painter's model apply to it."""

_LIMITS = """\
- Synthetic instances are in the training split alone. Measure on real images only.
- An instance made from another one shares its shape and texture: more instances are not as many new objects.
- Pasted objects may stand in places, sizes and light that do not occur. A model can learn their seams.
- Objects that nobody labelled in the source photographs stay unlabelled, also where something was pasted nearby.
- What the source data leaves out or distorts, people and places among it, this data set leaves out or distorts too.
- Images were judged by criteria, not looked at one by one. Look at the run's `report.html` before you train."""
_PROMPT_LIMITS = """
- An instance painted from a prompt shows what the painter's model learnt of the class, not what your camera sees."""

_SOURCES = {"text_agent": "from prompts", "image_agent": "from real instances"}
"""What an agent's painter starts from."""


def dataset_card(run: Mapping[str, object]) -> str:
    """The card of a finished run as Markdown with YAML front matter.

    Args:
        run: the content of run.json.

    Raises:
        RunFolderError: a value of it is not of its kind.
    """
    summary = to_run_summary(run)
    has_prompts = "text_agent" in summary.painters
    sections = (
        _title(summary),
        "## Instances per class\n\n" + _class_table(summary),
        "## How it was made\n\n" + _making(summary),
        "## Folders\n\n" + _folders(summary),
        "## Load it\n\nFrom this folder:\n\n" + "\n\n".join(_LOADERS[f] for f in summary.formats if f in _LOADERS),
        "## Licences\n\n" + _LICENCES + _PROMPT_LICENCES * has_prompts,
        "## Limits and risks\n\n" + _LIMITS + _PROMPT_LIMITS * has_prompts,
    )
    return f"---\n{_front_matter(summary)}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(summary: RunSummary) -> str:
    splits = summary.dataset.splits.items()
    kept = [counts.get("images", 0) for split, counts in splits if split != "train" or summary.originals]
    num_images = sum(kept) + summary.scenes
    fields = {
        "license": "other",
        "pretty_name": _pretty_name(summary),
        "task_categories": ["image-segmentation"],
        "tags": ["instance-segmentation", "synthetic", "data-augmentation", "maskwright", *summary.formats],
        "size_categories": [next((label for end, label in _SIZES if num_images < end), "n>1M")],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _pretty_name(summary: RunSummary) -> str:
    source = summary.dataset.path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return f"{source or 'data set'}, augmented"


def _title(summary: RunSummary) -> str:
    scenes = f"{summary.scenes:,} composed training image{'' if summary.scenes == 1 else 's'}"
    made = f"{summary.accepted:,} synthetic instances in {scenes}"
    if summary.originals:
        real = sum(one.real for one in summary.classes)
        made = f"the {real:,} labelled training instances of its source, and {made}"
    held_out = " and ".join(split for split in summary.dataset.splits if split != "train")
    unchanged = f"Its {held_out} images are those of the source, unchanged." if held_out else "It is all training data."
    return (
        f"# {escape_markdown(_pretty_name(summary))}\n\n"
        f"An instance segmentation data set of {len(summary.classes):,} classes: {made}. {unchanged}"
    )


def _class_table(summary: RunSummary) -> str:
    rows = [(escape_markdown(one.name), one.real, one.accepted) for one in summary.classes]
    rows.append(("**all**", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    note = (
        "Training split. Synthetic counts accepted instances; one that is pasted into several scenes counts once here. "
        "A scene also holds the real instances of the photograph below it, as far as they stay visible."
    )
    if summary.originals:
        head = "| class | real | synthetic | total |\n|---|--:|--:|--:|\n"
        lines = [f"| {name} | {real:,} | {new:,} | {real + new:,} |" for name, real, new in rows]
    else:
        head = "| class | synthetic |\n|---|--:|\n"
        lines = [f"| {name} | {new:,} |" for name, _, new in rows]
    return head + "\n".join(lines) + "\n\n" + note


def _making(summary: RunSummary) -> str:
    painted, rejected = summary.images.get("painted", 0), summary.images.get("rejected", 0)
    painters = [
        " ".join(word for word in (one.get("name"), one.get("revision"), _SOURCES.get(agent)) if word)
        for agent, one in summary.painters.items()
    ]
    facts = {
        "written by": f"maskwright {summary.maskwright}".strip(),
        "recipe": summary.recipe,
        "painter": ", ".join(painters),
        "seed": "" if summary.seed is None else str(summary.seed),
        "images painted": f"{painted:,}, of which {rejected:,} were rejected",
        "fingerprint": summary.fingerprint,
        "source data": summary.dataset.digest,
    }
    listed = "\n".join(f"- {name}: {escape_markdown(value)}" for name, value in facts.items() if value)
    return (
        "New instances were painted, measured and judged one by one; the accepted ones were pasted into training "
        f"photographs, with the labels below corrected for what they cover.\n\n{listed}\n\n"
        "The settings are in `recipe.yaml` of the run; the same settings, seed and data give the same data set."
    )


def _folders(summary: RunSummary) -> str:
    known = [_FOLDERS[one] for one in summary.formats if one in _FOLDERS]
    synthetic = (
        "`provenance.jsonl`: one line for each synthetic instance, with its source instance or prompt, painter, seed, "
        "scores, licence and the scenes it is in"
    )
    return "\n".join(f"- {line}" for line in (*known, synthetic))


def escape_markdown(text: str) -> str:
    """Text that Markdown and HTML show as it is, in one line, also inside a table."""
    return html.escape(" ".join(text.split()), quote=False).translate(_MARKDOWN)
