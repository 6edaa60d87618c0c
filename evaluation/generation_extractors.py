"""The networks that generated pictures are scored by; each has a name, and scores of two are never mixed.

`InceptionLpipsExtractor` gives the published figures and needs two files of weights that nothing here downloads;
`Lite0Extractor` is there once `maskwright models fetch lite0` was run.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ..data.records import ImageRGB
from ..errors import MissingDependencyError, ModelNotFetchedError
from ..models.device import resolve_device
from ..models.fetch import locate_model
from ..models.image_features import load_network, to_input
from .generation_metrics import Extractor

LpipsNet = Literal["vgg", "squeeze"]
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's, of its release v0.2.0: the Inception-v3 that the Inception Score was defined by."""
LPIPS_FILES: dict[LpipsNet, str] = {"vgg": "vgg16-397923af.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}
"""torchvision's ImageNet weights; LPIPS's own few weights come with torchmetrics."""
SIDE_PX = 256
"""Of the square that Inception-v3 and LPIPS see (AnomalyDiffusion)."""
_PACKAGES = ("torch_fidelity", "torchmetrics")
_SLICE = re.compile(r"^(slice\d+|slices\.\d+)\.")
"""What torchmetrics puts before the number of torchvision's layer."""
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError)


def choose_extractor(
    folder: Path | None = None, *, net: LpipsNet = "vgg", device: str = "cpu"
) -> tuple[Extractor, str]:
    """Inception-v3 and LPIPS where their weights and packages are present, else lite0.

    Args:
        folder: of the weights, which must then be there; None: the checkpoints in torch hub's cache (`TORCH_HOME`).

    Returns:
        The extractor, and why it is lite0; empty where it is not.

    Raises:
        ModelNotFetchedError: `folder` lacks a file, a file is damaged, or lite0 would be used and is not in the cache.
        MissingDependencyError: `folder` is given, and a package is missing.
    """
    place = folder or torch_hub_folder()
    missing = [name for name in (INCEPTION_FILE, LPIPS_FILES[net]) if not (place / name).is_file()]
    absent = [name for name in _PACKAGES if find_spec(name) is None]
    if folder and missing:
        raise ModelNotFetchedError(f"{str(folder)!r} has no {missing[0]!r}; put it there, or leave the folder out")
    if not missing and not absent:
        return InceptionLpipsExtractor(place, net=net, device=device), ""
    if folder:
        raise MissingDependencyError(f"{absent[0]!r} is not installed; run `pip install 'maskwright[metrics]'`")
    locate_model("lite0")
    why = f"{str(place)!r} has no {missing[0]}" if missing else f"{absent[0]} is not installed"
    return Lite0Extractor(device), why


