"""Where models run: the device that a name means, and batches that fit in its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from ..errors import BrokenRunError

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def resolve_device(name: str = "auto") -> torch.device:
    """The device that a name means: `auto` is a CUDA or Apple GPU where there is one, else the CPU.

    Raises:
        BrokenRunError: the name is not a device's, or this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as exc:
        reason = str(exc).splitlines()[0]
        raise BrokenRunError(
            f"device {name!r} cannot be used ({reason}); use 'cpu', or 'auto' for what is there"
        ) from exc


def run_in_batches(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], batch_size: int
) -> list[Result]:
    """Hand items over in batches; when the GPU's memory does not hold one, halve the batch, say so and go on.

    Args:
        run: one result for each item that it gets, in order.

    Raises:
        BrokenRunError: not even a batch of one fits.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + batch_size]
        try:
            results.extend(run(batch))
        except torch.OutOfMemoryError as exc:
            if len(batch) == 1:
                raise BrokenRunError(
                    f"the GPU's memory does not hold a batch of one ({exc}); use device 'cpu'"
                ) from exc
            batch_size = len(batch) // 2
            logger.warning("out of GPU memory with %d at once; going on with %d", len(batch), batch_size)
            torch.cuda.empty_cache()
    return results
