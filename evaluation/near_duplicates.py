"""Training images that show what a held-out image shows: copies, recompressed, scaled, brightened or mirrored ones.

A perceptual hash sieves all pairs, features confirm what passes. Turned and heavily cropped copies, and scenes with
much pasted over, pass the sieve unseen: of scenes, ask what they are made of (`leaks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..data.images import read_image
from ..data.records import AnnotationTable, AnnotationTableBuilder, Dataset, Findings, ImageRecord, Rle
from ..tools.judging.measures import HASH_BITS
from ..tools.protocols import ImageEmbedder
from .looks import Look, read_looks, shrink


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A training image and the held-out image that it shows."""

    train: ImageRecord
    held_out: ImageRecord
    bits: int
    """Differing bits of the 64 of their perceptual hashes; 0 of an exact copy."""
    similarity: float
    """Cosine of their features; 1 of an exact copy."""
    mirrored: bool = False


def find_near_duplicates(
    train: Iterable[ImageRecord],
    held_out: Iterable[ImageRecord],
    *,
    embedder: ImageEmbedder,
    max_bits: int,
    min_similarity: float,
    findings: Findings,
) -> list[NearDuplicate]:
    """For each training image that has one its nearest held-out image, in the training images' order.

    Exact copies, mirrored too, are found whatever the limits. Memory grows by a hash and a digest a held-out image, and
    by the features of those that pass the sieve.

    Args:
        max_bits: 0 to 64; what differs by more is never looked at.
        min_similarity: least cosine, in [-1, 1].
        findings: an image that does not decode is compared by its bytes alone and counted as `undecodable_image`.

    Raises:
        ValueError: a limit is out of its range.
    """
    if not (0 <= max_bits <= HASH_BITS and -1 <= min_similarity <= 1):
        raise ValueError(
            f"max_bits is {max_bits!r} and min_similarity {min_similarity!r}; expected 0 to {HASH_BITS} and -1 to 1"
        )
    held = _HeldOut.read(held_out, embedder, findings)
    found = []
    for looks in read_looks(train, findings, mirrored=True):
        near = held.near(looks, max_bits, min_similarity)
        for look in looks:
            duplicate = held.exact(look) or near.get(look.record)
            if duplicate is not None:
                found.append(duplicate)
    return found


def keep_images(dataset: Dataset, kept: Sequence[bool]) -> Dataset:
    """Some images of a data set, with their annotations.

    Args:
        kept: of each image, whether it stays.
    """
    builder = AnnotationTableBuilder()
    images: list[ImageRecord] = []
    for index, image in enumerate(dataset.images):
        if kept[index]:
            for row in dataset.annotations.rows_of_image(index).tolist():
                _append_row(builder, dataset.annotations, row, len(images))
            images.append(image)
    return replace(dataset, images=images, annotations=builder.build(len(images)))


def _append_row(builder: AnnotationTableBuilder, table: AnnotationTable, row: int, image_index: int) -> None:
    one = table[row]
    segmentation = one.segmentation
    builder.add(
        annotation_id=one.annotation_id,
        image_index=image_index,
        category_id=one.category_id,
        segmentation=segmentation if isinstance(segmentation, Rle) else [ring.ravel() for ring in segmentation.rings],
        bbox_xywh=one.bbox_xywh,
        area=one.area,
        is_crowd=one.is_crowd,
    )


@dataclass(slots=True)
class _HeldOut:
    """The held-out side."""

    embedder: ImageEmbedder
    records: list[ImageRecord] = field(default_factory=list)
    index_of_digest: dict[bytes, int] = field(default_factory=dict)
    phashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    """(n,) of the images at `decoded`."""
    decoded: list[int] = field(default_factory=list)
    features: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    """(d,) of unit length, of those that were ever asked for."""

    @classmethod
    def read(cls, records: Iterable[ImageRecord], embedder: ImageEmbedder, findings: Findings) -> _HeldOut:
        held, phashes = cls(embedder), []
        for look in (one for looks in read_looks(records, findings, mirrored=False) for one in looks):
            index = len(held.records)
            held.records.append(look.record)
            held.index_of_digest.setdefault(look.file_digest, index)
            for view in look.views:
                held.index_of_digest.setdefault(view.pixel_digest, index)
                held.decoded.append(index)
                phashes.append(view.phash)
        held.phashes = np.array(phashes, np.uint64)
        return held

    def exact(self, look: Look) -> NearDuplicate | None:
        for mirrored, digest in enumerate([look.file_digest, *(view.pixel_digest for view in look.views)]):
            if digest in self.index_of_digest:
                record = self.records[self.index_of_digest[digest]]
                return NearDuplicate(look.record, record, 0, 1.0, mirrored=mirrored == 2)
        return None

    def near(self, looks: Sequence[Look], max_bits: int, min_similarity: float) -> dict[ImageRecord, NearDuplicate]:
        """The most similar held-out image of each that passes both limits."""
        views = [(look.record, view, mirrored) for look in looks for mirrored, view in enumerate(look.views)]
        phashes = np.array([view.phash for _, view, _ in views], np.uint64)
        bits = np.bitwise_count(phashes[:, None] ^ self.phashes[None, :])
        rows, columns = np.nonzero(bits <= max_bits)
        asked = np.unique(rows).tolist()
        features = dict(zip(asked, self.embedder.embed([views[row][1].small_rgb for row in asked]), strict=True))
        best: dict[ImageRecord, NearDuplicate] = {}
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            record, _, mirrored = views[row]
            index = self.decoded[column]
            similarity = float(np.clip(features[row] @ self._features_of(index), -1, 1))
            if similarity >= min_similarity and (record not in best or similarity > best[record].similarity):
                best[record] = NearDuplicate(
                    record, self.records[index], int(bits[row, column]), similarity, mirrored=bool(mirrored)
                )
        return best

    def _features_of(self, index: int) -> npt.NDArray[np.float32]:
        if index not in self.features:
            self.features[index] = self.embedder.embed([shrink(read_image(self.records[index]))])[0]
        return self.features[index]
