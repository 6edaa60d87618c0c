"""Soft edges of a picture by HED, PiDiNet and Canny, fused by weights: what a ControlNet follows."""

from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ...configs.conditioning import EdgesSettings
from ...data.records import ImageRGB
from ...errors import BrokenRunError, MissingDependencyError, SampleError
from ...models.checkpoints import checkpoint_revision
from ...models.device import resolve_device
from ...models.weight_files import find_weights

EdgesHW = npt.NDArray[np.float32]
NetworkName = Literal["hed", "pidinet"]

FILES: dict[NetworkName, str] = {"hed": "ControlNetHED.pth", "pidinet": "table5_pidinet.pth"}
"""Names that lllyasviel/Annotators gives the weights."""
MAX_PIXELS = 4096 * 4096
"""Larger pictures would take the networks over 20 GB."""
CANNY_SIGMA_PX = 1.4
CANNY_BAND = 0.33
"""The thresholds lie this share below and above the picture's median grey, a common rule of thumb."""
CANNY_LEAST = (20.0, 60.0)
"""So that the noise of dark pictures is no edge."""
_LEAST_SIDE_PX = 32
"""HED halves a picture four times."""


@dataclass(frozen=True, slots=True)
class _Network:
    module: torch.nn.Module
    device: torch.device
    lock: threading.Lock = field(default_factory=threading.Lock)


_shared: dict[tuple[NetworkName, Path, str], _Network] = {}
_lock = threading.Lock()


class EdgeDetector:
    """Edges of pictures at their own size. Detectors of the same weights on the same device share the networks."""

    def __init__(self, settings: EdgesSettings) -> None:
        self.settings = settings

    @property
    def revision(self) -> str:
        """Every detector that counts, its weight, and the version of its file.

        Raises:
            RecipeError, ModelNotFetchedError: a file is not there.
        """
        parts = [f"{name}@{checkpoint_revision(self._file(name))}*{weight:g}" for name, weight in self._networks()]
        return " + ".join([*parts, *([f"canny*{self.settings.canny:g}"] if self.settings.canny else [])])

    def detect(self, rgb: ImageRGB) -> EdgesHW:
        """The weighted mean of the detectors' edges.

        Args:
            rgb: (h, w, 3) uint8, sRGB; one pixel is enough.

        Returns:
            (h, w) float32 in [0, 1].

        Raises:
            SampleError: no such array, or more than `MAX_PIXELS`.
            MissingDependencyError: HED or PiDiNet is asked for, and the extra `edges` is not installed.
            RecipeError, ModelNotFetchedError: their weights are not there.
            BrokenRunError: their weights are damaged, or there is no such device.
        """
        _check_picture(rgb)
        edges = np.zeros(rgb.shape[:2], np.float32)
        for name, weight in self._networks():
            edges += weight * _run_network(self._share(name), name, rgb)
        if self.settings.canny:
            edges += self.settings.canny * detect_canny(rgb)
        total = self.settings.hed + self.settings.pidinet + self.settings.canny
        return np.asarray((edges / total).clip(0, 1), np.float32)

    def _networks(self) -> list[tuple[NetworkName, float]]:
        weights: dict[NetworkName, float] = {"hed": self.settings.hed, "pidinet": self.settings.pidinet}
        return [(name, weight) for name, weight in weights.items() if weight]

    def _file(self, name: NetworkName) -> Path:
        return find_weights(self.settings.annotators or "", None, FILES[name])

    def _share(self, name: NetworkName) -> _Network:
        file, device = self._file(name), resolve_device(self.settings.device)
        key = (name, file.resolve(), str(device))
        with _lock:
            if key not in _shared:
                _shared[key] = _Network(_load_network(name, file).to(device), device)
            return _shared[key]


def edges_to_control(edges: EdgesHW) -> ImageRGB:
    """Edges, (h, w) in [0, 1], as the picture that a ControlNet reads: (h, w, 3) uint8, white on black."""
    grey = (edges * 255).round().astype(np.uint8)
    return np.dstack([grey] * 3)


