"""Samplers that follow from their generator, and a small training that learns, stops and goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anomaly_folders import write_item, write_mask, write_picture

from maskwright.data.anomaly_records import AnomalyRecord
from maskwright.data.mvtec import load_anomalies
from maskwright.data.records import ImageRGB, MaskHW
from maskwright.errors import ModelNotFetchedError, RecipeError, RunFolderError
from maskwright.evaluation import anomaly_classifier
from maskwright.evaluation.anomaly_baselines import CutPasteSampler, PerlinSampler
from maskwright.evaluation.anomaly_checkpoints import Checkpoints
from maskwright.evaluation.anomaly_classifier import ClassifierTraining, measure_accuracy, train_classifier
from maskwright.evaluation.anomaly_samplers import Curriculum, DefectSampler, FolderSampler, MixedSampler, read_square
from maskwright.evaluation.anomaly_training import (
    UNetTraining,
    augment,
    make_batch,
    measure_unet,
    score_images,
    train_unet,
)
from maskwright.evaluation.anomaly_unet import (
    AnomalyUNet,
    focal_loss,
    image_to_contrast,
    image_to_input,
    logits_to_scores,
)

SIDE = 64
CPU = torch.device("cpu")
SHORT = UNetTraining(steps=6, batch=4, size_px=32, width=4, save_every=2)


class PlainSampler:
    """Mid-grey with little noise."""

    def __init__(self, side: int = SIDE) -> None:
        self.side = side

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        noise = rng.integers(100, 140, (self.side, self.side, 3), dtype=np.uint8)
        return noise, np.zeros((self.side, self.side), np.bool_)


class SpotSampler(PlainSampler):
    """The same with one bright square."""

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        image_rgb, mask_hw = super().sample(rng)
        top, left = rng.integers(0, self.side - 10, 2)
        mask_hw[top : top + 10, left : left + 10] = True
        image_rgb[mask_hw] = 230
        return image_rgb, mask_hw


class StoppingSampler(PlainSampler):
    """Breaks off after some pictures, as a kill does."""

    def __init__(self, left: int, side: int) -> None:
        super().__init__(side)
        self.left = left

    def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().sample(rng)


def records_of(folder: Path) -> tuple[AnomalyRecord, ...]:
    return load_anomalies(folder).records


RECIPES = [
    pytest.param(PerlinSampler(PlainSampler()), id="perlin on itself"),
    pytest.param(PerlinSampler(PlainSampler(), textures=SpotSampler()), id="perlin with textures"),
    pytest.param(CutPasteSampler(PlainSampler()), id="cutpaste"),
    pytest.param(MixedSampler([(1, PerlinSampler(PlainSampler())), (2, SpotSampler())]), id="mixture"),
]


@pytest.mark.parametrize("sampler", RECIPES)
def test_a_sample_is_a_defect_and_follows_from_its_generator(sampler: DefectSampler) -> None:
    for seed in range(12):
        image_rgb, mask_hw = sampler.sample(np.random.default_rng(seed))
        again_rgb, again_hw = sampler.sample(np.random.default_rng(seed))
        np.testing.assert_array_equal(image_rgb, again_rgb)
        np.testing.assert_array_equal(mask_hw, again_hw)
        assert (image_rgb.shape, image_rgb.dtype) == ((SIDE, SIDE, 3), np.uint8)
        assert (mask_hw.shape, mask_hw.dtype) == ((SIDE, SIDE), np.bool_)
        assert mask_hw.any()
        assert not mask_hw.all()


@pytest.mark.parametrize("sampler", RECIPES[:3])
def test_recipes_change_nothing_outside_their_mask(sampler: PerlinSampler | CutPasteSampler) -> None:
    for seed in range(12):
        normal_rgb, _ = sampler.normals.sample(np.random.default_rng(seed))
        image_rgb, mask_hw = sampler.sample(np.random.default_rng(seed))
        np.testing.assert_array_equal(image_rgb[~mask_hw], normal_rgb[~mask_hw])
        assert (image_rgb[mask_hw] != normal_rgb[mask_hw]).any()


def test_a_mixture_keeps_its_shares() -> None:
    mixture = MixedSampler([(0.25, SpotSampler()), (0.75, PlainSampler())])
    spots = sum(mixture.sample(np.random.default_rng(seed))[1].any() for seed in range(400))
    assert 70 < spots < 130


def test_a_curriculum_begins_with_one_source_and_goes_on_with_another() -> None:
    training = UNetTraining(steps=10, batch=4, size_px=SIDE)
    curriculum = Curriculum(PlainSampler(), SpotSampler(), 0.6)
    shown = [bool(make_batch(curriculum, PlainSampler(), training, step)[1].any()) for step in range(training.steps)]
    assert shown == [False] * 6 + [True] * 4


def test_a_folder_gives_each_defect_as_often(tmp_path: Path) -> None:
    folder = write_item(tmp_path, defects={"Riß": 1, "Fleck": 9})
    records = [one for one in records_of(folder) if not one.is_good]
    sampler = FolderSampler(records, SIDE)
    [crack] = [one for one in records if one.defect == "Riß"]
    crack_rgb, _ = read_square(crack, SIDE)
    drawn = [sampler.sample(np.random.default_rng(seed))[0] for seed in range(300)]
    assert 120 < sum(np.array_equal(one, crack_rgb) for one in drawn) < 180


def test_no_record_is_no_folder() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        FolderSampler([], SIDE)


def test_a_speck_survives_scaling(tmp_path: Path) -> None:
    folder = write_item(tmp_path)
    speck = np.zeros((480, 640), np.bool_)
    speck[100, 200] = True
    write_picture(folder / "test" / "Staub" / "000.png", np.zeros((480, 640, 3), np.uint8))
    write_mask(folder / "ground_truth" / "Staub" / "000_mask.png", speck)
    [record] = [one for one in records_of(folder) if one.defect == "Staub"]
    image_rgb, mask_hw = read_square(record, SIDE)
    assert image_rgb.shape == (SIDE, SIDE, 3)
    assert np.argwhere(mask_hw).tolist() == [[13, 20]]


def test_augmentation_moves_picture_and_mask_alike() -> None:
    for seed in range(30):
        image_rgb, mask_hw = SpotSampler().sample(np.random.default_rng(seed))
        moved_rgb, moved_hw = augment(image_rgb, mask_hw, np.random.default_rng(seed))
        if moved_hw.sum() > 30:
            assert moved_rgb[moved_hw].mean() > moved_rgb[~moved_hw].mean() + 40


def test_half_of_a_batch_is_normal() -> None:
    # Crops may lose a spot, never a defect that covers everything.
    class FullSampler(PlainSampler):
        def sample(self, rng: np.random.Generator) -> tuple[ImageRGB, MaskHW]:
            return super().sample(rng)[0], np.ones((self.side, self.side), np.bool_)

    pixels, masks = make_batch(FullSampler(), PlainSampler(), UNetTraining(steps=1, size_px=SIDE), 0)
    assert (pixels.shape, masks.shape) == ((8, 3, SIDE, SIDE), (8, SIDE, SIDE))
    assert masks.amax(dim=(1, 2)).tolist() == [0, 1] * 4
    assert pixels.mean().abs() < 0.1
    assert 0.5 < pixels.std() < 1.5


@pytest.mark.parametrize("in_channels", [1, 3])
def test_the_network_sees_every_pixel(in_channels: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AnomalyUNet(in_channels, width=4)
    image_rgb = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    pixels = image_to_input(image_rgb, in_channels)[None].requires_grad_()
    logits = network(pixels)
    assert logits.shape == (1, 2, 32, 64)
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None
    assert (pixels.grad != 0).float().mean() > 0.9


def test_the_focal_loss_is_the_papers() -> None:
    logits = torch.tensor([[0.0, 1.0]]).reshape(1, 2, 1, 1)
    chance = torch.sigmoid(torch.tensor(1.0))
    expected = -((1 - chance) ** 2) * torch.log(chance)
    assert focal_loss(logits, torch.ones(1, 1, 1, dtype=torch.int64)) == pytest.approx(float(expected))


@pytest.mark.parametrize(("side", "window"), [(256, 21), (128, 11)], ids=["as DRAEM", "half as large"])
def test_an_images_score_is_the_highest_mean_of_a_window(side: int, window: int) -> None:
    logits = torch.zeros(1, 2, side, side)
    logits[:, 0] = 100
    end = 40 + window
    logits[:, :, 40:end, 40:end] = torch.tensor([0.0, 100.0])[None, :, None, None]
    maps, scores = logits_to_scores(logits)
    assert maps[0].sum() == pytest.approx(window**2)
    assert scores.tolist() == pytest.approx([1.0])
    logits[:, :, 40:end, 45:end] = torch.tensor([100.0, 0.0])[None, :, None, None]
    assert logits_to_scores(logits)[1].tolist() == pytest.approx([5 / window])


@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_defect_in_the_shade_looks_as_one_in_the_light(in_channels: int) -> None:
    bright = np.random.default_rng(0).integers(100, 200, (32, 64, 3), dtype=np.uint8)
    bright[8:12, 20:30] = 40
    dark = np.rint(bright * 0.5 + 5).astype(np.uint8)
    one, other = (image_to_contrast(image, in_channels) for image in (bright, dark))
    assert one.shape == other.shape == (in_channels, 32, 64)
    assert np.corrcoef(one.numpy().ravel(), other.numpy().ravel())[0, 1] > 0.999
    assert max(image_to_contrast(image, in_channels)[:, 8:12, 20:30].amax() for image in (bright, dark)) < -1


def test_a_defects_pixel_counts_more_than_a_normal_one() -> None:
    logits, masks = torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 0]]])
    told = logits.clone()
    told[0, 1, 0, 0] = 3
    normal_told = logits.clone()
    normal_told[0, 0, 0, 1] = 3
    assert focal_loss(told, masks) < 0.2 * focal_loss(normal_told, masks)


def test_a_stopped_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = train_unet(SpotSampler(32), PlainSampler(32), SHORT, tmp_path / "ganz", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        train_unet(SpotSampler(32), StoppingSampler(9, 32), SHORT, tmp_path / "halb ü", device=CPU)
    assert [path.name for path in sorted((tmp_path / "halb ü").iterdir())] == ["00000004.pt", "00000004.safetensors"]
    normals = StoppingSampler(4, 32)
    resumed = train_unet(SpotSampler(32), normals, SHORT, tmp_path / "halb ü", device=CPU)
    assert normals.left == 0
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    other_seed = train_unet(SpotSampler(32), PlainSampler(32), replace(SHORT, seed=1), tmp_path / "other", device=CPU)
    assert not torch.equal(whole.head.weight, other_seed.head.weight)


class ScriptedValidation:
    """Gives scores in turn and remembers the weights that it was asked about."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, network: AnomalyUNet) -> float:
        assert not network.training
        self.seen.append({name: one.clone() for name, one in network.state_dict().items()})
        return self.scores[len(self.seen) - 1]


