"""The arms that a detector is trained on: what each holds, read by other packages; mixing; kills and wrong input."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
import yaml
from arm_helpers import BOLT, FOLDERS, NUT, Photo, Thing, classes_by_image, images_of, truth, write_dataset
from run_helpers import QUICK, snapshot

from maskwright.configs.evaluation import EvaluationSettings, MixingSettings
from maskwright.data.export import save_dataset
from maskwright.data.load import load_dataset
from maskwright.data.records import Dataset, Findings
from maskwright.data.yolo import listed_images
from maskwright.errors import BrokenRunError, DatasetError, MaskwrightError, RecipeError, RunFolderError
from maskwright.evaluation.arms import COPY_PASTE, OURS, REAL, Arm, Phase, build_arms
from maskwright.evaluation.copy_paste import CopyPaste
from maskwright.evaluation.run_product import read_product, refuse_shared_names
from maskwright.graphs.pipeline import run_recipe

READ_AS_ULTRALYTICS = """
import json, sys
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
found = []
for data_yaml in sys.argv[1:]:
    data = check_det_dataset(data_yaml, autodownload=False)
    labels = YOLODataset(data["train"], data=data, task="segment", imgsz=64, augment=False).labels
    found.append([(one["im_file"].rsplit("/", 1)[1], one["cls"].ravel().astype(int).tolist()) for one in labels])
    assert data["val"] == data["train"], data
