"""Models that a test needs and does not fetch."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskwright.errors import ModelNotFetchedError
from maskwright.models.fetch import locate_model


def fetched(name: str) -> Path:
    """Where the model's files are. `make test` fetches them; without them a test fails and says how."""
    try:
        return locate_model(name)
    except ModelNotFetchedError as exc:
        pytest.fail(str(exc), pytrace=False)
