"""Settings of the maskers: how the mask of a painted object is found."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Precision = Literal["auto", "float32", "float16", "bfloat16"]
"""Numbers that a network computes with; `auto` is bfloat16 on a CUDA GPU that has it, else float32."""
SamPromptKind = Literal["box", "point", "corners"]
SamModelType = Literal["vit_b", "vit_l", "vit_h"]


class NetworkSettings(BaseModel):
    """What maskers with a network of their own have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(min_length=1, description="a folder or file, or OWNER/NAME of the Hugging Face Hub")
    revision: str | None = Field(None, min_length=1, description="branch, tag or commit of the Hub repository")
    device: str = Field("auto", min_length=1, description="auto, cpu, cuda, cuda:1, mps")
    dtype: Precision = Field("auto", description="numbers to compute with: auto, float32, float16 or bfloat16")
    batch_size: int = Field(4, ge=1, le=256, description="pictures at once; halved when the GPU's memory is short")


class SamSettings(NetworkSettings):
    """Segment Anything (arXiv 2304.02643) and SAM 2 (arXiv 2408.00714), asked by boxes and points.

    `corners` takes the picture's four corners for background: beside other prompts they say what is not the object;
    alone they ask for the background, and the object is what is left (DiverGen's SAM-background, arXiv 2405.10185).
    """

    version: Literal["sam", "sam2"] = Field("sam", description="sam, or sam2")
    model_type: SamModelType | None = Field(
        None, description="vit_b, vit_l or vit_h of a segment-anything checkpoint; null: as its weights say"
    )
    prompts: tuple[SamPromptKind, ...] = Field(
        ("box",),
        min_length=1,
        max_length=3,
        description="box: the known one, else the whole picture; point: the middle of that; corners: as background",
    )
    choose: Literal["predicted_iou", "scorer"] = Field(
        "predicted_iou", description="which of the three masks: the network's own favourite, or the image-text scorer's"
    )

    @model_validator(mode="after")
    def _check(self) -> SamSettings:
        if len(set(self.prompts)) < len(self.prompts):
            raise ValueError(f"prompts {list(self.prompts)} name one twice")
        if self.version == "sam2" and self.model_type is not None:
            raise ValueError(f"model_type {self.model_type!r} is for checkpoints of `version: sam`; leave it out")
        return self


class ConceptSettings(NetworkSettings):
    """SAM 3 (arXiv 2511.16719), asked by the class's name; it finds, and counts, every instance."""

    score_threshold: float = Field(0.5, ge=0, lt=1, description="least score of an instance that counts")
    mask_threshold: float = Field(0.5, gt=0, lt=1, description="least probability of a pixel that belongs to it")


class BirefnetSettings(NetworkSettings):
    """BiRefNet (arXiv 2401.03407) or its kin, whose repository brings its own Python code.

    That code runs with your rights. It is refused unless `trust_remote_code` says so, and, for a repository of the
    Hub, unless `revision` is a full commit, so that what runs is what was read.
    """

    trust_remote_code: bool = Field(False, description="run the Python code in the model's folder")
    side_px: int = Field(1024, ge=32, le=4096, multiple_of=32, description="side of the square that the network sees")


class AlphaSettings(BaseModel):
    """The alpha that a picture was painted with, cleaned as Gen-n-Val does (arXiv 2506.04676)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    median_px: int = Field(0, ge=0, le=31, description="side of a median filter on the alpha, odd; 0: none")

    @field_validator("median_px")
    @classmethod
    def _is_odd(cls, side_px: int) -> int:
        if side_px and side_px % 2 == 0:
            raise ValueError(f"median_px {side_px} is even; expected an odd number of pixels, or 0 for none")
        return side_px


class GrabCutSettings(BaseModel):
    """GrabCut (Rother et al. 2004): colour models of object and background, and a cut between them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin_ratio: float = Field(
        0.03, gt=0, lt=0.5, description="width of the border that shows background, of the shorter side"
    )
    iterations: int = Field(5, ge=1, le=50, description="rounds of fitting colours and cutting")
    band_ratio: float = Field(
        0.08, gt=0, lt=0.5, description="of a known mask: open band on both sides of its outline, of its side"
    )
    border_background: bool = Field(
        True, description="the border is background for certain; false: it may turn out to be the object"
    )


class BestOfSettings(BaseModel):
    """A vote between maskers by an image-text scorer, as in X-Paste (arXiv 2212.03863)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    maskers: tuple[str, ...] = Field(min_length=2, description="names of maskers, the favourite first")

    @field_validator("maskers")
    @classmethod
    def _check_maskers(cls, maskers: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(maskers)) < len(maskers):
            raise ValueError(f"maskers {list(maskers)} name one twice")
        return maskers


class MaskerSettings(BaseModel):
    """Which masker an agent has, and the settings of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    masker: str = Field("alpha", description="name of the masker")
    alpha: AlphaSettings = AlphaSettings()
    grabcut: GrabCutSettings = GrabCutSettings()
    sam: SamSettings | None = Field(None, description="settings of the masker `sam`")
    concept: ConceptSettings | None = Field(None, description="of the masker `concept`")
    birefnet: BirefnetSettings | None = Field(None, description="of the masker `birefnet`")
    best_of: BestOfSettings | None = Field(None, description="of the masker `best_of`")
