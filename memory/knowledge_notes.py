"""Notes on defects and materials: what a user writes, and where each note came from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal[
    "scratch", "crack", "hole", "chip", "stain", "dent", "contamination", "missing_part", "thread", "discolouration"
]
Relief = Literal["flat", "removed", "added"]
Tone = Literal["darker", "lighter"]
"""These three say what `tools.defects` says; rooms on one floor do not know each other, and a test holds them equal."""
Place = Literal["anywhere", "edge", "corner", "centre"]
Kind = Literal["defect", "material"]
Origin = Literal["measured", "own", "shipped"]
ORIGINS: tuple[Origin, ...] = ("measured", "own", "shipped")
"""Most trusted first."""

Interval = tuple[float, float]
"""Least and most."""
Channel = Annotated[int, Field(ge=0, le=255)]
Share = Annotated[float, Field(ge=0)]
PLACE_CELLS = 9


class Ranges(BaseModel):
    """Least and most of a plan's parameters, each as `tools.defects.DefectPlan` has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_ratio: Interval | None = Field(None, description="square root of the defect's share of the object, in (0, 1]")
    elongation: Interval | None = Field(None, description="length over width, at least 1")
    irregularity: Interval | None = Field(None, description="how ragged, in [0, 1]")
    severity: Interval | None = Field(None, description="from hardly to plainly visible, in [0, 1]")
    orientation_deg: Interval | None = Field(
        None, description="of the long axis, in [0, 360], counter-clockwise from rightward; counts modulo 180"
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> Ranges:
        for name, (low, high) in self.given().items():
            least, most = BOUNDS[name]
            if not least <= low <= high <= most:
                raise ValueError(f"{name} is [{low:g}, {high:g}], expected {least:g} <= least <= most <= {most:g}")
        return self

    def given(self) -> dict[str, Interval]:
        """Those that are known, by name."""
        return {name: value for name in BOUNDS if (value := getattr(self, name)) is not None}


BOUNDS: Mapping[str, Interval] = {
    "size_ratio": (0.001, 1),
    "elongation": (1, 500),
    "irregularity": (0, 1),
    "severity": (0, 1),
    "orientation_deg": (0, 360),
}


class Shape(BaseModel):
    """One defect that was seen: parameters of a plan that belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_ratio: float = Field(ge=0.001, le=1)
    elongation: float = Field(ge=1, le=500)
    orientation_deg: float = Field(ge=0, le=360)
    centre_xy: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]
    contrast: float | None = Field(None, ge=-1, le=1, description="mean grey less that of its surroundings")


class Tendencies(BaseModel):
    """How defects of one name come out; what is empty is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    families: tuple[Family, ...] = Field((), description="what it looks like, likeliest first")
    ranges: Ranges = Ranges()
    relief: tuple[Relief, ...] = Field((), description="how it meets the surface, likeliest first")
    tone: tuple[Tone, ...] = Field((), description="against its surroundings, likelier first")
    colours_rgb: tuple[tuple[Channel, Channel, Channel], ...] = Field(
        (), description="sRGB, where physics does not say"
    )
    places: tuple[Place, ...] = Field((), description="where on the object")
    place_weights: tuple[Share, ...] = Field(
        (), description="instead of `places`: weights of the 3x3 cells of the object's box, row by row"
    )
    shapes: tuple[Shape, ...] = Field((), description="defects seen, one by one; a plan is drawn near one of them")

    @model_validator(mode="after")
    def _check_weights(self) -> Tendencies:
        weights = self.place_weights
        if weights and (len(weights) != PLACE_CELLS or not sum(weights)):
            raise ValueError(f"place_weights is {list(weights)}, expected {PLACE_CELLS} numbers, not all of them 0")
        return self


class Note(Tendencies):
    """One note. Front matter and text of a Markdown file, or an entry of a YAML file."""

    kind: Kind = "defect"
    name: str = Field(min_length=1, description="of the defect or the material")
    words: tuple[str, ...] = Field((), description="other names of it; of a material also things made of it")
    materials: tuple[str, ...] = Field((), description="names of materials that it holds for; empty: all")
    items: tuple[str, ...] = Field((), description="items that it holds for; empty: all")
    by_material: dict[str, Tendencies] = Field({}, description="what is different on a material, by its name")
    text: str = Field(min_length=1, description="what a person or a model shall read")

    @model_validator(mode="after")
    def _keep_materials_plain(self) -> Note:
        if self.kind == "material" and (self.by_material or self.ranges.given()):
            raise ValueError(
                "a note of kind 'material' has no `ranges` and no `by_material`; put them in a defect's note"
            )
        return self

    @property
    def digest_text(self) -> str:
        """What the note is found by: short enough for a text encoder, whatever the length of the note."""
        return f"{self.name}: {', '.join(self.words)}. {self.text.split('. ')[0]}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a note came from."""

    origin: Origin
    source: str
    """Absolute path of a file, name of a shipped one, or what was measured."""
    sha256s: tuple[str, ...]
    """Of the file's bytes, or of each picture that was measured."""


@dataclass(frozen=True, slots=True)
class StoredNote:
    """A note and where it came from."""

    note: Note
    provenance: Provenance

    @property
    def note_id(self) -> str:
        """By content and origin: the same note from two files is one note, also once notes can say more."""
        content = f"{self.provenance.origin}\n{self.note.model_dump_json(exclude_defaults=True)}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]
