"""Weakly supervised segmentation with and without a run's images, at equal steps, scored by masks nobody learned from.

For each arm and seed: a network learns labels; its class activation maps become masks of the training images; a second
network learns these and is measured on the test side. Masks of held-out images choose one threshold a class, in every
arm alike; masks of the train and test sides only score.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import orjson
import torch

from ..data.files import write_atomically
from ..data.label_records import ClassMapHW, LabelledImage
from ..models.device import resolve_device
from .anomaly_evaluation import Progress, Silence
from .wsss_arms import arms_of
from .wsss_data import PictureCache, WsssRun, map_to_frame, with_truth
from .wsss_metrics import SegmentationFigures, SegmentationMeter
from .wsss_networks import LabelNetwork, SegmentationNetwork, image_to_pixels
from .wsss_pseudo import Cams, choose_thresholds, find_all_cams, make_masks
from .wsss_sheet import save_sheet
from .wsss_summary import WsssSummary, save_summary, summarize
from .wsss_training import LabelBatches, MaskBatches, WsssSettings, train_label_network, train_segmentation_network
from .wsss_weights import kept_or_trained

SHEET_ROWS = 2
"""Test images of each class in the sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WsssResult:
    """One arm and seed."""

    arm: str
    seed: int
    num_images: int
    """That the networks learn from."""
    thresholds: Mapping[str, float]
    pseudo: SegmentationFigures
    """Of the masks found on labelled real training images."""
    final: SegmentationFigures
    """Of the second network, on the test side."""
    seconds: float


@dataclass(frozen=True, slots=True)
class _Job:
    """One arm and seed at work."""

    run: WsssRun
    arm: str
    images: Sequence[LabelledImage]
    settings: WsssSettings
    pictures: PictureCache
    device: torch.device
    folder: Path
    """Of this job's weights."""
    progress: Progress

    def work(self, path: Path, sheet: Path | None) -> WsssResult:
        """Train, find masks, train again, measure; what lies whole in `folder` is not done again."""
        began = time.monotonic()
        labels = self._label_network()
        masks, thresholds = self._masks(labels)
        segmenter = self._segmentation_network(masks)
        result = WsssResult(
            arm=self.arm,
            seed=self.settings.seed,
            num_images=len(self.images),
            thresholds=thresholds,
            pseudo=self._measure(masks.__getitem__, [one for one in self.run.train if one.labels]),
            final=self._measure(lambda image: self._predict(segmenter, image), self.run.test),
            seconds=round(time.monotonic() - began, 1),
        )
        if sheet:
            self._draw(labels, segmenter, thresholds, sheet)
        write_atomically(path, orjson.dumps(asdict(result), option=orjson.OPT_INDENT_2))
        return result

    def _label_network(self) -> LabelNetwork:
        self.progress.start("label steps", self.settings.label_steps)
        batches = LabelBatches(self.images, self.run.classes, self.pictures)
        network = kept_or_trained(
            self.folder / "labels.safetensors",
            lambda: LabelNetwork(len(self.run.classes), pretrained=False),
            lambda: train_label_network(
                batches, self.settings, device=self.device, on_step=lambda: self.progress.advance("label steps")
            ),
        ).to(self.device)
        network.encoder.freeze_shallow()
        return network

    def _masks(self, network: LabelNetwork) -> tuple[dict[LabelledImage, ClassMapHW], dict[str, float]]:
        classes = self.run.classes
        truths = dict(with_truth(_labelled(self.run.held_out), self.run.read_truth))
        found = self._cams(network, list(truths))
        cases = [(cams, truths[cams[0]]) for cams in found]
        thresholds = choose_thresholds(cases, classes, self.pictures)
        images = list(dict.fromkeys(_labelled(self.images)))
        return make_masks(iter(self._cams(network, images)), thresholds, classes, self.pictures), thresholds

    def _cams(self, network: LabelNetwork, images: Sequence[LabelledImage]) -> list[Cams]:
        return list(find_all_cams(network, images, self.run.classes, self.pictures))

    def _segmentation_network(self, masks: Mapping[LabelledImage, ClassMapHW]) -> SegmentationNetwork:
        self.progress.start("mask steps", self.settings.mask_steps)
        batches, num_levels = MaskBatches(self.images, masks, self.pictures), len(self.run.classes) + 1
        return kept_or_trained(
            self.folder / "masks.safetensors",
            lambda: SegmentationNetwork(num_levels, pretrained=False),
            lambda: train_segmentation_network(
                batches,
                num_levels,
                self.settings,
                device=self.device,
                on_step=lambda: self.progress.advance("mask steps"),
            ),
        ).to(self.device)

    def _predict(self, network: SegmentationNetwork, image: LabelledImage) -> ClassMapHW:
        pixels = image_to_pixels(self.pictures[image].copy())[None].to(self.device)
        with torch.inference_mode():
            return np.asarray(network(pixels)[0].argmax(dim=0).cpu().numpy(), np.uint8)

    def _measure(
        self, find: Callable[[LabelledImage], ClassMapHW], images: Sequence[LabelledImage]
    ) -> SegmentationFigures:
        meter = SegmentationMeter(self.run.classes)
        for image, true_hw in with_truth(images, self.run.read_truth):
            meter.add(map_to_frame(find(image), *true_hw.shape), true_hw)
        return meter.measure()

    def _draw(
        self,
        labels: LabelNetwork,
        segmenter: SegmentationNetwork,
        thresholds: Mapping[str, float],
        path: Path,
    ) -> None:
        """Some test images: picture, map, mask from the map, what the second network says, truth."""
        shown = []
        for name in self.run.classes:
            shown += [one for one in self.run.test if name in one.labels][:SHEET_ROWS]
        truths = dict(with_truth(dict.fromkeys(shown), self.run.read_truth))
        found = self._cams(labels, list(truths))
        masks = make_masks(iter(found), thresholds, self.run.classes, self.pictures)
        rows = [
            (self.pictures[one], cams.max(axis=0), masks[one], self._predict(segmenter, one), truths[one])
            for one, _, cams in found
        ]
        save_sheet(rows, path)