def is_same(network: AnomalyUNet, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one, weights[name]) for name, one in network.state_dict().items())


def train_short(folder: Path, validate: ScriptedValidation | None, normals: DefectSampler | None = None) -> AnomalyUNet:
    """Six steps, a checkpoint after every second."""
    return train_unet(SpotSampler(32), normals or PlainSampler(32), SHORT, folder, device=CPU, validate=validate)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        pytest.param((0.1, 0.5, 0.2), 1, id="the highest"),
        pytest.param((0.5, 0.5, 0.5), 0, id="of equals the earliest"),
        pytest.param((-3, -2, -1), 2, id="the last one"),
    ],
)
def test_the_best_checkpoint_on_validation_counts(tmp_path: Path, scores: tuple[float, ...], best: int) -> None:
    validate = ScriptedValidation(*scores)
    network = train_short(tmp_path / "ü", validate)
    assert not network.training
    assert [is_same(network, seen) for seen in validate.seen] == [i == best for i in range(3)]
    assert is_same(train_short(tmp_path / "ohne", None), validate.seen[2])  # looking changes nothing
    assert is_same(train_short(tmp_path / "ü", ScriptedValidation()), validate.seen[best])  # and nothing is asked again


def test_the_best_checkpoint_survives_a_kill(tmp_path: Path) -> None:
    whole = train_short(tmp_path / "ganz", ScriptedValidation(0.9, 0.2, 0.3))
    with pytest.raises(KeyboardInterrupt):
        train_short(tmp_path / "halb", ScriptedValidation(0.9, 0.2), StoppingSampler(9, 32))
    assert sorted(path.name for path in (tmp_path / "halb").iterdir()) == [
        "00000004.pt", "00000004.safetensors", "best.safetensors"
    ]  # fmt: skip
    assert is_same(train_short(tmp_path / "halb", ScriptedValidation(0.3)), dict(whole.state_dict()))


