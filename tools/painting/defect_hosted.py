"""Defects by any image edit API that speaks OpenAI's protocol: the original goes out whole, its edit comes back.

Such editors paint the whole picture anew, and take a mask as a hint at best. What they moved or toned is undone, and
only what they changed beyond that is kept.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import openai
from openai.types import ImagesResponse
from PIL import Image

from ...configs.anomaly import HostedEditSettings
from ...configs.hosted import HostedSettings, Json
from ...data.records import ImageRGB, ImageRGBA, MaskHW
from ...errors import PromptError
from ...models.failures import FAILURES, explain
from ..defects import Edited, EditRequest
from ..masking.alignment import align, match_tones
from ..protocols import Painted, PaintRequest, SourceView
from .hosted import HostedPainter
from .plan_region import keep_edit, plan_to_region, refuse
from .procedural.site import flaw_of

PICTURE_FIELDS = ("image", "mask")
ASPECT_TOLERANCE = 0.02
"""Of an answer's shape: sides are rounded; a picture of another shape shows another frame."""


class HostedDefectPainter:
    """Asks a server for edits, several at once; each starts from the original.

    The server draws its own noise, so that an edit does not come again from the same seed. Every pixel outside the
    mask is the original's.

    Raises:
        RecipeError: `base_url` is no address, or holds a password.
        ModelAccessError: the key's environment variable is not set.
    """

    name = "hosted"

    def __init__(self, settings: HostedEditSettings) -> None:
        self._settings = settings
        self._editor = _HostedEditor(settings, sends_mask=settings.send_mask)

    @property
    def revision(self) -> str:
        """The model's name: servers do not tell more."""
        return self._editor.revision

    def paint(self, requests: Sequence[EditRequest]) -> list[Edited]:
        """One edit a request. What a server will not paint, or sends damaged or in another shape, has its flaw.

        What was painted before an error is kept, so that asking again pays only for what is missing.

        Raises:
            PromptError: a request has no prompt; nothing was asked.
            ModelOutageError: the server cannot be reached, is overloaded, or answers something else.
            ModelAccessError: it refuses the key, or does not know the model.
            ModelRequestError: it refuses a field of the request.
        """
        for request in requests:
            if not request.prompt.strip():
                raise PromptError(f"item {request.item_id!r}: the prompt is empty; the hosted painter needs words")
        flaws = [flaw_of(request) for request in requests]
        asked = [request for request, flaw in zip(requests, flaws, strict=True) if not flaw]
        frames = [fit_frame(request.image_rgb.shape[:2], self._settings.size) for request in asked]
        sent = [self._ask(request, frame) for request, frame in zip(asked, frames, strict=True)]
        answers = zip(asked, frames, self._editor.paint(sent), strict=True)
        return [
            refuse(request, flaw) if flaw else _read(*next(answers))
            for request, flaw in zip(requests, flaws, strict=True)
        ]

    def _ask(self, request: EditRequest, frame: Frame) -> PaintRequest:
        region = plan_to_region(request, self._settings.grow_ratio).mask_hw
        return PaintRequest(
            item_id=request.item_id,
            seed=request.seed,
            category=request.plan.defect,
            prompt=request.prompt,
            strength=1.0,
            view=SourceView(frame.pad(request.image_rgb), frame.pad_mask(region)),
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """An image inside a larger picture of the shape that a server paints, and that picture's size."""

    shape_hw: tuple[int, int]
    padding: tuple[int, int, int, int]
    """Pixels of the image at top, bottom, left and right."""
    size_wh: tuple[int, int]

    @property
    def padded_hw(self) -> tuple[int, int]:
        top, bottom, left, right = self.padding
        return self.shape_hw[0] + top + bottom, self.shape_hw[1] + left + right

    def pad(self, rgb: ImageRGB) -> ImageRGB:
        """(H, W, 3) uint8 to the size to send; the surface goes on, mirrored, into the padding."""
        top, bottom, left, right = self.padding
        padded = np.pad(rgb, ((top, bottom), (left, right), (0, 0)), mode="symmetric")
        return _resize(padded, self.size_wh)

    def pad_mask(self, mask_hw: MaskHW) -> MaskHW:
        """(H, W) bool to the size to send, nothing in the padding."""
        top, bottom, left, right = self.padding
        padded = np.pad(mask_hw.astype(np.uint8), ((top, bottom), (left, right)))
        return np.asarray(cv2.resize(padded, self.size_wh, interpolation=cv2.INTER_NEAREST) > 0)

    def unpad(self, rgba: ImageRGBA) -> ImageRGBA:
        """(h, w, 4) uint8, a picture of the frame's shape at any size, to the image's own."""
        height, width = self.padded_hw
        top, bottom, left, right = self.padding
        whole = _resize(rgba, (width, height))
        return np.ascontiguousarray(whole[top : height - bottom, left : width - right])

    def fits(self, rgba: ImageRGBA) -> bool:
        """Whether a picture has the frame's shape."""
        (height, width), (wanted_height, wanted_width) = rgba.shape[:2], self.padded_hw
        return bool(abs(width * wanted_height / (height * wanted_width) - 1) <= ASPECT_TOLERANCE)


def fit_frame(shape_hw: tuple[int, ...], size: str) -> Frame:
    """The padding, the same on both sides, that gives an image the shape that a server paints.

    Args:
        size: `WIDTHxHEIGHT`; of `auto` a square as large as the image.
    """
    height, width = shape_hw[:2]
    longer = max(height, width)
    size_wh = (longer, longer) if size == "auto" else (int(size.split("x")[0]), int(size.split("x")[1]))
    aspect = size_wh[0] / size_wh[1]
    down, across = max(round(width / aspect) - height, 0), max(round(height * aspect) - width, 0)
    padding = (down // 2, down - down // 2, across // 2, across - across // 2)
    return Frame((height, width), padding, size_wh)


class _HostedEditor(HostedPainter):
    """Sends the view to `images/edits`, and what of it to change until a server refuses `mask` by name."""

    def __init__(self, settings: HostedSettings, *, sends_mask: bool) -> None:
        super().__init__(settings)
        if sends_mask:
            self._helpful["mask"] = True

    def _fields(self, request: PaintRequest) -> dict[str, Json]:
        fields = super()._fields(request)
        if request.view is not None:
            fields["image"] = _to_base64(request.view.rgb)
            if "mask" in self._helpful:
                fields["mask"] = _to_base64(_mask_picture(request.view.mask_hw))
        return fields

    def _send(self, prompt: str, fields: dict[str, Json]) -> ImagesResponse | Exception:
        pictures = {
            name: (f"{name}.png", base64.b64decode(picture), "image/png")
            for name in PICTURE_FIELDS
            if isinstance(picture := fields.get(name), str)
        }
        others = {name: value for name, value in fields.items() if name not in PICTURE_FIELDS}
        try:
            reply: object = self._client.images.edit(
                model=self._settings.model,
                prompt=prompt,
                n=1,
                image=pictures["image"],
                mask=pictures.get("mask", openai.omit),
                extra_body=others,
            )
        except FAILURES as exc:
            return exc
        except ValueError as exc:
            raise self._garbage(explain(exc)) from exc
        if not isinstance(reply, ImagesResponse):
            raise self._garbage("the answer is no JSON object")
        return reply


def _read(request: EditRequest, frame: Frame, painted: Painted) -> Edited:
    if painted.flaw:
        return refuse(request, painted.flaw, painted.parameters, usd=painted.usd)
    if not frame.fits(painted.rgba):
        height, width = painted.rgba.shape[:2]
        flaw = f"a picture of {width}x{height} pixels came back, which is not the shape of what was sent"
        return refuse(request, flaw, painted.parameters, usd=painted.usd)
    aligned, _ = align(_over(frame.unpad(painted.rgba), request.image_rgb), request.image_rgb)
    toned, _ = match_tones(aligned, request.image_rgb)
    edited = np.clip(np.rint(toned), 0, 255).astype(np.uint8)
    return keep_edit(request, edited, painted.parameters, usd=painted.usd)


def _over(rgba: ImageRGBA, rgb: ImageRGB) -> ImageRGB:
    """A picture over another of its size: some servers leave out what they did not change."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(alpha * rgba[..., :3] + (1 - alpha) * rgb), np.uint8)


def _mask_picture(mask_hw: MaskHW) -> ImageRGBA:
    """What to change is transparent, as OpenAI wants it, and white, as servers want it that read no alpha."""
    inside = mask_hw.astype(np.uint8) * 255
    return np.dstack([inside, inside, inside, 255 - inside])


def _to_base64(pixels: npt.NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _resize(pixels: npt.NDArray[np.uint8], size_wh: tuple[int, int]) -> npt.NDArray[np.uint8]:
    shrinks = size_wh[0] < pixels.shape[1]
    return np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))
