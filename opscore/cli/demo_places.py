"""Where the demo's processes live, and the secrets made for them."""

import os
import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import opscore

# What the caller has set for a service of its own must not reach the demo's.
NOT_FOR_CHILDREN = ("OPSCORE_", "AGENTKIT_", "LOG_LEVEL")


@dataclass(frozen=True, slots=True)
class Places:
    service_port: int
    agentkit_port: int
    api_key: str = field(default_factory=lambda: secrets.token_hex(16))
    webhook_secret: str = field(default_factory=lambda: secrets.token_hex(16))

    @classmethod
    def free(cls) -> "Places":
        """Free ports, found by taking them for a moment."""
        with ExitStack() as taken:
            sockets = [
                taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)
            ]
            service, agentkit = (each.getsockname()[1] for each in sockets)
        return cls(service, agentkit)

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.service_port}"

    @property
    def agentkit_url(self) -> str:
        return f"http://127.0.0.1:{self.agentkit_port}"

    def environment(self, storage_url: str) -> dict[str, str]:
        """One environment for all; the package is found also where it is not installed."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(NOT_FOR_CHILDREN)
        }
        package = Path(opscore.__file__).parents[1]
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(package), kept.get("PYTHONPATH")))),
            "OPSCORE_API_KEY": self.api_key,
            "OPSCORE_WEBHOOK_SECRET": self.webhook_secret,
            "OPSCORE_WEBHOOK_URL": f"{self.service_url}/v1/opscore/internal/agent/notify",
            "OPSCORE_API_URL": self.service_url,
            "OPSCORE_STORAGE_URL": storage_url,
            "OPSCORE_LOG_FORMAT": "console",
            "AGENTKIT_API_URL": self.agentkit_url,
        }
