from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from delta_lightning.errors import ConfigError
from delta_lightning.types import Prompt, Status, Verdict
from delta_lightning.verifiers import json_schema
from delta_lightning.verifiers.extraction.excerpts import AfterMarker
from delta_lightning.verifiers.json_schema import JsonSchema
from support.verdicts import completion_of

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOD = '{"name": "Ada", "age": 36}'


def verdict(text: str, verifier: JsonSchema | None = None, **reference: Any) -> Verdict:
    prompt = Prompt(id="p", text="?", token_ids=(1,), source="test", reference=reference or {"schema": PERSON})
    found = (verifier or JsonSchema()).score(prompt, completion_of(text))
    assert found.reward == float(found.status is Status.CORRECT)
    return found


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (GOOD, "correct"),
        (f"\n {GOOD} \n", "correct"),
        (f"Here you are:\n```json\n{GOOD}\n```\nDone.", "correct"),
        (f"```json\n{{}}\n```\nNo:\n```\n{GOOD}\n```", "correct"),
        (f"```json\n{GOOD}\n```\nNo:\n```\n{{}}\n```", "incorrect"),
        ('{"name": "Ada"}', "incorrect"),
        ('{"name": "Ada", "age": -1}', "incorrect"),
        ('{"name": "Ada", "age": 36, "x": 1}', "incorrect"),
        ("[1]", "incorrect"),
        ("7", "incorrect"),
        (GOOD + " and more", "incorrect"),
        ('{"name": "Ada", "age": 36', "incorrect"),
        ('{"name": "Ada", "age": 35, "age": 36}', "incorrect"),
        ('{"name": "Ada", "age": NaN}', "incorrect"),
        ('{"name": "Ada", "age": 1e999}', "incorrect"),
        ('{"name": "Ada", "age": ' + "9" * 5000 + "}", "incorrect"),
        ("{'name': 'Ada', 'age': 36}", "incorrect"),
        ("[" * 100_000, "incorrect"),
        ("I do not know", "no_answer"),
        ("", "no_answer"),
        ("NaN", "no_answer"),
    ],
)
def test_statuses(text: str, status: str) -> None:
    assert verdict(text).status is Status(status)


def test_limits() -> None:
    anything = JsonSchema(schema={}, max_depth=3, max_chars=20)
    assert verdict("[[[]]]", anything).status is Status.CORRECT
    assert verdict("[[[[]]]]", anything).status is Status.INCORRECT
    assert verdict('["[[[[", "\\"]["]', anything).status is Status.CORRECT  # brackets in strings nest nothing
    assert verdict("[" + " " * 20 + "]", anything).status is Status.INCORRECT
    deep = JsonSchema(schema={}, max_depth=500)
    assert verdict("[" * 500 + "]" * 500, deep).status is Status.CORRECT


def test_the_schema_may_stand_in_the_config_or_as_text() -> None:
    assert verdict("3", JsonSchema(schema={"type": "integer"}), other=1).status is Status.CORRECT
    assert JsonSchema(schema={}).reference_fields() == frozenset() and JsonSchema().reference_fields() == {"schema"}
    assert verdict("3", JsonSchema(field="form"), form=json.dumps({"type": "string"})).status is Status.INCORRECT
    assert verdict("JSON: 3", JsonSchema(extraction=AfterMarker(marker="JSON:")), schema={}).status is Status.CORRECT


def test_older_drafts_are_chosen_by_the_schema() -> None:
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 3, "exclusiveMinimum": True}
    assert verdict("3", schema=old).status is Status.INCORRECT and verdict("4", schema=old).status is Status.CORRECT
    assert JsonSchema().refuse_reference({"schema": {**old, "exclusiveMinimum": 3}}) is not None


def test_references_within_the_schema_are_followed() -> None:
    tree = {"$ref": "#/$defs/node", "$defs": {"node": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
    assert verdict("[[], [[]]]", schema=tree).status is Status.CORRECT
    assert verdict("[[], [3]]", schema=tree).status is Status.INCORRECT


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (None, "must be a JSON Schema"),
        (7, "must be a JSON Schema"),
        ("{", "must be a JSON Schema"),
        ("[]", "must be a JSON Schema"),
        ({"type": "integr"}, "no JSON Schema"),
        ({"properties": []}, "no JSON Schema"),
        ({"pattern": "("}, "no JSON Schema"),
        ({"const": float("nan")}, "no JSON"),
        ({"const": object()}, "no JSON"),
        ({"$ref": "http://127.0.0.1/schema.json"}, "refers to 'http://127.0.0.1/schema.json'"),
        ({"items": [{"$ref": "file:///etc/passwd"}]}, "refers to 'file:///etc/passwd'"),
        ({"properties": {"a": {"$dynamicRef": "other#x"}}}, "refers to 'other#x'"),
    ],
)
def test_schemas_that_cannot_be_used(schema: object, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)  # nothing is fetched
    assert why in (JsonSchema().refuse_reference({"schema": schema}) or "")
    assert verdict(GOOD, schema=schema).status is Status.ERROR


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"$ref": "#/nowhere"}])
def test_a_schema_that_fails_only_when_applied_is_our_failure(schema: dict[str, Any]) -> None:
    assert verdict("1", schema=schema).status is Status.ERROR


def test_the_config_is_checked_before_anything_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert JsonSchema(schema=PERSON).check() == ()
    with pytest.raises(ConfigError, match=r"JsonSchema\.schema"):
        JsonSchema(schema={"type": "integr"}).check()
    monkeypatch.setattr(json_schema, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"delta-lightning\[json\]"):
        JsonSchema().check()


@pytest.mark.parametrize("fields", [{"max_chars": 0}, {"max_depth": 0}, {"max_depth": 501}, {"field": ""}])
def test_fields_out_of_range(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"JsonSchema.{next(iter(fields))}"):
        JsonSchema(**fields)
