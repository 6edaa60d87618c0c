"""RUN/report.html of a label run: admitted scenes by class, how prompts were refined, what was refused and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import orjson

from ..data.files import write_atomically
from ..data.run_summary import ClassSummary
from ..errors import RunFolderError
from ..memory.artifacts import ArtifactStore
from .charts import classes_to_chart, counts_to_bars, seconds_to_bars
from .report import make_environment
from .thumbnails import picture_to_data_uri

SIDE_PX = 240
MAX_BYTES = 12_000
PER_CLASS = 8
MAX_CLASSES = 40
MAX_REFUSED = 24
MAX_HISTORIES = 8
CRITERIA = ("presence", "coherence", "plausibility")


class _Score(msgspec.Struct, frozen=True):
    presence: float
    coherence: float
    plausibility: float
    reasons: list[str]

    @property
    def least(self) -> float:
        return min(self.presence, self.coherence, self.plausibility)


class _Prompt(msgspec.Struct, frozen=True):
    draft: int
    round: int
    text: str
    by: str
    score: _Score | None = None


class _Scene(msgspec.Struct, frozen=True):
    prompt: int
    artifact: str
    background: str
    probabilities: dict[str, float]
    refused: list[str]


class _Item(msgspec.Struct, frozen=True):
    item_id: str
    labels: list[str]
    slot: int


class _Entry(msgspec.Struct, frozen=True):
    """What of a `LabelResult` the report shows; the rest is skipped."""

    item: _Item
    ending: str
    reason: str
    prompts: list[_Prompt]
    scenes: list[_Scene]


@dataclass(frozen=True, slots=True)
class SceneCard:
    """One picture: its data address, and what is said of it."""

    item_id: str
    labels: tuple[str, ...]
    picture: str
    file: str
    """Of the whole picture, below the run folder."""
    prompt: str
    probabilities: tuple[tuple[str, float, bool], ...]
    """Class, probability, whether it was prompted: prompted ones first, then the likeliest other one."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionCard:
    """One version of a prompt."""

    name: str
    text: str
    scores: tuple[tuple[str, float], ...]
    reasons: tuple[str, ...]
    is_painted: bool


@dataclass(frozen=True, slots=True)
class History:
    """How a prompt came about, and the pictures of it."""

    item_id: str
    labels: tuple[str, ...]
    ending: str
    versions: tuple[VersionCard, ...]
    scenes: tuple[SceneCard, ...]


def build_label_report(folder: Path) -> Path:
    """Write the report from what stands in the run folder.

    Raises:
        RunFolderError: an entry of the ledger is none of a label run.
        OSError: it cannot be written.
    """
    content = orjson.loads((folder / "run.json").read_bytes())
    artifacts, entries = ArtifactStore(folder / "artifacts"), list(_entries(folder))
    classes = [msgspec.convert(one, ClassSummary) for one in content["classes"]]
    made = [one.name for one in classes if one.quota and one.accepted]
    refined = sorted((one for one in entries if len(one.prompts) > 1), key=_rank)
    html = (
        make_environment()
        .get_template("label_report.html.jinja")
        .render(
            run=content,
            folder=folder.name,
            admitted=_by_class(entries, made, artifacts),
            without=[one.name for one in classes if one.quota and not one.accepted],
            refused=[_to_scene(one, scene, artifacts) for one, scene in islice(_refused(entries), MAX_REFUSED)],
            histories=[_to_history(one, artifacts) for one in refined[:MAX_HISTORIES]],
            num_refined=len(refined),
            chart=classes_to_chart([one for one in classes if one.real or one.accepted or one.quota]),
            refusals=counts_to_bars(content["refusals"], content["images"]["rejected"]),
            timings=seconds_to_bars(content["seconds"]),
        )
    )
    path = folder / "report.html"
    write_atomically(path, html.encode())
    return path


def _rank(entry: _Entry) -> tuple[bool, float, int]:
    """Admitted before refused, then by what refinement gained."""
    return (entry.ending != "accepted", -_gain(entry), entry.item.slot)


def _entries(folder: Path) -> Iterator[_Entry]:
    for path in sorted((folder / "items").rglob("*.json"), key=lambda path: path.name):
        try:
            yield msgspec.json.decode(path.read_bytes(), type=_Entry)
        except msgspec.MsgspecError as exc:
            raise RunFolderError(f"{path}: no item of a label run ({exc}); remove it and run the same command") from exc


def _by_class(
    entries: Iterable[_Entry], classes: Iterable[str], artifacts: ArtifactStore
) -> list[tuple[str, list[SceneCard], int]]:
    """Class, its first admitted scenes, and how many there are; a scene of several classes is shown with each."""
    accepted = [one for one in entries if one.ending == "accepted"]
    groups = []
    for name in islice(classes, MAX_CLASSES):
        shown = [one for one in accepted if name in one.item.labels]
        cards = [_to_scene(one, one.scenes[-1], artifacts) for one in shown[:PER_CLASS]]
        groups.append((name, cards, len(shown)))
    return groups


def _refused(entries: Iterable[_Entry]) -> Iterator[tuple[_Entry, _Scene]]:
    """The first refused picture of each item."""
    for one in entries:
        if (scene := next((scene for scene in one.scenes if scene.refused), None)) is not None:
            yield one, scene


def _to_scene(entry: _Entry, scene: _Scene, artifacts: ArtifactStore) -> SceneCard:
    labels = entry.item.labels
    ranked = sorted(scene.probabilities.items(), key=lambda pair: (pair[0] not in labels, -pair[1]))
    num_labels = sum(name in labels for name, _ in ranked)
    return SceneCard(
        item_id=entry.item.item_id,
        labels=tuple(labels),
        picture=picture_to_data_uri(artifacts.get_image(scene.artifact)[..., :3], SIDE_PX, MAX_BYTES),
        file=artifacts.path(scene.artifact).relative_to(artifacts.folder.parent).as_posix(),
        prompt=entry.prompts[scene.prompt].text,
        probabilities=tuple((name, p, name in labels) for name, p in ranked[: num_labels + 1]),
        reasons=tuple(scene.refused),
    )


def _gain(entry: _Entry) -> float:
    """How much the first draft's weakest criterion rose by rewriting; below 0 where nothing was scored."""
    scores = [one.score.least for one in entry.prompts if one.draft == 1 and one.score is not None]
    return max(scores) - scores[0] if scores else -1.0


def _to_history(entry: _Entry, artifacts: ArtifactStore) -> History:
    painted = {scene.prompt for scene in entry.scenes}
    return History(
        item_id=entry.item.item_id,
        labels=tuple(entry.item.labels),
        ending=entry.ending,
        versions=tuple(_to_version(one, row in painted) for row, one in enumerate(entry.prompts)),
        scenes=tuple(_to_scene(entry, scene, artifacts) for scene in entry.scenes),
    )


def _to_version(prompt: _Prompt, is_painted: bool) -> VersionCard:
    score = prompt.score
    return VersionCard(
        name=f"draft {prompt.draft}" + (f", rewrite {prompt.round}" if prompt.round else ""),
        text=prompt.text,
        scores=tuple((name, getattr(score, name)) for name in CRITERIA) if score else (),
        reasons=tuple(score.reasons) if score else (),
        is_painted=is_painted,
    )
