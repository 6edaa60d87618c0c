"""The data set that a recipe's `data` section names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..data.coco import load_coco
from ..data.defect_instances import load_defects
from ..data.load import detect_format, load_dataset
from ..data.records import Dataset
from ..errors import DatasetError, RecipeError
from .data import DataFormat, DataSettings

QUICKSTART = "quickstart"
"""As `data.path`: the photographs that ship with scikit-image, with our annotations."""


def open_dataset(settings: DataSettings) -> Dataset:
    """Read it as it lies on disk; nothing is set aside.

    Raises:
        RecipeError: none is named, or one that cannot be kept apart.
        DatasetError: it cannot be read.
    """
    if settings.path is None:
        raise RecipeError("no data set is given; add --data PATH, a data set folder or its annotation file")
    if settings.path == QUICKSTART:
        return _open_quickstart()
    if settings.apart:
        return _open_apart(Path(settings.path), settings.format)
    images = Path(settings.images) if settings.images else None
    return load_dataset(Path(settings.path), settings.format, images=images)


def _open_apart(path: Path, data_format: DataFormat) -> Dataset:
    found = detect_format(path) if data_format == "auto" else data_format
    if found != "mvtec":
        raise RecipeError(
            f"`data.apart` is true, but {str(path)!r} is of format {found!r}, which names its own sides; leave "
            "it out, or give an item of an anomaly data set"
        )
    return load_defects(path, apart=True)


def _open_quickstart() -> Dataset:
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError("the quickstart photographs ship with scikit-image, which is not installed")
    photographs = Path(spec.submodule_search_locations[0], "data")
    annotations = Path(__file__).parent / "quickstart" / "annotations.json"
    return load_coco({"train": annotations}, {"train": photographs})
