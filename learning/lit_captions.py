"""The texts of the image-text training: names, phrasings, colours, and ImageNet's class names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.data.imagenet_info import ImageNetInfo
from torch.nn.functional import normalize

from ..models.embeddings import MiniLM
from ..models.lit import NUM_CLASSES
from ..models.sprites.tones import TONES
from .pictures import ObjectPicture, colourless, names_of

PHRASINGS = ("{}", "a {}", "a photo of a {}", "a single {}")


@dataclass(frozen=True, slots=True)
class Captions:
    """Embedded texts, each row (384,) float32 of unit length.

    Attributes:
        positives: (objects, names) bool, whether an object bears a name; one name may belong to several.
        names: (names, phrasings, 384).
        toned: (objects, tones, 384), the object's name with a colour.
        class_names: (1000, 384), mean of the synonyms of each of ImageNet's classes.
    """

    positives: torch.Tensor
    names: torch.Tensor
    toned: torch.Tensor
    class_names: torch.Tensor

    def random_phrasing(self, names: torch.Tensor) -> torch.Tensor:
        """(n, 384): each of the names given by index, in a phrasing of its own."""
        return self.names[names, torch.randint(len(PHRASINGS), names.shape)]


def caption_objects(pictures: Sequence[ObjectPicture], text: MiniLM) -> Captions:
    """Embed everything that the heads read in training."""
    labels = {picture.label for picture in pictures}
    names_by_object = [names_of(picture, labels) for picture in pictures]
    names = sorted({name for group in names_by_object for name in group})
    index = {name: number for number, name in enumerate(names)}
    positives = torch.zeros(len(pictures), len(names), dtype=torch.bool)
    for number, group in enumerate(names_by_object):
        positives[number, [index[name] for name in group]] = True
    phrased = [phrasing.format(name) for name in names for phrasing in PHRASINGS]
    toned = [f"{tone} {colourless(group)}" for group in names_by_object for tone in TONES]
    return Captions(
        positives=positives,
        names=torch.from_numpy(text.embed(phrased)).view(len(names), len(PHRASINGS), -1),
        toned=torch.from_numpy(text.embed(toned)).view(len(pictures), len(TONES), -1),
        class_names=embed_class_names(text),
    )


def embed_class_names(text: MiniLM) -> torch.Tensor:
    """(1000, 384) float32, unit length: ImageNet's classes by the mean of their synonyms."""
    classes = ImageNetInfo()
    synonyms = [classes.index_to_description(number).split(", ") for number in range(NUM_CLASSES)]
    rows = torch.from_numpy(text.embed([name for group in synonyms for name in group]))
    groups = torch.split(rows, [len(group) for group in synonyms])
    return normalize(torch.stack([group.mean(dim=0) for group in groups]), dim=-1)
