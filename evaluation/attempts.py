"""What every card tells of a painted image: its picture, its file, and why it was rejected."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import ImageDecodeError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt
from .thumbnails import ATTEMPT_MAX_BYTES, Colour, image_to_data_uri, instance_to_thumbnail

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AttemptPicture:
    """One painted image. `file` is relative to the run folder; `reasons` are why it was rejected."""

    picture: str
    file: str
    is_kept: bool
    reasons: tuple[str, ...]


def attempt_to_artifact(attempt: Attempt, artifacts: ArtifactStore) -> str:
    """Key of the picture to show: the cut-out, or what was painted where the mask holds nothing.

    Raises:
        ImageDecodeError: the cut-out is missing or damaged.
    """
    key = attempt["artifact"]
    return key if artifacts.get_image(key)[..., 3].any() else attempt.get("painted", key)


def attempt_to_reasons(attempt: Attempt) -> tuple[str, ...]:
    """Why an image was rejected, one criterion each."""
    unmet = (criterion for criterion in attempt["criteria"] if criterion["outcome"] != "meet")
    return tuple(criterion["reason"] or criterion["name"] for criterion in unmet)


def artifact_to_file(key: str, artifacts: ArtifactStore) -> str:
    """Where an artifact lies, seen from the run folder."""
    return artifacts.path(key).relative_to(artifacts.folder.parent).as_posix()


def attempt_to_picture(attempt: Attempt, colour: Colour, artifacts: ArtifactStore) -> AttemptPicture:
    """The image as a small picture.

    Raises:
        ImageDecodeError: it is missing or damaged.
    """
    key = attempt_to_artifact(attempt, artifacts)
    thumbnail = instance_to_thumbnail(artifacts.get_image(key), colour)
    return AttemptPicture(
        picture=image_to_data_uri(thumbnail, ATTEMPT_MAX_BYTES),
        file=artifact_to_file(key, artifacts),
        is_kept=attempt["accepted"],
        reasons=attempt_to_reasons(attempt),
    )


def readable_pictures(
    attempts: Sequence[Attempt], colour: Colour, artifacts: ArtifactStore
) -> Iterator[tuple[Attempt, AttemptPicture]]:
    """Attempts with their pictures; one that does not decode is left out, with a warning."""
    for attempt in attempts:
        try:
            yield attempt, attempt_to_picture(attempt, colour, artifacts)
        except ImageDecodeError as exc:
            logger.warning("left out of the report: %s", exc)


def first_and_last(count: int, limit: int) -> list[tuple[int, int]]:
    """(index, how many before it are not shown) of what is shown of a long history: its first and its last entries."""
    shown = [0, *range(max(1, count - limit + 1), count)][:count]
    return list(zip(shown, [0, *(here - before - 1 for before, here in pairwise(shown))], strict=False))
