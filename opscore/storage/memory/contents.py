"""Everything that a storage in memory keeps; and what of it expires."""

import sys
from dataclasses import dataclass, field
from datetime import datetime

from opscore.models import IdempotencyRecord, StateReport, WebhookReceipt
from opscore.storage.interface import EARLY_REPORT_AGE
from opscore.storage.memory.records import Records


@dataclass
class Contents:
    records: Records
    early: dict[str, tuple[datetime, StateReport]] = field(default_factory=dict)
    receipts: dict[str, WebhookReceipt] = field(default_factory=dict)
    keys: dict[str, IdempotencyRecord] = field(default_factory=dict)


def forget_expired(contents: Contents, now: datetime, limit: int) -> dict[str, int]:
    """Forget a batch of records that have expired, and count it by kind."""
    keys = _expired(contents.keys, now, limit)
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


def count_expired(contents: Contents, now: datetime) -> dict[str, int]:
    before = now - EARLY_REPORT_AGE
    return {
        "idempotencyKeys": len(_expired(contents.keys, now, sys.maxsize)),
        "receipts": len(_expired(contents.receipts, now, sys.maxsize)),
        "earlyReports": sum(at < before for at, _ in contents.early.values()),
    }


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
