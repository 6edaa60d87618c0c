"""JSON under a schema, token by token: what the model may say next is masked by llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import llguidance.hf
import numpy as np
import numpy.typing as npt
import torch
from langchain_core.exceptions import ModelInvalidRequestError
from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..errors import ModelRequestError

JsonValue: TypeAlias = "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
JsonSchema: TypeAlias = Mapping[str, JsonValue]

MAX_STRING_CHARS, MAX_ARRAY_ITEMS, MAX_NUMBER, NUMBER_STEP = 400, 16, 10**9, 1e-6
"""Bounds of what a schema leaves open: a small model in a loop would fill its whole budget and never close."""

CLOSING_TOKENS = 128
"""How long before the end of its budget an answer is watched, so that it can still be closed."""

_NAMED_SCHEMAS = ("properties", "$defs", "definitions")
_SCHEMA_LISTS = ("anyOf", "oneOf", "prefixItems")
_STRING_LIMITS = {"maxLength", "pattern", "format"}
_OTHER_PROPERTIES = {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf"}


class UnsupportedSchemaError(ModelRequestError, ModelInvalidRequestError):
    """A JSON schema is malformed, or uses a keyword that decoding cannot hold."""


class JsonConstraint:
    """One answer under one schema: allows the next tokens, and takes the one that was chosen.

    Raises:
        UnsupportedSchemaError: the schema is malformed or has a keyword that cannot be held; the message names it.
    """

    def __init__(self, tokenizer: LLTokenizer, schema_json: str) -> None:
        narrowed = bound_schema(json.loads(schema_json))
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(narrowed),
            overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
        )
        if error := LLMatcher.validate_grammar(grammar, tokenizer):
            raise UnsupportedSchemaError(f"cannot decode under the JSON schema {schema_json[:200]!r}: {error}")
        self.is_cut = False
        """Closed for want of room, not because the model was done."""
        self._matcher = LLMatcher(tokenizer, grammar)
        self._closing: list[int] = []
        self._closers = [token for text in '"}]' for token in tokenizer.tokenize_str(text)]

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """(V,) float logits with -inf for every token that the schema forbids here."""
        allowed = _bits(self._matcher.compute_bitmask())
        return logits.masked_fill(torch.from_numpy(allowed[: len(logits)]) == 0, -torch.inf)

    def take(self, token: int, room: int) -> list[int]:
        """Accept `token`; returns it and the tokens that must follow it, which need no choice.

        Near the end of `room`, the tokens still to be had, a token after which the JSON could not be closed in time
        is refused, and the shortest closing comes instead.
        """
        self._matcher.consume_token(token)
        forced = self._matcher.compute_ff_tokens()
        self._matcher.consume_tokens(forced)
        taken = [token, *forced]
        if room > CLOSING_TOKENS:
            return taken
        closing = self._find_closing()
        if len(taken) + len(closing) <= room:
            self._closing = closing
        elif self._closing:
            self.is_cut = True
            return self._closing
        return taken

    @property
    def is_complete(self) -> bool:
        """The JSON is closed; nothing may follow."""
        return self.is_cut or self._matcher.is_stopped()

    def _find_closing(self) -> list[int]:
        """Tokens that end the JSON from here: quotes and brackets wherever they may stand, else the lowest token."""
        matcher = self._matcher.deep_copy()
        closing: list[int] = []
        while not matcher.is_stopped() and len(closing) <= CLOSING_TOKENS:
            forced = matcher.compute_ff_tokens()
            if not forced:
                allowed = _bits(matcher.compute_bitmask())
                forced = [next((token for token in self._closers if allowed[token]), int(allowed.argmax()))]
            matcher.consume_tokens(forced)
            closing += forced
        return closing


def _bits(bitmask: bytes) -> npt.NDArray[np.uint8]:
    """(V,) 1 for a token that is allowed; V is rounded up to whole words."""
    return np.unpackbits(np.frombuffer(bitmask, dtype=np.uint8), bitorder="little")


def build_constraint_tokenizer(tokenizer: PreTrainedTokenizerBase, vocabulary_size: int) -> LLTokenizer:
    """The vocabulary as llguidance reads it; about 0.4 s, so once a model. `vocabulary_size` is that of the logits."""
    return llguidance.hf.from_tokenizer(cast(PreTrainedTokenizerFast, tokenizer), n_vocab=vocabulary_size)


def bound_schema(schema: JsonSchema) -> JsonSchema:
    """The schema with a bound on every open string, array and number, and no properties but those it names.

    What it allows, the given schema allows too. The parts of an `allOf` stay as they are.
    """
    bounded = dict(schema)
    for key in _NAMED_SCHEMAS:
        if isinstance(named := schema.get(key), Mapping):
            bounded[key] = {name: _bound(inner) for name, inner in named.items()}
    for key in _SCHEMA_LISTS:
        if isinstance(several := schema.get(key), list):
            bounded[key] = [_bound(inner) for inner in several]
    if "items" in schema:
        bounded["items"] = _bound(schema["items"])
    return bounded | _missing_bounds(schema)


def _bound(schema: JsonValue) -> JsonValue:
    return bound_schema(schema) if isinstance(schema, Mapping) else schema


def _missing_bounds(schema: JsonSchema) -> dict[str, float]:
    if "enum" in schema or "const" in schema:
        return {}
    kind = schema.get("type")
    kinds = {kind} if isinstance(kind, str) else set(kind) if isinstance(kind, list) else set()
    bounds: dict[str, float] = {}
    if "string" in kinds and not _STRING_LIMITS & schema.keys():
        bounds["maxLength"] = max(MAX_STRING_CHARS, _number(schema, "minLength"))
    if "array" in kinds and "maxItems" not in schema:
        bounds["maxItems"] = max(MAX_ARRAY_ITEMS, _number(schema, "minItems"))
    if kinds & {"integer", "number"}:
        if not {"minimum", "exclusiveMinimum"} & schema.keys():
            bounds["minimum"] = min(-MAX_NUMBER, _number(schema, "maximum"))
        if not {"maximum", "exclusiveMaximum"} & schema.keys():
            bounds["maximum"] = max(MAX_NUMBER, _number(schema, "minimum"))
    if "number" in kinds and "multipleOf" not in schema:
        bounds["multipleOf"] = NUMBER_STEP
    if "properties" in schema and not _OTHER_PROPERTIES & schema.keys():
        bounds["additionalProperties"] = False
    return bounds


def _number(schema: JsonSchema, key: str) -> float:
    value = schema.get(key, 0)
    return value if isinstance(value, int | float) else 0
