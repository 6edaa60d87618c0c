"""What a run made, as training images for a detector: read from its export, told from the user's by its provenance."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import orjson

from ..data.anomaly_split_files import load_split
from ..data.defect_instances import MIN_PART_PX, DefectDatasetBuilder
from ..data.load import load_dataset
from ..data.mvtec import load_anomalies
from ..data.records import Dataset, ImageRecord, Sample
from ..data.splits import dataset_digest
from ..errors import DatasetError, RunFolderError

FORMATS = ("coco", "lvis", "yolo", "voc")
"""Of exports, those with exact masks first."""
PROVENANCE = "dataset/provenance.jsonl"
_SPLIT_OF_SIDE = {"normal": "train", "reference": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class SyntheticImage:
    """A training image of a run: a scene with pasted instances, or a sample of a defect."""

    file_name: str
    index: int
    """In the export."""
    instances: Mapping[int, int]
    """How many synthetic instances of each class it shows, by the user's category id."""
    export: int = 0
    """Which of the product's exports."""


@dataclass(frozen=True, slots=True)
class Export:
    """What a run wrote for detectors."""

    dataset: Dataset
    category_ids: Mapping[int, int]
    """The user's category ids by those of the export."""
    makes_defects: bool
    """Whether it is an anomaly run's."""


@dataclass(frozen=True, slots=True)
class RunProduct:
    """The synthetic images of one run or of several, in the order of their exports."""

    images: Sequence[SyntheticImage]
    exports: Sequence[Export]
    digest: str
    """Hex sha256 of where it came from and what its pixels are."""

    @property
    def makes_defects(self) -> bool:
        """Whether an anomaly run is among them."""
        return any(export.makes_defects for export in self.exports)

    def record(self, one: SyntheticImage) -> ImageRecord:
        """The file of an image."""
        return self.exports[one.export].dataset.images[one.index]

    def samples(self, chosen: Sequence[SyntheticImage]) -> Iterator[Sample]:
        """Chosen images with everything that is labelled in them, by the user's category ids."""
        for one in chosen:
            export = self.exports[one.export]
            sample = export.dataset.sample(one.index)
            shown = (replace(each, category_id=export.category_ids[each.category_id]) for each in sample.annotations)
            yield Sample(sample.image, tuple(shown))


class _Made(msgspec.Struct):
    """What a line of provenance.jsonl says: the class and the scenes of an instance, or the id of a defect's sample."""

    category: str = ""
    scenes: list[str] = msgspec.field(default_factory=list)
    id: str = ""


def read_products(run_folders: Sequence[Path], dataset: Dataset) -> RunProduct:
    """Read the synthetic training images of runs that were made from one data set, as one product.

    Raises:
        RunFolderError, DatasetError: as `read_product` raises them; two runs have images of one name.
    """
    products = [read_product(folder, dataset) for folder in run_folders]
    if len(products) == 1:
        return products[0]
    images: list[SyntheticImage] = []
    owner: dict[str, Path] = {}
    for number, (folder, product) in enumerate(zip(run_folders, products, strict=True)):
        for one in product.images:
            if (first := owner.setdefault(Path(one.file_name).stem, folder)) != folder:
                raise DatasetError(
                    f"{str(first)!r} and {str(folder)!r} both made an image {one.file_name!r}; expected different "
                    "names. Name one run only, or make the second one with another agent."
                )
            images.append(replace(one, export=number))
    digest = hashlib.sha256("".join(one.digest for one in products).encode()).hexdigest()
    exports = [export for product in products for export in product.exports]
    return RunProduct(images, exports, digest)


def read_product(run_folder: Path, dataset: Dataset) -> RunProduct:
    """Read the synthetic training images of a run.

    Args:
        run_folder: of a run that has exported.
        dataset: what the run was made from, with the run's own sides; training images may have been left out.

    Raises:
        RunFolderError: there is no export, or not one synthetic image in it.
        DatasetError: the run was made from another data set, or shows a class that this one lacks.
    """
    made = _read_provenance(run_folder)
    _refuse_other_data(run_folder, dataset)
    export = load_dataset(_find_export(run_folder))
    own_ids = {category.name: category.category_id for category in dataset.categories}
    names = _instances_by_stem(made)
    images = [
        SyntheticImage(image.file_name, index, _to_own(names[stem] or _classes(export, index), own_ids))
        for index, image in enumerate(export.images)
        if image.split == "train" and (stem := Path(image.file_name).stem) in names
    ]
    if not images:
        raise RunFolderError(
            f"{str(run_folder)!r} has no synthetic image in its export; expected some. Run it until some are accepted."
        )
    refuse_shared_names((one.file_name for one in images), dataset)
    ids = {one.category_id: own_ids[one.name] for one in export.categories if one.name in own_ids}
    digest = hashlib.sha256((run_folder / PROVENANCE).read_bytes() + dataset_digest(export).encode()).hexdigest()
    return RunProduct(images, [Export(export, ids, any(one.id for one in made))], digest)


