"""Requests made up from the OpenAPI document: never a 5xx, and every answer is as declared."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.python import asgi

from opscore.api.application import create_app
from opscore.settings import Settings
from tests.api.service import AUTH, KEY
from tests.fakes import FakeCourier, ManualClock

GIVEN: dict[str, Any] = {"_env_file": None, "api_key": KEY, "allow_unsigned_webhooks": True}
WORKFLOW: Any = {"id": "known", "tasks": [{"taskId": "one"}, {"taskId": "two", "delay": "1h"}]}

app: Any = create_app(Settings(**GIVEN), courier=FakeCourier(), clock=ManualClock())
load_all_checks()
# Some rules no schema can state, such as those for endpoints and references; and some of the
# requests made up to be wrong turn out right once they are a URL.
CHECKED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
    ]
)
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module")
def client() -> Iterator[asgi.ASGIClient]:
    with asgi.get_client(app) as client:
        client.headers.update(AUTH)
        client.post("/v1/opscore/agents", json={"agentId": "0", "agentName": "zero"})
        client.post("/v1/opscore/workflows", json=WORKFLOW)
        client.post("/v1/opscore/agent/0/workflow", json={"workflowDefinitionId": "known"})
        yield client


@schema.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_answered_in_a_way_that_is_not_declared(
    case: Any, client: asgi.ASGIClient
) -> None:
    case.call_and_validate(session=client, headers=AUTH, checks=CHECKED)
