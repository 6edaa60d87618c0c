"""Dual similarity (InstaDA): how well a picture fits its class's name, and how like it is to the class's real crops."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch

from ...configs.judging import EncoderSettings, ImageEmbedderSettings, TextScorerSettings, WholenessSettings
from ...data.records import ImageRGB, ImageRGBA
from ...models.checkpoints import checkpoint_revision
from ...models.embeddings import MiniLM
from ...models.fetch import locate_model
from ...models.image_features import Lite0
from ...models.lit import LitScorer
from ...models.sprites.bank import PictureBank
from ...models.wholeness import WholenessScorer
from ..naming import noun_phrase
from .encoders import CLIP_TYPES, DINO_TYPES, SIGLIP_TYPES, Encoder
from .framing import crop_object

if TYPE_CHECKING:
    from transformers import SiglipModel

Images = Sequence[ImageRGB | ImageRGBA]
Floats = npt.NDArray[np.float32]


def fill_template(template: str, names: Sequence[str]) -> list[str]:
    """Put class names into a template's `{name}`; LVIS's `traffic_light` is a traffic light."""
    return [template.format(name=noun_phrase(name)) for name in names]


def rival_lead(scores: Sequence[float] | Floats, names: Sequence[str], category: str) -> float | None:
    """By how much the best other name fits a picture better than its own; None where there is no other.

    Args:
        scores: of one picture, one a name.
        names: with the category among them.
    """
    others = [float(score) for score, name in zip(scores, names, strict=True) if name != category]
    return max(others) - float(scores[names.index(category)]) if others else None


class _Encoded:
    """What scorers and embedders by a checkpoint share."""

    def __init__(self, settings: EncoderSettings, model_types: Collection[str]) -> None:
        self._encoder = Encoder(settings, model_types)

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def revision(self) -> str:
        return self._encoder.revision


class ClipScorer(_Encoded):
    """Cosine of CLIP's features of image and text, in [-1, 1]; X-Paste's logits are 100 times that.

    Images are laid on a white square, cut-outs cropped to their visible pixels (`framing.frame_object`). Texts are
    class names; the scorer puts them into its template.
    """

    def __init__(self, settings: TextScorerSettings) -> None:
        super().__init__(settings, CLIP_TYPES)
        self._template = settings.template

    def score(self, images: Images, texts: Sequence[str]) -> Floats:
        return _cosines(self._encoder, images, fill_template(self._template, texts))

    def knows(self, category: str) -> bool:  # noqa: ARG002  # an open vocabulary
        return True


class SiglipScorer(_Encoded):
    """SigLIP's own probability that image and text belong together, in [0, 1]. Images and texts as `ClipScorer`'s.

    It was trained to find one right pair among thousands, so that right names may have small values too.
    """

    def __init__(self, settings: TextScorerSettings) -> None:
        super().__init__(settings, SIGLIP_TYPES)
        self._template = settings.template

    def score(self, images: Images, texts: Sequence[str]) -> Floats:
        cosines = torch.from_numpy(_cosines(self._encoder, images, fill_template(self._template, texts)))
        network = cast("SiglipModel", self._encoder.network())
        logits = network.logit_scale.float().cpu().exp() * cosines + network.logit_bias.float().cpu()
        return np.asarray(logits.sigmoid().numpy())

    def knows(self, category: str) -> bool:  # noqa: ARG002  # an open vocabulary
        return True


def _cosines(encoder: Encoder, images: Images, texts: Sequence[str]) -> Floats:
    if not images or not texts:
        return np.zeros((len(images), len(texts)), dtype=np.float32)
    return encoder.encode_images(images) @ encoder.encode_texts(texts).T


class LitTextScorer:
    """`models.lit.LitScorer`: the probability that a name is of what an image shows, in [0, 1].

    Images are laid on mid grey, cut-outs cropped to their visible pixels. Texts as `ClipScorer`'s.

    It knows a class whose name is near, by MiniLM, to a name of a picture that it was trained on. At the default of
    0.78 that holds for synonyms (aeroplane 0.79, sofa 0.86), and wrongly for a baseball bat (0.90, by the
    animal); a baseball glove (0.77) and what no picture shows (person, refrigerator) are unknown.
    """

    name = "embedded:lit"

    def __init__(self, settings: TextScorerSettings) -> None:
        self._scorer = LitScorer(settings.device, settings.batch_size)
        self._text = MiniLM(settings.device)
        self._template = settings.template
        self._min_likeness = settings.min_likeness

    @functools.cached_property
    def revision(self) -> str:
        return checkpoint_revision(locate_model("lit"))

    def score(self, images: Images, texts: Sequence[str]) -> Floats:
        return self._scorer.score(images, fill_template(self._template, texts))

    def knows(self, category: str) -> bool:
        likeness = self._text.embed([noun_phrase(category)]) @ _trained_names().T
        return bool(likeness.max() >= self._min_likeness)


@functools.cache
def _trained_names() -> Floats:
    """(k, 384) embedded names, without lists of tags, of the pictures that lit and the sprites were trained on."""
    bank = PictureBank.from_folder(locate_model("sprites") / "bank")
    taken = [not entry.held_out and "," not in name for entry in bank.entries for name in entry.names]
    return np.asarray(bank.name_embeddings.numpy()[taken])


class EmbeddedWholeness:
    """`models.wholeness.WholenessScorer`: the probability that a cut-out is one whole object, in [0, 1]."""

    name = "embedded:wholeness"

    def __init__(self, settings: WholenessSettings) -> None:
        self._scorer = WholenessScorer(settings.device, settings.batch_size)

    @functools.cached_property
    def revision(self) -> str:
        return checkpoint_revision(locate_model("wholeness"))

    def score(self, images: Sequence[ImageRGBA]) -> Floats:
        return self._scorer.score(images)


class DinoEmbedder(_Encoded):
    """DINO, DINOv2 or DINOv3: the class token. Images are laid out as `ClipScorer`'s."""

    def __init__(self, settings: ImageEmbedderSettings) -> None:
        super().__init__(settings, DINO_TYPES)

    def embed(self, images: Images) -> Floats:
        return self._encoder.encode_images(images)


class ClipEmbedder(_Encoded):
    """CLIP's image features. Images are laid out as `ClipScorer`'s, whose weights it shares."""

    def __init__(self, settings: ImageEmbedderSettings) -> None:
        super().__init__(settings, CLIP_TYPES)

    def embed(self, images: Images) -> Floats:
        return self._encoder.encode_images(images)


class Lite0Embedder:
    """`models.image_features.Lite0` on mid grey; cut-outs are cropped to their visible pixels."""

    name = "embedded:lite0"

    def __init__(self, settings: ImageEmbedderSettings) -> None:
        self._lite0 = Lite0(settings.device, settings.batch_size)

    @functools.cached_property
    def revision(self) -> str:
        return checkpoint_revision(locate_model("lite0"))

    def embed(self, images: Images) -> Floats:
        return self._lite0.embed([crop_object(image) for image in images])
