"""Forgetting what has ended, a batch at a time."""

import sys
from collections import deque
from datetime import datetime

from opscore.models import Retention
from opscore.storage.memory.records import Records, gone_since


def prune(records: Records, retention: Retention, now: datetime) -> dict[str, int]:
    """What was forgotten, by kind."""
    sessions, tasks = _prune_sessions(records, retention, now)
    counts = {
        "sessions": sessions,
        "tasks": tasks,
        "agents": _prune_agents(records, retention, now),
        "events": records.events.forget_before(now - retention.event_age, retention.batch),
    }
    if not any(counts.values()):
        # Every agent is looked at for this, so only once there is nothing else to forget.
        counts["history"] = records.events.forget_states_before(now - retention.event_age)
    records.sweep()
    return {kind: count for kind, count in counts.items() if count}


def prunable(records: Records, retention: Retention, now: datetime) -> dict[str, int]:
    """What `prune` would forget, were it called until it forgets nothing more."""
    oldest, everything = now - retention.ended_session_age, sys.maxsize
    ended = _take(deque(records.ended_sessions), retention.ended_sessions, oldest, everything)
    gone = _take(deque(records.gone_agents), retention.gone_agents, oldest, everything)
    forgotten = {
        agent_id
        for since, agent_id in gone
        if gone_since(records.agents.get(agent_id)) == since and not records.is_needed(agent_id)
    }
    return {
        "sessions": len(ended),
        "tasks": sum(len(records.session_tasks.get(session_id, ())) for _, session_id in ended),
        "agents": len(forgotten),
        "events": records.events.older_than(now - retention.event_age),
        "history": records.events.states_older_than(now - retention.event_age, forgotten),
    }


def _prune_sessions(records: Records, retention: Retention, now: datetime) -> tuple[int, int]:
    oldest = now - retention.ended_session_age
    ended = _take(records.ended_sessions, retention.ended_sessions, oldest, retention.batch)
    return len(ended), sum(records.forget_session(session_id) for _, session_id in ended)


def _prune_agents(records: Records, retention: Retention, now: datetime) -> int:
    oldest = now - retention.ended_session_age
    pruned = 0
    for since, agent_id in _take(
        records.gone_agents, retention.gone_agents, oldest, retention.batch
    ):
        if gone_since(records.agents.get(agent_id)) != since:
            continue
        if records.is_needed(agent_id):
            records.gone_agents.append((since, agent_id))
            continue
        records.forget_agent(agent_id)
        pruned += 1
    return pruned


def _take(
    ended: deque[tuple[datetime, str]], keep: int, oldest: datetime, batch: int
) -> list[tuple[datetime, str]]:
    """What is at the old end and too much or too old."""
    taken: list[tuple[datetime, str]] = []
    while ended and len(taken) < batch and (len(ended) > keep or ended[0][0] < oldest):
        taken.append(ended.popleft())
    return taken
