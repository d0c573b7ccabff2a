"""Completions that must be JSON of a given schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from delta_lightning.errors import ConfigError, require
from delta_lightning.interfaces import Verifier
from delta_lightning.types import Completion, Example, Prompt, Status, Verdict
from delta_lightning.verifiers.extraction.excerpts import FenceOrText, found_in
from delta_lightning.verifiers.extraction.extraction import Extraction
from delta_lightning.verifiers.say import broken, correct, incorrect, no_answer

_MAX_REFERENCE = 1_000_000  # characters of a schema given as text
_REFERS = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True, kw_only=True)
class JsonSchema(Verifier):
    """1 where the completion's JSON fits a JSON Schema, else 0. It says nothing about whether the values are true.

    The JSON is the last fenced block, or all of the text without one. It is parsed strictly: no NaN or Infinity, no number
    beyond a float, no key twice, nothing behind it. The schema stands in the config, or in a field of the reference as an
    object or as JSON text; it is checked when the data loads. Drafts 3 to 2020-12, chosen by `$schema`, by the library
    `jsonschema`; "format" is not asserted. References outside the schema (`$ref` to another document) are refused, and nothing
    is ever fetched. A schema's own regular expressions can backtrack for long: the pool's limit ends that as TIMEOUT.

    Statuses: CORRECT; INCORRECT for JSON that does not fit, malformed JSON, or too much of it; NO_ANSWER for text that is no
    JSON and does not begin like an object or a list; ERROR where the schema cannot be used.

    Args:
        schema: the schema; None takes each problem's own from its reference.
        field: key of the reference that holds the schema, where `schema` is None.
        extraction: where the JSON stands in the completion.
        max_chars: longer JSON is INCORRECT unread; characters, at least 1.
        max_depth: deeper nesting of objects and lists is INCORRECT unread; 1 to 500.

    Raises:
        ConfigError: a schema that is none, one that refers elsewhere, or a field out of range.
    """

    schema: dict[str, Any] | None = None
    field: str = "schema"
    extraction: Extraction = FenceOrText()  # noqa: RUF009 -- immutable
    max_chars: int = 65_536
    max_depth: int = 64

    def __post_init__(self) -> None:
        require(self.max_chars >= 1, "JsonSchema.max_chars", wanted="at least 1 character", got=self.max_chars,
                remedy="Leave it at 65536.")  # fmt: skip
        require(1 <= self.max_depth <= 500, "JsonSchema.max_depth", wanted="1 to 500", got=self.max_depth,
                remedy="Leave it at 64.")  # fmt: skip
        require(bool(self.field), "JsonSchema.field", wanted="a key of the reference", got=self.field, remedy="Name it.")

    def check(self) -> Sequence[str]:
        """Refuse a machine without the library, and a schema in the config that is none. Raises `ConfigError`."""
        if find_spec("jsonschema") is None:
            raise ConfigError("JsonSchema", wanted="the package jsonschema", got="none installed",
                              remedy="pip install 'delta-lightning[json]'.")  # fmt: skip
        reason = None if self.schema is None else _refused(self.schema)
        require(reason is None, "JsonSchema.schema", wanted="a JSON Schema", got=reason, remedy="Mend it.")
        return ()

    def score(self, prompt: Prompt, completion: Completion) -> Verdict:
        """See the class."""
        schema = self._schema(prompt.reference)
        reason = "no schema" if schema is None else _refused(schema)
        if schema is None or reason is not None:
            return broken(f"the schema cannot be used: {reason}")
        text = found_in(completion.text, self.extraction)
        if text is None:
            return no_answer("the completion holds no JSON")
        if len(text) > self.max_chars:
            return incorrect(f"the JSON has {len(text)} characters, more than {self.max_chars}")
        if _depth(text) > self.max_depth:
            return incorrect(f"the JSON is nested deeper than {self.max_depth}")
        try:
            value = _parsed(text)
        except (ValueError, RecursionError) as error:
            attempted = text.lstrip().startswith(("{", "["))
            return incorrect(f"malformed JSON: {error}"[:300]) if attempted else no_answer("the completion holds no JSON")
        try:
            found = next(iter(_validator(_canonical(schema)).iter_errors(value)), None)
        except Exception as error:  # noqa: BLE001 -- the schema's fault: a reference in a circle, for example
            return broken(f"the schema cannot be applied: {type(error).__name__}: {error}"[:300])
        if found is None:
            return correct()
        return incorrect(f"{found.json_path}: does not fit the schema's {found.validator!r}"[:300])

    def reference_fields(self) -> frozenset[str]:
        """See the seam."""
        return frozenset() if self.schema is not None else frozenset({self.field})

    def refuse_reference(self, reference: Mapping[str, Any]) -> str | None:
        """See the seam: a schema that is none or that refers to another document."""
        schema = self._schema(reference)
        if schema is None:
            return f"{self.field!r} must be a JSON Schema: an object, or its JSON text"
        return _refused(schema)

    def warm_up(self) -> None:
        """Import the library."""
        import jsonschema  # noqa: F401

    def examples(self) -> tuple[Example, ...]:
        """For the laws; of any other schema than its own only that nothing is no JSON."""
        schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
        reference = {} if self.schema is not None else {self.field: schema}
        empty = Example(reference=reference, text="I am five.", status=Status.NO_ANSWER)
        if self.schema is not None or found_in('{"age": 5}', self.extraction) != '{"age": 5}':
            return (empty,)
        return (
            Example(reference=reference, text='{"age": 5}', status=Status.CORRECT),
            Example(reference=reference, text='{"age": "five"}', status=Status.INCORRECT),
            empty,
        )

    def _schema(self, reference: Mapping[str, Any]) -> dict[str, Any] | None:
        """The schema as an object, or None where there is none."""
        given: object = self.schema if self.schema is not None else reference.get(self.field)
        if isinstance(given, str) and len(given) <= _MAX_REFERENCE:
            try:
                given = _parsed(given)
            except (ValueError, RecursionError):
                return None
        return given if isinstance(given, dict) else None


def _refused(schema: Mapping[str, Any]) -> str | None:
    """Why the schema cannot be used, or None."""
    try:
        return _refused_text(_canonical(schema))
    except (TypeError, ValueError, RecursionError) as error:
        return f"it is no JSON: {error}"


def _canonical(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, sort_keys=True, allow_nan=False)


@lru_cache(maxsize=256)
def _refused_text(schema: str) -> str | None:
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import Draft202012Validator, validator_for

    tree = json.loads(schema)
    outside = _outside(tree)
    if outside is not None:
        return f"it refers to {outside!r}; only references within the schema (#...) are followed"
    kind = validator_for(tree, default=Draft202012Validator)
    try:
        error = best_match(kind(kind.META_SCHEMA, format_checker=kind.FORMAT_CHECKER).iter_errors(tree))  # patterns compile
    except (SchemaError, RecursionError) as failure:
        return f"it cannot be checked: {failure}"[:300]
    return None if error is None else f"it is no JSON Schema: {error.message}"[:300]


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """The validator of a canonical schema; it can fetch nothing."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    tree = json.loads(schema)
    return validator_for(tree, default=Draft202012Validator)(tree, registry=Registry())


def _outside(tree: object) -> str | None:
    """The first reference that leaves the document, or None. A property that is called "$ref" is taken for one."""
    if isinstance(tree, dict):
        for key in _REFERS:
            target = tree.get(key)
            if isinstance(target, str) and not target.startswith("#"):
                return target
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return next((found for each in inner if (found := _outside(each)) is not None), None)


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside strings. Linear; exact for well-formed JSON."""
    depth = deepest = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            quoted, escaped = escaped or character != '"', not escaped and character == "\\"
        elif character == '"':
            quoted = True
        elif character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    return deepest


def _parsed(text: str) -> Any:
    """The value. Raises `ValueError` for anything but strict JSON."""
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unique)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is beyond every float")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value
