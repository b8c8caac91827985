"""Runs a simulator in the foreground until SIGINT or SIGTERM."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from opscore.simulators.agent import SimulatedAgent
from opscore.simulators.agentkit import SimulatedAgentKit
from opscore.simulators.behaviour import AgentKitBehaviour
from opscore.simulators.registering import RegistrationRefusedError
from opscore.simulators.running import running

PATIENCE = 30.0
PAUSE = 0.25
EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on

logger = logging.getLogger(__name__)


def run_agentkit(
    *,
    host: str,
    port: int,
    webhook_url: str,
    webhook_secret: str | None,
    required_key: str | None,
    behaviour: AgentKitBehaviour,
    seed: int | None,
) -> int:
    async def serve() -> int:
        kit = SimulatedAgentKit(
            webhook_url=webhook_url,
            webhook_secret=_first(webhook_secret),
            behaviour=behaviour,
            required_key=required_key,
            seed=seed,
        )
        stop = _stop_on_signals()
        async with running(kit.app, host=host, port=port) as url:
            _say(f"The simulated AgentKit listens on {url}")
            await stop.wait()
        return 0

    return _run(serve(), host, port)


def run_agent(
    make: Callable[[], SimulatedAgent],
    *,
    host: str,
    port: int,
    public_endpoint: str | None,
    registers: bool,
) -> int:
    async def serve() -> int:
        agent = make()
        stop = _stop_on_signals()
        async with running(agent.app, host=host, port=port) as url:
            _say(f"The simulated agent {agent.name} listens on {url}")
            endpoint = public_endpoint or f"{_reachable(host, url)}/task"
            joining = asyncio.create_task(_join(agent, endpoint, registers))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([joining, stopping], return_when=asyncio.FIRST_COMPLETED)
            if joining.done():
                _say(f"The simulated agent {agent.name} is known as {joining.result()}")
            joining.cancel()
            await stopping
        return 0

    return _run(serve(), host, port)


async def _join(agent: SimulatedAgent, endpoint: str, registers: bool) -> str:
    if not registers and agent.agent_id is not None:
        await agent.adopt(agent.agent_id)
        return agent.agent_id
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await agent.register(endpoint)
        except httpx.TransportError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            logger.info("nobody takes the registration yet: %r", error)
        await asyncio.sleep(PAUSE)


def _run(serving: Coroutine[Any, Any, int], host: str, port: int) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level="INFO")
    logging.getLogger("httpx").setLevel("WARNING")
    try:
        return asyncio.run(serving)
    except RegistrationRefusedError as error:
        return _fail(str(error))
    except httpx.TransportError as error:
        return _fail(f"Nobody took the registration within {PATIENCE:g} s: {error!r}")
    except OSError as error:
        return _fail(f"Cannot listen on {host} port {port}: {error.strerror}. Choose another port.")


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _reachable(host: str, url: str) -> str:
    """Whoever listens on every address is reached by the name of the machine."""
    port = httpx.URL(url).port
    return f"http://{socket.gethostname()}:{port}" if host in EVERY_ADDRESS else url


def _first(secrets: str | None) -> str | None:
    return next((part.strip() for part in (secrets or "").split(",") if part.strip()), None)


def _say(line: str) -> None:
    print(line, flush=True)


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1
