"""The service dies at every crash point, many times, and nothing is lost.

How often at each point is OPSCORE_TEST_KILLS, 5 unless set. Each life goes on with what the one
before it left, and is killed in its turn; the last one brings everything to its end, and then the
record of them all is checked.
"""

import asyncio
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from opscore.crash_points import CRASH_POINTS
from opscore.models import AgentFilter, Availability, Page, Retention, SessionFilter, TaskFilter
from opscore.storage import open_storage
from opscore.storage.migrations import migrations
from tests.acceptance.crash_world import (
    KEY,
    SECRET,
    CrashWorld,
    Stimulus,
    announce_by_webhook,
    change_agent,
    crash_world,
    deregister,
    nothing,
    report_early,
    save_and_delete,
    start_endless,
)
from tests.acceptance.durable import KINDS, empty_storage
from tests.acceptance.lives import KILLED, Life, Lives, lives
from tests.acceptance.processes import eventually, reserved_port
from tests.load.chaos_checker import violations

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.storages(*KINDS)]

KILLS = int(os.environ.get("OPSCORE_TEST_KILLS", "5"))
SEED = int(os.environ.get("OPSCORE_TEST_SEED", "1"))
TIME_LIMIT = 600 + 120 * KILLS
REACHED_WITHIN = 60.0
SETTLED_WITHIN = 120.0
NEW_EVERY = 4
STATEMENTS = sum(len(list(one.statements())) for one in migrations())
GIVEN_UP = re.compile(r'"session_id":"([0-9a-f-]+)".*"attempt":[4-9],"code":"lease_lost"')
PAUSE = 0.02
LONGEST_PAUSE = 0.2


@dataclass(frozen=True)
class Way:
    """What a life must have or see to come to a crash point.

    `most` is the highest passage to die at, `before` where the life before must have died.
    `new_agentkit` gives AgentKit a name of which no life has learned anything.
    """

    stimulus: Stimulus = nothing
    env: dict[str, str] = field(default_factory=dict)
    most: int = 1
    slow_agentkit: float = 0
    ends_in_order: bool = False
    new_agentkit: bool = False
    before: str = ""


EVERY_TIME = Way(most=3)
DRAIN = Way(ends_in_order=True)
LEASE = Way(slow_agentkit=0.4)
GONE = {
    "OPSCORE_RETENTION_SESSIONS": "3",
    "OPSCORE_RETENTION_EVENTS": "1000",
    "OPSCORE_RETENTION_DAYS": "0.000001",
}

Record = Callable[[str, object], None]

WAYS: dict[str, Way] = {
    "start.storage-open": Way(),
    "start.templates-loaded": Way(),
    "replica.beat": Way(),
    "replica.leases-ended": Way(before="claim.taken"),
    "replica.left": DRAIN,
    "start.running": Way(),
    "sqlite.file-locked": Way(),
    "sqlite.schema-written": Way(),
    "sqlite.schema-committed": Way(),
    "postgres.schema-written": Way(),
    "postgres.schema-committed": Way(),
    "cancel.committed": Way(start_endless),
    "abandon.before": Way(start_endless),
    "abandon.told": Way(start_endless),
    "report.kept-early": Way(report_early),
    "webhook.verified": Way(announce_by_webhook),
    "webhook.committed": Way(announce_by_webhook),
    "agent.changed": Way(change_agent),
    "agent.deregistered": Way(deregister),
    "stranded.failed": Way(deregister, most=2),
    "workflow.checked": Way(save_and_delete),
    "workflow.committed": Way(save_and_delete),
    "workflow.deleted": Way(save_and_delete),
    "forwarding.learned": Way(new_agentkit=True),
    "direct.answered": Way(env={"OPSCORE_DISPATCH_MODE": "direct"}),
    "silence.found": Way(env={"OPSCORE_SILENCE_THRESHOLD": "0.05"}),
    "lease.before-renewal": LEASE,
    "lease.renewed": LEASE,
    "lease.found": LEASE,
    "lease.prolonged": LEASE,
    "drain.begun": DRAIN,
    "drain.posts-ended": DRAIN,
    "drain.done": DRAIN,
    "prune.agents-gone": Way(deregister, GONE),
    **{
        f"prune.{name}": Way(env=GONE)
        for name in (
            *("before", "batch-done", "recorded", "events-gone", "tasks-gone", "sessions-gone"),
        )
    },
}


