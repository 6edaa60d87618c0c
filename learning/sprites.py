"""Train the sprites model: flow matching on the picture bank, seeded and resumable.

    python -m maskwright.learning.sprites --out runs/sprites --steps 20000
    python -m maskwright.learning.sprites --out runs/sprites --steps 21500 --cool 1500 --export models/weights/sprites

The first command may be stopped at any moment and goes on where it last saved. The second one lets the rate fall over
its last 1,500 steps and writes the pipeline folder. Without a state in `--out`, `--start` goes on from shipped weights.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss

from ..data.files import open_atomically, write_atomically
from ..models.device import resolve_device
from ..models.embeddings import MiniLM
from ..models.sprites.bank import BANK_FOLDER, PictureBank
from ..models.sprites.network import build_network, predict_picture, to_patches, velocity
from ..models.sprites.pipeline import DEFAULT_FOLDER, SpritePipeline
from .sheets import draw_sheet
from .sprites_data import SpriteBatch, SpriteData

BANK = DEFAULT_FOLDER / BANK_FOLDER
STATE_NAME = "state.pt"
LOSSES_NAME = "losses.csv"
RECORD_NAME = "training.json"
SAVE_EVERY = 250
LOG_EVERY = 100
SHEET_EVERY = 2000
SHEET_PROMPTS = (
    "a red apple", "a bicycle", "a cat", "a dog", "an airplane", "a pizza", "a teddy bear", "an umbrella",
    "a banana", "an elephant", "a blue car", "a cup", "a zebra", "scissors", "a green apple", "a wooden chair",
)  # fmt: skip

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What decides the weights. Two trainings with equal settings take equal steps."""

    seed: int = 0
    batch: int = 24
    rate: float = 6e-4
    warmup: int = 300
    cool: int = 0
    """Steps at the end over which the rate falls to zero; none while the training is to go on."""
    weight_decay: float = 1e-3
    averaging: float = 0.9995
    clip: float = 1.0

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of one step: warm-up, plateau, linear fall."""
        rising = min(1.0, (step + 1) / self.warmup)
        falling = min(1.0, (steps - step) / self.cool) if self.cool else 1.0
        return self.rate * rising * falling


class Trainer:
    """Network, average, optimizer and step; saved and restored as one."""

    def __init__(self, settings: Training, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device, self.step = settings, device, 0
        self.network = build_network().to(device, memory_format=torch.channels_last)
        self.average = build_network().to(device, memory_format=torch.channels_last).requires_grad_(False)
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), settings.rate, weight_decay=settings.weight_decay, fused=True
        )

    def take_step(self, batch: SpriteBatch, rate: float) -> float:
        """One step of gradient descent; the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        picture = to_patches(batch.pictures).to(self.device, memory_format=torch.channels_last)
        noise, instant, text = (part.to(self.device) for part in (batch.noise, batch.time, batch.text))
        noisy = torch.lerp(picture, noise, instant.view(-1, 1, 1, 1))
        with _attention(self.device), torch.autocast(self.device.type, dtype=torch.bfloat16):
            predicted = predict_picture(self.network, noisy, instant, text)
        loss = mse_loss(velocity(noisy, predicted, instant), velocity(noisy, picture, instant))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        self.step += 1
        self._average()
        return loss.item()

    def _average(self) -> None:
        decay = min(self.settings.averaging, (1 + self.step) / (10 + self.step))
        averaged, current = (list(network.parameters()) for network in (self.average, self.network))
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, atomically."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with open_atomically(path) as file:
            torch.save(state, file)

    def restore(self, path: Path) -> None:
        """Go on from `save`'s file."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the plain kernel is faster: the network attends to 64 patches and to one word vector."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def train(trainer: Trainer, data: SpriteData, out: Path, steps: int) -> Iterator[tuple[int, float]]:
    """Take the steps that are left, saving every `SAVE_EVERY`; yields each step's number and loss."""
    settings = trainer.settings
    while trainer.step < steps:
        step = trainer.step
        loss = trainer.take_step(data.batch(settings.batch, settings.seed, step), settings.rate_at(step, steps))
        if trainer.step % SAVE_EVERY == 0 or trainer.step == steps:
            trainer.save(out / STATE_NAME)
        yield trainer.step, loss


