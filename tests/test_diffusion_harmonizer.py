"""The harmonizer `diffusion` on tiny pipelines: only a ring around the seam changes, and never by chance."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipelines import save_flux, save_sd, save_sdxl, save_z_image

from maskwright.configs.compose import ComposeSettings
from maskwright.configs.diffusion import PipelineSettings
from maskwright.data.records import ImageRGB, ImageRGBA
from maskwright.errors import BrokenRunError, RecipeError
from maskwright.tools.composing.diffusion_harmonizer import DiffusionHarmonizer, ring_weight
from maskwright.tools.composing.harmonization import HARMONIZERS, AlphaBlend, alpha_to_mask, build_harmonizer
from maskwright.tools.composing.placement import SideDistribution, SizeStatistics, paste
from maskwright.tools.composing.scene import CutOut, Scene, compose_scene
from maskwright.tools.painting.pipelines import share_pipeline

HEIGHT, WIDTH = 48, 64
RING_PX = 4
SAVERS: dict[str, Callable[[Path], Path]] = {
    "sd": save_sd,
    "sdxl": save_sdxl,
    "flux": save_flux,
    "z_image": save_z_image,
    "blanking": lambda folder: save_sd(folder, blanks_all=True),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Modelle ü")
    for name, save in SAVERS.items():
        save(folder / name)
    return folder


def settings_of(model: Path, **changes: object) -> ComposeSettings:
    small = {"min_side_px": 64, "ring_px": RING_PX, "context_px": 6, "strength": 0.5, "num_inference_steps": 4}
    diffusion = {"model": str(model), "device": "cpu", **small, **changes}
    return ComposeSettings.model_validate({"harmonization": "diffusion", "diffusion": diffusion})


def build(model: Path, **changes: object) -> DiffusionHarmonizer:
    harmonizer = build_harmonizer(settings_of(model, **changes))
    assert isinstance(harmonizer, DiffusionHarmonizer)
    return harmonizer


def background(height: int = HEIGHT, width: int = WIDTH) -> ImageRGB:
    noise = np.random.default_rng(0).integers(-6, 7, size=(height, width, 3))
    ramp = np.linspace(0, 30, width)[None, :, None]
    return np.clip(np.array([60, 90, 140]) + ramp + noise, 0, 255).astype(np.uint8)


def cutout(rows: tuple[int, int] = (12, 36), columns: tuple[int, int] = (16, 48), size: object = None) -> ImageRGBA:
    """A reddish rectangle with texture."""
    height, width = size if isinstance(size, tuple) else (HEIGHT, WIDTH)
    rgba = np.zeros((height, width, 4), dtype=np.uint8)
    rgba[..., :3] = np.array([190, 70, 50]) + np.random.default_rng(1).integers(-15, 16, size=(height, width, 3))
    rgba[slice(*rows), slice(*columns), 3] = 255
    return rgba


def near_seam(rgba: ImageRGBA, reach_px: int = RING_PX) -> np.ndarray:
    """(h, w) bool: within reach of a pixel on the other side, found by comparing all pixels with all."""
    mask = alpha_to_mask(rgba).astype(bool)
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    near = np.zeros(mask.shape, dtype=bool)
    if len(inside) and len(outside):
        for points, others in ((inside, outside), (outside, inside)):
            least = np.array([np.hypot(*(others - point).T).min() for point in points])
            near[tuple(points[least < reach_px].T)] = True
    return near


SHAPES = [
    pytest.param(cutout(), id="inside"),
    pytest.param(cutout((30, 48), (40, 64)), id="corner of the scene"),
    pytest.param(cutout((0, 48), (10, 30)), id="top to bottom"),
    pytest.param(cutout((20, 21), (5, 60)), id="one pixel high"),
    pytest.param(cutout((20, 21), (5, 6)), id="one pixel"),
    pytest.param(cutout((1, 3), (1, 3), (4, 5)), id="a window of 4 by 5"),
    pytest.param(cutout((9, 20), (11, 30), (37, 51)), id="odd sides"),
    pytest.param(cutout((20, 44), (30, 70), (60, 91)), id="larger than the model paints"),
]


@pytest.mark.parametrize("rgba", SHAPES)
def test_only_a_ring_around_the_seam_changes(rgba: ImageRGBA, models: Path) -> None:
    window = background(*rgba.shape[:2])
    before = window.copy()
    blended = AlphaBlend().harmonize(window, rgba)
    result = build(models / "sd", max_side_px=80).harmonize(window, rgba)
    assert (result.shape, result.dtype) == (window.shape, np.uint8)
    changed = (result != blended).any(axis=2)
    assert changed.any()
    assert not (changed & ~near_seam(rgba)).any()
    np.testing.assert_array_equal(window, before, err_msg="the window itself is not written")


@pytest.mark.parametrize(
    "rgba",
    [pytest.param(cutout((0, 48), (0, 64)), id="fills its window"), pytest.param(cutout((0, 0)), id="nothing")],
)
def test_without_a_seam_nothing_is_painted(rgba: ImageRGBA, models: Path) -> None:
    result = build(models / "sd").harmonize(background(), rgba)
    np.testing.assert_array_equal(result, AlphaBlend().harmonize(background(), rgba))


@pytest.mark.parametrize("name", ["sd", "sdxl", "flux", "z_image"])
def test_models_of_every_kind_paint_seams_over_the_weights_that_painters_use(name: str, models: Path) -> None:
    harmonizer = build(models / name)
    result = harmonizer.harmonize(background(), cutout())
    assert (result != AlphaBlend().harmonize(background(), cutout())).any()
    shared = share_pipeline(PipelineSettings(model=str(models / name), device="cpu"))
    with ThreadPoolExecutor(1) as pool:
        with shared.lock:
            waiting = pool.submit(harmonizer.harmonize, background(), cutout())
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
        np.testing.assert_array_equal(waiting.result(timeout=30), result)


def test_the_ring_fades_and_leaves_small_objects_their_middle() -> None:
    weight = ring_weight(alpha_to_mask(cutout()), 8)
    across = weight[24, 30:64]
    assert weight.max() > 0.9
    assert (np.diff(across[np.argmax(across) :]) <= 0).all(), "it falls with the distance"
    assert np.abs(np.diff(across)).max() < 0.3, "without a step"
    small = ring_weight(alpha_to_mask(cutout((20, 29), (20, 29))), 32)
    assert small[24, 24] == 0
    assert small[20, 24] > 0


def test_the_same_paste_is_the_same_whoever_else_is_painting(models: Path) -> None:
    harmonizer = build(models / "sd")
    cutouts = [cutout(columns=(16, right)) for right in (30, 40, 50)]
    alone = [build(models / "sd").harmonize(background(), rgba) for rgba in cutouts]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda rgba: harmonizer.harmonize(background(), rgba), cutouts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


CHANGES = [
    pytest.param({"strength": 1.0}, id="strength"),
    pytest.param({"num_inference_steps": 8}, id="steps"),
    pytest.param({"prompt": "snow"}, id="prompt"),
    pytest.param({"negative_prompt": "snow"}, id="negative prompt"),
    pytest.param({"guidance_scale": 1.5}, id="guidance"),
    pytest.param({"ring_px": 6}, id="ring"),
    pytest.param({"min_side_px": 128}, id="side"),
    pytest.param({"scheduler": "LCMScheduler"}, id="scheduler"),
]


@pytest.mark.parametrize("changes", CHANGES)
def test_every_setting_reaches_the_pixels(changes: dict[str, object], models: Path) -> None:
    plain, changed = (build(models / "sd", **change).harmonize(background(), cutout()) for change in ({}, changes))
    assert (plain != changed).any()


def test_a_blanked_window_keeps_the_alpha_blend_and_says_so(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = build(models / "blanking").harmonize(background(), cutout())
    np.testing.assert_array_equal(result, AlphaBlend().harmonize(background(), cutout()))
    assert "blanked a seam" in caplog.text


def test_broken_arithmetic_stops_the_run(models: Path, tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "broken")
    vae = share_pipeline(PipelineSettings(model=str(folder), device="cpu")).pipeline.vae
    with torch.no_grad():
        next(vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(BrokenRunError, match=r"not finite.*float32"):
        build(folder).harmonize(background(), cutout())


@pytest.mark.parametrize(
    ("section", "says"),
    [
        pytest.param(None, r"compose\.diffusion\.model", id="no settings"),
        pytest.param({"model": "{tmp}/nowhere"}, "nowhere", id="no such model"),
        pytest.param({"model": "{tmp}"}, "model_index.json", id="no pipeline"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_painted(
    section: dict[str, str] | None, says: str, tmp_path: Path
) -> None:
    diffusion = {key: value.format(tmp=tmp_path) for key, value in section.items()} if section else None
    settings = ComposeSettings.model_validate({"harmonization": "diffusion", "diffusion": diffusion})
    with pytest.raises(RecipeError, match=says):
        build_harmonizer(settings)


def test_a_paste_s_window_reaches_far_enough_for_the_ring_and_not_over_the_scene(models: Path) -> None:
    harmonizer = build(models / "sd", ring_px=10)
    scene, square = background(), cutout((0, 12), (0, 12), (12, 12))
    pasted = paste(scene, square, (3, 24), harmonizer)
    assert pasted.box_xywh == (0, 18, 9, 12)
    changed = np.argwhere((scene != background()).any(axis=2))
    assert changed[:, 1].max() > 9 + 5, "beyond the cut-out's own box"
    assert changed[:, 1].max() < 9 + 10


def test_the_same_seed_is_the_same_scene_but_for_pixels_around_the_pastes(models: Path) -> None:
    yy, xx = np.mgrid[:60, :44]
    disc = (((yy - 29.5) / 60) ** 2 + ((xx - 21.5) / 44) ** 2 <= 0.25) * 255
    parts = [
        CutOut(str(n), 7, np.dstack([np.full((60, 44, 3), (250 - 90 * n, 90 * n, 10)), disc]).astype(np.uint8))
        for n in range(2)
    ]
    sizes = SizeStatistics({}, SideDistribution(0.25, 0.05))
    settings = settings_of(models / "sd")

    def compose(name: str) -> Scene:
        chosen = settings.model_copy(update={"harmonization": name})
        rng = np.random.default_rng(3)
        return compose_scene(background(), [], parts, sizes, chosen, build_harmonizer(chosen), rng)

    def labels(scene: Scene) -> list[object]:
        return [(str(labelled.annotation), labelled.pasted_xywh) for labelled in scene.annotations]

    scenes = {name: compose(name) for name in HARMONIZERS}
    assert len(scenes) == 5
    untouched = np.ones((HEIGHT, WIDTH), dtype=bool)
    for labelled in scenes["none"].annotations:
        assert labelled.pasted_xywh is not None
        x, y, w, h = labelled.pasted_xywh
        reach = RING_PX + 2
        untouched[max(y - reach, 0) : y + h + reach, max(x - reach, 0) : x + w + reach] = False
    assert untouched.any()
    for name, scene in scenes.items():
        assert labels(scene) == labels(scenes["none"]), name
        np.testing.assert_array_equal(scene.image_rgb[untouched], background()[untouched], err_msg=name)
    assert len({scene.image_rgb.tobytes() for scene in scenes.values()}) == 5, "each is a switch with an effect"
