"""Settings of the validation agent: what a vision model is asked of a picture, and how far it is trusted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Kind = Literal["cut_out", "edit", "scene"]


class CriterionSettings(BaseModel):
    """One question of a vision judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"[a-z][a-z0-9_]{0,39}", description="of the criterion, in answers and reports")
    question: str = Field(
        min_length=3, description="what must hold, as a statement; {category} stands for the class's name"
    )


def _criteria(**questions: str) -> tuple[CriterionSettings, ...]:
    return tuple(CriterionSettings(name=name, question=question) for name, question in questions.items())


CRITERIA: dict[Kind, tuple[CriterionSettings, ...]] = {
    "cut_out": _criteria(
        right_category="The object is a {category}, and nothing else.",
        single_object="There is exactly one object, not two or more.",
        single_view="The object is shown once, from one view; it is no collage, no set of views.",
        intact="The object is whole and fully visible: nothing of it is cut off, hidden, broken or missing.",
        plain_background="Behind and around the object there is only one plain colour.",
    ),
    "edit": _criteria(
        right_category="The object is a {category}, and nothing else.",
        single_object="There is exactly one object, not two or more.",
        undamaged="The object is not distorted, melted, smeared or torn, beyond where its photograph ended.",
        clean_outline="The outline follows the object: no piece of a background clings to it, no hole is torn into it.",
    ),
    "scene": _criteria(
        recognizable="Every {category} in the picture can be recognized.",
        plausible_size="Every object has a size that is possible where it stands.",
        no_visible_seam="No object looks pasted: there is no hard rim, halo or abrupt change of light around one.",
    ),
}
"""Gen-n-Val's four (arXiv 2506.04676) and the right category; what differs for edits and for whole scenes."""


class ValidationSettings(BaseModel):
    """How pictures that pass the measures are looked at; by whom, `llm.judge` and `llm.second_judge` say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field("cut_out", description="whose criteria are asked: cut_out, edit or scene")
    criteria: tuple[CriterionSettings, ...] | None = Field(
        None, min_length=1, description="other criteria; null: those of `kind`. A picture must meet all"
    )
    prompt: str = Field(
        "judge", min_length=1, description="the built-in question `judge`, or a file that `maskwright optimize` wrote"
    )
    audit_share: Share = Field(
        0.0, description="random share of the measured pictures, kept or not, that a person shall look at too"
    )
    planted: int = Field(
        4, ge=0, le=64, description="bad pictures that a vision judge is shown before anything is painted; 0: none"
    )
    min_planted_caught: Share = Field(0.5, description="share of them that it must not accept, or the run stops")
    max_side_px: int = Field(768, ge=64, le=8192, description="longer side of a picture as a judge is sent it")
    max_image_bytes: int = Field(4_000_000, ge=10_000, description="most bytes of it, encoded; more is made smaller")

    @model_validator(mode="after")
    def _criteria_differ(self) -> ValidationSettings:
        names = [criterion.name for criterion in self.asked]
        if len(set(names)) < len(names):
            raise ValueError(f"criteria {names} name one twice")
        return self

    @property
    def asked(self) -> tuple[CriterionSettings, ...]:
        """The criteria that are asked."""
        return self.criteria or CRITERIA[self.kind]