def points(storage: str, *, forgetting: bool) -> list[str]:
    """Those of a storage, without what only an empty database passes."""
    other = "postgres." if storage == "sqlite" else "sqlite."
    return [
        name
        for name in CRASH_POINTS
        if not name.startswith((other, "migration.")) and name.startswith("prune.") == forgetting
    ]


@pytest.fixture(autouse=True)
def no_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each of thousands of requests, httpcore would look for it on the whole path."""
    monkeypatch.setitem(sys.modules, "trio", None)


@dataclass
class Play:
    """The service's lives, and the world around them."""

    lives: Lives
    world: CrashWorld
    new_agentkit: str
    draw: random.Random
    deaths: Counter[str] = field(default_factory=Counter)

    async def round(self, names: list[str]) -> None:
        for name in self.draw.sample(names, len(names)):
            await self.die_at(name)

    async def die_at(self, name: str) -> None:
        way = WAYS.get(name, EVERY_TIME)
        if way.before:
            await self._die_at(way.before, Way())
        await self._die_at(name, way)
        self.deaths[name] += 1

    async def _die_at(self, name: str, way: Way) -> None:
        self.world.kit.behaviour.slow = way.slow_agentkit
        env = way.env | ({"AGENTKIT_API_URL": self.new_agentkit} if way.new_agentkit else {})
        life = await self.lives.begin(f"{name}:{self.draw.randint(1, way.most)}", **env)
        try:
            async with asyncio.timeout(REACHED_WITHIN):
                await self._press_on(life, way)
        except TimeoutError:
            pytest.fail(f"{name} was not reached within {REACHED_WITHIN:g} seconds.")
        assert life.end.result() == KILLED, name
        self.world.check()
        self.world.note_posts()

    async def _press_on(self, life: Life, way: Way) -> None:
        """The usual traffic, and what the crash point needs, until the service is dead."""
        turn = 0
        while not life.end.done():
            if await self.world.announce() is not None:
                await self.world.repeat()
                if turn % NEW_EVERY == 0:
                    await self.world.trigger()
                await way.stimulus(self.world)
                if way.ends_in_order and turn == 0:
                    life.send(signal.SIGTERM)
                turn += 1
            await asyncio.wait([life.end], timeout=min(PAUSE * turn, LONGEST_PAUSE))

    async def live_on(self) -> None:
        """A life without an end of its own, until all that was begun has ended."""
        self.world.kit.behaviour.slow = 0
        await self.lives.begin()
        await self.world.settle(SETTLED_WITHIN)


@asynccontextmanager
async def play(url: str, folder: Path) -> AsyncIterator[Play]:
    templates = folder / "templates"
    templates.mkdir()
    (templates / "greeting.yaml").write_text("tasks: [{taskId: greet}]\n", "utf-8")
    with reserved_port() as port, reserved_port() as kit_port:
        env = {
            "OPSCORE_STORAGE_URL": url,
            "OPSCORE_API_KEY": KEY,
            "OPSCORE_WEBHOOK_SECRET": SECRET,
            "OPSCORE_PORT": str(port),
            "OPSCORE_WORKFLOWS_DIR": str(templates),
            "OPSCORE_LOG_LEVEL": "WARNING",
            # An agent that the service's deaths kept from reporting is soon tried again.
            "OPSCORE_PROBE_INTERVAL": "1",
            "AGENTKIT_API_URL": f"http://127.0.0.1:{kit_port}",
        }
        async with (
            lives(env, folder / "lives.log") as given,
            crash_world(f"http://127.0.0.1:{port}", kit_port) as world,
        ):
            first = await given.begin()
            await eventually(world.announce, bool)
            await world.save_workflows()
            await first.killed()
            yield Play(given, world, f"http://localhost:{kit_port}", random.Random(SEED))


