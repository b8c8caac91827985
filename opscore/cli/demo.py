"""`opscore demo`: a whole workflow on simulated agents, in real processes, shown as it happens."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
from rich.console import Console
from rich.text import Text

from opscore.cli.children import (
    Child,
    Children,
    ProcessFailedError,
    children_in,
    ended_by_signals,
)
from opscore.cli.demo_client import DemoClient, SeenEvent
from opscore.cli.demo_places import Places
from opscore.cli.demo_storage import Keeping, keeping
from opscore.cli.demo_story import (
    AGENTS,
    FIRST_AGENT,
    SESSION_ENDS,
    TOPIC,
    WORKFLOW,
    how_to_go_on,
    sentence,
)
from opscore.exceptions import ConfigurationError

PATIENCE = 20.0
PAUSE = 0.05
WORK_SECONDS = "0.8"
COLOURS = {
    "session.completed": "bold green",
    "session.failed": "bold red",
    "task.completed": "green",
    "task.attempt_failed": "red",
    "task.retry": "yellow",
}


def run_demo(*, once: bool, storage: str) -> int:
    """The exit status: 1 when something failed, else 0, also when Ctrl-C ended it."""
    folder = Path(tempfile.mkdtemp(prefix="opscore-demo-"))
    try:
        with ended_by_signals(), keeping(storage, folder) as kept:
            run_on(kept, folder, once)
    except KeyboardInterrupt:
        print("\nEverything that the demo started is stopped.")
    except (ProcessFailedError, ConfigurationError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def run_on(kept: Keeping, folder: Path, once: bool) -> None:
    places = Places.free()
    with children_in(folder, places.environment(kept.url)) as children:
        Demo(children, places, kept).run(once)


class Demo:
    def __init__(self, children: Children, places: Places, kept: Keeping) -> None:
        self._children = children
        self._kept = kept
        self._places = places
        self._console = Console(highlight=False, markup=False, soft_wrap=True)

    def run(self, once: bool) -> None:
        self._say(f"Starting the service, AgentKit and {len(AGENTS)} agents.")
        self._say(f"Their logs are in {self._children.folder}", "dim")
        self._say(f"Everything is kept in {self._kept.where}.", "dim")
        client = DemoClient(self._places.service_url, self._places.api_key)
        service = self._children.start("service", "serve", "--port", str(self._places.service_port))
        try:
            self._show(client, service)
        except (httpx.HTTPError, LookupError, ValueError) as error:
            self._children.check()
            raise ProcessFailedError(service.story(f"gave a bad answer: {error!r}")) from error
        finally:
            client.close()
        if not once:
            self._keep_running()

    def _show(self, client: DemoClient, service: Child) -> None:
        names = self._gather_agents(client, service)
        self._say(f"Registered: {', '.join(sorted(names.values()))}.\n")
        client.save_workflow(WORKFLOW)
        ids = {name: agent_id for agent_id, name in names.items()}
        session_id = client.trigger(ids[FIRST_AGENT], WORKFLOW["id"], {"topic": TOPIC})
        self._follow(client, service, session_id, names)
        session = client.session(session_id)
        if session["status"] != "completed":
            raise ProcessFailedError(service.story(f"left the session {session['status']}"))
        self._say("\nThe result of the session:", "bold")
        self._say(json.dumps(session["output"], indent=2, ensure_ascii=False))
        self._say("\nLook further:", "bold")
        self._say(how_to_go_on(self._places.service_url, self._places.api_key, session_id))

    def _gather_agents(self, client: DemoClient, service: Child) -> Mapping[str, str]:
        """Start all the rest, and return the agents' names by id once they are registered."""
        agentkit = self._children.start(
            "agentkit", "simulate", "agentkit", "--port", str(self._places.agentkit_port)
        )
        self._wait(service, "get ready", lambda: client.answers("/health/ready"))
        self._refuse_strangers(client)
        kit_health = f"{self._places.agentkit_url}/health"
        self._wait(agentkit, "answer", lambda: client.answers(kit_health))
        for name, switches in AGENTS.items():
            own = ("--name", name, "--work-seconds", WORK_SECONDS, *switches)
            self._children.start(name, "simulate", "agent", *own)
        self._wait(agentkit, "announce them", lambda: len(client.agent_names()) == len(AGENTS))
        return client.agent_names()

    def _refuse_strangers(self, client: DemoClient) -> None:
        if client.agent_names():
            raise ProcessFailedError(
                f"There are agents in {self._kept.where} already, which may take the demo's tasks. "
                "Name an empty storage, or take memory, sqlite or postgres."
            )

    def _follow(
        self, client: DemoClient, service: Child, session_id: str, names: Mapping[str, str]
    ) -> None:
        seen = 0
        for _ in self._ticks(service, "end the session"):
            for event in client.events(session_id, seen):
                self._say_event(event, names)
                seen = event.seq
                if event.type in SESSION_ENDS:
                    return

    def _wait(self, child: Child, what: str, condition: Callable[[], bool]) -> None:
        for _ in self._ticks(child, what):
            if condition():
                return

    def _ticks(self, child: Child, what: str) -> Iterator[None]:
        """Go on until the caller has had enough; raise when a child ends or patience does."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._children.check()
            yield
            time.sleep(PAUSE)
        raise ProcessFailedError(child.story(f"did not {what} within {PATIENCE:g} seconds"))

    def _keep_running(self) -> None:
        self._say("\nEverything keeps running until Ctrl-C.", "bold")
        while True:
            self._children.check()
            time.sleep(PAUSE)

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(line, style=style)

    def _say_event(self, event: SeenEvent, names: Mapping[str, str]) -> None:
        of_session = event.type.startswith("session.") or event.agent_id is None
        who = "ops-core" if of_session else names.get(event.agent_id or "", event.agent_id or "")
        line = Text(f"{event.at.astimezone():%H:%M:%S.%f}"[:-3], style="dim")
        line.append(f"  {who:<11}", style="bold")
        line.append(f" {sentence(event)}", style=COLOURS.get(event.type, ""))
        self._console.print(line)
