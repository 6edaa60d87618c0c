"""Training the sprites model: the same steps whenever it was stopped, nothing held out gets in, weights come back."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from model_helpers import fetched
from PIL import Image

from maskwright.errors import DatasetError
from maskwright.learning import pictures, sprites
from maskwright.learning.object_names import CLASS_PICTURES, classes_of, is_held_out
from maskwright.learning.sheets import draw_sheet
from maskwright.learning.sprites_data import SpriteData
from maskwright.models.embeddings import MiniLM
from maskwright.models.sprites.bank import PictureBank
from maskwright.models.sprites.pipeline import SpritePipeline

LABELS = {"1f34e": "red apple", "1f6b2": "bicycle", "1f34d": "pineapple", "1f415": "dog"}
"""The pineapple is held out."""


def _tarball(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture(scope="module")
def tarballs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both packages as npm packs them, with four objects, a flag that is none, and a picture without a name."""
    folder = tmp_path_factory.mktemp("npm ü")
    members = {}
    for number, code in enumerate([*LABELS, "1f1e9-1f1ea", "e000"]):
        rgba = np.zeros((256, 256, 4), np.uint8)
        rgba[40:200, 60 + 10 * number : 220] = (40 * number, 200, 90, 255)
        content = io.BytesIO()
        Image.fromarray(rgba).save(content, "WEBP", lossless=True)
        members[f"package/assets/{code}.webp"] = content.getvalue()
    rows = [{"hexcode": code.upper(), "label": label, "tags": ["a", "b"], "group": 4} for code, label in LABELS.items()]
    rows.append({"hexcode": "1F1E9-1F1EA", "label": "flag: Germany", "tags": ["DE"], "group": 9})
    _tarball(folder / pictures.PICTURES_TARBALL, members)
    _tarball(folder / pictures.NAMES_TARBALL, {"package/en/data.json": json.dumps(rows).encode()})
    return folder


@pytest.fixture(scope="module")
def bank(tarballs: Path, tmp_path_factory: pytest.TempPathFactory) -> PictureBank:
    fetched("minilm")
    folder = tmp_path_factory.mktemp("bank")
    assert pictures.build_bank(tarballs, folder) == 4
    return PictureBank.from_folder(folder)


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> UNet2DConditionModel:
        return UNet2DConditionModel(
            sample_size=32,
            in_channels=36,
            out_channels=36,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=384,
            attention_head_dim=2,
            norm_num_groups=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=384,
        )

    monkeypatch.setattr(sprites, "build_network", build)


class TestBank:
    def test_objects_only_with_their_names(self, bank: PictureBank) -> None:
        names = {entry.label: entry.names for entry in bank.entries}
        assert names == {
            "red apple": ("red apple", "apple", "red apple, a, b"),
            "bicycle": ("bicycle", "bicycle, a, b"),
            "pineapple": ("pineapple", "pineapple, a, b"),
            "dog": ("dog", "dog, a, b"),
        }
        assert {entry.label for entry in bank.entries if entry.held_out} == {"pineapple"}
        assert {entry.label for entry in bank.entries if entry.priority} == {"red apple", "bicycle", "dog"}

    def test_pictures_are_cropped_centred_and_whole(self, bank: PictureBank) -> None:
        [index] = [i for i, entry in enumerate(bank.entries) if entry.label == "pineapple"]
        rows, columns = torch.nonzero(bank.picture(index)[3] > 0, as_tuple=True)
        assert (int(rows.min()), int(rows.max())) == (6, 89), "160 pixels fill the height"
        assert (int(columns.min()), int(columns.max())) == (11, 84), "140 pixels keep their proportion"

    def test_the_nearest_name_wins(self, bank: PictureBank) -> None:
        embeddings = torch.from_numpy(MiniLM().embed(["an apple", "a puppy", "a bike"]))
        assert [bank.entries[i].label for i in bank.likeness(embeddings).argmax(1)] == ["red apple", "dog", "bicycle"]

    def test_a_missing_tarball_is_named_with_the_command(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match="npm pack emojibase-data@17"):
            pictures.build_bank(tmp_path, tmp_path)

    def test_a_tarball_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / pictures.NAMES_TARBALL).write_bytes(b"<html>")
        with pytest.raises(DatasetError, match="is not a tarball"):
            pictures.build_bank(tmp_path, tmp_path)


class TestNames:
    def test_one_object_in_ten_is_held_out(self) -> None:
        share = sum(is_held_out(f"object {number}") for number in range(5000)) / 5000
        assert 0.08 < share < 0.12

    def test_no_class_is_held_out(self) -> None:
        assert not any(is_held_out(label) for labels in CLASS_PICTURES.values() for label in labels)

    def test_a_picture_may_show_several_classes(self) -> None:
        assert classes_of("teacup without handle") == ("cup", "saucer")
        assert classes_of("volcano") == ()


