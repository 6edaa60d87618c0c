"""What the diffusion painter gains by batches and costs itself: images a second and peak memory, at batch 1, 4 and 8.

The model is Stable Diffusion XL at full size, from its configuration with random weights, in bfloat16: what is timed
does not depend on their values. The alternative in the same run is the same loaded pipeline, called one prompt at a
time without the painter. Prints a table; each figure is the median of the repeats.
Run on a machine with a GPU: python benchmarks/diffusion.py [--folder EMPTY_OR_FORMER] [--images 16] [--steps 30]
Run small on a CPU: python benchmarks/diffusion.py --tiny
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from maskwright.configs.diffusion import DiffusionSettings
from maskwright.tools.painting.diffusion import DiffusionPainter
from maskwright.tools.painting.pipelines import share_pipeline
from maskwright.tools.protocols import PaintRequest

BATCH_SIZES = (1, 4, 8)
PROMPT = "a photo of a single {name} on a plain background, studio light, sharp focus"
NAMES = ("apple", "teapot", "bicycle", "zebra", "umbrella", "tractor", "lighthouse", "dog")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the parts of the model are as large as."""

    unet: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    vae: tuple[int, ...]
    text: tuple[int, int]
    """Width and layers of the first text encoder."""
    text_2: tuple[int, int]
    head: int
    """Channels of an attention head."""
    time_embedding: int
    groups: int


FULL = Sizes(
    unet=(320, 640, 1280),
    transformer_layers=(1, 2, 10),
    vae=(128, 256, 512, 512),
    text=(768, 12),
    text_2=(1280, 32),
    head=64,
    time_embedding=256,
    groups=32,
)
TINY = Sizes(
    unet=(16, 32, 32),
    transformer_layers=(1, 1, 1),
    vae=(8, 8, 8, 8),
    text=(32, 2),
    text_2=(32, 2),
    head=8,
    time_embedding=8,
    groups=4,
)


def save_model(folder: Path, sizes: Sizes, device: str, dtype: torch.dtype) -> None:
    """Make the pipeline of these sizes where it is quickly made, and write it as its owner does."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            parts = {
                "unet": build_unet(sizes),
                "vae": build_vae(sizes),
                "text_encoder": CLIPTextModel(text_config(*sizes.text)),
                "text_encoder_2": CLIPTextModelWithProjection(text_config(*sizes.text_2)),
            }
    finally:
        torch.set_default_dtype(before)
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    tokenizers = {"tokenizer": byte_tokenizer(), "tokenizer_2": byte_tokenizer()}
    pipeline = StableDiffusionXLPipeline(**parts, **tokenizers, scheduler=scheduler, add_watermarker=False)
    pipeline.save_pretrained(folder)


def build_unet(sizes: Sizes) -> UNet2DConditionModel:
    width, width_2 = sizes.text[0], sizes.text_2[0]
    return UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=sizes.unet,
        transformer_layers_per_block=sizes.transformer_layers,
        attention_head_dim=tuple(channels // sizes.head for channels in sizes.unet),
        norm_num_groups=sizes.groups,
        cross_attention_dim=width + width_2,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=sizes.time_embedding,
        projection_class_embeddings_input_dim=width_2 + 6 * sizes.time_embedding,
    )


def build_vae(sizes: Sizes) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=sizes.vae,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=sizes.groups,
        sample_size=1024,
        scaling_factor=0.13025,
    )


def text_config(width: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        projection_dim=width,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def byte_tokenizer() -> CLIPTokenizer:
    """CLIP's class without its vocabulary: a text costs its 77 places whatever stands in them."""
    letters = [chr(code) for code in range(256)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=77)


def make_requests(count: int) -> list[PaintRequest]:
    return [
        PaintRequest(item_id=str(n), seed=n, category=name, prompt=PROMPT.format(name=name), strength=1.0)
        for n in range(count)
        for name in [NAMES[n % len(NAMES)]]
    ]


def paint_bare(settings: DiffusionSettings, requests: list[PaintRequest]) -> None:
    """One call a prompt, as a script does it."""
    pipeline = share_pipeline(settings).pipeline
    for request in requests:
        pipeline(
            prompt=request.prompt,
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            width=settings.width,
            height=settings.height,
            generator=torch.Generator("cpu").manual_seed(request.seed),
        )


def measure(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds, and peak GiB of the GPU, of which the weights are a part; 0 without one."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0


def run(arguments: argparse.Namespace, folder: Path) -> None:
    device, dtype = ("cpu", "float32") if arguments.tiny else ("cuda", "bfloat16")
    if not (folder / "model_index.json").is_file():
        save_model(folder, TINY if arguments.tiny else FULL, device, getattr(torch, dtype))
    side = 64 if arguments.tiny else arguments.side
    settings = DiffusionSettings(
        model=str(folder),
        dtype=dtype,
        device=device,
        num_inference_steps=2 if arguments.tiny else arguments.steps,
        guidance_scale=5.0,
        width=side,
        height=side,
    )
    requests = make_requests(arguments.images)
    paint_bare(settings, requests[:1])
    figures = [("bare pipeline, one by one", *measure(lambda: paint_bare(settings, requests), arguments.repeats))]
    for batch_size in BATCH_SIZES:
        painter = DiffusionPainter(settings.model_copy(update={"batch_size": batch_size}))
        flaws = [painted.flaw for painted in painter.paint(requests[:batch_size]) if painted.flaw]
        if flaws:
            sys.exit(f"the model's random weights give no pictures ({flaws[0]}): the figures would mean nothing")
        work = lambda painter=painter: painter.paint(requests)  # noqa: E731
        figures.append((f"painter, batch {batch_size}", *measure(work, arguments.repeats)))
    show(figures, settings, arguments.images)


def show(figures: list[tuple[str, float, float]], settings: DiffusionSettings, images: int) -> None:
    where = torch.cuda.get_device_name() if settings.device == "cuda" else "CPU"
    table = Table(
        title=f"SDXL, {settings.width}x{settings.height}, {settings.num_inference_steps} steps, guidance 5, "
        f"{settings.dtype}, {images} images, {where}, torch {torch.__version__}"
    )
    for column in ("how", "images/s", "to the bare pipeline", "peak memory"):
        table.add_column(column, justify="left" if column == "how" else "right")
    for how, seconds, peak_gib in figures:
        peak = f"{peak_gib:.1f} GiB" if peak_gib else "not measured"
        table.add_row(how, f"{images / seconds:.3f}", f"{figures[0][1] / seconds:.2f} times", peak)
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand weights, on the CPU")
    parser.add_argument("--folder", type=Path, help="where the model is written, or was; 7 GB")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--side", type=int, default=1024, help="pixels")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("SDXL at full size needs a CUDA GPU, and there is none here; `--tiny` runs a small model on the CPU")
    if arguments.folder:
        run(arguments, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        run(arguments, Path(name) / "sdxl")


if __name__ == "__main__":
    main()
