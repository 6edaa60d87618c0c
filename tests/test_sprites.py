"""The layer-diffusion model: its bank, its colours, and the pipeline with the weights that ship."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from model_helpers import fetched
from PIL import Image

from maskwright.errors import BrokenRunError, PromptError
from maskwright.models.device import resolve_device, run_in_batches
from maskwright.models.sprites.bank import (
    BANK_FOLDER,
    PictureBank,
    premultiplied_to_straight,
    straight_to_premultiplied,
)
from maskwright.models.sprites.network import build_network, from_patches, to_patches, velocity
from maskwright.models.sprites.pipeline import DEFAULT_FOLDER, SpritePipeline
from maskwright.models.sprites.tones import TONES, recolour
from maskwright.models.sprites.warp import warp


@pytest.fixture(scope="module")
def painter() -> SpritePipeline:
    fetched("minilm")
    pipeline = SpritePipeline.from_pretrained()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def _main_colour(image: Image.Image) -> np.ndarray:
    rgba = np.asarray(image)
    return rgba[rgba[..., 3] > 200][:, :3].mean(axis=0)


class TestPainting:
    def test_one_object_on_nothing(self, painter: SpritePipeline) -> None:
        output = painter(["a red apple", "a bicycle"], generator=_seeds(0, 1))
        assert [image.mode for image in output.images] == ["RGBA", "RGBA"]
        assert [image.size for image in output.images] == [(96, 96), (96, 96)]
        assert output.sources == ["red apple", "bicycle"]
        for image in output.images:
            alpha = np.asarray(image)[..., 3]
            assert 0.05 < (alpha > 128).mean() < 0.9
            assert not alpha[[0, 0, -1, -1], [0, -1, 0, -1]].any(), "the corners are not the object's"
        red, green, blue = _main_colour(output.images[0])
        assert red > 1.5 * green
        assert red > 1.5 * blue

    @pytest.mark.parametrize(("tone", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
    def test_a_colour_word_is_obeyed(self, painter: SpritePipeline, tone: str, channel: int) -> None:
        image = painter(f"a {tone} car", generator=_seeds(3)).images[0]
        assert int(_main_colour(image).argmax()) == channel

    def test_a_batch_changes_nothing(self, painter: SpritePipeline) -> None:
        prompts = ["a cat", "a pizza", "a chair"]
        together = painter(prompts, generator=_seeds(5, 6, 7), batch_size=3).images
        seeds = (5, 6, 7)
        alone = [painter(prompt, generator=_seeds(seed)).images[0] for prompt, seed in zip(prompts, seeds, strict=True)]
        for first, second in zip(together, alone, strict=True):
            assert np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).max() <= 1

    def test_seeds_differ(self, painter: SpritePipeline) -> None:
        first, second = painter(["a cat", "a cat"], generator=_seeds(1, 2)).images
        assert np.abs(np.asarray(first, np.int16) - np.asarray(second, np.int16)).mean() > 5

    def test_little_strength_keeps_the_picture_and_full_strength_names_no_source(self, painter: SpritePipeline) -> None:
        kept = painter("an umbrella", strength=0.1, generator=_seeds(4))
        free = painter("an umbrella", strength=1.0, generator=_seeds(4))
        assert kept.sources[0] in {"umbrella", "closed umbrella", "umbrella on ground"}
        assert free.sources == [""]
        assert kept.images[0].tobytes() != free.images[0].tobytes()

    def test_likeness_tells_a_known_object_from_an_unknown_one(self, painter: SpritePipeline) -> None:
        output = painter(["a bicycle", "quantum chromodynamics"], num_inference_steps=1, generator=_seeds(0, 0))
        assert output.likeness[0] > 0.9
        assert output.likeness[1] < 0.6

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            pytest.param("", "is empty", id="empty"),
            pytest.param(" \n", "is empty", id="blank"),
            pytest.param("apple " * 300, "302 word pieces; the text encoder reads 256", id="too-long"),
        ],
    )
    def test_a_bad_prompt_is_named(self, painter: SpritePipeline, prompt: str, message: str) -> None:
        with pytest.raises(PromptError, match=message):
            painter(["a cat", prompt])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strength": 0.0}, "strength is 0.0; expected more than 0, at most 1"),
            ({"strength": 1.5}, "strength is 1.5"),
            ({"num_inference_steps": 0}, "num_inference_steps is 0"),
            ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
            ({"generator": []}, "0 generators for 1 prompts"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_a_bad_number_is_named(self, painter: SpritePipeline, options: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            painter("a cat", **options)

    def test_a_saved_pipeline_paints_the_same(self, painter: SpritePipeline, tmp_path: Path) -> None:
        painter.save_pretrained(tmp_path / "größer")
        weights = [path.name for path in (tmp_path / "größer").rglob("*") if path.suffix in {".bin", ".pt", ".ckpt"}]
        again = SpritePipeline.from_pretrained(tmp_path / "größer")
        assert weights == []
        assert again("a dog", generator=_seeds(9)).images[0].tobytes() == (
            painter("a dog", generator=_seeds(9)).images[0].tobytes()
        )

    def test_a_pipeline_without_bank_says_so(self) -> None:
        fetched("minilm")
        with pytest.raises(ValueError, match="no picture bank"):
            SpritePipeline(build_network(), FlowMatchEulerDiscreteScheduler())("a cat")


class TestBank:
    def test_the_shipped_bank_is_whole(self) -> None:
        bank = PictureBank.from_folder(DEFAULT_FOLDER / BANK_FOLDER)
        assert len(bank.entries) == len({entry.file for entry in bank.entries}) == 849
        assert {path.name for path in bank.folder.glob("*.webp")} == {entry.file for entry in bank.entries}
        assert not any(entry.held_out and entry.priority for entry in bank.entries)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            pytest.param(lambda bank: (bank / "index.json").unlink(), "cannot be read", id="no-index"),
            pytest.param(lambda bank: (bank / "index.json").write_text("[{]"), "cannot be read", id="malformed-index"),
            pytest.param(lambda bank: (bank / "names.safetensors").write_bytes(b"x"), "cannot be read", id="truncated"),
            pytest.param(lambda bank: (bank / "index.json").write_text("[]"), "embeddings for", id="another-index"),
            pytest.param(
                lambda bank: (bank / "index.json").write_text(
                    (bank / "index.json").read_text().replace('"file": "', '"file": "../', 1)
                ),
                "leaves the bank",
                id="path-out-of-the-bank",
            ),
        ],
    )
    def test_a_damaged_bank_is_named(self, damage, message: str, tmp_path: Path) -> None:
        shutil.copytree(DEFAULT_FOLDER / BANK_FOLDER, tmp_path / "bank")
        damage(tmp_path / "bank")
        with pytest.raises(BrokenRunError, match=message):
            PictureBank.from_folder(tmp_path / "bank")

    def test_a_damaged_picture_is_named(self, tmp_path: Path) -> None:
        shutil.copytree(DEFAULT_FOLDER / BANK_FOLDER, tmp_path / "bank")
        bank = PictureBank.from_folder(tmp_path / "bank")
        (tmp_path / "bank" / bank.entries[0].file).write_bytes(b"RIFF")
        with pytest.raises(BrokenRunError, match=bank.entries[0].file):
            bank.picture(0)

    def test_draw_takes_each_of_the_nearest_and_no_other(self) -> None:
        bank = PictureBank.from_folder(DEFAULT_FOLDER / BANK_FOLDER)
        likeness = torch.zeros(len(bank.entries))
        likeness[[3, 8]], likeness[5] = 0.9, 0.8
        generator = torch.Generator().manual_seed(0)
        assert {bank.draw(likeness, generator) for _ in range(30)} == {3, 8}


class TestPixels:
    def test_alpha_conversions_undo_each_other(self) -> None:
        straight = torch.rand(2, 4, 48, 64, generator=torch.Generator().manual_seed(0))
        straight[0, 3, :10] = 0
        back = premultiplied_to_straight(straight_to_premultiplied(straight))
        visible = straight[:, 3:] > 0.02
        assert torch.allclose(back[:, 3], straight[:, 3], atol=1e-5)
        assert torch.allclose(back[:, :3] * visible, straight[:, :3] * visible, atol=1e-3)
        assert not back[0, :3, :10].any(), "no colour where nothing is seen"

    def test_patches_undo(self) -> None:
        pictures = torch.rand(2, 4, 96, 96)
        assert to_patches(pictures).shape == (2, 36, 32, 32)
        assert torch.equal(from_patches(to_patches(pictures)), pictures)

    def test_velocity_leads_from_picture_to_noise(self) -> None:
        picture, noise, time = torch.rand(2, 36, 32, 32), torch.rand(2, 36, 32, 32), torch.tensor([0.3, 0.9])
        noisy = torch.lerp(picture, noise, time.view(-1, 1, 1, 1))
        assert torch.allclose(velocity(noisy, picture, time), noise - picture, atol=1e-5)

    def test_warp_without_width_only_mirrors(self) -> None:
        pictures = torch.rand(8, 4, 48, 64) * 2 - 1
        warped = warp(pictures, torch.Generator().manual_seed(0), turn=0, zoom=0, shift=0)
        is_same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(warped, pictures, strict=True)]
        is_mirrored = [torch.allclose(a, b.flip(-1), atol=1e-4) for a, b in zip(warped, pictures, strict=True)]
        assert all(same != mirrored for same, mirrored in zip(is_same, is_mirrored, strict=True))
        assert any(is_same)
        assert any(is_mirrored)

    def test_what_a_warp_brings_in_is_transparent(self) -> None:
        warped = warp(torch.ones(4, 4, 48, 64), torch.Generator().manual_seed(0), turn=0, zoom=0, shift=1.9)
        assert (warped.amin(dim=(2, 3)) == -1).all()


class TestTones:
    apple = np.zeros((48, 64, 4), np.uint8)
    apple[10:40, 10:50] = (200, 30, 40, 255)
    apple[4:10, 28:34] = (90, 190, 40, 255)

    @pytest.mark.parametrize("tone", TONES)
    def test_the_main_colour_changes_and_nothing_else(self, tone: str) -> None:
        toned = recolour(self.apple, TONES[tone])
        assert np.array_equal(toned[..., 3], self.apple[..., 3])
        assert np.abs(toned[6, 30].astype(int) - self.apple[6, 30]).max() <= 1, "the leaf stays"
        if tone != "red":
            assert np.abs(toned[20, 20].astype(int) - self.apple[20, 20]).max() > 40

    @pytest.mark.parametrize(("tone", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
    def test_a_grey_object_takes_a_colour(self, tone: str, channel: int) -> None:
        grey = np.full((48, 64, 4), 160, np.uint8)
        assert recolour(grey, TONES[tone])[0, 0, :3].argmax() == channel

    def test_an_empty_picture_stays_empty(self) -> None:
        assert not recolour(np.zeros((48, 64, 4), np.uint8), TONES["blue"])[..., 3].any()


class TestDevice:
    def test_an_unknown_device_is_named(self) -> None:
        with pytest.raises(BrokenRunError, match="device 'tpu9'"):
            resolve_device("tpu9")

    def test_out_of_memory_halves_the_batch_and_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        sizes: list[int] = []

        def run(batch: Sequence[int]) -> list[int]:
            sizes.append(len(batch))
            if len(batch) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return [2 * item for item in batch]

        with caplog.at_level(logging.WARNING):
            assert run_in_batches(run, range(7), 8) == [0, 2, 4, 6, 8, 10, 12]
        assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
        assert "out of GPU memory with 7 at once; going on with 3" in caplog.text

    def test_not_even_one_fits(self) -> None:
        def run(batch: Sequence[int]) -> list[int]:
            raise torch.OutOfMemoryError("CUDA out of memory")

        with pytest.raises(BrokenRunError, match="batch of one"):
            run_in_batches(run, [1, 2], 2)
