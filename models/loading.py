"""What the loaders share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


@contextmanager
def without_bars() -> Iterator[None]:
    """Load a transformers model without its progress bar on stderr."""
    were_shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if were_shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
