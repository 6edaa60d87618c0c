"""What can be known of a diffusers pipeline without loading its weights: class, scheduler, tokenizers, version."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import diffusers
import msgspec
from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING, SUPPORTED_TASKS_MAPPINGS
from transformers import AutoTokenizer

from ...configs.diffusion import LoraSettings, PipelineSettings
from ...errors import BrokenRunError, RecipeError
from ...models.checkpoints import checkpoint_revision, find_checkpoint

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import PreTrainedTokenizerBase

INDEX_NAME = "model_index.json"
_UNLIMITED_TOKENS = 10**9
"""Tokenizers without a limit say 10**30."""


def find_pipeline(settings: PipelineSettings) -> Path:
    """The folder that the settings' model means.

    Raises:
        RecipeError: no such folder, or it holds no diffusers pipeline.
        ModelNotFetchedError: the Hub repository is not in the cache.
    """
    folder = find_checkpoint(settings.model, settings.revision)
    if not (folder / INDEX_NAME).is_file():
        raise RecipeError(
            f"model {settings.model!r} is no diffusers pipeline: {str(folder / INDEX_NAME)!r} is not there; "
            "expected a folder as `save_pretrained` writes it."
        )
    return folder


def read_index(folder: Path) -> Mapping[str, object]:
    """The name of a pipeline's class, and library and class of each of its parts.

    Raises:
        RecipeError: the index cannot be read.
    """
    return read_config(folder / INDEX_NAME)


def read_config(path: Path) -> Mapping[str, object]:
    """A JSON file of diffusers: a pipeline's index, or the settings of a part.

    Raises:
        RecipeError: it is not there, or cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except (OSError, msgspec.MsgspecError) as exc:
        kind = "the index of a diffusers pipeline" if path.name == INDEX_NAME else "the settings of a diffusers model"
        raise RecipeError(f"{str(path)!r} cannot be read ({exc}); expected {kind}.") from exc


def find_pipeline_class(settings: PipelineSettings) -> type[DiffusionPipeline]:
    """The class that the settings name; else what paints from text with the parts of the class that the index names.

    Raises:
        RecipeError: diffusers has no such pipeline. Also as `find_pipeline` does.
    """
    if settings.pipeline is not None:
        return find_class("pipeline", settings.pipeline, diffusers.DiffusionPipeline)
    own, kind = find_kind(settings)
    text_to_image: type[DiffusionPipeline] = AUTO_TEXT2IMAGE_PIPELINES_MAPPING.get(kind, own)
    return text_to_image


def find_kind(settings: PipelineSettings) -> tuple[type[DiffusionPipeline], str]:
    """The class that the index names, and diffusers' word for its kin: `stable-diffusion-xl`; empty where it has none.

    Raises:
        RecipeError: diffusers has no such pipeline. Also as `find_pipeline` does.
    """
    own = find_class(
        "pipeline", str(read_index(find_pipeline(settings)).get("_class_name")), diffusers.DiffusionPipeline
    )
    kinds = (kind for mapping in SUPPORTED_TASKS_MAPPINGS for kind, known in mapping.items() if known is own)
    return own, next(kinds, "")


def find_stride(settings: PipelineSettings) -> int:
    """Pixels that a picture's sides must be a multiple of: the autoencoder's step, twice that for transformers.

    Raises:
        RecipeError: the autoencoder's settings cannot be read. Also as `find_pipeline` does.
    """
    folder = find_pipeline(settings)
    vae = read_config(folder / "vae" / "config.json")
    halvings = vae.get("temperal_downsample") or vae.get("temporal_downsample")
    levels = vae.get("block_out_channels")
    steps = len(halvings) if isinstance(halvings, list) else len(levels) - 1 if isinstance(levels, list) else 3
    return 1 << (steps + ("transformer" in read_index(folder)))


def check_scheduler(settings: PipelineSettings) -> None:
    """Look at the scheduler's name and options before anything is loaded.

    Raises:
        RecipeError: diffusers has no such scheduler, or that has no such option. Also as `find_pipeline` does.
    """
    if settings.scheduler is None and not settings.scheduler_options:
        return
    name = settings.scheduler or _part_class(read_index(find_pipeline(settings)), "scheduler")
    scheduler_class = find_class("scheduler", name, diffusers.SchedulerMixin)
    known = inspect.signature(scheduler_class.__init__).parameters
    for option in settings.scheduler_options:
        if option not in known:
            raise RecipeError(
                f"scheduler {name} has no option {option!r}{_hint(option, known)}; known: "
                f"{', '.join(sorted(set(known) - {'self', 'kwargs'}))}. Change `scheduler_options` in the recipe."
            )


def find_revision(settings: PipelineSettings) -> str:
    """Model and adaptations, each with the version of its files, for the provenance. Raises as `find_pipeline` does."""
    loras = [f"{named_revision(lora.model, find_lora(lora))}*{lora.scale:g}" for lora in settings.loras]
    return " + ".join([named_revision(settings.model, find_pipeline(settings)), *loras])


