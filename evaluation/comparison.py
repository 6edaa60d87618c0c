"""A run and the data set that it was made from, opened to be compared: what leaks is out before a detector learns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from ..configs.datasets import open_dataset
from ..configs.evaluation import EvaluationSettings
from ..configs.recipe import Recipe, load_recipe
from ..data.quotas import count_train
from ..data.records import Dataset, Findings, ImageRecord
from ..data.splits import dataset_digest, set_val_aside
from ..errors import DatasetError, LeakError, RunFolderError
from ..memory.artifacts import breaking_the_run
from ..tools.protocols import ImageEmbedder
from .arms import ARM_NAMES, Arm, ArmName, build_arms
from .detection_metrics import measure_detections
from .leaks import file_digest, find_leaks, listed, read_parents, read_synthetic, refuse_equal_files, refuse_synthetic
from .mixing import choose_real, count_train_images
from .near_duplicates import keep_images
from .run_product import PROVENANCE, RunProduct, read_defects, read_products

MANY_LEFT_OUT: Final = 0.2
"""Share of the training images beyond which the comparison is of another data set than the user's."""

_APART: Final = (
    "Make the run with agents.anomaly_agent.splits.apart=true, which keeps photographs of one object on one side"
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What arms are built from; no training image of it shows, or is made of, what measures."""

    run_folder: Path
    also: Sequence[Path] = ()
    """Further runs, whose images count as this one's."""
    results: Path
    """Folder of what is trained and measured; runs may share one, and with it what they have in common."""
    dataset: Dataset
    """The user's, by the run's own sides."""
    product: RunProduct
    settings: EvaluationSettings
    held_out: Sequence[ImageRecord]
    """What no training image shows."""
    left_out: Mapping[str, str]
    """Why, by file name, of real and synthetic training images."""
    findings: Findings
    """Of the data set, and what stands against the figures."""

    @cached_property
    def real(self) -> Dataset:
        """What of the data set is learned from."""
        return choose_real(self.dataset, self.settings.mixing, seed=0)

    @property
    def num_real(self) -> int:
        return count_train_images(self.real)

    @property
    def measured(self) -> list[ImageRecord]:
        return [image for image in self.dataset.images if image.split == self.settings.split]

    @property
    def train_images(self) -> dict[int, int]:
        """Real training images with a class, by category id."""
        counted = count_train(self.dataset)
        return {one.category_id: images for one, (_, images) in zip(self.dataset.categories, counted, strict=True)}

    def arms(self, ratio: float | None, names: Sequence[ArmName] = ARM_NAMES) -> tuple[tuple[Arm, ...], str]:
        """Build the arms at a mixing ratio, and an id of all that decides their synthetic images.

        Raises:
            LeakError: a training file has the bytes of a held-out one.
            InputError, BrokenRunError: as `build_arms` raises them.
        """
        mixing = self.settings.mixing.model_copy(update={"ratio": ratio})
        decides: list[object] = [
            dataset_digest(self.dataset),
            self.product.digest,
            sorted(self.left_out),
            ratio,
            mixing.max_per_class,
            mixing.backgrounds,
        ]
        if mixing.real_share is not None:  # else as earlier versions named it, so that their trainings count
            decides.append(mixing.real_share)
        key = hashlib.sha256(msgspec.json.encode(decides)).hexdigest()[:16]
        arms = build_arms(
            self.run_folder,
            self.dataset,
            self.results / "arms" / key,
            self.settings.model_copy(update={"mixing": mixing}),
            leave_out=self.left_out.keys(),
            names=names,
            also=self.also,
        )
        folders = {phase.data_yaml.parent / "images" / "train" for arm in arms for phase in arm.phases}
        files = (path for folder in sorted(folders) for path in folder.rglob("*") if path.is_file())
        with breaking_the_run(self.results):
            refuse_equal_files(files, self.held_out)
        return arms, key


def read_recipe(run_folder: Path, overrides: Iterable[str] = ()) -> Recipe:
    """The settings that a run was made with.

    Raises:
        RunFolderError: the folder has none.
        RecipeError: they, or an override, are wrong.
    """
    path = run_folder / "recipe.yaml"
    if not path.is_file():
        raise RunFolderError(f"{str(run_folder)!r} is no folder of a run: it has no recipe.yaml. Give one of a run.")
    return load_recipe(str(path), overrides)


def open_comparison(
    run_folder: Path,
    data: Path | None,
    settings: EvaluationSettings,
    embedder: ImageEmbedder,
    *,
    measures: bool = True,
    results: Path | None = None,
    also: Sequence[Path] = (),
) -> Comparison:
    """Read a run's product and its data set, and leave out what shows, or is made of, a held-out image.

    Everything that can be wrong without a training is found here.

    Args:
        data: what the run was made from; None: where its recipe says.
        settings: of the evaluation; its limits decide what a near-duplicate is.
        measures: False where a detector is only trained: then no side to measure on is needed.
        results: default RUN/evaluation/yolo.
        also: further runs from the same data set, whose images count as this one's.

    Raises:
        RunFolderError: no run, or nothing exported.
        DatasetError: another data set than the run's, or nothing in it to measure on.
        LeakError: a held-out image is synthetic, or nothing is left to learn from.
    """
    recipe = read_recipe(run_folder)
    dataset = _read_dataset(run_folder, recipe, data)
    folders = [run_folder, *also]
    product = read_products(folders, dataset)
    findings = Findings()
    findings.update(dataset.findings)
    if measures:
        _refuse_unmeasured(dataset, settings)
    not_train = [image for image in dataset.images if image.split != "train"]
    made = [product.record(one) for one in product.images]
    files = {file_digest(image.path) for image in made} - {""}
    refuse_synthetic(not_train, files.union(*(read_synthetic(folder / PROVENANCE) for folder in folders)))
    only = settings.split if measures and settings.hold_out == "measured" else None
    held_out = [image for image in not_train if only in (None, image.split)]
    leaks = find_leaks(
        [*_train(dataset), *made],
        held_out,
        embedder=embedder,
        max_bits=settings.max_bits,
        min_similarity=settings.min_similarity,
        findings=findings,
        parents=_read_all_parents(folders, product, dataset),
    )
    _refuse_nothing_left(dataset, product, leaks)
    _tell(leaks, len(_train(dataset)) + len(product.images), findings)
    kept = keep_images(dataset, [one.split != "train" or one.file_name not in leaks for one in dataset.images])
    comparison = Comparison(
        run_folder=run_folder,
        also=tuple(also),
        results=results or run_folder / "evaluation" / "yolo",
        dataset=kept if leaks else dataset,
        product=product,
        settings=settings,
        held_out=held_out,
        left_out=leaks,
        findings=findings,
    )
    if measures:
        _tell_gaps(comparison)
    return comparison


def _read_all_parents(folders: Sequence[Path], product: RunProduct, dataset: Dataset) -> dict[str, frozenset[str]]:
    parents: dict[str, frozenset[str]] = {}
    for folder, export in zip(folders, product.exports, strict=True):
        parents |= read_parents(folder, _train(dataset), makes_defects=export.makes_defects)
    return parents


def _read_dataset(run_folder: Path, recipe: Recipe, data: Path | None) -> Dataset:
    if recipe.agents.anomaly_agent is not None:
        path = data or (Path(recipe.data.path) if recipe.data.path else None)
        if path is None:
            raise DatasetError(f"{str(run_folder)!r} does not say what it was made from; add --data PATH.")
        return read_defects(run_folder, path, recipe.agents.anomaly_agent.item)
    named = recipe.data.model_copy(update={"path": str(data)}) if data else recipe.data
    return set_val_aside(open_dataset(named), recipe.data.val_share)


def _refuse_unmeasured(dataset: Dataset, settings: EvaluationSettings) -> None:
    if settings.split not in dataset.splits:
        raise DatasetError(
            f"{str(dataset.root)!r} has no {settings.split!r} to measure on; it has "
            f"{', '.join(map(repr, dataset.splits))}. Set evaluation.split to a side that it has, or make the run with "
            "data.val_share=0.2."
        )


def _train(dataset: Dataset) -> list[ImageRecord]:
    return [image for image in dataset.images if image.split == "train"]


def _refuse_nothing_left(dataset: Dataset, product: RunProduct, leaks: Mapping[str, str]) -> None:
    sides = {"real": [one.file_name for one in _train(dataset)]}
    sides["synthetic"] = [one.file_name for one in product.images]
    for kind, names in sides.items():
        if all(name in leaks for name in names):
            told = listed([f"{name!r} {leaks[name]}" for name in names])
            advice = _APART if product.makes_defects else "Split the data set by scene, not by picture"
            raise LeakError(
                f"each of {len(names)} {kind} training images is nearly one of val or test, or made of one that is: "
                f"{told}; expected others. {advice}, or set stricter limits (evaluation.max_bits and min_similarity)."
            )


def _tell(leaks: Mapping[str, str], num_images: int, findings: Findings) -> None:
    for name, why in leaks.items():
        findings.add("near_duplicate_of_held_out", f"{name!r} {why}")
    if len(leaks) > MANY_LEFT_OUT * num_images:
        findings.add(
            "many_left_out",
            f"{len(leaks)} of {num_images} training images; split the data set by object or scene",
            len(leaks),
        )


def _tell_gaps(comparison: Comparison) -> None:
    """Measure nothing, which fails where nothing can be measured and tells which classes cannot."""
    settings = comparison.settings
    figures = measure_detections(
        comparison.dataset, [], task=settings.task, train_images=comparison.train_images, split=settings.split
    )
    comparison.findings.update(figures.findings)
