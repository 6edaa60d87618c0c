"""The classifiers of a label run: one filters; another, taught on another deal of the images, checks what came out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np

from ..configs.label_agent import LabelAgentSettings, LabelClassifierSettings, LabelFilterSettings
from ..data.images import read_image
from ..data.label_records import LabelledImage
from ..errors import InputError
from ..tools.labels import LabelClassifier, is_unlearned
from .label_data import LabelSource, deal_anew
from .label_filter import refusals
from .services import Artifacts

BATCH = 32
MAX_CHECKED = 1000
"""Pictures of each kind that the second classifier looks at; spread evenly over the run."""


class Figures(Protocol):
    """How well a class was learned, on images that were not learned from."""

    @property
    def auc(self) -> float: ...

    @property
    def auc_error(self) -> float:
        """Its standard error."""
        ...


class ClassifierReport(Protocol):
    """How well a classifier learned, class by class."""

    @property
    def classes(self) -> Mapping[str, Figures]: ...

    def as_json(self) -> dict[str, object]: ...


class TaughtClassifier(LabelClassifier, Protocol):
    """A classifier that says how well it learned."""

    @property
    def report(self) -> ClassifierReport: ...


class TrainClassifier(Protocol):
    """Trains a classifier, or reads it from the cache."""

    def __call__(
        self,
        train: Sequence[LabelledImage],
        held_out: Sequence[LabelledImage],
        classes: Sequence[str],
        settings: LabelClassifierSettings,
        cache: Path,
    ) -> TaughtClassifier:
        """
        Raises:
            InputError: it cannot learn the classes.
        """
        ...


def train_classifier(
    train: Sequence[LabelledImage],
    held_out: Sequence[LabelledImage],
    classes: Sequence[str],
    settings: LabelClassifierSettings,
    cache: Path,
) -> TaughtClassifier:
    """The multi-label classifier of `tools.judging`; what it imports takes long."""
    from ..tools.judging.label_training import train_label_classifier

    return train_label_classifier(train, held_out, classes, settings, cache)


class Precision(TypedDict):
    """Of some pictures, the share whose every label the second classifier finds, and no other class."""

    pictures: int
    exact: int
    share: float


@dataclass(frozen=True, slots=True)
class Teaching:
    """Trains the classifiers, or reads them from the cache; no test image reaches them."""

    train: TrainClassifier
    source: LabelSource
    settings: LabelAgentSettings
    classes: tuple[str, ...]
    cache: Path
    seed: int

    def train_filter(self, wanted: Collection[str]) -> tuple[TaughtClassifier, dict[str, str]]:
        """The filter's, taught on the training side and calibrated on the held-out one.

        Classes that it cannot learn are left out: of them it would only make noise.

        Args:
            wanted: classes of which one at least must be learned.

        Returns:
            The classifier, and why it does not know a class.

        Raises:
            InputError: it can learn none of `wanted`.
            LeakError: a test image is among what it would learn from.
        """
        deal = self.source.train, self.source.split.of("held_out")
        least, classes, left_out = self.settings.classifier.min_auc, self.classes, dict[str, str]()
        while True:
            taught = self._train(*deal, classes, "filter", 0.0)
            figures = taught.report.classes
            weak = {name: one for name, one in figures.items() if is_unlearned(one.auc, one.auc_error, least)}
            kept = tuple(name for name in classes if name not in weak)
            if weak and not set(kept) & set(wanted):
                return self._train(*deal, classes, "filter", least), left_out
            if not weak:
                return taught, left_out
            for name, one in weak.items():
                left_out[name] = f"the filter cannot learn it (AUC {one.auc:.2f} ± {one.auc_error:.2f}, not {least:g})"
            classes = kept

    def train_second(self, classes: tuple[str, ...]) -> TaughtClassifier:
        """Another deal of the same images; how well it learned is not asked, see `estimate_precision`."""
        return self._train(*self.deal_second(), classes, "second classifier", 0.0)

    def deal_second(self) -> tuple[list[LabelledImage], list[LabelledImage]]:
        return deal_anew(self.source, self.settings.splits.held_out, self.seed)

    def _train(
        self,
        train: Sequence[LabelledImage],
        held_out: Sequence[LabelledImage],
        classes: tuple[str, ...],
        consumer: str,
        min_auc: float,
    ) -> TaughtClassifier:
        guard = self.source.guard
        return self.train(
            guard.admit(train, consumer=consumer),
            guard.admit(held_out, consumer=consumer),
            classes,
            self.settings.classifier.model_copy(update={"min_auc": min_auc}),
            self.cache,
        )


def estimate_precision(
    teaching: Teaching,
    classes: tuple[str, ...],
    admitted: Sequence[tuple[str, Sequence[str]]],
    refused: Sequence[tuple[str, Sequence[str]]],
    artifacts: Artifacts,
) -> dict[str, object]:
    """How right the labels of what was made are, as a classifier that the filter did not use sees it.

    An estimate: it has learned from most of the images that taught the filter, and it errs on real images, too, as
    `real` says, which it was only calibrated on.

    Args:
        classes: those that are looked for.
        admitted: artifact and labels of each admitted picture.
        refused: of those that the filter refused, for contrast.

    Returns:
        `Precision` of admitted, refused and real; or `unknown`, why there is none.
    """
    try:
        second = teaching.train_second(classes)
    except InputError as exc:
        return {"unknown": f"the second classifier could not be taught: {exc}"}
    limits = teaching.settings.admission
    real = [one for one in teaching.deal_second()[1] if one.labels]
    return {
        "admitted": _precision(second, _pictures(admitted, artifacts), limits),
        "refused": _precision(second, _pictures(refused, artifacts), limits),
        "real": _precision(second, ((read_image(one.image), sorted(one.labels)) for one in real), limits),
        "classifier": second.revision,
    }


def _pictures(
    named: Sequence[tuple[str, Sequence[str]]], artifacts: Artifacts
) -> Iterable[tuple[np.ndarray, Sequence[str]]]:
    step = max(1, -(-len(named) // MAX_CHECKED))
    return ((artifacts.get_image(key)[..., :3], labels) for key, labels in named[::step])


def _precision(
    classifier: LabelClassifier, pictures: Iterable[tuple[np.ndarray, Sequence[str]]], limits: LabelFilterSettings
) -> Precision:
    asked = limits.model_copy(update={"min_text_score": None})
    found = []
    for batch in _batches(pictures):
        scores = classifier.score([rgb for rgb, _ in batch])
        for (_, labels), row in zip(batch, scores, strict=True):
            probabilities: Mapping[str, float] = dict(zip(classifier.classes, row.tolist(), strict=True))
            known = [name for name in labels if name in probabilities]
            found.append(not refusals(known, probabilities, asked))
    return {"pictures": len(found), "exact": sum(found), "share": round(sum(found) / max(1, len(found)), 4)}


def _batches(
    pictures: Iterable[tuple[np.ndarray, Sequence[str]]],
) -> Iterable[list[tuple[np.ndarray, Sequence[str]]]]:
    batch: list[tuple[np.ndarray, Sequence[str]]] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
