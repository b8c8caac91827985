"""Agents that were turned away: refused webhooks, and state reports of unknown agents.

AgentKit announces an agent once and reports nothing of a refusal, so without this nobody would
know why an agent is missing. It is kept in memory, by each replica of what it refused itself.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from starlette.types import Scope

from opscore.clock import Clock

logger = logging.getLogger(__name__)

KEPT = 100
"""Of each kind; what came without a genuine signature never displaces what came with one."""
_KEPT_FOR = timedelta(hours=1)
_LOGGED_AGAIN_AFTER = timedelta(minutes=1)
_LOGGED_IN_A_MINUTE = 20
_SHOWN_LENGTH = 200


class RefusedKind(StrEnum):
    WEBHOOK = "webhook"
    UNSIGNED_WEBHOOK = "unsigned_webhook"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Refused:
    """Equal refusals are one, with a `count`. Of an unsigned webhook the agent is a claim."""

    kind: RefusedKind
    agent_id: str | None
    agent_name: str | None
    remote_address: str | None
    code: str
    reason: str
    first_at: datetime
    last_at: datetime
    count: int = 1
    logged_at: datetime | None = None


_Key = tuple[str | None, str | None, str]


class RefusedAgents:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[RefusedKind, dict[_Key, Refused]] = {kind: {} for kind in RefusedKind}
        self._log = _LogBudget()
        self.counts: dict[RefusedKind, Counter[str]] = {kind: Counter() for kind in RefusedKind}

    def note(
        self,
        kind: RefusedKind,
        agent: Mapping[str, Any],
        remote_address: str | None,
        code: str,
        reason: str,
    ) -> None:
        """Remember a refusal, count it, and log it at a bounded rate.

        `agent` is what the sender said of the agent, by `agentId` and `agentName`.
        """
        now = self._clock.now()
        agent_id, name = _shown(agent.get("agentId")), _shown(agent.get("agentName"))
        new = Refused(kind, agent_id, name, remote_address, code, reason, now, now)
        key = (agent_id, remote_address, code)
        kept = self._kept[kind]
        # Taken out and put back, so that the newest stand at the end.
        old = kept.pop(key, None)
        if old is not None:
            new = replace(new, first_at=old.first_at, count=old.count + 1, logged_at=old.logged_at)
        if self._is_to_be_logged(new, now):
            _log(new, self._log.take_suppressed())
            new = replace(new, logged_at=now)
        kept[key] = new
        if len(kept) > KEPT:
            del kept[next(iter(kept))]
        self.counts[kind][code] += 1

    def forget(self, agent_id: str) -> None:
        """An agent that is registered now was only early with its reports."""
        reports = self._kept[RefusedKind.REPORT]
        for key in [key for key in reports if key[0] == agent_id]:
            del reports[key]

    def newest(self) -> list[Refused]:
        """Return what was refused within the last hour, the newest first."""
        since = self._clock.now() - _KEPT_FOR
        all_kept = [one for kept in self._kept.values() for one in kept.values()]
        recent = [one for one in all_kept if one.last_at > since]
        return sorted(recent, key=lambda one: one.last_at, reverse=True)

    def _is_to_be_logged(self, refused: Refused, now: datetime) -> bool:
        logged_at = refused.logged_at
        if logged_at is not None and now < logged_at + _LOGGED_AGAIN_AFTER:
            return False
        return self._log.take(now)


class _LogBudget:
    """So many lines a minute; the next line says how many had no room."""

    def __init__(self) -> None:
        self._begun: datetime | None = None
        self._lines = 0
        self._suppressed = 0

    def take(self, now: datetime) -> bool:
        if self._begun is None or now >= self._begun + timedelta(minutes=1):
            self._begun, self._lines = now, 0
        if self._lines >= _LOGGED_IN_A_MINUTE:
            self._suppressed += 1
            return False
        self._lines += 1
        return True

    def take_suppressed(self) -> int:
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


def remote_address(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None


def _shown(value: Any) -> str | None:
    """A text of a stranger as it may be logged and listed: one short line, printable."""
    if not isinstance(value, str) or not value:
        return None
    return "".join(one if one.isprintable() else "\ufffd" for one in value[:_SHOWN_LENGTH])


_WORDING = {
    RefusedKind.WEBHOOK: "Webhook refused",
    RefusedKind.UNSIGNED_WEBHOOK: "Webhook without a genuine signature refused",
    RefusedKind.REPORT: "State report of an unknown agent refused",
}


def _log(refused: Refused, suppressed: int) -> None:
    claimed = " (unverified)" if refused.kind is RefusedKind.UNSIGNED_WEBHOOK else ""
    more = f" {suppressed} more refusals were not logged." if suppressed else ""
    logger.warning(
        "%s: agent %s, name %s%s, from %s. %s%s",
        _WORDING[refused.kind],
        refused.agent_id or "unknown",
        refused.agent_name or "unknown",
        claimed,
        refused.remote_address or "an unknown address",
        refused.reason,
        more,
    )
