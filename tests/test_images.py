"""Image files: what is refused, in which frame pixels are read, and what an export copy holds."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskwright.data.images import (
    ImageHeader,
    check_images,
    place_image,
    read_header,
    read_image,
    resolve_frame,
    safe_join,
)
from maskwright.data.records import Findings, ImageRecord
from maskwright.errors import DatasetError, ImageDecodeError, ImageSizeError

HEIGHT, WIDTH = 48, 64


def gradient_rgb() -> np.ndarray:
    """(48, 64, 3) uint8, different in every corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 4, y * 5, 255 - x * 2 - y], axis=2).astype(np.uint8)


def save_rotated(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(gradient_rgb()).save(path, exif=exif, **options)


def record(path: Path, width: int = WIDTH, height: int = HEIGHT, *, exif_transpose: bool = False) -> ImageRecord:
    return ImageRecord(1, path.name, str(path.parent), width, height, exif_transpose=exif_transpose)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up.png", "a/../../up.png", "a/..", "..", "a\\b.png", "C:/a.png", "a\0.png", ""],
    ids=["absolute", "parent", "inner parent", "trailing parent", "dots", "backslash", "drive", "nul", "empty"],
)
def test_unsafe_name_is_refused_with_its_entry(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"train\.json: images\[3\]") as caught:
        safe_join(tmp_path, name, source="train.json: images[3]")
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a.png", "sub/a.png", "..a.png", "a..png", "Größe 図.png", "sub/...png"], ids=lambda name: ascii(name)
)
def test_safe_name_is_joined(tmp_path: Path, name: str) -> None:
    assert safe_join(tmp_path, name, source="x") == tmp_path / name


@pytest.mark.parametrize(
    ("link", "name"), [("out.png", "out.png"), ("sub", "sub/a.png"), ("sub", "sub/deep/a.png")], ids=str
)
def test_link_that_leads_out_is_refused(tmp_path: Path, link: str, name: str) -> None:
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / link).symlink_to(tmp_path / "outside")
    with pytest.raises(DatasetError, match="is a link to"):
        safe_join(folder, name, source="x")


def test_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to("a.png")
    assert safe_join(tmp_path, "b.png", source="x") == tmp_path / "b.png"


