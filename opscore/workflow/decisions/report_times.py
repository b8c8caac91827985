"""The time of a state report, made comparable with those of the agent's other reports."""

from dataclasses import dataclass
from datetime import UTC, datetime

from opscore.models import Agent, StateReport
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.report_contents import digest_of, is_remembered


@dataclass(frozen=True, slots=True)
class ReportTime:
    """When a report was made, within the limits that its agent's clock is trusted.

    Out of order: older than the agent's newest, but near. Repeated: the very same report, by
    its `digest`, among the agent's newest ones.
    """

    timestamp: datetime
    corrected: bool = False
    out_of_order: bool = False
    repeated: bool = False
    digest: str = ""


def settle_time(agent: Agent, report: StateReport, ctx: Context) -> ReportTime:
    """Trust the agent's clock within limits; beyond them the receive time replaces it."""
    if report.timestamp is None:
        return ReportTime(ctx.wall)
    said = report.timestamp
    digest = digest_of(report)
    repeated = is_remembered(digest, agent.recent_reports)
    newest = agent.state.timestamp if agent.state else None
    is_ahead = said > ctx.wall + ctx.policy.clock_ahead_limit
    if is_ahead or said < (newest or ctx.wall) - ctx.policy.out_of_order_window:
        return ReportTime(ctx.wall, corrected=True, repeated=repeated, digest=digest)
    out_of_order = newest is not None and said < newest
    return ReportTime(said.astimezone(UTC), False, out_of_order, repeated, digest)
