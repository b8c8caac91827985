"""Adds to the OpenAPI document what every field means, and an example of every body."""

from collections.abc import Iterator
from typing import Any

from pydantic.alias_generators import to_camel

from opscore.api.error_page import answered_errors
from opscore.api.field_texts import BODIES, COMPOSED, FIELDS
from opscore.api.problems import MEANINGS
from opscore.middleware.problem import MEDIA_TYPE

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/"


def describe(document: dict[str, Any]) -> None:
    """Describe fields and parameters, and give each body an example, where none is given yet."""
    schemas: dict[str, Schema] = document["components"]["schemas"]
    for model, schema in schemas.items():
        for name, field in schema.get("properties", {}).items():
            if (text := _text(model, name)) is not None:
                field.setdefault("description", text)
    for operation in _operations(document):
        _describe_parameters(operation)
        for media in _bodies(operation):
            if "example" not in media and "schema" in media:
                media["example"] = _example(schemas, media["schema"])
        _show_problems(operation)


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        yield from operations.values()


def _describe_parameters(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        text = _text(parameter["in"], to_camel(parameter["name"]))
        if text is not None:
            parameter.setdefault("description", text)


def _bodies(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for response in operation["responses"].values():
        content = response.get("content", {})
        yield from (media for kind, media in content.items() if kind != MEDIA_TYPE)


def _show_problems(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        if (media := response.get("content", {}).get(MEDIA_TYPE)) is not None:
            kind = next(kind for kind in answered_errors() if str(kind.status) == status)
            media["example"] = {
                "type": f"/docs/errors#{kind.code}",
                "title": kind.title,
                "status": kind.status,
                "detail": MEANINGS[kind.status],
                "code": kind.code,
                "requestId": FIELDS["requestId"][1],
            }


# --- looking up -------------------------------------------------------------------------------


def _entry(model: str, name: str) -> tuple[str, Any] | None:
    return FIELDS.get(f"{model}.{name}") or FIELDS.get(name)


def _text(model: str, name: str) -> str | None:
    entry = _entry(model, name)
    return entry[0] if entry else None


def _example(schemas: dict[str, Schema], schema: Schema) -> Any:
    """Compose an example from those of the fields."""
    if "anyOf" in schema:
        return _example(schemas, schema["anyOf"][0])
    if schema.get("type") == "array":
        return [_example(schemas, schema["items"])]
    if "$ref" not in schema:
        return schema.get("example")
    model = schema["$ref"].removeprefix(_REFERENCE)
    if model in BODIES:
        return BODIES[model]
    fields = schemas[model].get("properties", {})
    return {name: _field_example(schemas, model, name, field) for name, field in fields.items()}


def _field_example(schemas: dict[str, Schema], model: str, name: str, field: Schema) -> Any:
    entry = _entry(model, name)
    if entry is None or entry[1] is COMPOSED:
        return _example(schemas, field)
    return entry[1]
