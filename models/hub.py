"""Repositories of the Hugging Face Hub, in the Hub client's own cache, which other programs share."""

from __future__ import annotations

from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import ModelFetchError
from .catalogue import HubSource

UNREAD_FORMATS = ("*.onnx*", "*.msgpack", "*.h5", "*.tflite", "*.ot", "*.mlmodel", "*.mlpackage/*", "openvino_*")
"""Weights for frameworks other than PyTorch."""


def find_snapshot(source: HubSource) -> Path | None:
    """The folder of a snapshot that is complete on this machine, without asking the network; None if there is none."""
    try:
        return _snapshot(source, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def fetch_snapshot(source: HubSource) -> Path:
    """Download what is missing of a snapshot; offline, one that is complete here will do.

    Raises:
        ModelFetchError: no network, no such repository or revision, or one that wants a login.
    """
    try:
        return _snapshot(source, local_files_only=False)
    except GatedRepoError as exc:
        reason = "it wants its licence accepted on its page, and `hf auth login`"
        raise ModelFetchError(_message(source, reason)) from exc
    except RepositoryNotFoundError as exc:
        reason = "there is none of that name, or it is private: check the name, or `hf auth login`"
        raise ModelFetchError(_message(source, reason)) from exc
    except RevisionNotFoundError as exc:
        raise ModelFetchError(_message(source, "it has no such revision; check the part after `@`")) from exc
    except (LocalEntryNotFoundError, httpx.HTTPError, HfHubHTTPError) as exc:
        reason = f"no connection to the Hub ({_first_line(exc)}); fetch again with a network"
        raise ModelFetchError(_message(source, reason)) from exc
    except OSError as exc:
        reason = f"{_first_line(exc)}; set HF_HOME to a folder that you may write to, with space for the model"
        raise ModelFetchError(_message(source, reason)) from exc


def _snapshot(source: HubSource, *, local_files_only: bool) -> Path:
    try:
        return Path(
            snapshot_download(
                source.repository,
                revision=source.revision,
                ignore_patterns=list(UNREAD_FORMATS),
                local_files_only=local_files_only,
            )
        )
    except HFValidationError as exc:
        raise ModelFetchError(_message(source, str(exc))) from exc


def _message(source: HubSource, reason: str) -> str:
    return f"{source.repository!r} at {source.revision!r} of the Hugging Face Hub: {reason}."


def _first_line(exc: BaseException) -> str:
    cause = exc.__cause__ or exc
    return f"{type(cause).__name__}: {cause}".splitlines()[0].rstrip(".")
