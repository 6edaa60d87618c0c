"""An item of an anomaly data set as labels: its defects' names, and none on good images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import DatasetError
from .anomaly_records import GOOD, AnomalyDataset, AnomalyRecord, read_defect_mask
from .label_drafts import LabelDraft, ReadLabels
from .label_records import ClassMapHW, LabelDataset, LabelledImage
from .mvtec import load_anomalies


@dataclass(frozen=True, slots=True)
class _DefectTruth:
    """Draws an image's mask at the level of its defect."""

    levels: Mapping[str, int]
    records: Mapping[str, AnomalyRecord]

    def __call__(self, image: LabelledImage) -> ClassMapHW:
        record = self.records[image.key]
        class_map: ClassMapHW = read_defect_mask(record).astype(np.uint8)
        return class_map * np.uint8(self.levels.get(record.defect, 0))


def read_anomaly_labels(path: Path, item: str | None) -> ReadLabels:
    """Read one item; its keys and splits are those of `load_anomalies`.

    Raises:
        DatasetError: the data set is wrong, or has several items and none is named.
    """
    anomalies = load_anomalies(path, item)
    if len(anomalies.items) > 1:
        raise DatasetError(f"{str(path)!r} has the items {', '.join(anomalies.items)}; name one of them (`item`).")
    defects = tuple(sorted(anomalies.defects(anomalies.items[0])))
    records = {record.key: record for record in anomalies.records}
    drafts = [
        LabelDraft(record.image, frozenset() if record.is_good else frozenset({record.defect}))
        for record in anomalies.records
    ]
    return ReadLabels(
        anomalies.root, "mvtec", defects, drafts, anomalies.findings, lambda levels: _DefectTruth(levels, records)
    )


def labels_to_anomalies(dataset: LabelDataset) -> AnomalyDataset:
    """The item again, for what shares out anomalies; its masks stay out."""
    records = [
        AnomalyRecord(item=PurePosixPath(one.key).parts[0], defect=min(one.labels, default=GOOD), image=one.image)
        for one in dataset.images
    ]
    records.sort(key=lambda one: (one.item, not one.is_good, one.key))
    return AnomalyDataset(dataset.root, tuple(records))
