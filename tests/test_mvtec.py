"""Anomaly data sets: what is read of each layout, what is counted and refused, and what others read of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from anomaly_folders import HEIGHT, WIDTH, patch_mask, picture, write_item, write_mask, write_picture
from PIL import Image

from maskwright.data.anomaly_records import AnomalyDataset, audit_pixels, read_defect_mask
from maskwright.data.images import read_image
from maskwright.data.mvtec import (
    AnomalySample,
    Saved,
    load_anomalies,
    number_names,
    save_anomaly_diffusion,
    save_mvtec,
)
from maskwright.data.records import Findings, ImageRGB, MaskHW
from maskwright.errors import DatasetError, EmptyMaskError, ImageSizeError, MaskwrightError, RunFolderError


def rows(dataset: AnomalyDataset) -> list[tuple[str, str, str, str]]:
    """Item, defect, split, and name of each record."""
    return [(one.item, one.defect, one.split, one.name) for one in dataset.records]


def write_plain(root: Path, mask: str) -> Path:
    for i, name in enumerate(("good/a.png", "Riß/b.png")):
        write_picture(root / name, picture(i))
    write_mask(root / mask)
    return root


@pytest.mark.parametrize(
    "mask",
    ["Riß/b_mask.png", "Riß/masks/b.png", "Riß/masks/b_mask.png", "masks/Riß/b.png", "ground_truth/Riß/b_mask.png"],
)
def test_a_plain_folder_has_its_masks_beside_or_in_a_folder(tmp_path: Path, mask: str) -> None:
    dataset = load_anomalies(write_plain(tmp_path / "Blech", mask))
    assert rows(dataset) == [("Blech", "good", "train", "a"), ("Blech", "Riß", "test", "b")]
    assert dataset.records[1].mask_path == tmp_path / "Blech" / mask
    np.testing.assert_array_equal(read_defect_mask(dataset.records[1]), patch_mask())
    assert not dataset.findings.counts


def test_an_item_reads_alike_alone_and_among_others(tmp_path: Path) -> None:
    item = write_item(tmp_path, num_test_good=1)
    write_item(tmp_path, item="bolt")
    alone, among = load_anomalies(item), load_anomalies(tmp_path, "Rohr ü")
    assert alone.records == among.records
    assert load_anomalies(tmp_path).items == ("Rohr ü", "bolt")
    assert alone.defects("Rohr ü") == ("Riß",)
    assert [one.key for one in alone.records if one.split == "test"] == [
        "Rohr ü/test/good/000.png",
        "Rohr ü/test/Riß/000.png",
        "Rohr ü/test/Riß/001.png",
    ]
    np.testing.assert_array_equal(read_image(alone.records[1].image), picture(1))


VISA_TABLE = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0.JPG,
candle,test,normal,candle/Data/Images/Normal/1.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png
pcb1,train,normal,pcb1/Data/Images/Normal/0.JPG,
"""


def write_visa(root: Path, table: str | None = VISA_TABLE) -> Path:
    for i, name in enumerate(("Normal/0.JPG", "Normal/1.JPG", "Anomaly/0.JPG")):
        write_picture(root / "candle/Data/Images" / name, picture(i))
    write_picture(root / "candle/Data/Masks/Anomaly/0.png", patch_mask().astype(np.uint8) * np.uint8(3))
    kinds = 'image,label,mask\ncandle/Data/Images/Anomaly/0.JPG,"melt, scratch",candle/Data/Masks/Anomaly/0.png\n'
    (root / "candle/image_anno.csv").write_text(kinds)
    if table is not None:
        (root / "split_csv").mkdir()
        (root / "split_csv/1cls.csv").write_text(table)
    return root


@pytest.mark.parametrize(
    ("table", "second_split"), [(VISA_TABLE, "test"), (None, "train")], ids=["split by its table", "no table"]
)
@pytest.mark.parametrize("below", ["", "candle"], ids=["all items", "one item"])
def test_visa_masks_number_kinds_of_defects(tmp_path: Path, table: str | None, second_split: str, below: str) -> None:
    dataset = load_anomalies(write_visa(tmp_path, table) / below)
    assert rows(dataset) == [
        ("candle", "good", "train", "0"),
        ("candle", "good", second_split, "1"),
        ("candle", "melt, scratch", "test", "0"),
    ]
    findings = Findings()
    np.testing.assert_array_equal(read_defect_mask(dataset.records[2], findings), patch_mask())
    assert not findings.counts


