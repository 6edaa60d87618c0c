"""The data sets that detectors are compared on: real alone, with plain copy-paste, and with what a run made."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
import orjson

from ..configs.compose import ComposeSettings
from ..configs.evaluation import EvaluationSettings
from ..configs.recipe import load_recipe
from ..data.export import WRITERS
from ..data.files import write_atomically
from ..data.records import Dataset, Findings, SampleSource
from ..data.splits import dataset_digest
from ..errors import RunFolderError
from ..memory.artifacts import breaking_the_run
from .arm_files import RealAnd, paste_like, point_val_at_train, repeat_train_images, share_images, whole_or_absent
from .copy_paste import CopyPaste
from .mixing import choose_real, choose_synthetic, count_train_images, repeat_real
from .run_product import RunProduct, SyntheticImage, read_products

ArmName = Literal["real", "real + copy-paste", "real + ours"]
REAL: Final = "real"
COPY_PASTE: Final = "real + copy-paste"
OURS: Final = "real + ours"
ARM_NAMES: Final[tuple[ArmName, ...]] = (REAL, COPY_PASTE, OURS)
FORMATS: Final = ("yolo", "coco")
"""Of each arm, one folder each."""
_FOLDERS: Final[Mapping[ArmName, str]] = {REAL: "real", COPY_PASTE: "copy_paste", OURS: "ours"}
_CLAIM, _TOLD = "arms.sha256", "arm.json"


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a training."""

    data_yaml: Path
    share: float
    """Of the steps; the phases' shares add up to 1."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What a detector is trained on, phase after phase."""

    name: ArmName
    phases: tuple[Phase, ...]
    num_real: int
    """Training images, real ones."""
    num_synthetic: int
    """Training images beside the real ones."""
    num_repeats: int
    """Times that a pass shows a real image again."""
    real_repeats: float
    """Times that a pass shows a real image with an instance, in the mean."""
    instances: Mapping[str, int]
    """Synthetic or pasted instances by class."""
    findings: Findings


class _ArmFile(msgspec.Struct):
    """What is noted in an arm's folder once it is whole."""

    num_real: int
    num_synthetic: int
    instances: dict[str, int]
    counts: dict[str, int]
    """Of findings."""
    examples: dict[str, list[str]]
    num_repeats: int = 0
    real_repeats: float = 1.0


def build_arms(
    run_folder: Path,
    dataset: Dataset,
    folder: Path,
    settings: EvaluationSettings,
    *,
    seed: int = 0,
    leave_out: Container[str] = frozenset(),
    names: Sequence[ArmName] = ARM_NAMES,
    also: Sequence[Path] = (),
) -> tuple[Arm, ...]:
    """Write FOLDER/ARM/yolo and FOLDER/ARM/coco for each arm; a killed call goes on at the first arm that is not whole.

    Val and test lie in each arm with their own bytes. No training looks at them: the key `val` of each data.yaml,
    without which ultralytics refuses it, names the training images, and nothing may be chosen on it. Every synthetic
    image of the run that is learned from has a copy-paste image, with as many instances of the same classes. An image
    is stored once for all arms, where the file system has hard links.

    Args:
        run_folder: of a run that has exported.
        dataset: what the run was made from, with the run's own sides; training images may have been left out.
        folder: of these arms alone.
        seed: decides what mixing draws and what is pasted.
        leave_out: file names of synthetic images that nothing may learn from.
        names: which arms; a later call may add others to the folder.
        also: folders of further runs from the same data set, whose images count as this one's.

    Raises:
        DatasetError: another data set than the run's, or one without a class of the run.
        RecipeError: mixing leaves no synthetic image, or the run's recipe.yaml cannot be read.
        RunFolderError: the run has no synthetic image, or `folder` is of other arms.
        BrokenRunError: the disk is full or not writable.
    """
    product = read_products([run_folder, *also], dataset)
    real = choose_real(dataset, settings.mixing, seed=seed)
    num_real = count_train_images(real)
    learned = [one for one in product.images if one.file_name not in leave_out]
    chosen = choose_synthetic(learned, num_real, settings.mixing, seed=seed)
    compose = load_recipe(str(run_folder / "recipe.yaml")).compose
    with breaking_the_run(folder):
        repeats = repeat_real(dataset, settings.mixing, len(chosen), seed=seed)
        num_more = len(chosen) + sum(repeats.values()) - len(repeats)
        beside = choose_real(dataset, settings.mixing, seed=seed, num_more=num_more)
        _claim(folder, _fingerprint([dataset, real, beside], product, chosen, repeats, compose, seed))
        builder = _Builder(dataset, real, beside, product, chosen, repeats, compose, seed, folder)
        told = {name: builder.build(name) for name in names}
    return tuple(_to_arm(name, one, folder, settings.mixing.curriculum) for name, one in told.items())


