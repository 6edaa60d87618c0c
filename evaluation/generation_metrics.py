"""How clear and how various generated defects are: Inception Score and IC-LPIPS, by a named extractor.

The names of the published figures belong to Inception-v3 and to LPIPS on VGG. By another network the same formulas give
other numbers, so every score carries its extractor's name and scores of two extractors are never averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, overload

import numpy as np
import numpy.typing as npt
import orjson

from ..data.anomaly_records import AnomalyRecord
from ..data.files import write_atomically
from ..data.images import read_image
from ..data.records import ImageRGB
from .anomaly_evaluation import AnomalyRun, Progress, Silence, result_path, save_summary

EMBEDDED_AT_ONCE = 8
MAX_IN_CLUSTER = 50
"""Samples of one cluster whose distances count (Ojha et al., CVPR 2021)."""


class Extractor(Protocol):
    """A network that sees what is in a picture and how alike two pictures look."""

    @property
    def name(self) -> str: ...

    def classify(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float64]:
        """(n, classes), each row sums to 1."""
        ...

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        """(n, d), such that the squared Euclidean distance of two rows is how unlike the pictures look."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationScores:
    """Of the samples of one defect of one item, or a mean of such."""

    extractor: str
    """Scores of two extractors cannot be compared."""
    num_samples: int
    inception_score: float
    """At least 1: how many kinds of pictures there seem to be."""
    ic_distance: float | None
    """At least 0: mean distance among samples that are nearest to the same reference; None without references."""


@dataclass(frozen=True, slots=True)
class GenerationSummary:
    """Of a run's samples, all by one extractor."""

    defects: Mapping[str, GenerationScores]
    mean: GenerationScores


class Pictures(Sequence[ImageRGB]):
    """Pictures of records, read when they are asked for; ImageDecodeError where one cannot be."""

    def __init__(self, records: Sequence[AnomalyRecord]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, place: int) -> ImageRGB: ...
    @overload
    def __getitem__(self, place: slice) -> Pictures: ...
    def __getitem__(self, place: int | slice) -> ImageRGB | Pictures:
        if isinstance(place, slice):
            return Pictures(self._records[place])
        return read_image(self._records[place].image)


def evaluate_generation(
    run: AnomalyRun, extractor: Extractor, *, progress: Progress | None = None
) -> GenerationSummary:
    """Score each defect's samples against its references; what is scored is not again. Results lie in RUN/evaluation/.

    Args:
        progress: hears of the stage `defects`.

    Raises:
        ModelNotFetchedError: the extractor's weights are missing.
        ImageDecodeError: a picture cannot be decoded.
    """
    progress = progress or Silence()
    progress.start("defects", len(run.defects))
    found = {}
    for defect in run.defects:
        samples, references = (
            [one for one in records if one.defect == defect] for records in (run.samples, run.references)
        )
        path = result_path(run, "generation", extractor.name, samples, references)
        if not path.is_file():
            scores = score_generation(Pictures(samples), Pictures(references), extractor)
            write_atomically(path, orjson.dumps(asdict(scores), option=orjson.OPT_INDENT_2))
        found[defect] = GenerationScores(**orjson.loads(path.read_bytes()))
        progress.advance("defects")
    summary = GenerationSummary(found, mean_scores(list(found.values())))
    save_summary(run, "generation", asdict(summary))
    return summary


def score_generation(
    samples: Sequence[ImageRGB], references: Sequence[ImageRGB], extractor: Extractor
) -> GenerationScores:
    """Scores of the samples of one defect.

    Args:
        samples: at least one; one that reads its pictures when they are asked for keeps the memory flat.
        references: real pictures of the same defect; none: their distance is None.

    Raises:
        ValueError: no sample.
    """
    if not len(samples):
        raise ValueError("no sample to score; expected at least one. Let the run make some.")
    distance = ic_distance(samples, references, extractor) if len(references) else None
    return GenerationScores(extractor.name, len(samples), inception_score(extractor.classify(samples)), distance)


def inception_score(probabilities: npt.NDArray[np.float64]) -> float:
    """exp of the mean divergence of each picture's classes from those of all (Salimans et al., 2016), in one split.

    Args:
        probabilities: (n, classes), each row sums to 1.
    """
    tiny = np.finfo(np.float64).tiny
    overall = np.log(np.maximum(probabilities.mean(axis=0), tiny))
    divergences = (probabilities * (np.log(np.maximum(probabilities, tiny)) - overall)).sum(axis=1)
    return float(np.exp(divergences.mean()))


def ic_distance(samples: Sequence[ImageRGB], references: Sequence[ImageRGB], extractor: Extractor) -> float:
    """Intra-cluster distance (Ojha et al., CVPR 2021): samples join their nearest reference; the mean over references
    of the mean distance of two samples there. Where fewer than two are, it is 0; of more than 50 the first 50 count.

    Every picture is embedded once, and what is kept grows with the references alone: two rows each.
    """
    clusters = [_Cluster(row) for row in extractor.embed(references)]
    for start in range(0, len(samples), EMBEDDED_AT_ONCE):
        chunk = [samples[i] for i in range(start, min(start + EMBEDDED_AT_ONCE, len(samples)))]
        for row in extractor.embed(chunk):
            min(clusters, key=lambda cluster: cluster.distance(row)).add(row)
    return float(np.mean([cluster.mean_distance() for cluster in clusters]))


@dataclass(slots=True)
class _Cluster:
    """Rows around a reference, by the sums that their mean distance follows from."""

    centre: npt.NDArray[np.float32]
    num: int = 0
    shift: npt.NDArray[np.float32] | float = 0.0
    """Sum of the rows' differences from the centre."""
    squares: float = 0.0
    """Sum of their squared lengths."""

    def distance(self, row: npt.NDArray[np.float32]) -> float:
        difference = row - self.centre
        return float(difference @ difference)

    def add(self, row: npt.NDArray[np.float32]) -> None:
        if self.num < MAX_IN_CLUSTER:
            self.num += 1
            self.shift = self.shift + (row - self.centre)
            self.squares += self.distance(row)

    def mean_distance(self) -> float:
        """Over all pairs: twice the variance, freed of each row's distance to itself."""
        if self.num < 2:
            return 0.0
        spread = self.squares - float(np.square(self.shift).sum()) / self.num
        return max(0.0, 2 * spread / (self.num - 1))


def mean_scores(scores: Sequence[GenerationScores]) -> GenerationScores:
    """Of several defects or items, each counting as much; of distances only those that there are.

    Raises:
        ValueError: none, or scores of more than one extractor.
    """
    names = sorted({one.extractor for one in scores})
    if len(names) != 1:
        raise ValueError(f"scores by {names!r}; expected one extractor. Measure all samples with the same one.")
    distances = [one.ic_distance for one in scores if one.ic_distance is not None]
    return GenerationScores(
        names[0],
        sum(one.num_samples for one in scores),
        float(np.mean([one.inception_score for one in scores])),
        float(np.mean(distances)) if distances else None,
    )
