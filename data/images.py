"""Image files: safe names, headers, frames, pixels, and the copy that an export makes."""

from __future__ import annotations

import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import DatasetError, ImageDecodeError, ImageSizeError
from .files import PARTIAL_SUFFIX
from .records import Findings, ImageRecord, ImageRGB, ImageRGBA

PlaceImage = Callable[[ImageRecord, Path], None]
"""Puts the bytes of an image at a destination."""

MAX_IMAGE_PIXELS = 178_956_970
"""Pillow's own limit for a decompression bomb: half a GiB of RGB."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "GIF", "PPM", "JPEG2000")
"""Pillow formats that we open. The rest stays shut: EPS, for one, would start Ghostscript."""

_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
_LEAVES_FOLDER = re.compile(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\0]|^$")
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 274
_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size of the stored pixels, and the EXIF orientation, 1 to 8, where 1 is upright."""

    width: int
    height: int
    exif_orientation: int = 1


def safe_join(folder: Path, name: str, *, source: str) -> Path:
    """Join a file name from a data set to its folder.

    Args:
        source: the file and entry that the name was read from, for the message.

    Raises:
        DatasetError: the name leaves the folder: absolute, `..`, backslash, NUL, or a link that leads out.
    """
    refuse_unsafe_name(folder, name, source=source)
    return folder / name


def refuse_unsafe_name(folder: Path, name: str, *, source: str) -> None:
    """The check of `safe_join` alone, for hundreds of thousands of names."""
    if _LEAVES_FOLDER.search(name):
        raise DatasetError(
            f"{source}: {name!r} is not a safe file name; expected a relative name with '/' and without '..', "
            f"below {str(folder)!r}. Rename the file and correct the entry."
        )
    step = os.path.join(folder, name)
    # One lstat a component; only a link pays for resolving the whole path.
    for _ in range(name.count("/") + 1):
        if os.path.islink(step):
            target = (folder / name).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise DatasetError(
                    f"{source}: {name!r} is a link to {str(target)!r}, outside {str(folder)!r}. "
                    "Copy the file into the folder."
                )
            return
        step = os.path.dirname(step)


def read_header(path: Path) -> ImageHeader:
    """Read size and orientation; no pixel is decoded.

    A TIFF is upright by the time Pillow shows its size, so that its orientation is always 1.

    Raises:
        ImageDecodeError: the file is missing or not an image.
        DatasetError: the image is a decompression bomb.
    """
    with _open(path) as image:
        return ImageHeader(image.width, image.height, _orientation(image))


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as exc:
        raise DatasetError(_bomb_message(path, str(exc))) from exc
    except (*_DECODE_ERRORS, ImportError) as exc:  # ultralytics replaces Image.open by one that looks for HEIF readers
        raise ImageDecodeError(f"{str(path)!r} cannot be opened as an image: {exc}") from exc
    if image.width * image.height > MAX_IMAGE_PIXELS:
        image.close()
        raise DatasetError(_bomb_message(path, f"{image.width}x{image.height}"))
    return image


def _bomb_message(path: Path, size: str) -> str:
    return (
        f"{str(path)!r} declares more than {MAX_IMAGE_PIXELS:,} pixels ({size}) and may be a decompression bomb. "
        "Remove it from the data set or scale it down."
    )


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1
    try:
        # The base class's method: PngImageFile's own would decode all pixels to look for a late eXIf chunk.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except (*_DECODE_ERRORS, KeyError, TypeError, IndexError):
        return 1  # readers ignore a damaged EXIF block
    return orientation if orientation in _TRANSPOSE else 1


def resolve_frame(header: ImageHeader, declared_wh: tuple[int, int] | None) -> tuple[int, int, bool]:
    """Find the frame that annotations refer to: (width, height, exif_transpose).

    A declared size that is the stored one means stored pixels, even where a half turn would fit as well.
    With nothing declared, as in YOLO labels, the frame is the upright one, in which ultralytics reads them.

    Raises:
        ImageSizeError: the declared size is neither the stored nor the upright one.
    """
    stored = (header.width, header.height)
    upright = stored[::-1] if header.exif_orientation >= 5 else stored
    if declared_wh == stored:
        return (*stored, False)
    if declared_wh in (None, upright):
        return (*upright, header.exif_orientation != 1)
    raise ImageSizeError(f"declared as {declared_wh[0]}x{declared_wh[1]}, the file has {stored[0]}x{stored[1]}")


