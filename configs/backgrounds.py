"""Settings of painted backgrounds: by whom, of what, and how it is checked that they hold none of the classes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .diffusion import DiffusionSettings
from .hosted import HostedSettings

SCENE_PAINTERS = ("diffusion", "hosted")
"""Painters of whole, opaque pictures; the others paint a single object on nothing."""

PromptText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)]

SCENE_PROMPTS = (
    "an empty gravel road through a pine forest, overcast",
    "an empty asphalt street between brick houses, early morning",
    "a bare concrete parking deck, evening light",
    "a mown lawn in front of a hedge, sunny",
    "a sandy beach at low tide, hazy sky",
    "a snow-covered field below a grey sky",
    "a wet cobblestone square, after the rain",
    "a rocky mountain slope with low grass, clear sky",
    "an empty room with a wooden floor and white walls, daylight from the side",
    "a bare kitchen worktop in front of plain tiles, lamplight",
    "an empty wooden table seen from above",
    "an empty workshop floor of grey concrete, neon light",
    "a long empty corridor with linoleum floor",
    "a stretch of calm lake water, seen from the shore",
    "a harvested field with stubble, low sun",
    "a muddy forest path with fallen leaves, autumn",
    "a desert plain with dry shrubs, noon",
    "an empty warehouse hall with metal walls",
    "a carpet in front of a bare wall, warm evening light",
    "a dark empty alley at night, a single street light",
)
"""Empty places, indoors and outdoors, in different light."""


class GeneratedSettings(BaseModel):
    """Backgrounds from a text-to-image painter, each checked with the recipe's image-text scorer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    painter: str = Field("diffusion", description="name of a painter of whole pictures: diffusion or hosted")
    diffusion: DiffusionSettings | None = Field(None, description="settings of the painter `diffusion`")
    hosted: HostedSettings | None = Field(None, description="of the painter `hosted`")
    count: int = Field(20, ge=1, le=100_000, description="backgrounds to paint")
    prompts: tuple[PromptText, ...] = Field(
        SCENE_PROMPTS, min_length=1, description="empty places; each is painted in turn"
    )
    max_object_score: float = Field(
        0.95,
        allow_inf_nan=False,
        description="most score of any class in the picture or a crop of it, in the scorer's units; above it the "
        "picture is painted again. embedded:lit gives bare textures up to 0.94, a cat 0.98; clip wants about 0.24",
    )
    max_tries: int = Field(5, ge=1, le=100, description="pictures painted for one background")
    side_px: int | None = Field(
        None, ge=16, le=8192, description="longer side of the kept picture; null: as the painter paints it"
    )

    @model_validator(mode="after")
    def _painter_paints_scenes(self) -> GeneratedSettings:
        if self.painter not in SCENE_PAINTERS:
            raise ValueError(
                f"painter {self.painter!r} paints no whole, opaque pictures; expected {' or '.join(SCENE_PAINTERS)}"
            )
        if getattr(self, self.painter) is None:
            raise ValueError(
                f"painter {self.painter!r} needs its settings under `{self.painter}`; expected at least its `model`"
            )
        return self