def torch_hub_folder() -> Path:
    """Where torch hub keeps weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


class Lite0Extractor:
    """EfficientNet-lite0: its ImageNet classes, and LPIPS's distance over its five stages, without LPIPS's weights.

    Raises:
        ModelNotFetchedError: of both methods, lite0 is not in the cache, or damaged there.
    """

    name = "efficientnet-lite0"

    def __init__(self, device: str = "cpu", batch_size: int = 16) -> None:
        self._device = resolve_device(device)
        self._batch_size = batch_size

    def classify(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float64]:
        network = load_network(self._device)
        with torch.inference_mode():
            parts = [network(batch).softmax(dim=1) for batch in self._batches(images)]
        return torch.cat(parts).double().cpu().numpy()

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        network = load_network(self._device)
        parts = []
        with torch.inference_mode():
            for batch in self._batches(images):
                stages = network.forward_intermediates(batch, intermediates_only=True)
                assert isinstance(stages, list)
                parts.append(stages_to_rows(stages))
        return torch.cat(parts).cpu().numpy()

    def _batches(self, images: Sequence[ImageRGB]) -> Iterator[torch.Tensor]:
        for chosen in _in_batches(len(images), self._batch_size):
            yield torch.stack([to_input(images[i]) for i in chosen]).to(self._device)


class InceptionLpipsExtractor:
    """Inception-v3's classes (torch-fidelity) and LPIPS (Zhang et al., CVPR 2018; torchmetrics), at 256 px.

    Pictures are scaled to a square; LPIPS takes them in [-1, 1], and Inception-v3 scales them to its 299 px as
    TensorFlow did. Tested with weights drawn at random and loaded from files as real ones are, and LPIPS against
    torchmetrics; the published weights themselves have not been run here.

    Args:
        folder: holds `INCEPTION_FILE` and that of `LPIPS_FILES`.
        net: whose layers LPIPS compares; the published figures are `vgg`'s.

    Raises:
        MissingDependencyError: torch-fidelity or torchmetrics is not installed.
        ModelNotFetchedError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, *, net: LpipsNet = "vgg", device: str = "cpu", batch_size: int = 4) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
            from torchmetrics.functional.image.lpips import _LPIPS
        except ImportError as exc:
            raise MissingDependencyError(
                f"{exc.name!r} is not installed; run `pip install 'maskwright[metrics]'`"
            ) from exc
        self.name = f"inception-v3, lpips-{net}"
        self._device = resolve_device(device)
        self._batch_size = batch_size
        path, lpips_path = folder / INCEPTION_FILE, folder / LPIPS_FILES[net]
        with torch.random.fork_rng(devices=[]):
            lpips = _LPIPS(net=net, pnet_rand=True)  # its heads come with the package, its layers from the file
            try:
                self._inception = FeatureExtractorInceptionV3("inception", ["logits_unbiased"], _safe_copy(path))
            except _UNREADABLE as exc:
                raise _no_weights(path, "torch-fidelity's Inception-v3", exc) from exc
        try:
            layers = _load(lpips_path)
            lpips.net.load_state_dict({key: layers[_SLICE.sub("features.", key)] for key in lpips.net.state_dict()})
        except (*_UNREADABLE, KeyError) as exc:
            raise _no_weights(lpips_path, f"torchvision's {net}", exc) from exc
        self._inception.to(self._device)
        self._lpips = lpips.to(self._device)

    def classify(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float64]:
        with torch.inference_mode():
            parts = [self._inception(batch)[0].double().softmax(dim=1) for batch in self._batches(images)]
        return torch.cat(parts).cpu().numpy()

    def embed(self, images: Sequence[ImageRGB]) -> npt.NDArray[np.float32]:
        """Rows of 7.9 million numbers with VGG16: 32 MB a picture."""
        heads = [lin.model[-1].weight for lin in self._lpips.lins]
        parts = []
        with torch.inference_mode():
            for batch in self._batches(images):
                stages = self._lpips.net(self._lpips.scaling_layer(batch.float() / 127.5 - 1))
                parts.append(stages_to_rows(stages, heads).cpu())
        return torch.cat(parts).numpy()

    def _batches(self, images: Sequence[ImageRGB]) -> Iterator[torch.Tensor]:
        """(n, 3, 256, 256) uint8."""
        for chosen in _in_batches(len(images), self._batch_size):
            squares = [cv2.resize(images[i], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for i in chosen]
            yield torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous().to(self._device)


def stages_to_rows(stages: Sequence[torch.Tensor], heads: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
    """Rows whose squared distance is that of LPIPS (Zhang et al., CVPR 2018).

    Args:
        stages: each (n, C, H, W); C, H and W of its own.
        heads: what each stage's channels weigh, (1, C, 1, 1), at least 0; None: every channel 1.

    Returns:
        (n, d): channels scaled to length 1 at every place, every stage counting by its mean over the places.
    """
    rows = []
    for i, stage in enumerate(stages):
        unit = functional.normalize(stage, dim=1) / (stage.shape[2] * stage.shape[3]) ** 0.5
        rows.append((unit * heads[i].sqrt() if heads else unit).flatten(1))
    return torch.cat(rows, dim=1)


def _in_batches(num: int, batch_size: int) -> Iterator[range]:
    for start in range(0, num, batch_size):
        yield range(start, min(start + batch_size, num))


def _load(path: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return tensors


def _safe_copy(path: Path) -> BytesIO:
    """torch-fidelity unpickles whatever it is given: it gets tensors that we read as such, and wrote again."""
    buffer = BytesIO()
    torch.save(_load(path), buffer)
    buffer.seek(0)
    return buffer


def _no_weights(path: Path, what: str, exc: Exception) -> ModelNotFetchedError:
    return ModelNotFetchedError(f"{str(path)!r} is not {what} ({exc}); give the published file, or none")
