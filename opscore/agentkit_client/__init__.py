"""Outgoing HTTP: AgentKit's `/run`, and direct delivery to agents. HTTP errors end here."""

from opscore.agentkit_client.addresses import check_address, check_endpoint
from opscore.agentkit_client.client import AgentKitClient
from opscore.agentkit_client.guarded_stream import SendControl
from opscore.agentkit_client.messages import cancel_message, task_message

__all__ = [
    "AgentKitClient",
    "SendControl",
    "cancel_message",
    "check_address",
    "check_endpoint",
    "task_message",
]
