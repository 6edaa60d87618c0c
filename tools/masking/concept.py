"""The masker by SAM 3: the class's name in, every instance out, so that they can be counted."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.ops import box_iou
from transformers import Sam3Model, Sam3Processor
from transformers.models.sam3.modeling_sam3 import Sam3ImageSegmentationOutput

from ...configs.masking import ConceptSettings
from ...models.checkpoints import checkpoint_revision, find_checkpoint
from ...models.device import resolve_device, run_in_batches
from ..naming import noun_phrase
from ..protocols import Masked, MaskRequest
from .composites import alpha_to_masked, mask_to_alpha, to_opaque
from .inference import inference, load_processor, load_whole

_OUTPUTS = ("pred_logits", "presence_logits", "pred_boxes", "pred_masks")
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: Sam3Model
    processor: Sam3Processor


class ConceptMasker:
    """Segments what the class's name says (SAM 3, arXiv 2511.16719), and counts it.

    The mask is that of the instance with the best score, or, where a box is known, of the one that fits it best.
    """

    name = "concept"

    def __init__(self, settings: ConceptSettings) -> None:
        self._settings = settings

    @functools.cached_property
    def revision(self) -> str:
        return checkpoint_revision(find_checkpoint(self._settings.model, self._settings.revision))

    def mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        """One mask a request, in order; `num_instances` is how many reach the threshold.

        Raises:
            RecipeError: the folder holds no SAM 3.
            ModelNotFetchedError: it is not in the cache.
            BrokenRunError: no such device, or its memory does not hold one picture.
        """
        return run_in_batches(self._mask, requests, self._settings.batch_size)

    def _mask(self, requests: Sequence[MaskRequest]) -> list[Masked]:
        settings = self._settings
        device = resolve_device(settings.device)
        loaded = _load_shared(find_checkpoint(settings.model, settings.revision), device)
        pictures = [Image.fromarray(to_opaque(request.rgba)) for request in requests]
        pixels = loaded.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        words = loaded.processor.tokenizer(
            [noun_phrase(request.category) for request in requests],
            padding="max_length",
            truncation=True,
            max_length=loaded.model.text_encoder.config.max_position_embeddings,
            return_tensors="pt",
        )
        with inference(device, settings.dtype):
            outputs = loaded.model(
                pixel_values=pixels.to(device),
                input_ids=words["input_ids"].to(device),
                attention_mask=words["attention_mask"].to(device),
            )
            exact = Sam3ImageSegmentationOutput(**{name: outputs[name].float() for name in _OUTPUTS})
            found = loaded.processor.post_process_instance_segmentation(  # type: ignore[no-untyped-call]
                exact, settings.score_threshold, settings.mask_threshold, [r.rgba.shape[:2] for r in requests]
            )
        return [
            _pick(each["masks"].cpu().bool(), each["scores"].cpu(), each["boxes"].cpu(), request)
            for each, request in zip(found, requests, strict=True)
        ]


def _pick(masks: torch.Tensor, scores: torch.Tensor, boxes_xyxy: torch.Tensor, request: MaskRequest) -> Masked:
    """The one instance of (k, h, w) masks that was asked for; `num_instances` is k."""
    fits = scores
    if request.box_xyxy is not None:
        fits = box_iou(boxes_xyxy, torch.tensor([request.box_xyxy]))[:, 0]
    visible = masks.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
    if not visible:
        return alpha_to_masked(np.zeros(request.rgba.shape[:2], np.uint8), num_instances=len(masks))
    best = max(visible, key=lambda index: (fits[index].item(), scores[index].item()))
    return alpha_to_masked(mask_to_alpha(masks[best].numpy()), scores[best].item(), len(masks))


def _load_shared(folder: Path, device: torch.device) -> _Loaded:
    with _lock:
        return _load(folder, device)


@functools.cache
def _load(folder: Path, device: torch.device) -> _Loaded:
    return _Loaded(load_whole(Sam3Model, "sam3", folder, device), load_processor(Sam3Processor, folder))
