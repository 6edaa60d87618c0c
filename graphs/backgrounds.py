"""Pictures to paste into: the data set's own photographs, a folder of them, or empty places that a painter paints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ..configs.agents import TextAgentSettings
from ..configs.backgrounds import GeneratedSettings
from ..configs.judging import TextScorerSettings
from ..configs.recipe import Recipe
from ..configs.validation import CriterionSettings, ValidationSettings
from ..data.images import read_header, read_image, resolve_frame
from ..data.records import Annotation, Dataset, ImageRecord, ImageRGB
from ..errors import DatasetError, ImageDecodeError, RecipeError
from ..memory.artifacts import ArtifactStore
from ..memory.ledger import Ledger
from ..tools.judging.registry import build_text_scorer
from ..tools.protocols import TextPainter, VisionJudge
from ..tools.registry import build_text_painter
from .generated_backgrounds import GeneratedBackgrounds
from .judges import build_judges
from .services import Progress
from .templates import load_template

EMPTY = (CriterionSettings(name="empty", question="Nowhere in the picture is there any {category}."),)
"""What a vision judge is asked of a painted background."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


class Backgrounds(Protocol):
    """Pictures to paste into, with what is already labelled in them."""

    def prepare(self, progress: Progress, is_stopped: Callable[[], bool]) -> None:
        """Make what does not exist yet; called before anything else is asked, and again on resume.

        Raises:
            BrokenRunError: none can be made.
        """
        ...

    def __len__(self) -> int: ...

    def record(self, index: int) -> ImageRecord: ...

    def read(self, index: int) -> tuple[ImageRGB, tuple[Annotation, ...]]:
        """(H, W, 3) uint8 and its annotations.

        Raises:
            ImageDecodeError: the file is damaged.
        """
        ...


def open_backgrounds(recipe: Recipe, dataset: Dataset, folder: Path, artifacts: ArtifactStore) -> Backgrounds:
    """What `compose.backgrounds` names; nothing is painted yet.

    Args:
        folder: of the run.

    Raises:
        DatasetError: the folder of backgrounds does not exist or holds no readable image.
        RecipeError: backgrounds are to be painted, and the settings to do so are missing or do not fit.
        ModelNotFetchedError: painter or scorer is not in the cache.
    """
    source = recipe.compose.backgrounds
    if source == "train":
        return TrainBackgrounds(dataset)
    if source == "generated":
        return build_generated(recipe, dataset, folder, artifacts)
    return FolderBackgrounds(Path(source))


class TrainBackgrounds:
    """The data set's own training images, with their annotations."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._indices = [i for i, image in enumerate(dataset.images) if image.split == "train"]

    def prepare(self, progress: Progress, is_stopped: Callable[[], bool]) -> None:
        """They exist."""

    def __len__(self) -> int:
        return len(self._indices)

    def record(self, index: int) -> ImageRecord:
        return self._dataset.images[self._indices[index]]

    def read(self, index: int) -> tuple[ImageRGB, tuple[Annotation, ...]]:
        return read_image(self.record(index)), self._dataset.sample(self._indices[index]).annotations


class FolderBackgrounds:
    """A folder of photographs without objects of the data set's classes."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            DatasetError: the folder does not exist or holds no readable image.
        """
        self._records = _read_folder(folder)

    def prepare(self, progress: Progress, is_stopped: Callable[[], bool]) -> None:
        """They exist."""

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> ImageRecord:
        return self._records[index]

    def read(self, index: int) -> tuple[ImageRGB, tuple[Annotation, ...]]:
        return read_image(self._records[index]), ()


def _read_folder(folder: Path) -> list[ImageRecord]:
    if not folder.is_dir():
        raise DatasetError(
            f"compose.backgrounds is {str(folder)!r}; expected 'train', 'generated', or an existing folder"
        )
    records: list[ImageRecord] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        try:
            width, height, transpose = resolve_frame(read_header(path), None)
        except ImageDecodeError:
            continue
        name = path.relative_to(folder).as_posix()
        records.append(ImageRecord(len(records) + 1, name, str(folder), width, height, exif_transpose=transpose))
    if not records:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DatasetError(f"compose.backgrounds: no readable image below {str(folder)!r}; looked for {suffixes}")
    return records


def build_generated(recipe: Recipe, dataset: Dataset, folder: Path, artifacts: ArtifactStore) -> GeneratedBackgrounds:
    """What `compose.backgrounds: generated` asks for; raises as `open_backgrounds`."""
    settings = recipe.compose.generated
    if settings is None:
        raise RecipeError(
            "compose.backgrounds is 'generated' and has no settings; set `compose.generated.diffusion.model`, or "
            "`compose.generated.painter` to hosted and `compose.generated.hosted.model`."
        )
    return GeneratedBackgrounds(
        settings=settings,
        run_seed=recipe.plan.seed,
        painter=build_scene_painter(settings),
        scorer=build_text_scorer(_scorer_settings(recipe)),
        classes=tuple(category.name for category in dataset.categories),
        judges=_build_judges(recipe),
        artifacts=artifacts,
        ledger=Ledger(folder / "backgrounds"),
    )


def build_scene_painter(settings: GeneratedSettings) -> TextPainter:
    """A painter of the registry, set to opaque pictures; nothing is loaded yet. Raises as the registry does."""
    hosted = settings.hosted and settings.hosted.model_copy(update={"background": "opaque"})
    return build_text_painter(TextAgentSettings(painter=settings.painter, diffusion=settings.diffusion, hosted=hosted))


def _build_judges(recipe: Recipe) -> tuple[VisionJudge, ...]:
    settings = ValidationSettings(criteria=EMPTY)
    question = load_template("background").text.strip()
    judges = build_judges(recipe.llm, settings, recipe.plan.seed)
    return tuple(replace(judge, question=question) for judge in judges)


def _scorer_settings(recipe: Recipe) -> TextScorerSettings:
    """The recipe's image-text scorer: the T-Agent's, else the I-Agent's, else the embedded one."""
    for agent in (recipe.agents.text_agent, recipe.agents.image_agent):
        if agent is not None and agent.similarity is not None:
            return agent.similarity.text
    return TextScorerSettings()