def check_images(records: Sequence[ImageRecord], findings: Findings) -> list[ImageRecord | None]:
    """Settle the frame of every image from its file's header; width 0 means that no size is declared.

    Returns:
        A list as long as `records`, with None for what cannot be used; counted as `missing_image`,
        `unreadable_image` or `size_mismatch`.
    """

    chunks = [records[i : i + 256] for i in range(0, len(records), 256)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        checked = [one for chunk in pool.map(lambda part: [_check_image(r) for r in part], chunks) for one in chunk]
    for record, result in zip(records, checked, strict=True):
        if isinstance(result, ImageSizeError):
            findings.add("size_mismatch", str(result))
        elif isinstance(result, ImageDecodeError):
            findings.add("unreadable_image" if record.path.exists() else "missing_image", str(result))
    return [result if isinstance(result, ImageRecord) else None for result in checked]


def _check_image(record: ImageRecord) -> ImageRecord | ImageDecodeError | ImageSizeError:
    declared = (record.width, record.height) if record.width else None
    try:
        width, height, exif_transpose = resolve_frame(read_header(record.path), declared)
    except ImageDecodeError as exc:
        return exc
    except ImageSizeError as exc:
        return ImageSizeError(f"{str(record.path)!r}: {exc}")
    if (width, height) == declared and not exif_transpose:
        return record
    return replace(record, width=width, height=height, exif_transpose=exif_transpose)


def read_image(record: ImageRecord) -> ImageRGB:
    """Decode an image in the frame that its annotations refer to.

    Grey, palette, CMYK and 16-bit grey become RGB; alpha is dropped.

    Returns:
        (H, W, 3) uint8, sRGB, writable.

    Raises:
        ImageDecodeError: the file is missing, truncated, of floating-point pixels, or of another size than recorded.
    """
    try:
        with _open(record.path) as image:
            image_rgb = _to_rgb(_upright(image) if record.exif_transpose else image)
    except _DECODE_ERRORS as exc:
        raise ImageDecodeError(f"{str(record.path)!r} cannot be decoded: {exc}") from exc
    if image_rgb.shape[:2] != (record.height, record.width):
        raise ImageDecodeError(
            f"{str(record.path)!r} has {image_rgb.shape[1]}x{image_rgb.shape[0]} pixels, "
            f"expected {record.width}x{record.height}"
        )
    return image_rgb


def read_upright(path: Path, *, max_pixels: int = MAX_IMAGE_PIXELS) -> ImageRGBA:
    """Decode a picture as a viewer shows it: turned upright by its EXIF tag, with its alpha.

    Colours become RGB as `read_image` makes them.

    Returns:
        (H, W, 4) uint8, sRGB, straight alpha; 255 everywhere where the file has no alpha.

    Raises:
        ImageDecodeError: the file is missing, no image, truncated, or of floating-point pixels.
        ImageSizeError: it has more pixels than `max_pixels`; none of them was decoded.
        DatasetError: the image is a decompression bomb.
    """
    with _open(path) as image:
        if image.width * image.height > max_pixels:
            raise ImageSizeError(
                f"{str(path)!r} has {image.width}x{image.height} pixels, expected at most {max_pixels:,}; scale it down"
            )
        try:
            return _to_rgba(_upright(image))
        except _DECODE_ERRORS as exc:
            raise ImageDecodeError(f"{str(path)!r} cannot be decoded: {exc}") from exc


def _to_rgba(image: Image.Image) -> ImageRGBA:
    if image.has_transparency_data and not image.mode.startswith(("I", "F")):
        return np.array(image.convert("RGBA"))
    rgb = _to_rgb(image)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def _upright(image: Image.Image) -> Image.Image:
    method = _TRANSPOSE.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> ImageRGB:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; expected 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey; the high byte is what OpenCV and ultralytics train on
        grey: npt.NDArray[np.uint8] = (np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)
        return np.stack([grey] * 3, axis=2)
    return np.array(image.convert("RGB"))


def place_image(record: ImageRecord, destination: Path, *, verbatim: bool = False) -> None:
    """Write an image's export copy, atomically.

    The bytes are the file's own, unless it has an EXIF orientation: then the tag is dropped, without touching
    the pixels where annotations refer to the stored ones, else by turning the pixels upright.

    Args:
        verbatim: copy the bytes whatever they say (validation and test images).

    Raises:
        ImageDecodeError: the image had to be turned and cannot be decoded.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}{PARTIAL_SUFFIX}")
    try:
        if verbatim or read_header(record.path).exif_orientation == 1:
            shutil.copyfile(record.path, temporary)
        else:
            _write_without_orientation(record, temporary)
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


def _write_without_orientation(record: ImageRecord, destination: Path) -> None:
    with _open(record.path) as image:
        file_format = "JPEG" if image.format == "MPO" else str(image.format)
        if file_format == "JPEG" and not record.exif_transpose:
            destination.write_bytes(_drop_jpeg_metadata(record.path.read_bytes()))
            return
        try:
            pixels = _upright(image) if record.exif_transpose else image
            options = _SAVE_OPTIONS.get(file_format, {})
            pixels.save(destination, file_format, icc_profile=image.info.get("icc_profile"), **options)
        except _DECODE_ERRORS as exc:
            raise ImageDecodeError(f"{str(record.path)!r} cannot be turned upright: {exc}") from exc


def _drop_jpeg_metadata(jpeg: bytes) -> bytes:
    """Leave out the APP1 segments (EXIF and XMP, either may hold the orientation) before the compressed data."""
    kept, at = [jpeg[:2]], 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1] != 0xDA:
        if jpeg[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] != 0xE1:
            kept.append(jpeg[at:end])
        at = end
    return b"".join([*kept, jpeg[at:]])
