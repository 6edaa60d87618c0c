"""CLIP, SigLIP and DINO checkpoints of transformers: loaded once a process, and fed with whole objects."""

from __future__ import annotations

import functools
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    BaseImageProcessor,
    BatchEncoding,
    BatchFeature,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ...configs.judging import EncoderSettings
from ...data.records import ImageRGB, ImageRGBA
from ...errors import BrokenRunError, RecipeError
from ...models.checkpoints import checkpoint_revision, find_checkpoint
from ...models.device import resolve_device, run_in_batches
from ...models.loading import without_bars
from .framing import frame_object

if TYPE_CHECKING:
    from transformers import CLIPModel, SiglipModel

CLIP_TYPES = frozenset({"clip", "metaclip_2"})
SIGLIP_TYPES = frozenset({"siglip", "siglip2"})
DINO_TYPES = frozenset({"dinov2", "dinov2_with_registers", "dinov3_vit", "dinov3_convnext", "vit"})
"""`vit` is what the first DINO's checkpoints say."""

_NO_IMAGE = np.full((1, 1, 3), 255, np.uint8)
_lock = threading.Lock()


class Encoder:
    """The features of one checkpoint. Encoders of equal checkpoint, device and dtype share its weights; thread-safe.

    Args:
        model_types: of the checkpoints that it takes, as their `config.json` says.
    """

    def __init__(self, settings: EncoderSettings, model_types: Collection[str]) -> None:
        self.settings = settings
        self.model_types = model_types

    @property
    def name(self) -> str:
        return f"{self.settings.name}:{self.settings.model}"

    @functools.cached_property
    def folder(self) -> Path:
        """Where the checkpoint is.

        Raises:
            RecipeError: it is none, or of another type.
            ModelNotFetchedError: the Hub repository is not in the cache.
        """
        settings = self.settings
        if settings.model is None:
            raise RecipeError(f"{settings.name!r} needs a `model`: a folder, or OWNER/NAME of the Hugging Face Hub")
        folder = find_checkpoint(settings.model, settings.revision)
        try:
            model_type = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        except (OSError, ValueError, KeyError) as exc:
            raise _unloadable(folder, exc) from exc
        if model_type not in self.model_types:
            raise RecipeError(
                f"model {settings.model!r} is of type {model_type!r}; {settings.name!r} takes "
                f"{', '.join(sorted(self.model_types))}. Set another `model` or `name`."
            )
        return folder

    @functools.cached_property
    def revision(self) -> str:
        return checkpoint_revision(self.folder)

    def network(self) -> PreTrainedModel:
        """The network on its device, in evaluation mode.

        Raises:
            RecipeError, ModelNotFetchedError: as `folder`; or its weights are missing or damaged.
            BrokenRunError: no such device, or one that is too small.
        """
        device = resolve_device(self.settings.device)
        with _lock:
            return _load_network(self.folder, device, getattr(torch, self.settings.dtype))

    def encode_images(self, images: Sequence[ImageRGB | ImageRGBA]) -> npt.NDArray[np.float32]:
        """Features of the pictures that `frame_object` makes.

        Args:
            images: each (H, W, 3) or (H, W, 4) uint8, sRGB, straight alpha; sizes may differ.

        Returns:
            (n, d) float32, each row of length 1.

        Raises:
            SampleError: an array is no such image.
            EmptyMaskError: an image has no visible pixel.
            RecipeError, ModelNotFetchedError, BrokenRunError: as `network`.
        """
        if not images:
            return self.encode_images([_NO_IMAGE])[:0]
        network, processor = self.network(), _load_processor(self.folder)

        def run(batch: Sequence[ImageRGB | ImageRGBA]) -> list[npt.NDArray[np.float32]]:
            pictures = [frame_object(image) for image in batch]
            inputs = _prepare(processor, pictures).to(device=network.device, dtype=network.dtype)
            with torch.inference_mode():
                return _to_rows(_pool_images(network, inputs))

        return np.stack(run_in_batches(run, images, self.settings.batch_size))

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Features of texts, each read up to the length that the network was trained for.

        Args:
            texts: at least one.

        Returns:
            (n, d) float32, each row of length 1.

        Raises:
            RecipeError, ModelNotFetchedError, BrokenRunError: as `network`.
        """
        network = cast("CLIPModel | SiglipModel", self.network())

        def run(batch: Sequence[str]) -> list[npt.NDArray[np.float32]]:
            with torch.inference_mode():
                features = network.get_text_features(**self._tokenize(batch).to(network.device))
            return _to_rows(features.pooler_output)

        return np.stack(run_in_batches(run, texts, self.settings.batch_size))

    def _tokenize(self, texts: Sequence[str]) -> BatchEncoding:
        config = self.network().config
        is_siglip = config.model_type in SIGLIP_TYPES
        tokenizer = _load_tokenizer(self.folder)
        with _lock:  # a fast tokenizer keeps its padding while it works
            tokens = tokenizer(
                # SigLIP has only seen lower case, and padding on the right that it was let to attend to.
                [text.lower() for text in texts] if is_siglip else list(texts),
                padding="max_length",
                padding_side="right",
                truncation=True,
                max_length=config.text_config.max_position_embeddings,
                return_tensors="pt",
            )
        names = {"input_ids"} if is_siglip else {"input_ids", "attention_mask"}
        return BatchEncoding({name: tensor for name, tensor in tokens.items() if name in names})


def _pool_images(network: PreTrainedModel, inputs: BatchFeature) -> torch.Tensor:
    if network.config.model_type in DINO_TYPES:
        class_tokens: torch.Tensor = network(**inputs).last_hidden_state[:, 0]
        return class_tokens
    features: torch.Tensor = cast("CLIPModel | SiglipModel", network).get_image_features(**inputs).pooler_output
    return features


def _prepare(processor: BaseImageProcessor, pictures: list[Image.Image]) -> BatchFeature:
    if not getattr(processor, "do_center_crop", False):
        return processor(images=pictures, return_tensors="pt")
    # An object has no border to spare: the square is scaled to what would have been cropped out of it.
    crop: Mapping[str, int] = processor.to_dict()["crop_size"]
    size = {"height": crop["height"], "width": crop["width"]}
    return processor(images=pictures, size=size, do_center_crop=False, return_tensors="pt")


def _to_rows(features: torch.Tensor) -> list[npt.NDArray[np.float32]]:
    return list(normalize(features.float(), dim=-1).cpu().numpy())


@functools.cache
def _load_network(folder: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    try:
        with without_bars():
            network, info = AutoModel.from_pretrained(
                folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as exc:
        raise _unloadable(folder, exc) from exc
    # The first DINO was published without the pooler that transformers puts behind it and that we do not use.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise _unloadable(folder, f"{len(missing)} weights are missing, such as {missing[0]!r}")
    try:
        network.to(device)
    except torch.OutOfMemoryError as exc:
        raise BrokenRunError(f"the GPU's memory does not hold {str(folder)!r} ({exc}); use device 'cpu'") from exc
    placed: PreTrainedModel = network.eval().requires_grad_(False)
    return placed


@functools.cache
def _load_processor(folder: Path) -> BaseImageProcessor:
    try:
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            folder, local_files_only=True
        )
    except (OSError, ValueError) as exc:
        raise _unloadable(folder, exc) from exc
    return processor


@functools.cache
def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as exc:
        raise _unloadable(folder, exc) from exc
    return tokenizer


def _unloadable(folder: Path, reason: Exception | str) -> RecipeError:
    return RecipeError(
        f"model {str(folder)!r} cannot be loaded ({str(reason).partition(chr(10))[0]}); expected config.json, "
        "preprocessor_config.json, the tokenizer's files and model.safetensors, as save_pretrained writes them. "
        "Fetch or save it again."
    )