def export(trainer: Trainer, bank: PictureBank, folder: Path) -> None:
    """Write the averaged weights, in half precision, as a pipeline folder with bank and training record."""
    network = build_network()
    network.load_state_dict(trainer.average.state_dict())
    pipeline = SpritePipeline(network.half(), FlowMatchEulerDiscreteScheduler())
    pipeline.bank = bank
    pipeline.save_pretrained(folder)
    record = {"step": trainer.step, **asdict(trainer.settings)}
    write_atomically(folder / RECORD_NAME, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def start_from(trainer: Trainer, folder: Path) -> None:
    """Go on from a pipeline folder: its weights and its step, with a fresh optimizer."""
    weights = UNet2DConditionModel.from_pretrained(folder / "unet").state_dict()
    trainer.network.load_state_dict(weights)
    trainer.average.load_state_dict(weights)
    trainer.step = int(msgspec.json.decode((folder / RECORD_NAME).read_bytes())["step"])


def save_sheet(trainer: Trainer, bank: PictureBank, path: Path) -> None:
    """Paint four of each of `SHEET_PROMPTS` with the averaged weights."""
    pipeline = SpritePipeline(trainer.average, FlowMatchEulerDiscreteScheduler())
    pipeline.bank = bank
    pipeline.set_progress_bar_config(disable=True)
    prompts = [prompt for prompt in SHEET_PROMPTS for _ in range(4)]
    generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    draw_sheet(pipeline(prompts, generator=generators).images, columns=8).save(path)


class LossLog:
    """`losses.csv`: a row every `LOG_EVERY` steps. Rows after the step that training goes on from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        rows = path.read_text(encoding="utf-8").splitlines()[1:] if path.is_file() else []
        kept = [row for row in rows if int(row.split(",")[0]) <= step]
        path.write_text("\n".join(["step,loss,seconds_a_step", *kept]) + "\n", encoding="utf-8")
        self._path, self._losses, self._since = path, list[float](), time.monotonic()

    def add(self, step: int, loss: float) -> None:
        self._losses.append(loss)
        if step % LOG_EVERY == 0:
            seconds = (time.monotonic() - self._since) / len(self._losses)
            row = f"{step},{sum(self._losses) / len(self._losses):.4f},{seconds:.3f}"
            with self._path.open("a", encoding="utf-8") as file:
                file.write(row + "\n")
            logger.info("step, loss, seconds a step: %s", row)
            self._losses, self._since = [], time.monotonic()


def main(
    out: Annotated[Path, typer.Option(help="Folder of the state, the losses and the sheets.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps to reach, earlier ones included.")],
    cool: Annotated[int, typer.Option(min=0, help="Last steps, over which the rate falls to zero.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the start and of every batch.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    bank_folder: Annotated[Path, typer.Option("--bank", help="Folder of the picture bank.")] = BANK,
    start: Annotated[Path | None, typer.Option(help="Pipeline folder to go on from, when --out has no state.")] = None,
    export_to: Annotated[Path | None, typer.Option("--export", help="Pipeline folder to write at the end.")] = None,
) -> None:
    """Train, or go on training; stop it at any moment."""
    out.mkdir(parents=True, exist_ok=True)
    bank = PictureBank.from_folder(bank_folder)
    trainer = Trainer(Training(seed=seed, cool=cool), resolve_device(device))
    if (out / STATE_NAME).is_file():
        trainer.restore(out / STATE_NAME)
    elif start is not None:
        start_from(trainer, start)
    logger.info("from step %d to step %d on %s", trainer.step, steps, trainer.device)
    log = LossLog(out / LOSSES_NAME, trainer.step)
    for step, loss in train(trainer, SpriteData(bank, MiniLM()), out, steps):
        log.add(step, loss)
        if step % SHEET_EVERY == 0 or step == steps:
            save_sheet(trainer, bank, out / f"sheet_{step}.png")
    if export_to is not None:
        export(trainer, bank, export_to)
        logger.info("weights of step %d written to %s", trainer.step, export_to)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.run(main)
