"""The data set that a recipe's `data` section names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..data.coco import load_coco
from ..data.load import load_dataset
from ..data.records import Dataset
from ..errors import DatasetError, RecipeError
from .data import DataSettings

QUICKSTART = "quickstart"
"""As `data.path`: the photographs that ship with scikit-image, with our annotations."""


def open_dataset(settings: DataSettings) -> Dataset:
    """Read it as it lies on disk; nothing is set aside.

    Raises:
        RecipeError: none is named.
        DatasetError: it cannot be read.
    """
    if settings.path is None:
        raise RecipeError("no data set is given; add --data PATH, a data set folder or its annotation file")
    if settings.path == QUICKSTART:
        return _open_quickstart()
    images = Path(settings.images) if settings.images else None
    return load_dataset(Path(settings.path), settings.format, images=images)


def _open_quickstart() -> Dataset:
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError("the quickstart photographs ship with scikit-image, which is not installed")
    photographs = Path(spec.submodule_search_locations[0], "data")
    annotations = Path(__file__).parent / "quickstart" / "annotations.json"
    return load_coco({"train": annotations}, {"train": photographs})
