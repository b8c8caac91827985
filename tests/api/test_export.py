"""The whole instance as lines, from a service that goes on meanwhile."""

import orjson
import pytest

from opscore.api.importing import import_lines
from opscore.models import Retention
from tests.api.service import Service, check_problem
from tests.storages import Opener


async def test_an_export_holds_everything_and_fits_another_storage(
    service: Service, open_empty: Opener
) -> None:
    await service.register()
    # A separator of lines to some, but not to those who read lines of JSON.
    session_id = await service.trigger(initialPayload={"text": "one\u2028two"})
    answer = await service.get("export")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jsonl"
    lines = answer.content.splitlines(keepends=True)
    assert [orjson.loads(lines[at])["kind"] for at in (0, -1)] == ["opscore-export", "end"]
    elsewhere = await open_empty(Retention())
    counts = await import_lines(elsewhere, lines)
    assert (counts["agent"], counts["session"], counts["task"]) == (1, 1, 1)
    moved = await elsewhere.session(session_id)
    await elsewhere.close()
    assert moved == await service.core.storage.session(session_id)
    assert moved is not None
    assert moved.input == {"text": "one\u2028two"}


async def test_a_storage_that_is_away_is_an_error_and_no_export(service: Service) -> None:
    service.storage.away = True
    check_problem(await service.get("export"), 503)


@pytest.mark.storages("memory")
@pytest.mark.fault("F110")
async def test_second_export_is_refused_while_one_is_under_way(service: Service) -> None:
    async with service.core.export_lock:
        refused = await service.get("export")
    check_problem(refused, 503, "export_in_progress")
    assert int(refused.headers["retry-after"]) > 0
    assert (await service.get("export")).status_code == 200


@pytest.mark.storages("memory")
async def test_an_export_needs_a_key(service: Service) -> None:
    answer = await service.call("GET", "export", headers={"Authorization": ""})
    check_problem(answer, 401, "unauthorized")
