"""All that was seen of a chaos run: what the checker looks at, kept in a file for a second look."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ack:
    """A trigger was answered with 202; the same key may have been answered several times."""

    key: str
    session_id: str


@dataclass(frozen=True, slots=True)
class Post:
    """A message as AgentKit or an agent received it."""

    agent_id: str
    message_type: str
    session_id: str
    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Work:
    """An entry of an agent's own ledger: it worked on this attempt to its end."""

    agent_id: str
    task_id: str
    attempt: int
    succeeded: bool


def post_of(agent_id: str | None, body: dict[str, Any]) -> Post:
    return Post(
        agent_id or "",
        body["messageType"],
        body["opscore_session_id"],
        body["opscore_task_id"],
        body["payload"]["attempt"],
    )


@dataclass
class Record:
    """Sessions, tasks and events are as the HTTP API shows them after the end.

    `sent` are the keys of all triggers, `counted` the tasks whose results were told to count, once
    for each time, `cancelled` the sessions that were said to be cancelled. `answers` counts the
    statuses that clients got. `posts` is what AgentKit was sent, `received` what agents were.
    `worked` is what the agents say that they finished, and `nameless` are those that name no task
    in their reports. `deaths` are replicas that ended without being killed.
    """

    sent: list[str] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    posts: list[Post] = field(default_factory=list)
    received: list[Post] = field(default_factory=list)
    worked: list[Work] = field(default_factory=list)
    nameless: list[str] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def save(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_record(file: Path) -> Record:
    values = json.loads(file.read_text(encoding="utf-8"))
    values["acks"] = [Ack(**ack) for ack in values["acks"]]
    for name in ("posts", "received"):
        values[name] = [Post(**post) for post in values[name]]
    values["worked"] = [Work(**work) for work in values["worked"]]
    return Record(**values)
