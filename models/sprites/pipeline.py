"""Retrieval-augmented layer diffusion: text to one transparent object, as an ordinary diffusers pipeline.

A painting starts from a picture of the nearest name in the bank, warped at random and noised to `strength` (as SDEdit
does, Meng et al. 2022), and is denoised under the prompt with classifier-free guidance (Ho and Salimans 2022).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image

from ...errors import PromptError
from ..device import run_in_batches
from ..embeddings import MAX_TOKENS, MiniLM, token_count
from .bank import BANK_FOLDER, PictureBank, premultiplied_to_straight, straight_to_premultiplied
from .network import condition_text, from_patches, predict_picture, to_patches, velocity
from .tones import TONES, recolour
from .warp import warp

DEFAULT_FOLDER = Path(__file__).parent.parent / "weights" / "sprites"
HAZE = 0.06
"""Alpha this near to 0 or to 1 is what denoising left over; the range between is stretched."""


@dataclass
class SpriteOutput(BaseOutput):  # type: ignore[misc]  # diffusers is not typed
    """What a call gives.

    Attributes:
        images: n pictures of mode RGBA, 96×96, straight alpha.
        sources: label of the banked picture that each one started from; empty when from noise alone.
        likeness: cosine of each prompt with the nearest name of the bank: how well the bank knows it.
    """

    images: list[Image.Image]
    sources: list[str]
    likeness: list[float]


@dataclass(frozen=True, slots=True)
class _Start:
    text: torch.Tensor
    noise: torch.Tensor
    picture: torch.Tensor
    source: str
    likeness: float


class SpritePipeline(DiffusionPipeline):  # type: ignore[misc]  # diffusers is not typed
    """Paints one object on nothing. `from_pretrained()` without a folder loads the weights that ship with us."""

    def __init__(self, unet: UNet2DConditionModel, scheduler: FlowMatchEulerDiscreteScheduler) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.bank: PictureBank | None = None
        self.text = MiniLM()

    @classmethod
    def from_pretrained(cls, folder: str | Path = DEFAULT_FOLDER, **options: object) -> SpritePipeline:
        """Load weights (safetensors) and picture bank of a folder that `save_pretrained` wrote."""
        pipeline: SpritePipeline = super().from_pretrained(folder, **options)
        pipeline.bank = PictureBank.from_folder(Path(folder) / BANK_FOLDER)
        pipeline.unet.eval().to(memory_format=torch.channels_last)
        return pipeline

    def save_pretrained(self, folder: str | Path, **options: object) -> None:
        """Write weights, settings and picture bank."""
        super().save_pretrained(folder, **options)
        if self.bank is not None and self.bank.folder.resolve() != (Path(folder) / BANK_FOLDER).resolve():
            shutil.copytree(self.bank.folder, Path(folder) / BANK_FOLDER, dirs_exist_ok=True)

    @property
    def picture_bank(self) -> PictureBank:
        """The bank that paintings start from.

        Raises:
            ValueError: the pipeline was put together by hand and has none yet.
        """
        if self.bank is None:
            raise ValueError("this pipeline has no picture bank; load it with SpritePipeline.from_pretrained")
        return self.bank

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        strength: float = 0.7,
        num_inference_steps: int = 12,
        guidance_scale: float = 2.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int = 16,
    ) -> SpriteOutput:
        """Paint one picture a prompt.

        Args:
            prompt: what to paint, one object each.
            strength: in (0, 1]; near 0 keeps the banked picture, 1 starts from noise alone.
            num_inference_steps: Euler steps from `strength` to 0.
            guidance_scale: 1 follows the prompt as trained, more insists.
            generator: on the CPU; one for all pictures in order, or one each. Equal seeds give equal pictures,
                alone or in any batch, within 1/255.
            batch_size: pictures denoised at once; halved when the GPU's memory does not hold them.

        Raises:
            PromptError: a prompt is empty or longer than the text encoder reads.
            ValueError: a number is out of its range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        _check_numbers(strength, num_inference_steps, guidance_scale)
        starts = self._starts(prompts, strength, generator)
        with self.progress_bar(total=len(starts)) as bar:

            def paint(batch: Sequence[_Start]) -> list[Image.Image]:
                images = self._denoise(batch, strength, num_inference_steps, guidance_scale)
                bar.update(len(batch))
                return images

            images = run_in_batches(paint, starts, batch_size)
        return SpriteOutput(
            images=images, sources=[start.source for start in starts], likeness=[start.likeness for start in starts]
        )

    def _starts(
        self, prompts: list[str], strength: float, generator: torch.Generator | Sequence[torch.Generator] | None
    ) -> list[_Start]:
        """Draw, for each prompt, noise and the picture to start from; nothing depends on the batch."""
        for prompt in prompts:
            _check_prompt(prompt)
        embeddings = torch.from_numpy(self.text.embed(prompts))
        likeness = self.picture_bank.likeness(embeddings)
        generators = _one_each(generator, len(prompts))
        return [
            self._start(prompt, embedding, row, strength, generator)
            for prompt, embedding, row, generator in zip(prompts, embeddings, likeness, generators, strict=True)
        ]

    def _start(
        self, prompt: str, embedding: torch.Tensor, likeness: torch.Tensor, strength: float, generator: torch.Generator
    ) -> _Start:
        bank = self.picture_bank
        index = bank.draw(likeness, generator)
        entry = bank.entries[index]
        picture = _retone(bank.picture(index), prompt, entry.names)[None]
        warped = warp(picture, generator, turn=0.5, zoom=0.3, shift=0.0)
        noise = torch.randn(to_patches(warped).shape, generator=generator)
        source = entry.label if strength < 1 else ""
        return _Start(condition_text(embedding), noise[0], to_patches(warped)[0], source, float(likeness.max()))

    def _denoise(
        self, starts: Sequence[_Start], strength: float, num_inference_steps: int, guidance_scale: float
    ) -> list[Image.Image]:
        text, noise, picture = (
            torch.stack([getattr(start, name) for start in starts]).to(self.device)
            for name in ("text", "noise", "picture")
        )
        both = torch.cat([text, torch.zeros_like(text)])
        sample = torch.lerp(picture, noise, strength)
        self.scheduler.set_timesteps(sigmas=np.linspace(strength, strength / num_inference_steps, num_inference_steps))
        for timestep, sigma in zip(self.scheduler.timesteps, self.scheduler.sigmas, strict=False):
            time = sigma.to(sample).expand(len(both))
            conditional, free = predict_picture(self.unet, torch.cat([sample, sample]), time, both).chunk(2)
            guided = torch.lerp(free, conditional, guidance_scale)
            sample = self.scheduler.step(velocity(sample, guided, time[: len(sample)]), timestep, sample)[0]
        return [_patches_to_image(patches) for patches in sample.float().cpu()]


