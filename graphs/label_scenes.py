"""Painters of whole labelled scenes, made of those that stand: of defects, of cut-outs, of opaque pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..configs.backgrounds import GeneratedSettings
from ..configs.compose import ComposeSettings
from ..configs.label_agent import LabelAgentSettings
from ..data.images import read_image
from ..data.label_records import LabelDataset, LabelledImage
from ..data.records import ImageRGB
from ..errors import EmptyMaskError
from ..tools.composing.harmonization import Harmonizer, build_harmonizer
from ..tools.composing.placement import UNKNOWN_SIDE, SizeStatistics
from ..tools.composing.scene import CutOut, compose_scene
from ..tools.cutouts import crop_to_mask
from ..tools.defects import DefectPainter, Edited, EditRequest
from ..tools.masking.foreground import find_foreground
from ..tools.naming import no_settings, noun_phrase
from ..tools.painting.defect_registry import build_defect_painter
from ..tools.protocols import PaintRequest, TextPainter
from ..tools.scenes import PaintedScene, ScenePainter, SceneRequest
from .anomaly_planner import plan_to_prompt
from .backgrounds import build_scene_painter
from .items import image_seed

SPRITE_STRENGTH = 0.8
"""How far a sprite departs from the picture that it starts from, as the T-Agent's first round has it."""
WORDS_PER_TOKEN = 0.7
"""Of English, with room to spare; a text encoder counts tokens, a writer words."""


@dataclass(frozen=True, slots=True)
class Backdrops:
    """Real training images that editing painters start from; a request names one by its row."""

    images: Sequence[LabelledImage]

    def read(self, row: int) -> ImageRGB:
        """(H, W, 3) uint8; raises ImageDecodeError."""
        return read_image(self.images[row].image)


@dataclass(slots=True)
class _Draft:
    """A scene while defects are added to it."""

    rgb: ImageRGB
    usd: float = 0.0
    flaw: str = ""
    parameters: dict[str, float | str] = field(default_factory=dict)

    def take(self, label: str, edited: Edited) -> None:
        self.rgb, self.usd = edited.rgb, self.usd + edited.usd
        self.parameters |= {f"{label}.{name}": value for name, value in edited.parameters.items()}
        is_unseen = edited.mask_hw is not None and not edited.mask_hw.any()
        self.flaw = edited.flaw or (f"{label} changes nothing that can be seen" if is_unseen else "")


@dataclass(frozen=True, slots=True)
class DefectScenes:
    """Edits a good image, one planned defect after another; the masks are thrown away."""

    painter: DefectPainter
    backdrops: Backdrops
    item_name: str
    """What the good images show, as the data set calls it."""

    max_words: int | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return f"defects: {self.painter.name}"

    @property
    def revision(self) -> str:
        return self.painter.revision

    def knows(self, label: str) -> bool:  # noqa: ARG002
        """A plan says what a defect of any name looks like."""
        return True

    def paint(self, requests: Sequence[SceneRequest]) -> list[PaintedScene]:
        """Scenes whose defects follow the requests' plans; one without a plan for a label is flawed.

        Raises:
            ImageDecodeError: a good image is damaged.
        """
        drafts = [_Draft(self.backdrops.read(request.background), flaw=_unplanned(request)) for request in requests]
        for turn in range(max((len(request.plans) for request in requests), default=0)):
            pairs = [
                (draft, request)
                for draft, request in zip(drafts, requests, strict=True)
                if turn < len(request.plans) and not draft.flaw
            ]
            edits = self.painter.paint([self._to_edit(draft.rgb, request, turn) for draft, request in pairs])
            for (draft, request), edited in zip(pairs, edits, strict=True):
                draft.take(request.plans[turn].defect, edited)
        return [
            PaintedScene(
                draft.rgb, self.backdrops.images[request.background].key, draft.parameters, draft.usd, draft.flaw
            )
            for draft, request in zip(drafts, requests, strict=True)
        ]

    def _to_edit(self, rgb: ImageRGB, request: SceneRequest, turn: int) -> EditRequest:
        plan = request.plans[turn]
        return EditRequest(
            item_id=f"{request.item_id}-{turn}",
            seed=image_seed(request.seed, request.item_id, turn, 0),
            plan=plan,
            image_rgb=rgb,
            foreground_hw=find_foreground(rgb),
            prompt=plan_to_prompt(plan, self.item_name),
        )


def _unplanned(request: SceneRequest) -> str:
    missing = sorted(set(request.labels) - {plan.defect for plan in request.plans})
    return f"no plan for {', '.join(missing)}" if missing else ""