def test_a_kill_between_the_best_and_the_newest_repeats_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    first, again = ScriptedValidation(0.9), ScriptedValidation(0.9, 0.2, 0.3)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save_newest", kill)
        with pytest.raises(KeyboardInterrupt):
            train_short(tmp_path, first)
    network = train_short(tmp_path, again)
    assert is_same(network, first.seen[0])
    assert is_same(network, again.seen[0])


def test_a_training_that_nobody_watched_offers_what_is_left_of_it(tmp_path: Path) -> None:
    last = train_short(tmp_path, None)
    validate = ScriptedValidation(0.4)
    assert is_same(train_short(tmp_path, validate), dict(last.state_dict()))
    assert len(validate.seen) == 1


def test_steps_are_told_those_of_an_earlier_call_at_once(tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        train_short(tmp_path, None, StoppingSampler(9, 32))
    train_unet(SpotSampler(32), PlainSampler(32), SHORT, tmp_path, device=CPU, on_steps=told.append)
    assert told == [4, 1, 1]


def test_a_damaged_best_checkpoint_is_named(tmp_path: Path) -> None:
    train_short(tmp_path, ScriptedValidation(1, 2, 3))
    (tmp_path / "best.safetensors").write_bytes(b"cut")
    with pytest.raises(RunFolderError, match="best"):
        train_short(tmp_path, ScriptedValidation())


def test_training_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    train_unet(SpotSampler(32), PlainSampler(32), replace(SHORT, steps=1), tmp_path, device=CPU)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:50]), id="cut weights"),
        pytest.param(lambda path: path.with_suffix(".pt").write_bytes(b"no state"), id="other bytes for the state"),
        pytest.param(lambda path: path.with_suffix(".pt").unlink(), id="no state"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, spoil: object) -> None:
    train_unet(SpotSampler(32), PlainSampler(32), SHORT, tmp_path, device=CPU)
    spoil(tmp_path / "00000006.safetensors")  # type: ignore[operator]
    with pytest.raises(RunFolderError, match="00000006"):
        train_unet(SpotSampler(32), PlainSampler(32), SHORT, tmp_path, device=CPU)


