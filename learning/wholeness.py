"""Train the judge of wholeness on banked pictures, whole and spoilt; minutes on two cores, most of them for features.

    maskwright models fetch minilm lite0
    python -m maskwright.learning.wholeness --out models/weights/wholeness --seed 0

Features are kept under `--cache`, so that a run that was stopped goes on there; the head is trained anew.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.nn.functional import binary_cross_entropy_with_logits

from ..data.files import write_atomically
from ..models.embeddings import MiniLM
from ..models.fetch import locate_model
from ..models.heads import CONFIG_NAME
from ..models.image_features import IMAGE_DIM
from ..models.sprites.bank import BANK_FOLDER, PictureBank
from ..models.wholeness import HEAD_NAME, HeadConfig, WholenessHead, see_cut_outs
from .wholeness_data import WHOLE, Shown, make_shown, read_objects, read_photographs, split_objects
from .wholeness_spoilers import SPOILERS

PICTURES_A_FILE = 512
PICTURE_WEIGHT = 0.5
"""Of the features that tell what the object is, so that the head clings less to the objects that it learned from."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What decides the head."""

    seed: int = 0
    pictures: int = 12288
    checks: int = 1024
    epochs: int = 15
    batch: int = 128
    rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.5
    feature_noise: float = 0.7
    """In `feature_std`."""
    smoothing: float = 0.05
    """A label is this far from certain, so that the probabilities do not pile up at 0 and 1."""

    def rate_at(self, epoch: int) -> float:
        """Learning rate of one epoch: half a cosine."""
        return self.rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


@dataclass(frozen=True, slots=True)
class Seen:
    """Pictures as the head gets them.

    Attributes:
        features: (n, FEATURE_DIM) float32.
        kinds: (n,) int64, 0 for a whole object, else 1 + the index in `SPOILERS`.
    """

    features: torch.Tensor
    kinds: torch.Tensor

    @property
    def whole(self) -> torch.Tensor:
        """(n,) float32, 1 where the object is whole."""
        return (self.kinds == 0).float()


def load_seen(make: Callable[[range], Iterable[Shown]], count: int, cache: Path) -> Seen:
    """Pictures seen by the locked network; those whose features `cache` has are neither made nor seen again.

    Args:
        make: the pictures of some places in order.
        cache: folder of one seed and one part of the objects.
    """
    parts = []
    for start in range(0, count, PICTURES_A_FILE):
        path = cache / f"{start:06d}.safetensors"
        places = range(start, min(count, start + PICTURES_A_FILE))
        part = _read_part(path, len(places))
        if part is None:
            part = see(list(make(places)))
            write_atomically(path, save(part))
            logger.info("%s: %d of %d pictures seen", cache.name, places.stop, count)
        parts.append(part)
    return Seen(torch.cat([part["features"] for part in parts]).float(), torch.cat([part["kinds"] for part in parts]))


def see(shown: Sequence[Shown]) -> dict[str, torch.Tensor]:
    """`features`, half precision, and `kinds`, as `Seen` describes them."""
    kinds = [WHOLE, *SPOILERS]
    # Half the time; the rounding is far below the noise that the head is trained with.
    with torch.autocast("cpu", torch.bfloat16):
        features = torch.from_numpy(see_cut_outs([one.rgba for one in shown]))
    return {"features": features.half(), "kinds": torch.tensor([kinds.index(one.kind) for one in shown])}


def _read_part(path: Path, count: int) -> dict[str, torch.Tensor] | None:
    if not path.is_file():
        return None
    try:
        part = load_file(path)
    except SafetensorError:
        logger.warning("%s is damaged and is made again", path)
        return None
    return part if len(part["kinds"]) == count else None


def train(seen: Seen, checks: Seen, settings: Training) -> WholenessHead:
    """The head with the lowest loss on `checks`, in evaluation mode."""
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    head = WholenessHead(HeadConfig(), settings.dropout)
    head.feature_mean.copy_(seen.features.mean(dim=0))
    head.feature_std.copy_(seen.features.std(dim=0) + 1e-3)
    head.feature_std[:IMAGE_DIM] /= PICTURE_WEIGHT
    optimizer = torch.optim.AdamW(head.parameters(), settings.rate, weight_decay=settings.weight_decay)
    best, lowest = head.state_dict(), math.inf
    for epoch in range(settings.epochs):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(epoch)
        take_epoch(head, seen, settings, optimizer, generator)
        loss = binary_cross_entropy_with_logits(judge(head, checks.features), checks.whole).item()
        if loss < lowest:
            lowest, best = loss, {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.load_state_dict(best)
    return head.eval().requires_grad_(False)


def take_epoch(
    head: WholenessHead, seen: Seen, settings: Training, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> None:
    """Every picture once, in random order."""
    head.train()
    targets = settings.smoothing + (1 - 2 * settings.smoothing) * seen.whole
    for chosen in torch.randperm(len(targets), generator=generator).split(settings.batch):  # type: ignore[no-untyped-call]
        features = seen.features[chosen]
        noise = settings.feature_noise * head.feature_std * torch.randn(features.shape, generator=generator)
        optimizer.zero_grad()
        loss = binary_cross_entropy_with_logits(head(features + noise), targets[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def judge(head: WholenessHead, features: torch.Tensor) -> torch.Tensor:
    """(n,) float32 logits, without dropout."""
    head.eval()
    with torch.inference_mode():
        return torch.as_tensor(head(features))


def save_head(head: WholenessHead, out: Path) -> None:
    """Write weights, in half precision, and size."""
    write_atomically(out / HEAD_NAME, save({name: tensor.half() for name, tensor in head.state_dict().items()}))
    write_atomically(out / CONFIG_NAME, msgspec.json.format(msgspec.json.encode(head.config)))


def shares_kept(head: WholenessHead, checks: Seen, threshold: float) -> dict[str, float]:
    """Of each kind in `checks`, the share whose probability reaches a threshold."""
    kept = judge(head, checks.features).sigmoid() >= threshold
    return {
        kind: kept[checks.kinds == number].float().mean().item()
        for number, kind in enumerate([WHOLE, *SPOILERS])
        if (checks.kinds == number).any()
    }


def main(
    out: Annotated[Path, typer.Option(help="Folder of the head.")],
    cache: Annotated[Path, typer.Option(help="Folder of the features.")] = Path("runs/wholeness"),
    seed: Annotated[int, typer.Option(min=0, help="Of pictures and head.")] = 0,
) -> None:
    """Train the head and write it to `out`."""
    settings = Training(seed=seed)
    objects = read_objects(PictureBank.from_folder(locate_model("sprites") / BANK_FOLDER), MiniLM())
    photographs = read_photographs()
    parts = []
    for number, (part, count) in enumerate(
        zip(split_objects(objects), (settings.pictures, settings.checks), strict=True)
    ):
        make = functools.partial(make_shown, part, photographs, (seed, number))
        parts.append(load_seen(make, count, cache / f"{seed}-{('learn', 'check')[number]}"))
    learn, checks = parts
    head = train(learn, checks, settings)
    save_head(head, out)
    for threshold in (0.2, 0.25, 0.3, 0.5):
        told = ", ".join(f"{kind} {share:.1%}" for kind, share in shares_kept(head, checks, threshold).items())
        logger.info("kept at %.2f: %s", threshold, told)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.run(main)
