"""The OpenAPI document is whole: what the service may answer stands in it."""

from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from opscore.api.field_texts import BODIES as EXAMPLES
from opscore.api.field_texts import FIELDS
from opscore.middleware.problem import MEDIA_TYPE
from opscore.workflow.templates import load_workflow_template, parse_definition
from tests.api.service import contract

OPERATIONS = contract().operations()
WITHOUT_KEY = {"/health", "/health/live", "/health/ready", "/v1/opscore/internal/agent/notify"}
EACH = pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[f"{m} {p}" for m, p, _ in OPERATIONS]
)
PROBLEM = {"$ref": "#/components/schemas/Problem"}


@EACH
def test_every_operation_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"].rstrip().endswith(".")
    assert operation["tags"]


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert all(one.isidentifier() for one in ids)


@EACH
def test_every_error_has_the_one_shape(method: str, path: str, operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        assert response["description"]
        # Readiness says in its own words why it is not ready.
        if status >= "400" and path != "/health/ready":
            assert response["content"].keys() == {MEDIA_TYPE}
            media = response["content"][MEDIA_TYPE]
            assert media["schema"] == PROBLEM
            assert str(media["example"]["status"]) == status


@EACH
def test_every_success_has_a_schema(method: str, path: str, operation: dict[str, Any]) -> None:
    successes = {status: r for status, r in operation["responses"].items() if status < "400"}
    assert successes
    for status, response in successes.items():
        if status != "204":
            assert response["content"]
            assert all(media["schema"] for media in response["content"].values())


@EACH
def test_the_errors_that_every_request_may_meet(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    declared = operation["responses"].keys()
    if not path.startswith("/health"):
        assert {"400", "401", "422", "503"} <= declared
    if "{" in path and method != "PUT":
        assert "404" in declared
    assert ("requestBody" not in operation) or {"408", "413", "415"} <= declared


@EACH
def test_the_key_is_asked_for(method: str, path: str, operation: dict[str, Any]) -> None:
    expected: Any = None if path in WITHOUT_KEY else [{"apiKey": []}]
    assert operation.get("security") == expected


def test_every_reference_leads_somewhere() -> None:
    schemas = contract().document["components"]["schemas"]

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        if isinstance(value, list):
            return set().union(*map(references, value))
        return set()

    used = references(contract().document)
    assert used
    assert used <= {f"#/components/schemas/{name}" for name in schemas}
    assert {name for name in schemas if f"#/components/schemas/{name}" not in used} == set()


# --- words and examples -----------------------------------------------------------------------

BODIES = [
    (operation["operationId"], kind, media)
    for _, _, operation in OPERATIONS
    for part in (operation.get("requestBody", {}), *operation["responses"].values())
    for kind, media in part.get("content", {}).items()
]


def test_every_field_is_described() -> None:
    schemas = contract().document["components"]["schemas"]
    silent = [
        f"{model}.{name}"
        for model, schema in schemas.items()
        for name, field in schema.get("properties", {}).items()
        if not field.get("description", "").strip().endswith(".")
    ]
    assert silent == [], "Describe each in opscore/api/field_texts.py."


@EACH
def test_every_parameter_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        assert parameter.get("description"), parameter["name"]


def test_every_description_describes_a_field() -> None:
    schemas = contract().document["components"]["schemas"]
    models = {model: set(schema.get("properties", {})) for model, schema in schemas.items()}
    parameters = {
        to_camel(parameter["name"])
        for _, _, operation in OPERATIONS
        for parameter in operation.get("parameters", [])
    }
    known = parameters.union(*models.values())
    known |= {f"{model}.{name}" for model, names in models.items() for name in names}
    known |= {f"query.{name}" for name in parameters}
    assert set(FIELDS) - known == set()
    assert set(EXAMPLES) <= models.keys()


@pytest.mark.parametrize(
    ("operation", "kind", "media"), BODIES, ids=[f"{name} {kind}" for name, kind, _ in BODIES]
)
def test_every_body_has_an_example_that_fits_its_schema(
    operation: str, kind: str, media: dict[str, Any]
) -> None:
    assert media.get("example") is not None
    contract().validate(media["schema"], media["example"])


def test_example_of_a_definition_is_sound() -> None:
    for path in ("workflows", "workflows/validate", "workflow/{workflow_id}"):
        operations = contract().document["paths"][f"/v1/opscore/{path}"]
        content = operations["put" if "{" in path else "post"]["requestBody"]["content"]
        parsed = parse_definition(content["application/json"]["example"])
        assert load_workflow_template(content["application/yaml"]["example"]) == parsed
