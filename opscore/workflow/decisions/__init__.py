"""What happens next: pure functions from facts to a change. Nothing here does I/O."""

from opscore.workflow.decisions.agents import (
    Registered,
    deregister_agent,
    lose_silent_agent,
    on_agent_due,
    register_agent,
    update_agent,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.deadlines import on_session_due, on_stranded, on_task_due
from opscore.workflow.decisions.interventions import cancel_task, retry_session, retry_task_now
from opscore.workflow.decisions.metadata import METADATA_LIMIT
from opscore.workflow.decisions.outcomes import on_outcome, run_deadline
from opscore.workflow.decisions.repairs import repair_session, repair_task
from opscore.workflow.decisions.report_contents import named_task
from opscore.workflow.decisions.reports import on_heartbeat, on_state_report, on_task_result
from opscore.workflow.decisions.sessions import cancel_session, start_session, update_session
from opscore.workflow.decisions.steps import (
    enqueue_task,
    fallback_task,
    handle_task_failure,
    retry_task,
    schedule_task,
)

__all__ = [
    "METADATA_LIMIT",
    "Context",
    "Registered",
    "cancel_session",
    "cancel_task",
    "deregister_agent",
    "enqueue_task",
    "fallback_task",
    "handle_task_failure",
    "lose_silent_agent",
    "named_task",
    "on_agent_due",
    "on_heartbeat",
    "on_outcome",
    "on_session_due",
    "on_state_report",
    "on_stranded",
    "on_task_due",
    "on_task_result",
    "register_agent",
    "repair_session",
    "repair_task",
    "retry_session",
    "retry_task",
    "retry_task_now",
    "run_deadline",
    "schedule_task",
    "start_session",
    "update_agent",
    "update_session",
]
