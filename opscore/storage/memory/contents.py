"""Everything that a storage in memory keeps; and what of it expires."""

import sys
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from opscore.models import (
    AgentKitKnowledge,
    IdempotencyRecord,
    Retention,
    StateReport,
    WebhookReceipt,
)
from opscore.storage.interface import EARLY_REPORT_AGE
from opscore.storage.memory.records import Records


@dataclass
class Contents:
    records: Records
    early: dict[str, tuple[datetime, StateReport]] = field(default_factory=dict)
    receipts: dict[str, WebhookReceipt] = field(default_factory=dict)
    keys: dict[str, IdempotencyRecord] = field(default_factory=dict)
    agentkits: dict[str, AgentKitKnowledge] = field(default_factory=dict)


def forget_expired(contents: Contents, retention: Retention, now: datetime) -> dict[str, int]:
    """Forget a batch of records that have expired, and of keys that are too many, by kind."""
    limit = retention.batch
    surplus = _surplus_keys(contents, retention.idempotency_keys)[:limit]
    keys = dict.fromkeys([*_expired(contents.keys, now, limit), *surplus])
    for key in keys:
        del contents.keys[key]
    signatures = _expired(contents.receipts, now, limit)
    for signature in signatures:
        del contents.receipts[signature]
    early = [i for i, (at, _) in contents.early.items() if at < now - EARLY_REPORT_AGE]
    for agent_id in early:
        del contents.early[agent_id]
    counts = {
        "idempotencyKeys": len(keys),
        "receipts": len(signatures),
        "earlyReports": len(early),
    }
    return {kind: count for kind, count in counts.items() if count}


def count_expired(contents: Contents, retention: Retention, now: datetime) -> dict[str, int]:
    before = now - EARLY_REPORT_AGE
    keys = {
        *_expired(contents.keys, now, sys.maxsize),
        *_surplus_keys(contents, retention.idempotency_keys),
    }
    return {
        "idempotencyKeys": len(keys),
        "receipts": len(_expired(contents.receipts, now, sys.maxsize)),
        "earlyReports": sum(at < before for at, _ in contents.early.values()),
    }


def _surplus_keys(contents: Contents, bound: int) -> list[str]:
    """The oldest keys beyond the bound, without those of unfinished sessions."""
    oldest = islice(contents.keys.values(), max(0, len(contents.keys) - bound))
    return [record.key for record in oldest if not _is_unfinished(contents, record.session_id)]


def _is_unfinished(contents: Contents, session_id: str) -> bool:
    session = contents.records.sessions.get(session_id)
    return session is not None and session.ended_at is None


def _expired(
    records: dict[str, IdempotencyRecord] | dict[str, WebhookReceipt], now: datetime, limit: int
) -> list[str]:
    """The keys at the old end that have expired: records are kept in the order of their making."""
    old: list[str] = []
    for key, record in records.items():
        if record.expires_at > now or len(old) == limit:
            break
        old.append(key)
    return old