def evaluate_wsss(
    run: WsssRun,
    settings: WsssSettings,
    *,
    seeds: int = 3,
    device: str = "auto",
    on_result: Callable[[WsssResult], None] = lambda _: None,
    progress: Progress | None = None,
) -> WsssSummary:
    """Train and measure every arm; a killed call goes on at the network it was at. Results lie in RUN/evaluation/wsss/.

    Args:
        settings: equal for all arms but for the seed, which counts up from its own.
        progress: hears of the stages `networks`, `label steps` and `mask steps`.

    Raises:
        MissingDependencyError: pytorch-grad-cam is not installed.
        ModelNotFetchedError: lite0 is not in the cache.
        ImageDecodeError: a picture cannot be read.
    """
    progress, pictures, results = progress or Silence(), PictureCache(settings.size_px), []
    wanted = [
        (arm, images, replace(settings, seed=seed))
        for seed in range(settings.seed, settings.seed + seeds)
        for arm, images in arms_of(run, seed).items()
    ]
    progress.start("networks", len(wanted))
    for arm, images, own in wanted:
        name = _digest(run, arm, images, own)
        path = run.results / "results" / f"{name}.json"
        sheet = run.results / f"sheet_{arm}.jpg" if own.seed == settings.seed else None
        if path.is_file():
            result = _read_result(path)
        else:
            folder = run.results / "weights" / name
            job = _Job(run, arm, images, own, pictures, resolve_device(device), folder, progress)
            result = job.work(path, sheet)
        results.append(result)
        progress.advance("networks")
        on_result(result)
    summary = summarize(results, settings)
    save_summary(summary, run.results)
    return summary


def _labelled(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    return [one for one in images if one.labels]


def _digest(run: WsssRun, arm: str, images: Sequence[LabelledImage], settings: WsssSettings) -> str:
    """Of everything that decides a result; made pictures count by their bytes, for a run may make others."""
    real = {*run.train, *run.held_out, *run.test}
    learned = [
        one.key if one in real else hashlib.sha256(one.path.read_bytes()).hexdigest() + ",".join(sorted(one.labels))
        for one in images
    ]
    sides = [[(one.key, sorted(one.labels)) for one in side] for side in (run.train, run.held_out, run.test)]
    content = orjson.dumps([arm, asdict(settings), run.classes, learned, sides], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:16]


def _read_result(path: Path) -> WsssResult:
    return msgspec.json.decode(path.read_bytes(), type=WsssResult)
