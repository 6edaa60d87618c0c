"""Trained heads of the label agent's classifier, kept by the digest of all that they follow from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load, save

from ...configs.label_agent import LabelClassifierSettings
from ...data.files import write_atomically
from ...data.label_records import LabelledImage
from .label_calibration import LabelClassifierReport
from .label_classifier import LabelHead
from .label_features import Backbone

VERSION = 1
"""Of this code; another one trains anew."""
_HEAD_FILE, _REPORT_FILE = "head.safetensors", "report.json"

logger = logging.getLogger(__name__)


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    """The report's file."""

    head_sha256: str
    report: LabelClassifierReport


def digest_teaching(
    train: Sequence[LabelledImage],
    held_out: Sequence[LabelledImage],
    classes: Sequence[str],
    settings: LabelClassifierSettings,
    backbone: Backbone,
) -> str:
    """Of everything that the trained head follows from."""
    rows = [
        [side, one.key, hashlib.sha256(one.path.read_bytes()).hexdigest(), sorted(one.labels)]
        for side, images in (("train", train), ("held_out", held_out))
        for one in images
    ]
    # What only decides on a refusal does not change the head.
    how = settings.model_dump(mode="json", exclude={"min_auc"})
    content = json.dumps([VERSION, rows, list(classes), how, backbone.digest], ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def save_classifier(folder: Path, head: LabelHead, report: LabelClassifierReport) -> None:
    """Each file whole; the report tells which head it is of, so a head of another writer beside it is not believed."""
    weights = save({name: tensor.contiguous() for name, tensor in head.state_dict().items()})
    kept = _Kept(hashlib.sha256(weights).hexdigest(), report)
    write_atomically(folder / _HEAD_FILE, weights)
    write_atomically(folder / _REPORT_FILE, msgspec.json.format(msgspec.json.encode(kept)))


def load_classifier(folder: Path) -> tuple[LabelHead, LabelClassifierReport] | None:
    """What `save_classifier` wrote; None where it is not there, or damaged."""
    if not folder.exists():
        return None
    try:
        kept = msgspec.json.decode((folder / _REPORT_FILE).read_bytes(), type=_Kept)
        weights = (folder / _HEAD_FILE).read_bytes()
        if hashlib.sha256(weights).hexdigest() != kept.head_sha256:
            raise ValueError(f"{_HEAD_FILE} is not the head that {_REPORT_FILE} was written with")
        tensors = load(weights)
        num_places, num_pooled = len(tensors["place_mean"]), len(tensors["pooled_mean"])
        head = LabelHead(num_places, num_pooled, len(tensors["slope"]))
        head.load_state_dict(tensors)
    except (OSError, msgspec.MsgspecError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
        logger.warning("the classifier in %s is damaged (%s); it is trained anew", folder, exc)
        return None
    return head, kept.report
