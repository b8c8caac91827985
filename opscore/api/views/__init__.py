"""Models of answers, one module for each resource."""

from opscore.api.views.agents import AgentDetailView, AgentView, RefusedAgentView, StateView
from opscore.api.views.base import ListView, MessageView, ReportView, View
from opscore.api.views.events import EventView
from opscore.api.views.reasons import PendingReasonView, WhyView
from opscore.api.views.sessions import OpenTaskView, SessionDetailView, SessionView, TriggeredView
from opscore.api.views.tasks import HeartbeatView, ResultView, TaskView
from opscore.api.views.workflows import RevisionView, ValidView, WorkflowView

__all__ = [
    "AgentDetailView",
    "AgentView",
    "EventView",
    "HeartbeatView",
    "ListView",
    "MessageView",
    "OpenTaskView",
    "PendingReasonView",
    "RefusedAgentView",
    "ReportView",
    "ResultView",
    "RevisionView",
    "SessionDetailView",
    "SessionView",
    "StateView",
    "TaskView",
    "TriggeredView",
    "ValidView",
    "View",
    "WhyView",
    "WorkflowView",
]