def _bad_split(table: str) -> str:
    return table.replace("candle,test,anomaly", "candle,holdout,anomaly")


def _other_item(table: str) -> str:
    return table.replace("candle/Data/Images/Normal/0", "pcb1/Data/Images/Normal/0", 1)


def _leaving(table: str) -> str:
    return table.replace("candle/Data/Masks/Anomaly/0.png", "candle/../../secret.png")


def _no_mask_column(table: str) -> str:
    return table.replace(",image,mask", ",image,truth")


@pytest.mark.parametrize(
    ("change", "said"),
    [(_bad_split, "'holdout'"), (_other_item, "below 'candle'/"), (_leaving, "secret"), (_no_mask_column, "'mask'")],
)
def test_a_wrong_visa_table_is_refused(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        load_anomalies(write_visa(tmp_path, change(VISA_TABLE)))


def _remove_mask(item: Path) -> None:
    (item / "ground_truth/Riß/000_mask.png").unlink()


def _shrink_mask(item: Path) -> None:
    write_mask(item / "ground_truth/Riß/000_mask.png", np.ones((WIDTH, HEIGHT), dtype=np.bool_))


def _break_mask(item: Path) -> None:
    (item / "ground_truth/Riß/000_mask.png").write_bytes(b"no picture")


def _break_image(item: Path) -> None:
    (item / "train/good/000.png").write_bytes(b"no picture")


def _remove_image(item: Path) -> None:
    (item / "test/Riß/000.png").unlink()


def _leave_mac_files(item: Path) -> None:
    (item / "test/Riß/._000.png").write_bytes(b"resource fork")
    (item / "test/.DS_Store").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "kinds", "num_records", "num_masks"),
    [
        (_remove_mask, {"missing_mask": 1}, 6, 1),
        (_shrink_mask, {"mask_size_mismatch": 1}, 6, 1),
        (_break_mask, {"unreadable_mask": 1}, 6, 1),
        (_break_image, {"unreadable_image": 1}, 5, 2),
        (_remove_image, {"mask_without_image": 1}, 5, 1),
        (_leave_mac_files, {}, 6, 2),
    ],
)
def test_what_does_not_fit_is_counted_and_named(
    tmp_path: Path, damage: Callable[[Path], None], kinds: dict[str, int], num_records: int, num_masks: int
) -> None:
    item = write_item(tmp_path)
    damage(item)
    dataset = load_anomalies(item)
    assert dataset.findings.counts == kinds
    assert all("000" in example for examples in dataset.findings.examples.values() for example in examples)
    assert len(dataset.records) == num_records
    assert sum(one.mask_path is not None for one in dataset.records) == num_masks


def _no_folder(root: Path) -> Path:
    return root / "absent"


def _empty_folder(root: Path) -> Path:
    return root


def _no_normals(root: Path) -> Path:
    return write_item(root, num_good=0, num_test_good=2)


def _only_items_without_normals(root: Path) -> Path:
    write_item(root, item="a", num_good=0)
    return write_item(root, item="b", num_good=0).parent


