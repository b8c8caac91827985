"""The headers that every answer carries for browsers and caches."""

import base64
import hashlib
import re

import pytest

from opscore.api.docs import ASSETS
from tests.api.service import API, Service

pytestmark = pytest.mark.storages("memory")

PAGES = ["/docs", "/docs/errors"]


@pytest.mark.parametrize(
    "path",
    [
        "/health",
        "/health/ready",
        "/openapi.json",
        "/metrics",
        f"{API}/agents",
        f"{API}/agent/unknown",
        f"{API}/nowhere",
        *PAGES,
        f"{ASSETS}/swagger-ui.css",
    ],
)
async def test_every_answer_forbids_sniffing_framing_and_referrers(
    service: Service, path: str
) -> None:
    headers = (await service.client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("authorization", [{}, {"Authorization": ""}], ids=["key", "no key"])
async def test_answers_that_need_a_key_are_stored_by_no_cache(
    service: Service, authorization: dict[str, str]
) -> None:
    for path in ("/metrics", f"{API}/agents", f"{API}/export"):
        answer = await service.client.get(path, headers=authorization)
        assert answer.headers.get_list("cache-control") == ["no-store"]


@pytest.mark.parametrize("path", PAGES)
async def test_pages_allow_exactly_their_own_scripts_and_styles(
    service: Service, path: str
) -> None:
    answer = await service.client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    inline = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", answer.text, re.DOTALL)
    assert inline
    for text in inline:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not re.search(r"\son\w+=|\sstyle=|javascript:", answer.text)
