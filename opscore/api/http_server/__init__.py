"""The HTTP server: uvicorn's protocol with bounds on what one client can hold."""

from opscore.api.http_server.admission import ConnectionCap
from opscore.api.http_server.limits import ConnectionLimits
from opscore.api.http_server.protocol import GuardedProtocol, guarded_protocol

__all__ = ["ConnectionCap", "ConnectionLimits", "GuardedProtocol", "guarded_protocol"]