def read_defects(run_folder: Path, data: Path, item: str | None = None, *, min_part_px: int = MIN_PART_PX) -> Dataset:
    """The photographs of an anomaly run as an instance data set, by the run's own sides.

    Args:
        data: the data set that the run was made from.
        item: which of its items, where it has several.

    Raises:
        DatasetError: this is not the run's data set, or not one of its masks is usable.
    """
    anomalies = load_anomalies(data, item)
    split = load_split(run_folder / "split.json", anomalies)
    builder = DefectDatasetBuilder(anomalies.defects(split.item), min_part_px=min_part_px)
    builder.findings.update(anomalies.findings)
    builder.add_split(split)
    return builder.build(anomalies.root)


def refuse_shared_names(synthetic: Iterable[str], dataset: Dataset) -> None:
    """Make sure that no synthetic image would take the place of a training photograph.

    Raises:
        DatasetError: one has the name of one.
    """
    own = {image.file_name for image in dataset.images if image.split == "train"}
    if shared := [name for name in synthetic if name in own]:
        raise DatasetError(
            f"{shared[0]!r} is a training image of the data set and a synthetic one too; expected different names. "
            "Give the data set that the run was made from, not what was made of it."
        )


def _read_provenance(run_folder: Path) -> list[_Made]:
    path = run_folder / PROVENANCE
    try:
        return [msgspec.json.decode(line, type=_Made) for line in path.read_bytes().splitlines()]
    except (OSError, msgspec.MsgspecError) as exc:
        raise RunFolderError(
            f"{str(path)!r} does not tell what a run made: {exc}. Give the folder of a run that has exported, or run "
            "it again."
        ) from exc


def _find_export(run_folder: Path) -> Path:
    for name in FORMATS:
        if (run_folder / "dataset" / name).is_dir():
            return run_folder / "dataset" / name
    raise RunFolderError(
        f"{str(run_folder / 'dataset')!r} has none of {', '.join(FORMATS)}; expected one, to learn from. Run it again "
        "with export.formats=[coco, yolo], an anomaly run with agents.anomaly_agent.instances=true too."
    )


def _instances_by_stem(made: Sequence[_Made]) -> dict[str, Counter[str]]:
    """How many instances of each class a synthetic image shows, by its name without ending; none where unknown."""
    found: dict[str, Counter[str]] = {one.id: Counter() for one in made if one.id}
    for one in made:
        for scene in one.scenes:
            found.setdefault(scene, Counter())[one.category] += 1
    return found


def _classes(export: Dataset, index: int) -> Counter[str]:
    return Counter(export.category(one.category_id).name for one in export.sample(index).annotations)


def _to_own(names: Counter[str], own_ids: Mapping[str, int]) -> dict[int, int]:
    if unknown := sorted(names.keys() - own_ids.keys()):
        raise DatasetError(
            f"the run made {unknown[0]!r}, a class that the data set lacks; it has {', '.join(map(repr, own_ids))}. "
            "No figure could tell what it is worth: label real ones, or make a run without it."
        )
    return {own_ids[name]: number for name, number in sorted(names.items())}


def _refuse_other_data(run_folder: Path, dataset: Dataset) -> None:
    """Compare sides with split.json, and whole data sets by their digest with run.json."""
    try:
        recorded = orjson.loads((run_folder / "split.json").read_bytes())
        told = orjson.loads((run_folder / "run.json").read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise RunFolderError(f"{str(run_folder)!r} is no folder of a run ({exc}); give one that has exported.") from exc
    if "sides" in recorded:
        _compare_files(recorded["sides"], dataset, run_folder)
        return
    own: dict[str, set[str]] = {split: set() for split in recorded}
    for image in dataset.images:
        own.setdefault(image.split, set()).add(image.file_name)
    for split, names in own.items():
        then = set(recorded.get(split, ()))
        if odd := names - then if split == "train" else names ^ then:
            raise _other(run_folder, split, min(odd))
    digest = told.get("dataset", {}).get("digest")
    if own["train"] == set(recorded["train"]) and digest != dataset_digest(dataset):
        raise DatasetError(
            f"the data set's labels are not those that {str(run_folder)!r} was made from (digest {digest!r}); expected "
            "the same. Give that data set, or run again."
        )


def _compare_files(sides: Mapping[str, Sequence[str]], dataset: Dataset, run_folder: Path) -> None:
    """Of an anomaly run, whose split names files; those without a usable mask are in no data set of instances."""
    split_of = {key.partition("/")[2]: _SPLIT_OF_SIDE[side] for side, keys in sides.items() for key in keys}
    for image in dataset.images:
        name = image.stored_as or image.file_name
        if split_of.get(name) != image.split:
            raise _other(run_folder, image.split, name)


def _other(run_folder: Path, split: str, name: str) -> DatasetError:
    return DatasetError(
        f"{name!r} is on the side {split!r} of the data set or of {str(run_folder)!r} alone; expected the data "
        "set that the run was made from, with its sides (split.json). Give that one, or run again."
    )
