"""Holds answers against the OpenAPI document: what it does not say may not be answered."""

import re
from typing import Any

import httpx
import jsonschema_rs

METHODS = ("get", "put", "post", "delete", "patch")


class OpenApi:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._paths = [
            (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path)
            for path in document["paths"]
        ]
        self._validators: dict[str, Any] = {}

    def operations(self) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            (method.upper(), path, operation)
            for path, operations in self.document["paths"].items()
            for method, operation in operations.items()
        ]

    def check(self, answer: httpx.Response) -> None:
        """The status is declared for the operation, and the body is what that status has."""
        request = answer.request
        operation = self._operation(request.method, request.url.path)
        # The body guard answers for bodies where the document has none.
        if operation is None or (request.content and "requestBody" not in operation):
            return
        status = str(answer.status_code)
        where = f"{request.method} {request.url.path} {status}"
        assert status in operation["responses"], f"{where} is not declared"
        content = operation["responses"][status].get("content", {})
        if not content:
            assert not answer.content, f"{where} has a body that is not declared"
            return
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in content, f"{where} is {kind}, which is not declared"
        said = answer.json() if kind.endswith("json") else answer.text
        self._validator(content[kind]["schema"]).validate(said)

    def validate(self, schema: dict[str, Any], value: Any) -> None:
        self._validator(schema).validate(value)

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        # A literal path comes before one with parameters.
        for pattern, template in sorted(self._paths, key=lambda item: "{" in item[1]):
            if pattern.fullmatch(path):
                found: dict[str, Any] | None = self.document["paths"][template].get(method.lower())
                return found
        return None

    def _validator(self, schema: dict[str, Any]) -> Any:
        key = str(schema)
        if key not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._validators[key]