def _fingerprint(
    real: Sequence[Dataset],
    product: RunProduct,
    chosen: Sequence[SyntheticImage],
    repeats: Mapping[str, int],
    compose: ComposeSettings,
    seed: int,
) -> str:
    """Of all that decides the arms' files."""
    decides: dict[str, object] = {
        "data": [dataset_digest(one) for one in real],
        "product": product.digest,
        "chosen": [one.file_name for one in chosen],
        "compose": compose.model_dump(mode="json"),
        "seed": seed,
    }
    if repeats:  # else as earlier versions wrote it, whose folders go on
        decides["repeats"] = dict(repeats)
    return hashlib.sha256(orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _claim(folder: Path, fingerprint: str) -> None:
    """Take an empty folder, or go on in one that holds these arms."""
    claim = folder / _CLAIM
    if claim.is_file():
        if claim.read_text(encoding="utf-8") != fingerprint:
            raise RunFolderError(
                f"{str(folder)!r} holds the arms of another run, data set or mixing; give another folder."
            )
        return
    if folder.is_dir() and (foreign := [path.name for path in folder.iterdir()]):
        raise RunFolderError(
            f"{str(folder)!r} holds {min(foreign)!r} and no {_CLAIM}; expected an empty folder. Give another one."
        )
    write_atomically(claim, fingerprint.encode())


@dataclass(frozen=True, slots=True)
class _Builder:
    """Writes arms, each whole or not at all."""

    dataset: Dataset
    real: Dataset
    """Of it, what is learned from alone; copy-paste takes instances and photographs from all of it."""
    beside: Dataset
    """Of it, what is learned from beside synthetic images."""
    product: RunProduct
    chosen: Sequence[SyntheticImage]
    repeats: Mapping[str, int]
    """How often a pass beside synthetic images shows a real one, by file name; the others come once."""
    compose: ComposeSettings
    seed: int
    folder: Path

    def build(self, name: ArmName) -> _ArmFile:
        target = self.folder / _FOLDERS[name]
        if target.is_dir():
            return msgspec.json.decode((target / _TOLD).read_bytes(), type=_ArmFile)
        findings = Findings()
        with whole_or_absent(target) as partial:
            source, instances = self._source(name, partial / "made", findings)
            place = share_images([self.folder / _FOLDERS[REAL] / "yolo", partial / "yolo"], findings)
            for form in FORMATS:
                WRITERS[form](source, partial / form, place, findings=findings)
            repeats = {} if name == REAL else self.repeats
            if repeats:
                repeat_train_images(partial / "yolo" / "data.yaml", repeats)
            point_val_at_train(partial / "yolo" / "data.yaml")
            named = {self.dataset.category(key).name: number for key, number in sorted(instances.items())}
            shown = sum(repeats.values())
            told = _ArmFile(
                num_real=count_train_images(self.real if name == REAL else self.beside),
                num_synthetic=0 if name == REAL else len(self.chosen),
                instances=named,
                counts=findings.counts,
                examples=findings.examples,
                num_repeats=shown - len(repeats),
                real_repeats=shown / len(repeats) if repeats else 1.0,
            )
            write_atomically(partial / _TOLD, msgspec.json.encode(told))
        return told

    def _source(self, name: ArmName, made: Path, findings: Findings) -> tuple[SampleSource, Counter[int]]:
        """What the arm holds, and its synthetic instances by category id.

        Args:
            made: folder for images that are made for it.
        """
        if name == REAL:
            return self.real, Counter()
        if name == OURS:
            instances = sum((Counter(one.instances) for one in self.chosen), Counter[int]())
            return RealAnd(self.beside, lambda: self.product.samples(self.chosen)), instances
        onto_empty = self.product.makes_defects
        maker = CopyPaste(self.dataset, self.compose, seed=self.seed, onto_empty=onto_empty, findings=findings)
        pasted, instances = paste_like(self.chosen, maker, made, self.dataset, self.compose.jpeg_quality)
        return RealAnd(self.beside, pasted.samples), instances


def _to_arm(name: ArmName, told: _ArmFile, folder: Path, curriculum: float | None) -> Arm:
    own, real = (folder / _FOLDERS[each] / "yolo" / "data.yaml" for each in (name, REAL))
    phases: tuple[Phase, ...] = (Phase(own, 1.0),)
    if curriculum is not None and name != REAL:
        phases = (Phase(own, curriculum), Phase(real, 1 - curriculum))
    findings = Findings(told.counts, told.examples)
    return Arm(
        name=name,
        phases=phases,
        num_real=told.num_real,
        num_synthetic=told.num_synthetic,
        num_repeats=told.num_repeats,
        real_repeats=told.real_repeats,
        instances=told.instances,
        findings=findings,
    )
