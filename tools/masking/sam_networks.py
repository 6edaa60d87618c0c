"""Segment Anything's networks behind one method: segment-anything checkpoints, and SAM and SAM 2 of transformers."""

from __future__ import annotations

import functools
import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from transformers import Sam2Model, Sam2Processor, SamModel, SamProcessor

from ...configs.masking import SamModelType
from ...data.records import ImageRGB
from ...errors import RecipeError
from .inference import freeze, load_processor, load_whole, say_briefly

_TYPE_OF_WIDTH: dict[int, SamModelType] = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_WIDTH_KEY = "image_encoder.pos_embed"
_TRANSFORMERS: dict[str, tuple[type[SamModel | Sam2Model], type[SamProcessor | Sam2Processor]]] = {
    "sam": (SamModel, SamProcessor),
    "sam2": (Sam2Model, Sam2Processor),
}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SamPrompt:
    """What Segment Anything is asked of one picture; those of one batch have as many points each, and a box or none."""

    points_xy: npt.NDArray[np.float64]
    """(n, 2) pixels."""
    labels: npt.NDArray[np.int64]
    """(n,) 1 on the object, 0 beside it."""
    box_xyxy: tuple[float, float, float, float] | None


@dataclass(frozen=True, slots=True)
class SamAnswer:
    """The three masks that it offers for one picture."""

    masks: npt.NDArray[np.bool_]
    """(3, h, w) bool."""
    predicted_iou: npt.NDArray[np.float32]
    """(3,) float32, how well it believes each to fit."""


class SamNetwork(Protocol):
    """A loaded network."""

    def predict(self, images: Sequence[ImageRGB], prompts: Sequence[SamPrompt]) -> list[SamAnswer]: ...


class OriginalSam:
    """A network of the segment-anything package."""

    def __init__(self, sam: Sam) -> None:
        self._sam = sam
        self._transform = ResizeLongestSide(sam.image_encoder.img_size)

    def predict(self, images: Sequence[ImageRGB], prompts: Sequence[SamPrompt]) -> list[SamAnswer]:
        records = [self._record(image, prompt) for image, prompt in zip(images, prompts, strict=True)]
        return [
            _answer(output["masks"][0], output["iou_predictions"][0])
            for output in self._sam(records, multimask_output=True)
        ]

    def _record(self, image: ImageRGB, prompt: SamPrompt) -> dict[str, torch.Tensor | tuple[int, int]]:
        size, device = (image.shape[0], image.shape[1]), self._sam.device
        pixels = torch.as_tensor(self._transform.apply_image(image), device=device).permute(2, 0, 1)
        record: dict[str, torch.Tensor | tuple[int, int]] = {"image": pixels, "original_size": size}
        if len(prompt.points_xy):
            points = self._transform.apply_coords(prompt.points_xy, size)
            record["point_coords"] = torch.as_tensor(points, dtype=torch.float32, device=device)[None]
            record["point_labels"] = torch.as_tensor(prompt.labels, device=device)[None]
        if prompt.box_xyxy is not None:
            box = self._transform.apply_boxes(np.array([prompt.box_xyxy]), size)
            record["boxes"] = torch.as_tensor(box, dtype=torch.float32, device=device)
        return record


class TransformersSam:
    """SAM or SAM 2 of transformers."""

    def __init__(self, model: SamModel | Sam2Model, processor: SamProcessor | Sam2Processor) -> None:
        self._model = model
        self._processor = processor

    def predict(self, images: Sequence[ImageRGB], prompts: Sequence[SamPrompt]) -> list[SamAnswer]:
        asked: dict[str, object] = {}
        if len(prompts[0].points_xy):
            asked["input_points"] = [[prompt.points_xy.tolist()] for prompt in prompts]
            asked["input_labels"] = [[prompt.labels.tolist()] for prompt in prompts]
        if boxes := [prompt.box_xyxy for prompt in prompts if prompt.box_xyxy is not None]:
            asked["input_boxes"] = [[list(box)] for box in boxes]
        pictures = [Image.fromarray(image) for image in images]
        inputs = self._processor(images=pictures, return_tensors="pt", **asked)
        sizes = {name: inputs.pop(name) for name in ("original_sizes", "reshaped_input_sizes") if name in inputs}
        floats = {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}
        outputs = self._model(**{name: value.to(self._model.device) for name, value in floats.items()})
        masks = self._processor.post_process_masks(outputs.pred_masks.float().cpu(), **sizes)  # type: ignore[no-untyped-call]
        return [_answer(three[0], iou[0]) for three, iou in zip(masks, outputs.iou_scores, strict=True)]


def _answer(masks: torch.Tensor, predicted_iou: torch.Tensor) -> SamAnswer:
    return SamAnswer(masks.cpu().numpy(), predicted_iou.float().cpu().numpy())


def load_sam(path: Path, version: str, model_type: SamModelType | None, device: torch.device) -> SamNetwork:
    """A network, ready to predict; equal arguments share one in a process. Thread-safe.

    Args:
        path: a checkpoint file of segment-anything, or a folder of transformers.
        version: sam or sam2.

    Raises:
        RecipeError: the path holds nothing of this version and type.
    """
    with _lock:
        return _load(path, version, model_type, device)


@functools.cache
def _load(path: Path, version: str, model_type: SamModelType | None, device: torch.device) -> SamNetwork:
    if path.is_file():
        if version != "sam":
            raise RecipeError(
                f"checkpoint {str(path)!r} is a file; of version {version!r} only transformers folders are read. "
                "Give one in `model`, or set `version: sam` for a checkpoint of segment-anything."
            )
        return OriginalSam(freeze(load_original(path, model_type), device))
    if model_type is not None:
        raise RecipeError(
            f"{str(path)!r} is a folder, which says itself what it holds; model_type {model_type!r} is for checkpoint "
            "files of segment-anything. Leave it out."
        )
    model_class, processor_class = _TRANSFORMERS[version]
    model: SamModel | Sam2Model = load_whole(model_class, version, path, device)
    return TransformersSam(model, load_processor(processor_class, path))


def load_original(path: Path, model_type: SamModelType | None) -> Sam:
    """A checkpoint of segment-anything (`sam_vit_b_01ec64.pth` and its like), on the CPU.

    Args:
        model_type: what it must be; None: what its weights say.

    Raises:
        RecipeError: it is no such checkpoint, or one of another type.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        found = _TYPE_OF_WIDTH[weights[_WIDTH_KEY].shape[-1]]
        if model_type is not None and model_type != found:
            raise RecipeError(f"checkpoint {str(path)!r} is a {found}, not a {model_type}; set `model_type: {found}`.")
        sam: Sam = sam_model_registry[found]()
        sam.load_state_dict(weights)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError, AttributeError) as exc:
        raise RecipeError(
            f"{str(path)!r} is no checkpoint of segment-anything ({say_briefly(exc)}); expected the weights of vit_b, "
            "vit_l or vit_h, as a .pth file. Check `model` in the recipe."
        ) from exc
    return sam
