"""The first line of the log says how the process is set up."""

import pytest

from opscore import __version__
from opscore.storage.location import location
from tests.api.conftest import Runner


@pytest.mark.storages("memory")
async def test_start_names_mode_agentkit_and_storage(
    run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with run(dispatch_mode="agentkit", agentkit_api_url="http://kit:8080"):
        pass
    assert (
        f"Ops-Core {__version__} starts: dispatch mode agentkit, AgentKit at http://kit:8080, "
        "storage memory."
    ) in caplog.messages


def test_location_of_a_database_holds_no_password() -> None:
    text = location("postgresql://opscore:canary@db:5432/ops")
    assert text == "PostgreSQL opscore@db:5432/ops"