def _one_each(generator: torch.Generator | Sequence[torch.Generator] | None, count: int) -> Sequence[torch.Generator]:
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if isinstance(generator, torch.Generator):
        return [generator] * count
    if len(generator) != count:
        raise ValueError(f"{len(generator)} generators for {count} prompts; give one, or one each")
    return generator


def _check_numbers(strength: float, num_inference_steps: int, guidance_scale: float) -> None:
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength!r}; expected more than 0, at most 1")
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps is {num_inference_steps!r}; expected at least 1")
    if guidance_scale < 0:
        raise ValueError(f"guidance_scale is {guidance_scale!r}; expected at least 0")


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise PromptError(f"prompt {prompt!r} is empty; say what to paint, as in 'a red apple'")
    count = token_count(prompt)
    if count > MAX_TOKENS:
        raise PromptError(
            f"prompt {prompt[:60]!r}… has {count} word pieces; the text encoder reads {MAX_TOKENS}. Say it shorter."
        )


def _retone(picture: torch.Tensor, prompt: str, names: Sequence[str]) -> torch.Tensor:
    """The start in the colour that the prompt names, when it names one and the picture's name does not."""
    words = re.findall(r"[a-z]+", prompt.lower())
    tones = [word for word in words if word in TONES]
    if len(tones) != 1 or tones[0] in names[0].lower().split():
        return picture
    straight = (premultiplied_to_straight(picture).permute(1, 2, 0) * 255).round().byte().numpy()
    toned = torch.from_numpy(recolour(straight, TONES[tones[0]])).permute(2, 0, 1)
    return straight_to_premultiplied(toned / 255)


def _patches_to_image(patches: torch.Tensor) -> Image.Image:
    straight = premultiplied_to_straight(from_patches(patches[None])[0])
    straight[3] = ((straight[3] - HAZE) / (1 - 2 * HAZE)).clamp(0, 1)
    rgba = (straight.permute(1, 2, 0) * 255).round().byte().numpy()
    rgba[rgba[..., 3] == 0] = 0
    return Image.fromarray(rgba)