def _link_out_of_the_item(root: Path) -> Path:
    outside = write_picture(root / "outside.png", picture(99))
    item = write_item(root)
    (item / "train/good/link.png").symlink_to(outside)
    return item


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (_no_folder, "no folder"),
        (_empty_folder, "holds no item"),
        (_no_normals, "expected some in train/good/"),
        (_only_items_without_normals, "no item has a normal image, of a, b"),
        (_link_out_of_the_item, "link.png"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, build: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        load_anomalies(build(tmp_path))


def test_an_unknown_item_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write_item(tmp_path)
    with pytest.raises(DatasetError, match="no item 'rohr'; known: Rohr ü"):
        load_anomalies(tmp_path, "rohr")


def test_an_item_without_normals_is_left_out_beside_others(tmp_path: Path) -> None:
    write_item(tmp_path)
    write_item(tmp_path, item="bolt", num_good=0)
    dataset = load_anomalies(tmp_path)
    assert dataset.items == ("Rohr ü",)
    assert dataset.findings.examples == {"item_without_normals": ["bolt"]}


def _levels(inside: int) -> npt.NDArray[np.uint8]:
    return patch_mask().astype(np.uint8) * np.uint8(inside)


def _grey(inside: int) -> Callable[[], Image.Image]:
    return lambda: Image.fromarray(_levels(inside))


def _bilevel() -> Image.Image:
    return Image.fromarray(_levels(255)).convert("1")


def _deep(inside: int) -> Callable[[], Image.Image]:
    return lambda: Image.fromarray(patch_mask().astype(np.uint16) * np.uint16(inside))


def _deep_and_dim() -> Image.Image:
    return Image.fromarray(np.where(patch_mask(), 40_000, 20_000).astype(np.uint16))


def _palette() -> Image.Image:
    image = Image.fromarray(_levels(1))
    image.putpalette([0, 0, 0, 128, 0, 0])
    return image


def _red() -> Image.Image:
    return Image.fromarray(np.dstack([_levels(255), _levels(0), _levels(0)]))


def _faded() -> Image.Image:
    white = np.full((HEIGHT, WIDTH), 255, dtype=np.uint8)
    return Image.fromarray(np.dstack([white, white, white, _levels(255)]))


@pytest.mark.parametrize(
    ("encode", "stray"),
    [
        pytest.param(_grey(255), False, id="8 bits"),
        pytest.param(_grey(128), True, id="8 bits, just at the threshold"),
        pytest.param(_bilevel, False, id="1 bit"),
        pytest.param(_deep(65535), False, id="16 bits"),
        pytest.param(_deep_and_dim, True, id="16 bits, on both sides of the threshold"),
        pytest.param(_deep(255), False, id="8 bits in 16"),
        pytest.param(_palette, True, id="palette with VOC's dark red"),
        pytest.param(_red, False, id="red"),
        pytest.param(_faded, False, id="transparent around the defect"),
    ],
)
def test_masks_of_any_encoding_say_the_same(tmp_path: Path, encode: Callable[[], Image.Image], stray: bool) -> None:
    item = write_item(tmp_path, defects={"Riß": 1})
    encode().save(item / "ground_truth/Riß/000_mask.png")
    findings = Findings()
    np.testing.assert_array_equal(read_defect_mask(load_anomalies(item).records[-1], findings), patch_mask())
    assert findings.counts == ({"stray_mask_values": 1} if stray else {})


@pytest.mark.parametrize(("inside", "said"), [(0, "highest level is 0"), (1, "is 1, expected at least 128")])
def test_an_empty_mask_is_an_error_when_read_and_counted_before(tmp_path: Path, inside: int, said: str) -> None:
    item = write_item(tmp_path, defects={"Riß": 1})
    write_picture(item / "ground_truth/Riß/000_mask.png", _levels(inside))
    dataset = load_anomalies(item)
    with pytest.raises(EmptyMaskError, match=said):
        read_defect_mask(dataset.records[-1])
    assert audit_pixels(dataset).counts["empty_mask"] == 1


def test_a_defect_without_mask_has_none_to_read(tmp_path: Path) -> None:
    item = write_item(tmp_path, defects={"Riß": 1})
    _remove_mask(item)
    with pytest.raises(EmptyMaskError, match="test/Riß/000"):
        read_defect_mask(load_anomalies(item).records[-1])


@pytest.mark.parametrize(("num_grey", "kind"), [(1, "grey_among_colour"), (3, "colour_among_grey")])
def test_the_rarer_of_grey_and_colour_is_counted(tmp_path: Path, num_grey: int, kind: str) -> None:
    item = write_item(tmp_path, num_good=4, defects={})
    for i in range(num_grey):
        write_picture(item / f"train/good/{i:03d}.png", np.stack([picture(50 + i)[..., 0]] * 3, axis=2))
    findings = audit_pixels(load_anomalies(item))
    assert findings.counts == {kind: 1}


def test_a_mask_settles_the_frame_of_a_turned_photograph(tmp_path: Path) -> None:
    item = write_item(tmp_path, defects={"Riß": 1})
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.rot90(picture(7)).copy()).save(item / "test/Riß/000.png", exif=exif)
    record = load_anomalies(item).records[-1]
    np.testing.assert_array_equal(read_image(record.image), picture(7))
    assert read_defect_mask(record).shape == (HEIGHT, WIDTH)


