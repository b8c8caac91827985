"""Forgetting what has ended, a batch at a time."""

from collections import deque
from datetime import datetime

from opscore.models import Retention, Standing
from opscore.storage.memory.records import Records


def prune(records: Records, retention: Retention, now: datetime) -> dict[str, int]:
    """What was forgotten, by kind."""
    sessions, tasks = _prune_sessions(records, retention, now)
    counts = {
        "sessions": sessions,
        "tasks": tasks,
        "agents": _prune_agents(records, retention, now),
        "events": records.events.forget_before(now - retention.event_age, retention.batch),
        "history": records.events.forget_states_before(now - retention.event_age),
    }
    records.sweep()
    return {kind: count for kind, count in counts.items() if count}


def _prune_sessions(records: Records, retention: Retention, now: datetime) -> tuple[int, int]:
    oldest = now - retention.ended_session_age
    ids = _take(records.ended_sessions, retention.ended_sessions, oldest, retention.batch)
    return len(ids), sum(records.forget_session(session_id) for session_id in ids)


def _prune_agents(records: Records, retention: Retention, now: datetime) -> int:
    oldest = now - retention.ended_session_age
    pruned = 0
    for agent_id in _take(records.gone_agents, retention.gone_agents, oldest, retention.batch):
        agent = records.agents.get(agent_id)
        if agent is None or agent.standing is not Standing.DEREGISTERED:
            continue
        if records.is_needed(agent_id):
            records.gone_agents.append((now, agent_id))
            continue
        records.forget_agent(agent_id)
        pruned += 1
    return pruned


def _take(ended: deque[tuple[datetime, str]], keep: int, oldest: datetime, batch: int) -> list[str]:
    """The ids at the old end that are too many or too old."""
    taken: list[str] = []
    while ended and len(taken) < batch and (len(ended) > keep or ended[0][0] < oldest):
        taken.append(ended.popleft()[1])
    return taken
