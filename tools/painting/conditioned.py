"""Painters that start from an instance in its surroundings, by any pipeline of diffusers that takes a picture."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ...configs.conditioning import ConditionedSettings, EdgeGuidedSettings, InpaintingSettings
from ...errors import RecipeError
from ...models.device import run_in_batches
from ..protocols import Painted, PaintRequest, PromptReader
from .conditioned_calls import (
    Change,
    Start,
    fit_picture,
    follows_edges,
    keep_the_rest,
    prepare_start,
    start_arguments,
)
from .conditioned_pipelines import (
    Task,
    check_controlnet,
    find_conditioned_class,
    find_conditioned_revision,
    share_conditioned_pipeline,
)
from .diffusion import call_arguments, call_pipeline, check_prompts, describe_call, picture_to_painted
from .edges import EdgeDetector, edges_to_control
from .pipeline_index import PipelinePromptReader, find_revision, find_stride
from .pipelines import SharedPipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ONE_AT_A_TIME = ("Edit", "Kontext", "Klein")
"""In the names of classes that read a list of pictures as several references for one."""


class ConditionedPainter(PipelinePromptReader):
    """A crop of the photograph in, the same frame out. Equal settings share weights with text-to-image painters."""

    needs_view = True
    task: Task
    change: Change
    grow_ratio = 0.0

    def __init__(self, settings: ConditionedSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self._detector = EdgeDetector(settings.edges)

    @functools.cached_property
    def revision(self) -> str:
        """Model, adaptations, ControlNet, IP-Adapter and edge detectors, with the versions of their files.

        Raises:
            RecipeError: one of them is not there.
            ModelNotFetchedError: one is not in the cache.
        """
        parts = [find_revision(self.settings), *find_conditioned_revision(self.settings)]
        if follows_edges(self._find_class(), self.settings):
            parts.append(self._detector.revision)
        return " + ".join(parts)

    @property
    def prompt_reader(self) -> PromptReader:
        """Itself."""
        return self

    def paint(self, requests: Sequence[PaintRequest]) -> list[Painted]:
        """Paint one picture a request, of the view's frame. What went wrong with one picture is its flaw.

        Requests of equal size, strength and control scale go into one call.

        Raises:
            PromptError: a request has no prompt.
            SampleError: a request has no view, or one that cannot be painted; nothing was painted.
            RecipeError: the settings do not fit the model; nothing was painted.
            ModelNotFetchedError, MissingDependencyError: the model or the edge detectors are not here.
            BrokenRunError: damaged files, no such device, or not even one picture fits in its memory.
        """
        check_prompts(requests)
        starts = [self._prepare(request) for request in requests]
        pipeline_class = self._find_class()
        call_arguments(pipeline_class, self.settings)
        check_controlnet(self.settings)
        if follows_edges(pipeline_class, self.settings):
            starts = [replace(start, control=edges_to_control(self._detector.detect(start.rgb))) for start in starts]
        shared = share_conditioned_pipeline(self.settings, pipeline_class)
        groups: dict[object, list[int]] = {}
        for number, start in enumerate(starts):
            groups.setdefault(start.group, []).append(number)
        painted: dict[int, Painted] = {}
        for numbers in groups.values():
            painted |= zip(numbers, self._paint_group(shared, [starts[n] for n in numbers]), strict=True)
        return [painted[number] for number in range(len(requests))]

    def _prepare(self, request: PaintRequest) -> Start:
        return prepare_start(
            request,
            side_px=self.settings.side_px,
            stride=self._stride,
            change=self.change,
            grow_ratio=self.grow_ratio,
        )

    def _paint_group(self, shared: SharedPipeline, starts: Sequence[Start]) -> list[Painted]:
        pipeline, adapter = shared.pipeline, self.settings.ip_adapter
        alone = adapter or any(name in type(pipeline).__name__ for name in ONE_AT_A_TIME)
        with shared.lock:
            if adapter:
                pipeline.set_ip_adapter_scale(adapter.scale)
            paint_batch = functools.partial(self._paint_batch, pipeline)
            return run_in_batches(paint_batch, starts, 1 if alone else self.settings.batch_size)

    def _paint_batch(self, pipeline: DiffusionPipeline, starts: Sequence[Start]) -> list[Painted]:
        pipeline_class, requests = type(pipeline), [start.request for start in starts]
        from_starts = start_arguments(pipeline_class, starts, self.settings)
        arguments = call_arguments(pipeline_class, self.settings) | from_starts
        output = call_pipeline(pipeline, arguments, requests, output_type="np")
        blanked = getattr(output, "nsfw_content_detected", None) or [False] * len(starts)
        parameters = self._parameters(pipeline, from_starts)
        return [
            keep_the_rest(
                picture_to_painted(
                    fit_picture(picture, start),
                    parameters | {"tokens_cut": self._tokens.count_surplus(start.request.prompt)},
                    is_blanked,
                ),
                start,
                self.change,
            )
            for picture, start, is_blanked in zip(output.images, starts, blanked, strict=True)
        ]

    def _parameters(self, pipeline: DiffusionPipeline, arguments: dict[str, object]) -> dict[str, float | str]:
        """What took effect: a strength or a control scale is named only if the pipeline reads it."""
        parameters = describe_call(pipeline, self.settings)
        names = {"strength": "strength", "controlnet_conditioning_scale": "control_scale"}
        for argument, name in names.items():
            value = arguments.get(argument)
            if isinstance(value, float):
                parameters[name] = round(value, 4)
        if follows_edges(type(pipeline), self.settings):
            parameters |= {f"edges_{name}": getattr(self.settings.edges, name) for name in ("hed", "pidinet", "canny")}
        if self.settings.ip_adapter:
            parameters["ip_adapter_scale"] = self.settings.ip_adapter.scale
        return parameters

    def _find_class(self) -> type[DiffusionPipeline]:
        pipeline_class = find_conditioned_class(self.settings, self.task)
        if self.settings.ip_adapter and not hasattr(pipeline_class, "load_ip_adapter"):
            raise RecipeError(f"{pipeline_class.__name__} takes no IP-Adapter; leave `ip_adapter` out of the recipe.")
        return pipeline_class

    @functools.cached_property
    def _stride(self) -> int:
        return find_stride(self.settings)


class EdgeGuidedPainter(ConditionedPainter):
    """ControlNet in image-to-image mode: the edges of the crop hold, all else may change (InstaDA)."""

    name = "edge_guided"
    task: Task = "image_to_image"
    change: Change = "everything"

    def __init__(self, settings: EdgeGuidedSettings) -> None:
        super().__init__(settings)


class InpaintingPainter(ConditionedPainter):
    """Paints the instance anew in its place, or new surroundings around it; the rest stays, byte for byte."""

    name = "inpainting"
    task: Task = "inpainting"

    def __init__(self, settings: InpaintingSettings) -> None:
        super().__init__(settings)
        self.change: Change = settings.change
        self.grow_ratio = settings.grow_ratio

    def _parameters(self, pipeline: DiffusionPipeline, arguments: dict[str, object]) -> dict[str, float | str]:
        return {**super()._parameters(pipeline, arguments), "change": self.change}
