"""A short chaos run for each durable storage; `make chaos` runs longer ones."""

from pathlib import Path

import pytest

from tests.load.chaos_checker import violations
from tests.load.chaos_plan import BRISK
from tests.load.chaos_run import ChaosRun, Options

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

SEED = 19


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("storage", "replicas"), [("sqlite", 1), ("postgres", 3)])
async def test_F1_to_F14_F64_nothing_is_lost_and_nothing_counts_twice(
    storage: str, replicas: int, tmp_path: Path
) -> None:
    options = Options(
        storage=storage,
        seed=SEED,
        seconds=15,
        replicas=replicas,
        folder=tmp_path,
        tempo=BRISK,
        settle=120,
    )
    run = ChaosRun(options)
    record = await run.run()
    assert violations(record) == [], f"seed {SEED}; the logs are in {tmp_path}"
    # Enough happened for that to mean something.
    assert run.figures.blows["kill"] >= 2
    assert run.figures.blows["stop"] >= 1
    assert run.figures.blows["database"] >= (1 if storage == "postgres" else 0)
    assert sum(run.figures.faults.values()) >= 10
    assert len(record.sessions) >= 30