def sample(name: str = "000", **changes: object) -> AnomalySample:
    """A defect on a picture that its name decides."""
    base = AnomalySample(
        item="Rohr ü",
        defect="Riß",
        split="test",
        name=name,
        image=picture(sum(name.encode())),
        mask_hw=patch_mask(),
        original=picture(0),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def good(name: str, image: Path | ImageRGB) -> AnomalySample:
    return sample(name, defect="good", split="train", image=image, mask_hw=None, original=None)


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    photograph = write_picture(tmp_path / "from/Füße.JPG", picture(3))
    written = [good("Füße", photograph), sample("000"), sample("001", defect="Loch")]
    assert save_mvtec(written, tmp_path / "out") == Saved(written=5)
    assert (tmp_path / "out/Rohr ü/train/good/Füße.jpg").read_bytes() == photograph.read_bytes()
    dataset = load_anomalies(tmp_path / "out")
    assert rows(dataset) == [
        ("Rohr ü", "good", "train", "Füße"),
        ("Rohr ü", "Loch", "test", "001"),
        ("Rohr ü", "Riß", "test", "000"),
    ]
    np.testing.assert_array_equal(read_image(dataset.records[2].image), written[1].image)
    np.testing.assert_array_equal(read_defect_mask(dataset.records[2]), patch_mask())
    assert not dataset.findings.counts
    assert not audit_pixels(dataset).counts


@pytest.mark.parametrize("save", [save_mvtec, lambda *args: save_anomaly_diffusion(*args, file_format="PNG")])
def test_a_stopped_writer_goes_on(tmp_path: Path, save: Callable[[Iterator[AnomalySample], Path], Saved]) -> None:
    def stream(until: int) -> Iterator[AnomalySample]:
        for i in range(3):
            if i == until:
                raise KeyboardInterrupt
            yield sample(f"{i:03d}")

    with pytest.raises(KeyboardInterrupt):
        save(stream(until=2), tmp_path)
    partial = tmp_path / "Rohr ü/test/002.png.abc.partial"
    partial.parent.mkdir(exist_ok=True)
    partial.write_bytes(b"half")
    before = sorted(path for path in tmp_path.rglob("*.png"))
    saved = save(stream(until=3), tmp_path)
    assert (saved.kept, saved.written) == (len(before), len(before) // 2)
    assert not partial.exists()


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    save_mvtec([sample()], tmp_path)
    with pytest.raises(RunFolderError, match=r"Riß/000\.png"):
        save_mvtec([sample(image=picture(1234))], tmp_path)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "Rohr ü/test/Riß/000.png")), sample().image)


