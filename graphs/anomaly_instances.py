"""An anomaly run's samples as training images of an instance data set, for a detector to learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ..configs.export import ExportFormat
from ..data.anomaly_split_files import load_split
from ..data.defect_instances import MIN_PART_PX, DefectDatasetBuilder
from ..data.export import save_dataset
from ..data.mvtec import load_anomalies
from ..data.records import Dataset, Findings, ImageRecord
from ..errors import RunFolderError
from ..memory.artifacts import ArtifactStore, breaking_the_run


class _Made(msgspec.Struct):
    """What a line of provenance.jsonl says about an accepted sample, as far as it is needed here."""

    id: str
    defect: str
    artifact: str
    mask: str


@dataclass(frozen=True, slots=True)
class InstanceExport:
    """What was written."""

    folders: tuple[Path, ...]
    images: dict[str, int]
    """By split, the samples among them."""
    samples: int
    annotations: int
    findings: Findings


def export_instances(
    run_folder: Path,
    data: Path,
    item: str,
    formats: Sequence[ExportFormat],
    *,
    originals: bool = True,
    min_part_px: int = MIN_PART_PX,
) -> InstanceExport:
    """Write RUN/dataset/FORMAT/ for each format: the user's images by the run's own sides, and its samples in train.

    A sample is called by its id in provenance.jsonl, such as anomaly-1-00003.png. Validation and test images keep
    their bytes. Classes are numbered as `load_defects` numbers them; those that only the run has follow. A folder
    appears whole or not at all, and replaces only one of ours.

    Args:
        run_folder: of an anomaly run that has exported.
        data: the data set that it was made from, as its recipe names it.
        originals: False leaves the user's training images out.
        min_part_px: least area of an instance, in pixels.

    Raises:
        DatasetError: this is not the run's data set, or not one usable mask.
        RunFolderError: this is no folder of an anomaly run that has accepted samples, or a format's is not ours.
        ImageDecodeError: a sample's mask is missing or damaged.
        BrokenRunError: the disk is full or not writable.
    """
    dataset, num_samples = _gather(run_folder, data, item, originals=originals, min_part_px=min_part_px)
    folders = tuple(run_folder / "dataset" / name for name in formats)
    findings = Findings()
    findings.update(dataset.findings)
    for folder, name in zip(folders, formats, strict=True):
        with breaking_the_run(folder):
            save_dataset(dataset, folder, name, findings=findings)
    images = dict(Counter(image.split for image in dataset.images))
    return InstanceExport(folders, images, num_samples, len(dataset.annotations), findings)


def _gather(run_folder: Path, data: Path, item: str, *, originals: bool, min_part_px: int) -> tuple[Dataset, int]:
    """The photographs and the samples as one data set, and how many samples it has."""
    made = _read_made(run_folder / "dataset" / "provenance.jsonl")
    anomalies = load_anomalies(data, item)
    builder = DefectDatasetBuilder(
        anomalies.defects(item), made_only={one.defect for one in made}, min_part_px=min_part_px
    )
    builder.findings.update(anomalies.findings)
    builder.add_split(load_split(run_folder / "split.json", anomalies), originals=originals)
    num_originals = builder.num_images
    artifacts = ArtifactStore(run_folder / "artifacts")
    for one in made:
        mask_hw = np.asarray(artifacts.get_image(one.mask)[..., 0] > 127)
        builder.add(_to_record(one, artifacts, mask_hw.shape), one.defect, mask_hw)
    return builder.build(anomalies.root), builder.num_images - num_originals


def _read_made(path: Path) -> list[_Made]:
    try:
        made = [msgspec.json.decode(line, type=_Made) for line in path.read_bytes().splitlines()]
    except (OSError, msgspec.MsgspecError) as exc:
        raise RunFolderError(
            f"{str(path)!r} does not tell an anomaly run's samples: {exc}. Give the folder of one that has exported, "
            "or run it again."
        ) from exc
    if not made:
        raise RunFolderError(f"{str(path)!r} names no accepted sample; expected some. Run it again with more tries.")
    return made


def _to_record(one: _Made, artifacts: ArtifactStore, size_hw: tuple[int, ...]) -> ImageRecord:
    return ImageRecord(
        image_id=0,
        file_name=one.id + Path(one.artifact).suffix,
        folder=str(artifacts.folder),
        width=size_hw[1],
        height=size_hw[0],
        stored_as=artifacts.path(one.artifact).relative_to(artifacts.folder).as_posix(),
    )