print("READ " + json.dumps(found))
"""
SETTINGS = EvaluationSettings()


def photographs() -> Iterator[Photo]:
    """Six noisy training photographs with 12 bolts and 2 nuts, two of val and one of test."""
    for split, count in (("train", 6), ("val", 2), ("test", 1)):
        for number in range(count):
            things = [Thing(BOLT, (4, 10, 12, 18 + number)), Thing(BOLT, (26, 10, 12, 18 + number))]
            things += [Thing(NUT, (48, 10, 12, 18 + number))] * (number < 2)
            yield Photo(f"bild {number} ü.png", things, split, noise=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """A run of instances, and the data set that it was made from."""
    root = tmp_path_factory.mktemp("ü")
    save_dataset(write_dataset(root / "bilder", photographs()), root / "daten ü", "coco", findings=Findings())
    outcome = run_recipe("instances", data=root / "daten ü", out=root / "lauf", overrides=QUICK)
    assert outcome.exit_code == 0
    return outcome.folder, load_dataset(root / "daten ü")


@pytest.fixture(scope="module")
def built(made: tuple[Path, Dataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Arm, ...]]:
    folder = tmp_path_factory.mktemp("arme ü") / "arms"
    return folder, build_arms(*made, folder, SETTINGS)


def test_each_arm_holds_the_real_side_and_as_many_synthetic_images(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]]
) -> None:
    folder, arms = built
    assert [arm.name for arm in arms] == [REAL, COPY_PASTE, OURS]
    scenes = [path.stem for path in (made[0] / "dataset/coco/images/train").iterdir() if path.name.startswith("scene")]
    real = classes_by_image(truth(folder, REAL))
    assert len(real) == 6
    for arm in arms[1:]:
        found = classes_by_image(truth(folder, arm.name))
        assert {name: labels for name, labels in found.items() if name in real} == real
        prefix = "copy_paste-" if arm.name == COPY_PASTE else ""
        assert {Path(name).stem for name in found if name not in real} == {prefix + scene for scene in scenes}
        assert arm.num_synthetic == len(scenes) > 0
        assert arm.phases == (Phase(folder / FOLDERS[arm.name] / "yolo/data.yaml", 1.0),)
    assert (arms[0].num_synthetic, arms[0].instances) == (0, {})


def test_copy_paste_mirrors_the_run(made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]]) -> None:
    folder, (_, pasted, ours) = built
    assert pasted.instances == ours.instances
    assert sum(ours.instances.values()) == 14
    assert ours.instances["Mutter ö"] == 12
    lines = [orjson.loads(line) for line in (made[0] / "dataset/provenance.jsonl").read_bytes().splitlines()]
    assert Counter(line["category"] for line in lines) == ours.instances
    images = {path.stem.removeprefix("copy_paste-"): path.suffix for path in images_of(folder, COPY_PASTE)}
    assert images == {path.stem: path.suffix for path in images_of(folder, OURS)}
    assert pasted.findings.counts == {}


def test_ours_are_the_run_s_scenes(made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]]) -> None:
    """Pixels and masks; ids are numbered anew."""
    folder, _ = built
    exported, copied = load_dataset(made[0] / "dataset/coco"), load_dataset(folder / "ours/coco")
    by_name = {sample.image.file_name: sample for sample in copied.samples("train")}
    for sample in exported.samples("train"):
        other = by_name.pop(sample.image.file_name)
        assert other.image.path.read_bytes() == sample.image.path.read_bytes()
        plain = [repr(replace(one, annotation_id=0)) for one in sample.annotations]
        assert [repr(replace(one, annotation_id=0)) for one in other.annotations] == plain
    assert not by_name
    assert len(set(copied.annotations.annotation_id.tolist())) == len(copied.annotations)


def test_masks_are_as_large_as_said(built: tuple[Path, tuple[Arm, ...]]) -> None:
    for name in (COPY_PASTE, OURS):
        coco = truth(built[0], name)
        for one in coco.anns.values():
            assert coco.annToMask(one).sum() == one["area"] > 0


def test_what_measures_keeps_its_bytes_and_no_training_looks_at_it(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]]
) -> None:
    folder, arms = built
    for arm in arms:
        for split in ("val", "test"):
            own = {image.file_name: image.path.read_bytes() for image in made[1].images if image.split == split}
            for form in ("yolo", "coco"):
                written = (folder / FOLDERS[arm.name] / form / "images" / split).iterdir()
                assert {path.name: path.read_bytes() for path in written} == own
            assert classes_by_image(truth(folder, arm.name, split)).keys() == own.keys()
        content = yaml.safe_load(arm.phases[0].data_yaml.read_text(encoding="utf-8"))
        assert (content["train"], content["val"]) == ("images/train", "images/train")


def test_images_are_stored_once_and_never_linked_to_the_user_s(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]]
) -> None:
    folder, _ = built
    for image in made[1].images:
        places = [
            folder / arm / form / "images" / image.split / image.file_name
            for arm in FOLDERS.values()
            for form in ("yolo", "coco")
        ]
        assert len({path.stat().st_ino for path in places}) == 1
        assert image.path.stat().st_ino != places[0].stat().st_ino
    assert not list(folder.rglob("made"))


def test_ultralytics_reads_every_arm(built: tuple[Path, tuple[Arm, ...]], tmp_path: Path) -> None:
    folder, arms = built
    names = ["Bolzen", "Mutter ö"]
    for arm, found in zip(arms, read_as_ultralytics(folder, arms, tmp_path), strict=True):
        read = {image: sorted(names[one] for one in labels) for image, labels in found}
        assert read == {image: sorted(labels) for image, labels in classes_by_image(truth(folder, arm.name)).items()}
        assert len(read) == len(found)


def read_as_ultralytics(folder: Path, arms: Sequence[Arm], scratch: Path) -> list[list[tuple[str, list[int]]]]:
    """Of each arm, the file name and class indices of each training image, in the order and as often as they come.

    In a process of its own, since it replaces `PIL.Image.open`; on a copy, since it writes caches.
    """
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is an extra (AGPL-3.0): pip install 'maskwright[yolo]'")
    shutil.copytree(folder, scratch / "copied")
    files = [str(scratch / "copied" / arm.phases[0].data_yaml.relative_to(folder)) for arm in arms]
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(scratch), "YOLO_OFFLINE": "true"}
    command = [sys.executable, "-c", READ_AS_ULTRALYTICS, *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, env=environment)
    assert done.returncode == 0, done.stderr
    return [[(name, labels) for name, labels in one] for one in json.loads(done.stdout.split("READ ")[1])]


def test_real_images_are_listed_as_often_as_the_share_says(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]], tmp_path: Path
) -> None:
    settings = EvaluationSettings(mixing=MixingSettings(real_share=0.75))
    real, *others = build_arms(*made, tmp_path / "arms", settings)
    assert (real.num_repeats, real.real_repeats) == (0, 1)
    assert snapshot(tmp_path / "arms", "real") == snapshot(built[0], "real")
    for arm in others:
        data_yaml = arm.phases[0].data_yaml
        content = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
        assert (content["train"], content["val"]) == ("train.txt", "train.txt")
        listed = Counter(path.name for path in listed_images(data_yaml, "train"))
        assert listed.keys() == {one.file_name for one in load_dataset(data_yaml).images if one.split == "train"}
        again = {name: times for name, times in listed.items() if name.startswith("bild")}
        assert len(again) == arm.num_real == 6
        assert sum(again.values()) == arm.num_real + arm.num_repeats == 3 * arm.num_synthetic
        assert max(again.values()) - min(again.values()) <= 1
        assert arm.real_repeats == pytest.approx(sum(again.values()) / 6)
        assert {times for name, times in listed.items() if name not in again} == {1}
        [read] = read_as_ultralytics(tmp_path / "arms", [arm], tmp_path / f"read {arm.name}")
        assert Counter(name for name, _ in read) == listed


def test_the_same_call_makes_the_same_and_writes_nothing(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, arms = built
    assert [arm.instances for arm in build_arms(*made, tmp_path / "arms", SETTINGS)] == [one.instances for one in arms]
    assert snapshot(tmp_path, "arms") == snapshot(folder.parent, "arms")
    monkeypatch.setattr("maskwright.evaluation.arms.WRITERS", {})
    assert build_arms(*made, folder, SETTINGS) == arms


def test_another_seed_pastes_otherwise(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]], tmp_path: Path
) -> None:
    build_arms(*made, tmp_path / "arms", SETTINGS, seed=1)
    first, second = (
        [path.read_bytes() for path in images_of(one, COPY_PASTE)] for one in (built[0], tmp_path / "arms")
    )
    assert len(first) == len(second)
    assert first != second


def test_a_killed_call_goes_on(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def dies(self: CopyPaste, name: str, wanted: Mapping[int, int]) -> object:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make(self, name, wanted)

    make = CopyPaste.make
    monkeypatch.setattr(CopyPaste, "make", dies)
    with pytest.raises(KeyboardInterrupt):
        build_arms(*made, tmp_path / "arms", SETTINGS)
    assert {path.name for path in (tmp_path / "arms").iterdir()} == {"arms.sha256", "real"}
    (tmp_path / "arms/ours.partial/yolo").mkdir(parents=True)  # of a kill that nothing could tidy up after
    build_arms(*made, tmp_path / "arms", SETTINGS)
    assert snapshot(tmp_path, "arms") == snapshot(built[0].parent, "arms")


def test_a_disk_that_fills_breaks_the_run_and_the_next_call_goes_on(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("maskwright.evaluation.arm_files.place_image", full)
        with pytest.raises(BrokenRunError, match="No space left on device; free some space"):
            build_arms(*made, tmp_path / "arms", SETTINGS)
    assert [path.name for path in (tmp_path / "arms").iterdir()] == ["arms.sha256"]
    build_arms(*made, tmp_path / "arms", SETTINGS)
    assert snapshot(tmp_path, "arms") == snapshot(built[0].parent, "arms")


def test_without_hard_links_images_are_copied(
    made: tuple[Path, Dataset], built: tuple[Path, tuple[Arm, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    build_arms(*made, tmp_path / "arms", SETTINGS)
    assert snapshot(tmp_path, "arms") == snapshot(built[0].parent, "arms")


@pytest.mark.parametrize(
    ("arrange", "says"),
    [
        (lambda folder: (folder / "diplomarbeit.tex").write_text("years"), "holds 'diplomarbeit.tex'"),
        (lambda folder: (folder / "arms.sha256").write_text("f"), "the arms of another run"),
    ],
    ids=["foreign", "other arms"],
)
def test_a_folder_of_others_is_refused(
    made: tuple[Path, Dataset], tmp_path: Path, arrange: Callable[[Path], object], says: str
) -> None:
    arrange(tmp_path)
    with pytest.raises(RunFolderError, match=says):
        build_arms(*made, tmp_path, SETTINGS)
    assert len(list(tmp_path.iterdir())) == 1


def written(root: Path, photos: Iterable[Photo]) -> Dataset:
    save_dataset(write_dataset(root / "bilder", photos), root / "daten", "coco", findings=Findings())
    return load_dataset(root / "daten")


def moved(photo: Photo) -> Photo:
    x, y, w, h = photo.things[0].box
    return replace(photo, things=[Thing(BOLT, (x + 1, y, w, h)), *photo.things[1:]])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda photos: [moved(photos[0]), *photos[1:]], "labels are not those"),
        (lambda photos: [*photos, Photo("neu.png", photos[0].things)], "'neu.png' is on the side 'train'"),
        (lambda photos: [one for one in photos if one.split != "test"], "'bild 0 ü.png' is on the side 'test'"),
        (
            lambda photos: [*photos[:5], replace(photos[5], split="val"), *photos[6:]],
            "'bild 5 ü.png' is on the side 'val'",
        ),
    ],
    ids=["another label", "one more", "no test", "val in train"],
)
def test_another_data_set_than_the_run_s_is_refused(
    made: tuple[Path, Dataset], tmp_path: Path, change: Callable[[list[Photo]], list[Photo]], says: str
) -> None:
    dataset = written(tmp_path, change(list(photographs())))
    with pytest.raises(DatasetError, match=says):
        build_arms(made[0], dataset, tmp_path / "arms", SETTINGS)
    assert not (tmp_path / "arms").exists()


def test_training_images_may_have_been_left_out(made: tuple[Path, Dataset], tmp_path: Path) -> None:
    """As `without_near_duplicates` does; they are then pasted onto and from no more."""
    dataset = written(tmp_path, [one for one in photographs() if (one.name, one.split) != ("bild 3 ü.png", "train")])
    arms = build_arms(made[0], dataset, tmp_path / "arms", SETTINGS)
    for arm in arms:
        assert "bild 3 ü.png" not in classes_by_image(truth(tmp_path / "arms", arm.name))


def spoil_provenance(run: Path) -> None:
    (run / "dataset/provenance.jsonl").write_text('{"scenes": 3}\n')


SPOILT: dict[str, tuple[Callable[[Path], object], type[MaskwrightError], str]] = {
    "nothing exported": (lambda run: shutil.rmtree(run / "dataset"), RunFolderError, "does not tell what a run made"),
    "odd provenance": (spoil_provenance, RunFolderError, "does not tell what a run made"),
    "no synthetic image": (
        lambda run: (run / "dataset/provenance.jsonl").write_text(""),
        RunFolderError,
        "has no synthetic image",
    ),
    "no readable format": (
        lambda run: [shutil.rmtree(run / "dataset" / name) for name in ("coco", "yolo")],
        RunFolderError,
        "export.formats",
    ),
    "no split": (lambda run: (run / "split.json").unlink(), RunFolderError, "no folder of a run"),
    "no recipe": (lambda run: (run / "recipe.yaml").unlink(), RecipeError, "no such recipe file"),
}


@pytest.mark.parametrize(("spoil", "error", "says"), SPOILT.values(), ids=SPOILT.keys())
def test_a_run_without_a_product_is_refused(
    made: tuple[Path, Dataset],
    tmp_path: Path,
    spoil: Callable[[Path], object],
    error: type[MaskwrightError],
    says: str,
) -> None:
    run = shutil.copytree(made[0], tmp_path / "lauf")
    spoil(run)
    with pytest.raises(error, match=says):
        build_arms(run, made[1], tmp_path / "arms", SETTINGS)
    assert not (tmp_path / "arms").exists()


def test_a_run_that_exported_yolo_alone_serves_too(made: tuple[Path, Dataset], tmp_path: Path) -> None:
    run = shutil.copytree(made[0], tmp_path / "lauf")
    shutil.rmtree(run / "dataset/coco")
    exact, read = (read_product(folder, made[1]) for folder in (made[0], run))
    assert {one.file_name: one.instances for one in read.images} == {
        one.file_name: one.instances for one in exact.images
    }
    shown = [[one.category_id for one in sample.annotations] for sample in read.samples(read.images)]
    assert all(set(ids) <= {BOLT, NUT} for ids in shown)


def test_a_synthetic_image_never_takes_the_place_of_a_photograph(made: tuple[Path, Dataset]) -> None:
    refuse_shared_names(["bild 9 ü.png"], made[1])
    with pytest.raises(DatasetError, match=r"'bild 2 ü\.png' is a training image of the data set"):
        refuse_shared_names(["bild 9 ü.png", "bild 2 ü.png"], made[1])


def test_mixing_decides_both_arms_and_a_curriculum_ends_on_real_images(
    made: tuple[Path, Dataset], tmp_path: Path
) -> None:
    mixing = MixingSettings(ratio=0.5, curriculum=0.7)
    real, pasted, ours = build_arms(*made, tmp_path, EvaluationSettings(mixing=mixing))
    assert (pasted.num_synthetic, ours.num_synthetic) == (3, 3)
    assert pasted.instances == ours.instances
    assert len(images_of(tmp_path, OURS)) == len(images_of(tmp_path, COPY_PASTE)) == 6 + 3
    last = Phase(tmp_path / "real/yolo/data.yaml", pytest.approx(0.3))
    assert real.phases == (replace(last, share=1.0),)
    for arm, name in ((pasted, "copy_paste"), (ours, "ours")):
        assert arm.phases == (Phase(tmp_path / name / "yolo/data.yaml", 0.7), last)
    with pytest.raises(RunFolderError, match="the arms of another run, data set or mixing"):
        build_arms(*made, tmp_path, SETTINGS)


def test_every_arm_has_the_same_share_of_images_without_an_instance(tmp_path: Path) -> None:
    empty = [Photo(f"leer {number}.png", noise=True) for number in range(40)]
    save_dataset(write_dataset(tmp_path / "b", [*photographs(), *empty]), tmp_path / "d", "coco", findings=Findings())
    assert run_recipe("instances", data=tmp_path / "d", out=tmp_path / "lauf", overrides=QUICK).exit_code == 0
    settings = EvaluationSettings(mixing=MixingSettings(backgrounds=0.5))
    arms = build_arms(tmp_path / "lauf", load_dataset(tmp_path / "d"), tmp_path / "arme", settings)
    for arm in arms:
        labels = list(classes_by_image(truth(tmp_path / "arme", arm.name)).values())
        assert labels.count([]) == round(0.5 * (6 + arm.num_synthetic)), arm.name
        assert len(labels) == arm.num_real + arm.num_synthetic
    assert arms[0].num_real == 9 < arms[1].num_real == arms[2].num_real