@pytest.mark.parametrize(
    ("samples", "error", "said"),
    [
        pytest.param([sample(item="../x")], DatasetError, r"'\.\./x'", id="item leaves"),
        pytest.param([sample(defect="..")], DatasetError, r"'\.\.'", id="defect leaves"),
        pytest.param([sample("a/b")], DatasetError, "a/b", id="name is a path"),
        pytest.param([sample("a\\b")], DatasetError, "not a safe file name", id="backslash"),
        pytest.param([sample(item="")], DatasetError, "''", id="no item"),
        pytest.param([sample(), sample()], DatasetError, "occurs twice", id="twice"),
        pytest.param([sample("1"), sample("10")], DatasetError, "number_names", id="masks sort otherwise"),
        pytest.param([sample("a.z"), sample("a")], DatasetError, "number_names", id="masks sort otherwise by a dot"),
        pytest.param([sample(split="train")], DatasetError, "'train'", id="defect in train"),
        pytest.param([sample(defect="good")], DatasetError, "has a mask", id="good with mask"),
        pytest.param([sample(mask_hw=None)], EmptyMaskError, "no masked pixel", id="no mask"),
        pytest.param([sample(mask_hw=~patch_mask() & patch_mask())], EmptyMaskError, "no masked", id="black mask"),
        pytest.param(
            [sample(mask_hw=patch_mask().T)], ImageSizeError, "48x64 pixels, expected 64x48", id="turned mask"
        ),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, samples: Sequence[AnomalySample], error: type[MaskwrightError], said: str
) -> None:
    with pytest.raises(error, match=said):
        save_mvtec(samples, tmp_path / "out")
    assert not list(tmp_path.glob("*.png"))


def test_good_images_have_no_masks_to_sort_with(tmp_path: Path) -> None:
    assert save_mvtec([good("1", picture(1)), good("10", picture(2))], tmp_path).written == 2


def test_names_become_numbers_of_one_length() -> None:
    named = number_names([sample("1"), sample("10"), sample("x", defect="Loch")], digits=3)
    assert [(one.defect, one.name) for one in named] == [("Riß", "000"), ("Riß", "001"), ("Loch", "000")]
    with pytest.raises(DatasetError, match="over 1 digits"):
        list(number_names([sample()] * 11, digits=1))


def checkered() -> MaskHW:
    mask_hw = patch_mask()
    mask_hw[::3, ::2] = True
    return mask_hw


@pytest.mark.parametrize(("file_format", "suffix"), [("PNG", "png"), ("JPEG", "jpg")])
def test_anomaly_diffusion_counts_from_zero(tmp_path: Path, file_format: str, suffix: str) -> None:
    samples = [sample("b", mask_hw=checkered()), good("g", picture(1)), sample("a")]
    saved = save_anomaly_diffusion(samples, tmp_path, file_format=file_format)  # type: ignore[arg-type]
    assert saved == Saved(written=6)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert names == [f"Rohr ü/Riß/{part}/{i}.{suffix}" for part in ("image", "mask", "ori") for i in (0, 1)]
    levels = np.array(Image.open(tmp_path / f"Rohr ü/Riß/mask/0.{suffix}").convert("L"))
    np.testing.assert_array_equal(levels >= 128, checkered())
    if file_format == "PNG":
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "Rohr ü/Riß/ori/0.png")), picture(0))


def test_anomaly_diffusion_needs_the_original(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no original"):
        save_anomaly_diffusion([sample(original=None)], tmp_path, file_format="PNG")


def test_anomalib_reads_what_we_write(tmp_path: Path) -> None:
    """In plain ASCII: anomalib 2.7 takes no other path."""
    datasets = pytest.importorskip("anomalib.data.datasets")
    samples = [good("000", picture(1)), *(sample(f"{i:03d}", mask_hw=patch_mask(top=5 * i)) for i in range(3))]
    samples = [replace(one, item="tube", defect=one.defect.replace("Riß", "tear")) for one in samples]
    save_mvtec([*samples, replace(samples[1], defect="hole")], tmp_path)
    train = datasets.MVTecADDataset(tmp_path, category="tube", split="train")
    test = datasets.MVTecADDataset(tmp_path, category="tube", split="test")
    assert [Path(path).name for path in train.samples.image_path] == ["000.png"]
    assert list(test.samples.label) == ["hole", "tear", "tear", "tear"]
    assert test.samples.label_index.tolist() == [1, 1, 1, 1]
    for i in range(3):
        read = test[i + 1]
        np.testing.assert_array_equal(read.gt_mask.numpy(), patch_mask(top=5 * i))
        np.testing.assert_array_equal((read.image * 255).round().byte().permute(1, 2, 0).numpy(), samples[i + 1].image)


@pytest.mark.parametrize("names", [("1", "10"), ("a", "a.z"), ("a", "a_b")])
def test_anomalib_mixes_up_names_that_we_refuse(tmp_path: Path, names: tuple[str, str]) -> None:
    datasets, errors = (pytest.importorskip(f"anomalib.data.{module}") for module in ("datasets", "errors"))
    for i, name in enumerate(names):
        write_picture(tmp_path / f"tube/test/tear/{name}.png", picture(i))
        write_mask(tmp_path / f"tube/ground_truth/tear/{name}_mask.png")
    with pytest.raises(errors.MisMatchError):
        datasets.MVTecADDataset(tmp_path, category="tube", split="test")