def detect_canny(rgb: ImageRGB) -> EdgesHW:
    """Canny's edges (1986), softened so that a line's middle is 1 and its sides fade within two pixels.

    The picture is blurred first, by `CANNY_SIGMA_PX`. The thresholds follow its median grey: `CANNY_BAND` below and
    above it, but at least `CANNY_LEAST`.

    Args:
        rgb: (h, w, 3) uint8.

    Returns:
        (h, w) float32 in [0, 1].
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (0, 0), CANNY_SIGMA_PX)
    median = float(np.median(grey))
    low, high = (
        max(least, median * (1 + side)) for least, side in zip(CANNY_LEAST, (-CANNY_BAND, CANNY_BAND), strict=True)
    )
    lines = (cv2.Canny(grey, low, high) > 0).astype(np.float32)
    peak = 1 / np.sqrt(2 * np.pi)  # of a line one pixel wide, blurred by sigma 1
    return np.asarray((cv2.GaussianBlur(lines, (0, 0), 1.0) / peak).clip(0, 1), np.float32)


def _check_picture(rgb: ImageRGB) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise SampleError(f"a picture of shape {rgb.shape} and {rgb.dtype}; edges need (h, w, 3) uint8, not empty.")
    if rgb.shape[0] * rgb.shape[1] > MAX_PIXELS:
        raise SampleError(
            f"a picture of {rgb.shape[1]} by {rgb.shape[0]} pixels; edges are found in {MAX_PIXELS} at most. Reduce it."
        )


def _run_network(network: _Network, name: NetworkName, rgb: ImageRGB) -> EdgesHW:
    height, width = rgb.shape[:2]
    below, right = max(0, _LEAST_SIDE_PX - height), max(0, _LEAST_SIDE_PX - width)
    padded = cv2.copyMakeBorder(rgb, 0, below, 0, right, cv2.BORDER_REPLICATE)
    pixels = torch.from_numpy(padded).to(network.device, torch.float32).permute(2, 0, 1)[None]
    with network.lock, torch.inference_mode():
        edges = _FORWARDS[name](network.module, pixels)
    return edges.cpu().numpy()[:height, :width]


def _run_hed(module: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """As the library's HEDdetector does, at the picture's own size: the sigmoid of the five sides' mean."""
    sides = [
        torch.nn.functional.interpolate(side, pixels.shape[2:], mode="bilinear", align_corners=False)
        for side in module(pixels)
    ]
    return torch.stack(sides).mean(dim=0)[0, 0].sigmoid()


def _run_pidinet(module: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """As the library's PidiNetDetector does, at the picture's own size: blue first, in [0, 1]."""
    edges: torch.Tensor = module(pixels.flip(1) / 255)[-1]
    return edges[0, 0]


_FORWARDS: dict[NetworkName, Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]] = {
    "hed": _run_hed,
    "pidinet": _run_pidinet,
}


def _load_network(name: NetworkName, file: Path) -> torch.nn.Module:
    """The library's network with weights read by us, as its own loader would unpickle whatever a file holds."""
    module = _build_network(name)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        module.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except (OSError, RuntimeError, AttributeError, EOFError, ValueError, pickle.UnpicklingError) as exc:
        raise BrokenRunError(
            f"weights {str(file)!r} cannot be read as {name}'s ({str(exc).splitlines()[0]}); expected the file "
            f"{FILES[name]!r} of lllyasviel/Annotators. Fetch or copy it again."
        ) from exc
    return module.float().eval().requires_grad_(False)


def _build_network(name: NetworkName) -> torch.nn.Module:
    try:
        with warnings.catch_warnings():  # the library imports its other detectors too, which warn
            warnings.simplefilter("ignore")
            from controlnet_aux.hed import ControlNetHED_Apache2
            from controlnet_aux.pidi.model import pidinet
    except ImportError as exc:
        raise MissingDependencyError(
            f"edges by {name} need the library controlnet_aux ({exc}). Run: pip install 'maskwright[edges]', or set "
            "`edges.hed` and `edges.pidinet` to 0."
        ) from exc
    module: torch.nn.Module = ControlNetHED_Apache2() if name == "hed" else pidinet()
    return module