@dataclass(frozen=True, slots=True)
class SpriteScenes:
    """Paints each label as a cut-out and composes them on a real image that lacks them.

    What the real image shows is not painted again. Sizes are those of unknown classes: nobody has masks.
    """

    painter: TextPainter
    backdrops: Backdrops
    harmonizer: Harmonizer
    settings: ComposeSettings

    max_words: int | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return f"sprites: {self.painter.name}"

    @property
    def revision(self) -> str:
        return self.painter.revision

    def knows(self, label: str) -> bool:
        return self.painter.knows(label)

    def paint(self, requests: Sequence[SceneRequest]) -> list[PaintedScene]:
        """Composed scenes; one of whose cut-outs is empty or finds no place is flawed.

        Raises:
            ImageDecodeError: a background is damaged.
        """
        wanted = [
            (row, label)
            for row, request in enumerate(requests)
            for label in request.labels
            if label not in self.backdrops.images[request.background].labels
        ]
        sprites = self.painter.paint([_to_sprite(requests[row], label) for row, label in wanted])
        cutouts: dict[int, list[CutOut]] = {row: [] for row in range(len(requests))}
        flaws = dict.fromkeys(cutouts, "")
        for (row, label), painted in zip(wanted, sprites, strict=True):
            try:
                cutouts[row].append(CutOut(label, 0, crop_to_mask(painted.rgba)))
            except EmptyMaskError:
                flaws[row] = f"nothing is left of {label}"
            flaws[row] = flaws[row] or painted.flaw
        return [self._compose(request, cutouts[row], flaws[row]) for row, request in enumerate(requests)]

    def _compose(self, request: SceneRequest, cutouts: Sequence[CutOut], flaw: str) -> PaintedScene:
        backdrop = self.backdrops.images[request.background]
        scene = compose_scene(
            self.backdrops.read(request.background),
            (),
            cutouts,
            SizeStatistics({}, UNKNOWN_SIDE),
            self.settings,
            self.harmonizer,
            np.random.default_rng(request.seed),
            measure_seams=False,
        )
        unplaced = f"no place for {', '.join(scene.unplaced)}" if scene.unplaced else ""
        parameters: Mapping[str, float | str] = {"harmonization": self.settings.harmonization}
        return PaintedScene(scene.image_rgb, backdrop.key, parameters, flaw=flaw or unplaced)


def _to_sprite(request: SceneRequest, label: str) -> PaintRequest:
    return PaintRequest(
        item_id=f"{request.item_id}-{label}",
        seed=image_seed(request.seed, label, 0, 0),
        category=label,
        prompt=noun_phrase(label),
        strength=SPRITE_STRENGTH,
    )


@dataclass(frozen=True, slots=True)
class TextScenes:
    """Whole pictures by a text-to-image painter; no pixel of them is real."""

    painter: TextPainter

    @property
    def name(self) -> str:
        return self.painter.name

    @property
    def revision(self) -> str:
        return self.painter.revision

    @property
    def max_words(self) -> int | None:
        tokens = self.painter.max_tokens
        return None if tokens is None else int(tokens * WORDS_PER_TOKEN)

    def knows(self, label: str) -> bool:
        return self.painter.knows(label)

    def paint(self, requests: Sequence[SceneRequest]) -> list[PaintedScene]:
        """Opaque pictures of the prompts; one that is partly transparent is flawed."""
        asked = [
            PaintRequest(
                item_id=request.item_id,
                seed=request.seed,
                category=" + ".join(request.labels),
                prompt=request.prompt,
                strength=1.0,
            )
            for request in requests
        ]
        return [
            PaintedScene(
                np.ascontiguousarray(painted.rgba[..., :3]),
                "",
                painted.parameters,
                painted.usd,
                painted.flaw or ("" if (painted.rgba[..., 3] == 255).all() else "partly transparent"),
            )
            for painted in self.painter.paint(asked)
        ]


def choose_painter(settings: LabelAgentSettings, dataset: LabelDataset) -> str:
    """Name of the painter, `auto` resolved: defects on an item of an anomaly data set, else sprites."""
    if settings.painter != "auto":
        return settings.painter
    return "defects" if dataset.format == "mvtec" else "sprites"


def build_label_painter(
    settings: LabelAgentSettings, compose: ComposeSettings, dataset: LabelDataset, backdrops: Backdrops
) -> ScenePainter:
    """The label agent's painter; nothing is loaded yet.

    Raises:
        RecipeError: the painter's own settings are missing or wrong.
        ModelNotFetchedError: its model is not in the cache.
    """
    name = choose_painter(settings, dataset)
    if name == "defects":
        return DefectScenes(build_defect_painter(settings.defects), backdrops, item_of(dataset))
    if name == "sprites":
        from ..tools.painting.sprites import SpritesPainter

        return SpriteScenes(SpritesPainter(settings.sprites), backdrops, build_harmonizer(compose), compose)
    if getattr(settings, name) is None:
        raise no_settings("painter", name, "model", "label_agent")
    own = GeneratedSettings(painter=name, diffusion=settings.diffusion, hosted=settings.hosted)
    return TextScenes(build_scene_painter(own))


def item_of(dataset: LabelDataset) -> str:
    """What the images show, as an anomaly data set names its item."""
    return dataset.images[0].key.split("/")[0] if dataset.format == "mvtec" else dataset.root.name


def edits_backdrops(painter: ScenePainter) -> bool:
    """Whether a painter starts from a real image."""
    return not isinstance(painter, TextScenes)
