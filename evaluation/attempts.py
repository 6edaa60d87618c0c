"""What every card tells of a painted image: its picture, its file, and why it was rejected."""

from __future__ import annotations

from ..memory.artifacts import ArtifactStore
from ..memory.entries import Attempt


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