class TestData:
    def test_a_step_gives_the_same_batch_whenever_it_is_asked_for(self, bank: PictureBank) -> None:
        data = SpriteData(bank, MiniLM())
        first, other, again = (data.batch(6, seed=1, step=step) for step in (7, 8, 7))
        assert torch.equal(first.pictures, again.pictures)
        assert torch.equal(first.text, again.text)
        assert torch.equal(first.noise, again.noise)
        assert not torch.equal(first.pictures, other.pictures)
        assert first.pictures.shape == (6, 4, 96, 96)
        assert first.noise.shape == (6, 36, 32, 32)
        assert float(first.pictures.min()) >= -1
        assert ((first.time > 0) & (first.time < 1)).all()

    def test_held_out_pictures_never_come(self, bank: PictureBank) -> None:
        reds = {entry.label: float(bank.picture(i)[0].max()) for i, entry in enumerate(bank.entries)}
        data = SpriteData(bank, MiniLM())
        assert len(data) == 3
        assert reds["pineapple"] not in {float(picture[0].max()) for picture in data._pictures}


class TestTraining:
    def test_stopped_and_gone_on_equals_uninterrupted(
        self, bank: PictureBank, small_network: None, tmp_path: Path
    ) -> None:
        data, cpu, settings = SpriteData(bank, MiniLM()), torch.device("cpu"), sprites.Training(batch=4, cool=2)
        whole = sprites.Trainer(settings, cpu)
        losses = [loss for _, loss in sprites.train(whole, data, tmp_path, steps=4)]
        stopped = sprites.Trainer(settings, cpu)
        steps = sprites.train(stopped, data, tmp_path, steps=4)
        first = [next(steps)[1] for _ in range(2)]
        stopped.save(tmp_path / "state.pt")
        resumed = sprites.Trainer(settings, cpu)
        resumed.restore(tmp_path / "state.pt")
        rest = [loss for _, loss in sprites.train(resumed, data, tmp_path, steps=4)]
        assert first + rest == losses
        for name, weight in whole.average.state_dict().items():
            assert torch.equal(weight, resumed.average.state_dict()[name]), name

    @pytest.mark.parametrize(
        ("step", "cool", "share"),
        [(0, 0, 1 / 300), (149, 0, 0.5), (300, 0, 1.0), (999, 0, 1.0), (900, 200, 0.5), (999, 200, 1 / 200)],
    )
    def test_rate(self, step: int, cool: int, share: float) -> None:
        assert sprites.Training(cool=cool).rate_at(step, steps=1000) == pytest.approx(6e-4 * share)

    def test_exported_weights_load_and_training_goes_on_from_them(
        self, bank: PictureBank, small_network: None, tmp_path: Path
    ) -> None:
        trainer = sprites.Trainer(sprites.Training(batch=4), torch.device("cpu"))
        list(sprites.train(trainer, SpriteData(bank, MiniLM()), tmp_path, steps=2))
        sprites.export(trainer, bank, tmp_path / "weights")
        painted = SpritePipeline.from_pretrained(tmp_path / "weights")("a dog", num_inference_steps=2)
        assert painted.sources == ["dog"]
        again = sprites.Trainer(sprites.Training(batch=4), torch.device("cpu"))
        sprites.start_from(again, tmp_path / "weights")
        assert again.step == 2
        for name, weight in trainer.average.state_dict().items():
            assert torch.allclose(weight, again.network.state_dict()[name], atol=1e-3), name

    def test_losses_after_the_resumed_step_are_dropped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sprites, "LOG_EVERY", 2)
        log = sprites.LossLog(tmp_path / "losses.csv", 0)
        for step in range(1, 7):
            log.add(step, float(step))
        sprites.LossLog(tmp_path / "losses.csv", 4)
        rows = [row.split(",")[:2] for row in (tmp_path / "losses.csv").read_text().splitlines()]
        assert rows == [["step", "loss"], ["2", "1.5000"], ["4", "3.5000"]]


def test_a_sheet_holds_every_picture() -> None:
    images = [Image.new("RGBA", (64, 48), (200, 0, 0, 255)) for _ in range(5)]
    sheet = draw_sheet(images, columns=2)
    assert sheet.size == (2 * 66, 3 * 50)
    assert sheet.getpixel((10, 110)) == (200, 0, 0)
    assert sheet.getpixel((80, 110)) == (140, 158, 140), "the last place is free"