def test_folder_that_is_itself_a_link_is_no_reason_to_refuse(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "images").symlink_to("real")
    assert safe_join(tmp_path / "images", "a.png", source="x").parent.name == "images"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_header_of_every_format(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(gradient_rgb()).save(tmp_path / f"a{suffix}")
    assert read_header(tmp_path / f"a{suffix}") == ImageHeader(WIDTH, HEIGHT, 1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_header_has_the_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    save_rotated(tmp_path / f"a{suffix}", orientation)
    assert read_header(tmp_path / f"a{suffix}") == ImageHeader(WIDTH, HEIGHT, orientation)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 40_000, 30_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    )
    with pytest.raises(DatasetError, match=r"bomb\.png.*178,956,970"):
        read_header(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    "content",
    [b"", b"no image at all", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
    ids=["empty", "text", "eps"],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageDecodeError, match=r"a\.png"):
        read_header(tmp_path / "a.png")


def test_damaged_exif_counts_as_upright(tmp_path: Path) -> None:
    Image.fromarray(gradient_rgb()).save(tmp_path / "a.jpg", exif=b"Exif\0\0broken")
    assert read_header(tmp_path / "a.jpg") == ImageHeader(WIDTH, HEIGHT, 1)


@pytest.mark.parametrize(
    ("header", "declared_wh", "frame"),
    [
        (ImageHeader(64, 48, 1), (64, 48), (64, 48, False)),
        (ImageHeader(64, 48, 1), None, (64, 48, False)),
        (ImageHeader(64, 48, 6), (64, 48), (64, 48, False)),
        (ImageHeader(64, 48, 6), (48, 64), (48, 64, True)),
        (ImageHeader(64, 48, 6), None, (48, 64, True)),
        (ImageHeader(64, 48, 3), (64, 48), (64, 48, False)),
        (ImageHeader(64, 48, 3), None, (64, 48, True)),
    ],
    ids=["upright", "upright undeclared", "stored", "transposed", "turned undeclared", "half turn", "half undeclared"],
)
def test_frame(header: ImageHeader, declared_wh: tuple[int, int] | None, frame: tuple[int, int, bool]) -> None:
    assert resolve_frame(header, declared_wh) == frame


@pytest.mark.parametrize("orientation", [1, 6])
def test_frame_of_another_size_is_refused(orientation: int) -> None:
    with pytest.raises(ImageSizeError, match="declared as 100x100, the file has 64x48"):
        resolve_frame(ImageHeader(64, 48, orientation), (100, 100))


def test_check_images_settles_frames_and_counts_the_rest(tmp_path: Path) -> None:
    Image.fromarray(gradient_rgb()).save(tmp_path / "good.png")
    save_rotated(tmp_path / "turned.jpg", 6)
    (tmp_path / "text.png").write_text("no image")
    records = [
        record(tmp_path / "good.png"),
        record(tmp_path / "turned.jpg", 48, 64),
        record(tmp_path / "good.png", 0, 0),
        record(tmp_path / "good.png", 10, 10),
        record(tmp_path / "text.png"),
        record(tmp_path / "absent.png"),
    ]
    findings = Findings()
    checked = check_images(records, findings)
    assert [one and (one.width, one.height, one.exif_transpose) for one in checked] == [
        (64, 48, False),
        (48, 64, True),
        (64, 48, False),
        None,
        None,
        None,
    ]
    assert findings.counts == {"size_mismatch": 1, "unreadable_image": 1, "missing_image": 1}
    assert "absent.png" in findings.examples["missing_image"][0]


@pytest.mark.parametrize(
    "mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"], ids=["rgb", "grey", "palette", "rgba", "la", "bits", "cmyk"]
)
def test_any_mode_reads_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(gradient_rgb()).convert(mode).save(path)
    image_rgb = read_image(record(path))
    expected = np.array(Image.fromarray(gradient_rgb()).convert(mode).convert("RGB"))
    assert image_rgb.dtype == np.uint8
    np.testing.assert_array_equal(image_rgb, expected)


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    rgba = np.dstack([gradient_rgb(), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(record(tmp_path / "a.png")), gradient_rgb())


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image_rgb = read_image(record(tmp_path / "a.png"))
    np.testing.assert_array_equal(image_rgb[..., 1], grey >> 8)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_transposed_pixels_are_those_that_opencv_trains_on(tmp_path: Path, orientation: int) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "a.jpg"
    save_rotated(path, orientation)
    size = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    image_rgb = read_image(record(path, *size, exif_transpose=True))
    upright = cv2.imread(str(path))[:, :, ::-1]
    assert np.abs(image_rgb.astype(int) - upright).max() <= 3


def test_stored_pixels_ignore_the_tag(tmp_path: Path) -> None:
    save_rotated(tmp_path / "a.png", 6)
    np.testing.assert_array_equal(read_image(record(tmp_path / "a.png")), gradient_rgb())


def test_float_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((HEIGHT, WIDTH), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageDecodeError, match="floating-point"):
        read_image(record(tmp_path / "a.tif"))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG" if suffix == ".jpg" else "PNG")
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ImageDecodeError, match="cut"):
        read_image(record(path))


def test_image_of_another_size_than_recorded_is_refused(tmp_path: Path) -> None:
    Image.fromarray(gradient_rgb()).save(tmp_path / "a.png")
    with pytest.raises(ImageDecodeError, match="expected 48x64"):
        read_image(record(tmp_path / "a.png", HEIGHT, WIDTH))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_upright_image_is_copied_byte_by_byte(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Größe{suffix}"
    Image.fromarray(gradient_rgb()).save(path)
    place_image(record(path), tmp_path / "out" / "sub" / path.name)
    assert (tmp_path / "out" / "sub" / path.name).read_bytes() == path.read_bytes()
    assert [file.name for file in (tmp_path / "out" / "sub").iterdir()] == [path.name]


def test_verbatim_copy_keeps_the_tag(tmp_path: Path) -> None:
    save_rotated(tmp_path / "a.jpg", 6)
    place_image(record(tmp_path / "a.jpg", 48, 64, exif_transpose=True), tmp_path / "b.jpg", verbatim=True)
    assert (tmp_path / "b.jpg").read_bytes() == (tmp_path / "a.jpg").read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("exif_transpose", [False, True], ids=["stored", "transposed"])
def test_placed_image_has_no_tag_and_the_same_frame(tmp_path: Path, suffix: str, exif_transpose: bool) -> None:
    source, copy = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_rotated(source, 6)
    size = (HEIGHT, WIDTH) if exif_transpose else (WIDTH, HEIGHT)
    before = record(source, *size, exif_transpose=exif_transpose)
    place_image(before, copy)
    assert read_header(copy) == ImageHeader(*size, 1)
    tolerance = 6 if suffix == ".jpg" and exif_transpose else 0
    assert np.abs(read_image(before).astype(int) - read_image(record(copy, *size))).max() <= tolerance


def test_stored_jpeg_is_not_encoded_again(tmp_path: Path) -> None:
    source, copy = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_rotated(source, 6)
    place_image(record(source), copy)
    scan = source.read_bytes().index(b"\xff\xda")
    assert copy.read_bytes().endswith(source.read_bytes()[scan:])
    assert b"Exif" not in copy.read_bytes()


def test_failed_copy_leaves_nothing_behind(tmp_path: Path) -> None:
    save_rotated(tmp_path / "a.jpg", 6)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageDecodeError, match="cannot be turned upright"):
        place_image(record(tmp_path / "a.jpg", 48, 64, exif_transpose=True), tmp_path / "out" / "a.jpg")
    assert not list((tmp_path / "out").iterdir())