def test_checkpoints_of_other_settings_are_refused(tmp_path: Path) -> None:
    train_unet(SpotSampler(32), PlainSampler(32), SHORT, tmp_path, device=CPU)
    with pytest.raises(RunFolderError, match="Choose another folder"):
        train_unet(SpotSampler(32), PlainSampler(32), replace(SHORT, seed=9), tmp_path, device=CPU)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"batch": 7}, id="odd batch"),
        pytest.param({"size_px": 100}, id="side no multiple of 32"),
        pytest.param({"steps": 0}, id="no steps"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(RecipeError):
        replace(SHORT, **changes)  # type: ignore[arg-type]


def test_a_small_training_finds_spots(tmp_path: Path) -> None:
    folder = tmp_path / "Rohr ü"
    rng = np.random.default_rng(1)
    for i in range(4):
        write_picture(folder / "train" / "good" / f"{i}.png", PlainSampler().sample(rng)[0])
        image_rgb, mask_hw = SpotSampler().sample(rng)
        write_picture(folder / "test" / "Fleck" / f"{i}.png", image_rgb)
        write_mask(folder / "ground_truth" / "Fleck" / f"{i}_mask.png", mask_hw)
    training = UNetTraining(steps=60, batch=4, size_px=SIDE, width=4, rate=5e-3)
    network = train_unet(SpotSampler(), PlainSampler(), training, tmp_path / "c", device=CPU)
    found = measure_unet(network, records_of(folder), size_px=SIDE)
    assert (found.num_images, found.num_anomalous) == (8, 4)
    assert found.pixel is not None
    assert found.image is not None
    assert found.pixel.ap > 0.8
    assert found.image.auroc == 1
    scores = [one.image_score for one in score_images(network, records_of(folder), size_px=SIDE, batch=3)]
    alone = [one.image_score for one in score_images(network, records_of(folder), size_px=SIDE, batch=1)]
    assert scores == pytest.approx(alone, abs=1e-5)


def write_plain_defects(folder: Path) -> list[AnomalyRecord]:
    """Four dark and four bright defects, which any network tells apart."""
    write_picture(folder / "train" / "good" / "0.png", np.full((48, 64, 3), 128, np.uint8))
    for defect, level in (("dunkel", 10), ("hell", 245)):
        for i in range(4):
            write_picture(folder / "test" / defect / f"{i}.png", np.full((48, 64, 3), level + i, np.uint8))
            write_mask(folder / "ground_truth" / defect / f"{i}_mask.png")
    return [one for one in records_of(folder) if not one.is_good]


class MeanColourNetwork(torch.nn.Module):
    """Stands in for ResNet34, which takes minutes to learn even this."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(3, 512)
        self.fc = torch.nn.Linear(512, 1000)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.fc(self.body(pixels.mean(dim=(2, 3))).relu()))


def test_a_classifier_tells_dark_from_bright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anomaly_classifier, "resnet34", lambda weights: MeanColourNetwork())
    records = write_plain_defects(tmp_path / "Rohr ü")
    training = ClassifierTraining(epochs=10, batch=4, size_px=32, rate=1e-2)
    last = train_classifier(records, (), training, device=CPU)
    assert (last.defects, last.epoch, last.began_with) == (("dunkel", "hell"), 10, "nothing")
    assert measure_accuracy(last, records, size_px=32, batch=3) == 1
    epochs: list[None] = []
    best = train_classifier(records, records, training, device=CPU, on_epoch=lambda: epochs.append(None))
    assert len(epochs) == 10
    assert best.epoch < 10
    assert measure_accuracy(best, records, size_px=32) == 1


def test_the_classifier_is_a_resnet34_that_follows_from_its_seed(tmp_path: Path) -> None:
    records = write_plain_defects(tmp_path / "Rohr ü")
    training = ClassifierTraining(epochs=1, batch=8, size_px=32)
    one, same = (train_classifier(records, (), training, device=CPU).network.state_dict() for _ in range(2))
    assert sum(name.endswith("conv1.weight") for name in one) == 17
    assert one["fc.weight"].shape == (2, 512)
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_a_classifier_needs_two_defects_and_whole_weights(tmp_path: Path) -> None:
    records = write_plain_defects(tmp_path / "Rohr ü")
    with pytest.raises(ValueError, match="two defects"):
        train_classifier(records[:4], (), ClassifierTraining(), device=CPU)
    weights_path = tmp_path / "resnet34.pth"
    torch.save({"fc.weight": torch.zeros(2)}, weights_path)
    with pytest.raises(ModelNotFetchedError, match=r"resnet34\.pth"):
        train_classifier(records, (), ClassifierTraining(weights_path=weights_path), device=CPU)
