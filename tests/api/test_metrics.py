"""Metrics: what a collector is told, and that it can be trusted."""

import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as parse

from opscore import __version__
from tests.api.conftest import Runner
from tests.api.service import KEY, Service, check_problem


async def told(service: Service) -> dict[str, Any]:
    """The value of each metric, or its values by the first label."""
    answer = await service.get("/metrics")
    assert answer.status_code == 200
    return values(parse(answer.text))


def values(families: Iterable[Metric]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for family in families:
        for sample in family.samples:
            if sample.labels:
                found.setdefault(sample.name, {})[next(iter(sample.labels.values()))] = sample.value
            else:
                found[sample.name] = sample.value
    return found


@pytest.mark.storages("memory")
async def test_metrics_need_a_key(service: Service) -> None:
    answer = await service.call("GET", "/metrics", headers={"Authorization": ""})
    check_problem(answer, 401, "unauthorized")


async def test_metrics_tell_what_there_is(service: Service) -> None:
    await service.register()
    await service.trigger()
    await service.trigger()
    seen = await told(service)
    assert (seen["opscore_ready"], seen["opscore_agents"], seen["opscore_sessions"]) == (1, 1, 2)
    tasks = seen["opscore_tasks"]
    assert (tasks["queued"], tasks["dispatched"], tasks["completed"]) == (1, 1, 0)
    assert seen["opscore_replicas"] == 1
    assert seen["opscore_waiting_bytes"] == (await service.storage.counts()).waiting_bytes > 0
    assert seen["opscore_events"] == len((await service.json("events"))["items"])


async def test_metrics_count_what_retention_forgets(run: Runner) -> None:
    async with run() as service:
        await service.register()
        session_id = await service.trigger()
        await service.post(f"session/{session_id}/cancel", {})
        assert "opscore_forgotten_total" not in await told(service)
        await service.pass_time(timedelta(days=8).total_seconds())
        await service.pass_time(6)
        await service.pass_time(6)
        seen = await told(service)
        assert seen["opscore_forgotten_total"]["sessions"] == 1
        assert seen["opscore_forgotten_total"]["tasks"] == 1
        assert seen["opscore_sessions"] == 0


@pytest.mark.storages("memory")
async def test_metrics_count_repairs(service: Service) -> None:
    service.core.checker.repaired["lease_lost"] += 2
    assert (await told(service))["opscore_repaired_total"] == {"lease_lost": 2}


async def test_without_its_storage_the_process_still_tells_of_itself(service: Service) -> None:
    service.storage.away = True
    seen = await told(service)
    assert seen["opscore_ready"] == 0
    assert "opscore_tasks" not in seen
    assert seen["opscore_messages_under_way"] == 0
    assert seen["process_resident_memory_bytes"] > 0


@pytest.mark.storages("memory")
async def test_open_metrics_are_told_to_who_asks_for_them(service: Service) -> None:
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    answer = await service.call("GET", "/metrics", headers=headers)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert f'opscore_info{{storage="memory",version="{__version__}"}} 1.0\n' in answer.text
    assert answer.text.endswith("# EOF\n")


@pytest.mark.storages("memory")
async def test_every_metric_is_in_the_reference_and_the_other_way_round(service: Service) -> None:
    text = (await service.get("/metrics")).text
    told = re.findall(r"^# TYPE (opscore_\w+) (\w+)$", text, re.MULTILINE)
    page = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
    rows = re.findall(r"^\| `(opscore_\w+)` \| (\w+) \|", page.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(told)


@pytest.mark.storages("memory")
async def test_F92_no_secret_is_in_the_metrics(service: Service) -> None:
    assert KEY not in (await service.get("/metrics")).text


@pytest.mark.storages("memory")
@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "application/openmetrics-text; version=1.x, text/html",
        "text/plain; version=",
        "text/plain; version=latest; escaping=all",
        "*/*",
        ";;;,,,",
    ],
)
async def test_a_strange_accept_gets_a_format_that_can_be_read(
    service: Service, accept: str
) -> None:
    answer = await service.call("GET", "/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert values(parse(answer.text))["opscore_ready"] == 1
