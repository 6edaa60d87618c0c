"""What a run makes: the user's data set plus its scenes, streamed from the ledger to the writers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..data.masks import json_to_segmentation
from ..data.records import Annotation, Category, Dataset, ImageRecord, Sample
from ..errors import BrokenRunError
from ..memory.artifacts import ArtifactStore
from ..memory.entries import SceneInstance, SceneResult
from ..memory.ledger import Ledger


class AugmentedDataset:
    """A `SampleSource`: originals first, then scenes in train; val and test as they came."""

    def __init__(
        self,
        dataset: Dataset,
        scene_ids: Sequence[str],
        scenes: Ledger[SceneResult],
        artifacts: ArtifactStore,
        *,
        with_originals: bool,
        unreadable: frozenset[str],
    ) -> None:
        """
        Args:
            unreadable: file names of training images that turned out not to decode; they are left out.
        """
        self._dataset = dataset
        self._scene_ids = scene_ids
        self._scenes = scenes
        self._artifacts = artifacts
        self._with_originals = with_originals
        self._unreadable = unreadable

    @property
    def categories(self) -> tuple[Category, ...]:
        return self._dataset.categories

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(("train", *self._dataset.splits)))

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        for name in self.splits if split is None else (split,):
            if name != "train" or self._with_originals:
                yield from self._originals(name)
            if name == "train":
                yield from self._composed()

    def _originals(self, split: str) -> Iterator[Sample]:
        for sample in self._dataset.samples(split):
            if sample.image.file_name not in self._unreadable:
                yield sample

    def _composed(self) -> Iterator[Sample]:
        next_image_id = 1 + max((image.image_id for image in self._dataset.images), default=0)
        next_annotation_id = 1 + int(self._dataset.annotations.annotation_id.max(initial=0))
        for image_id, scene_id in enumerate(self._scene_ids, start=next_image_id):
            sample = self._to_sample(self.read(scene_id), image_id, next_annotation_id)
            next_annotation_id += len(sample.annotations)
            yield sample

    def read(self, scene_id: str) -> SceneResult:
        """A scene's entry.

        Raises:
            BrokenRunError: it is gone from the ledger.
        """
        scene = self._scenes.read(scene_id)
        if scene is None:
            raise BrokenRunError(f"scene {scene_id!r} is missing in {self._scenes.folder}; run the same command again")
        return scene

    def _to_sample(self, scene: SceneResult, image_id: int, first_annotation_id: int) -> Sample:
        image = ImageRecord(
            image_id=image_id,
            file_name=scene["scene_id"] + Path(scene["artifact"]).suffix,
            folder=str(self._artifacts.folder),
            width=scene["width"],
            height=scene["height"],
            stored_as=self._artifacts.path(scene["artifact"]).relative_to(self._artifacts.folder).as_posix(),
        )
        return Sample(
            image,
            tuple(
                _to_annotation(instance, first_annotation_id + offset, scene)
                for offset, instance in enumerate(scene["instances"])
            ),
        )


def _to_annotation(instance: SceneInstance, annotation_id: int, scene: SceneResult) -> Annotation:
    x, y, w, h = instance["bbox_xywh"]
    return Annotation(
        annotation_id=annotation_id,
        category_id=instance["category_id"],
        segmentation=json_to_segmentation(instance["segmentation"], scene["height"], scene["width"]),
        bbox_xywh=(x, y, w, h),
        area=instance["area"],
        is_crowd=instance["is_crowd"],
    )