@pytest.mark.timeout(TIME_LIMIT)
async def test_whatever_the_service_dies_of_nothing_is_lost(
    storage_kind: str, storage: str, tmp_path: Path, record_property: Record
) -> None:
    names = points(storage_kind, forgetting=False)
    async with play(storage, tmp_path) as stage:
        for _ in range(KILLS):
            await stage.round(names)
        await stage.live_on()
        assert violations(await stage.world.record()) == []
        await stage.lives.end()
        await check_counts(storage)
    note(record_property, storage_kind, stage.deaths, names)


@pytest.mark.timeout(TIME_LIMIT)
async def test_whenever_the_service_dies_nothing_unfinished_is_forgotten(
    storage_kind: str, storage: str, tmp_path: Path, record_property: Record
) -> None:
    names = points(storage_kind, forgetting=True)
    async with play(storage, tmp_path) as stage:
        for _ in range(KILLS):
            await stage.round(names)
        await stage.live_on()
        await check_what_is_left(stage)
        await stage.lives.end()
        await check_counts(storage)
    note(record_property, storage_kind, stage.deaths, names)


@pytest.mark.timeout(TIME_LIMIT)
async def test_F8_killed_inside_a_migration(
    storage_kind: str, storage: str, tmp_path: Path, record_property: Record
) -> None:
    """The next boot finds all of a migration or nothing, and finishes what is missing."""
    names = [name for name in CRASH_POINTS if name.startswith("migration.")]
    async with play(storage, tmp_path) as stage:
        for name in names * KILLS:
            folder = tmp_path / f"{name}-{stage.deaths[name]}"
            folder.mkdir()
            with empty_storage(storage_kind, folder) as empty:
                most = STATEMENTS if name == "migration.statement-run" else len(migrations())
                nth = stage.draw.randint(1, most)
                life = await stage.lives.begin(f"{name}:{nth}", OPSCORE_STORAGE_URL=empty)
                assert await life.end == KILLED
                stage.deaths[name] += 1
                life = await stage.lives.begin(OPSCORE_STORAGE_URL=empty)
                await eventually(stage.world.announce, bool)
                await stage.world.save_workflows()
                assert len(await stage.world.pages("workflows")) > 1
                await life.killed()
    note(record_property, storage_kind, stage.deaths, names)


async def check_what_is_left(stage: Play) -> None:
    """What was forgotten had been worked on, or given up for its dispatchers died again and again.

    Of a session that was given up in this way the log of the lives before tells.
    """
    sessions = {one["sessionId"]: one for one in await stage.world.pages("sessions")}
    forgotten = {ack.session_id for ack in stage.world.acks} - sessions.keys()
    assert forgotten
    given_up = set(GIVEN_UP.findall(stage.lives.said))
    assert forgotten <= stage.world.worked | given_up
    for what in ("tasks", "events"):
        pages = await stage.world.pages(what)
        belonging = {one["sessionId"] for one in pages if one["sessionId"]}
        assert belonging <= sessions.keys(), what


async def check_counts(url: str) -> None:
    """What is counted is what is there, and everything that was taken was given back."""
    storage = await open_storage(url, Retention())
    try:
        counts = await storage.counts()
        sessions = await listed(storage.sessions, SessionFilter())
        tasks = await listed(storage.tasks, TaskFilter())
        agents = await listed(storage.agents, AgentFilter())
        agents += await listed(
            storage.agents, AgentFilter(availabilities=frozenset({Availability.DEREGISTERED}))
        )
    finally:
        await storage.close()
    there = (len(sessions), len(tasks), len(agents))
    assert (counts.sessions, counts.tasks, counts.agents) == there
    assert (counts.waiting, counts.in_flight) == (0, 0)
    assert [one.in_flight for one in agents] == [0] * len(agents)


async def listed(ask: Callable[..., Awaitable[Page[Any]]], where: object) -> list[Any]:
    found: list[Any] = []
    cursor: str | None = None
    while True:
        page = await ask(where, cursor, 500)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


def note(record: Record, kind: str, deaths: Counter[str], names: list[str]) -> None:
    """Tell how often the service died where, which must be often enough everywhere."""
    record("deaths", dict(deaths))
    print(f"{kind}: {deaths.total()} deaths at {len(deaths)} crash points")
    assert deaths == dict.fromkeys(names, KILLS)
