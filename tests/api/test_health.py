import socket

import pytest

from opscore import __version__
from opscore.models import Replica
from tests.api.conftest import Runner
from tests.api.service import Service
from tests.builders import at


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
async def test_health_needs_no_key(service: Service, path: str) -> None:
    answer = await service.call("GET", path, headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 200


@pytest.mark.storages("memory")
async def test_F22_health_says_that_memory_forgets(service: Service) -> None:
    body = await service.json("/health")
    assert (body["status"], body["version"]) == ("ok", __version__)
    assert body["storage"]["kind"] == "memory"
    assert body["storage"]["durable"] is False
    assert "gone after a restart" in body["storage"]["note"]


async def test_readiness_says_what_there_is_and_what_was_learned(service: Service) -> None:
    await service.register()
    await service.trigger()
    await service.trigger()
    body = await service.json("/health/ready")
    assert (body["status"], body["reasons"], body["dispatchMode"]) == ("ready", [], "auto")
    counted = [body[name] for name in ("agents", "sessions", "tasksWaiting", "tasksInFlight")]
    assert counted == [1, 2, 1, 1]
    assert body["forgotten"] == {}
    forwards = body["agentkitForwards"]
    assert forwards.pop("message").startswith("It is not known yet whether AgentKit")
    assert forwards == {"state": "unknown", "since": None, "nextProbe": None}
    await service.report(state="active")
    assert (await service.json("/health/ready"))["agentkitForwards"]["state"] == "proved"


async def test_readiness_lists_the_processes_on_the_storage(service: Service) -> None:
    other = Replica("other", "host-2", 7, "0.9", at(-60), at(-42))
    await service.core.storage.beat(other, forget_before=at(-100))
    first, second = (await service.json("/health/ready"))["replicas"]
    assert first | {"startedAt": None} == {
        "id": service.core.replica_id,
        "host": socket.gethostname(),
        "version": __version__,
        "startedAt": None,
        "heartbeatAgeSeconds": 0.0,
        "isThisOne": True,
    }
    assert (second["id"], second["heartbeatAgeSeconds"]) == ("other", 42.0)
    assert not second["isThisOne"]


@pytest.mark.storages("memory")  # the others are closed when the service has ended
async def test_a_replica_that_ends_is_listed_no_more(run: Runner) -> None:
    async with run() as service:
        storage = service.core.storage
        assert [one.id for one in await storage.replicas()] == [service.core.replica_id]
    assert await storage.replicas() == []


async def test_F9_a_draining_service_is_alive_and_not_ready(service: Service) -> None:
    await service.core.drain()
    ready = await service.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["reasons"] == ["The service is shutting down."]
    assert (await service.get("/health/live")).status_code == 200


async def test_a_storage_that_is_away_makes_it_not_ready(service: Service) -> None:
    service.storage.away = True
    ready = await service.get("/health/ready")
    assert (ready.status_code, len(ready.json()["reasons"])) == (503, 1)
    assert (await service.get("/health")).status_code == 200


async def test_hosts_of_replicas_are_named_only_with_the_key(service: Service) -> None:
    await service.core.storage.beat(
        Replica("other", "host-2", 7, "0.9", at(-60), at(-42)), forget_before=at(-100)
    )
    answer = await service.call("GET", "/health/ready", headers={"Authorization": ""})
    assert [one["host"] for one in answer.json()["replicas"]] == [None, None]
    assert socket.gethostname() not in answer.text


async def test_reason_of_a_storage_failure_is_told_only_with_the_key(service: Service) -> None:
    service.storage.away = True
    [told] = (await service.get("/health/ready")).json()["reasons"]
    answer = await service.call("GET", "/health/ready", headers={"Authorization": ""})
    [untold] = answer.json()["reasons"]
    assert answer.status_code == 503
    assert "API key" in untold
    assert told not in answer.text