def find_lora(settings: LoraSettings) -> Path:
    """The safetensors file of an adaptation.

    Raises:
        RecipeError: no such file, or several of which none is named.
        ModelNotFetchedError: the Hub repository is not in the cache.
    """
    path = find_checkpoint(settings.model, settings.revision)
    if path.is_file():
        files = [path]
    elif settings.weight_name is not None:
        files = [path / settings.weight_name]
    else:
        files = sorted(path.glob("*.safetensors"))
    if len(files) == 1 and files[0].is_file() and files[0].suffix == ".safetensors":
        return files[0]
    raise RecipeError(
        f"adaptation {settings.model!r} with weight_name {settings.weight_name!r}: expected one safetensors file, got "
        f"{', '.join(str(file) for file in files) or f'none in {path}'}. Set `weight_name` in the recipe."
    )


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """The tokenizer that reads least of a prompt."""

    tokenizer: PreTrainedTokenizerBase
    limit: int | None
    """Most tokens that the pipeline reads; None: it has no limit."""

    def count(self, prompt: str) -> int:
        """Tokens with the marks around them; those of a conversation if the tokenizer has a template for one.

        Z-Image and FLUX.2 klein read a prompt so. What instructions of its own a pipeline adds is not counted.
        """
        if self.tokenizer.chat_template:
            prompt = str(
                self.tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,
                )
            )
        return len(self.tokenizer(prompt, verbose=False).input_ids)

    def count_surplus(self, prompt: str) -> int:
        """Tokens of a prompt that the pipeline cuts off."""
        return max(0, self.count(prompt) - self.limit) if self.limit else 0


def load_tokens(settings: PipelineSettings) -> PromptTokens:
    """Load the tokenizer that reads least of a prompt, and nothing else.

    Raises:
        RecipeError: the pipeline has no tokenizer. Also as `find_pipeline_class` does.
        BrokenRunError: its tokenizer cannot be loaded.
    """
    folder = find_pipeline(settings)
    parts = [name for name, part in read_index(folder).items() if name.startswith("tokenizer") and _is_there(part)]
    if not parts:
        raise RecipeError(f"pipeline {str(folder)!r} has no tokenizer; expected one that paints from text.")
    call = inspect.signature(find_pipeline_class(settings).__call__).parameters
    cut = call["max_sequence_length"].default if "max_sequence_length" in call else _UNLIMITED_TOKENS
    try:
        tokenizers = [AutoTokenizer.from_pretrained(folder / part, local_files_only=True) for part in parts]
        shortest = min(tokenizers, key=lambda tokenizer: tokenizer.model_max_length)
    except (OSError, ValueError, ImportError) as exc:
        raise BrokenRunError(f"no tokenizer of {str(folder)!r} can be loaded ({exc}); fetch the model again.") from exc
    limit = min(shortest.model_max_length, cut)
    return PromptTokens(shortest, limit if limit < _UNLIMITED_TOKENS else None)


class PipelinePromptReader:
    """What a pipeline reads of a prompt; a painter that runs one inherits it. Loads the tokenizer only."""

    def __init__(self, settings: PipelineSettings) -> None:
        self._pipeline_settings = settings

    @property
    def max_tokens(self) -> int | None:
        """Most tokens that the pipeline reads of a prompt; of several encoders, of the one that reads least."""
        return self._tokens.limit

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt as that encoder counts them.

        Raises:
            RecipeError, ModelNotFetchedError, BrokenRunError: it cannot be loaded.
        """
        return self._tokens.count(prompt)

    @functools.cached_property
    def _tokens(self) -> PromptTokens:
        return load_tokens(self._pipeline_settings)


def find_class(setting: str, name: str, base: type) -> type[DiffusionPipeline]:
    """A class of diffusers by its name.

    Args:
        setting: what a recipe calls it.
        base: what it must be.

    Raises:
        RecipeError: diffusers has no such class.
    """
    found: object = getattr(diffusers, name, None)
    if isinstance(found, type) and issubclass(found, base):
        return found
    known = [known for known in dir(diffusers) if known.lower().endswith(setting)]
    raise RecipeError(
        f"diffusers {diffusers.__version__} has no {setting} {name!r}{_hint(name, known)}. "
        f"Set `{setting}` in the recipe to a class of diffusers, or to null for the model's own."
    )


def _hint(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean `{nearest[0]}`?" if nearest else ""


def _part_class(index: Mapping[str, object], part: str) -> str:
    entry = index.get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 else str(entry)


def _is_there(part: object) -> bool:
    return isinstance(part, list) and part[:1] != [None]


def named_revision(model: str, path: Path) -> str:
    """A model's name, without the folders that it lies in, and the version of its files at the path."""
    given = Path(model).expanduser()
    name = given.absolute().name if given.exists() else model
    return f"{name}@{checkpoint_revision(path)}"
